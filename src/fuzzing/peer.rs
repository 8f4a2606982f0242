//! Two processes that dial each other through connections that break as the fuzzer says: cut, bent, silent; processes
//! restart, sessions are forgotten, both dial at once. Does what the driver does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::Source;
use super::session::{Books, check_balance, config, intake, types};
use super::wire::repaired_frame;
use crate::limits::{self, CREDIT_BYTES_MIN};
use crate::link::{FrameReader, LinkConfig, LinkEnd, LinkId};
use crate::member::{Endpoint, Member, MemberId};
use crate::peer::{
    BackoffConfig, ContactId, Counters, Introduction, Peer, PeerConfig, PeerOutput, Surroundings,
};
use crate::session::{Cause, Delivery, Handled, Reservation, Transmit};
use crate::wire::frame::encode_control;
use crate::wire::{Epoch, FirstBytes, Frame, Hello, Seq, StreamId, StreamResume, first};

/// Operations of one run.
const OPERATIONS_MAX: usize = 300;
/// Connections of one run that may be open at once; the oldest breaks for a newer one.
const CONNS_MAX: usize = 16;
/// CRC32C finds up to three bent bits in a frame of any size, and by far not every larger number.
const FLIPS_MAX: u32 = 3;
/// More turns than that without an end are a storm.
const TURNS_MAX: usize = 20_000;
/// Side 0 keeps a contact to side 1 for ever.
const KEEPER: usize = 0;

/// What the end of a connection does with bytes.
enum Stage {
    /// The first bytes are not all there.
    Opening(BytesMut),
    Frames(FrameReader),
    Closed,
}

struct End {
    link: Option<LinkId>,
    stage: Stage,
    /// Written and not yet at the other end.
    pipe: VecDeque<u8>,
}

struct Conn {
    dialler: usize,
    ends: [End; 2],
    /// Whatever is written vanishes, and nobody is told.
    silent: bool,
}

struct Node {
    with: Surroundings,
    peer: Option<Peer>,
    held: VecDeque<Handled>,
    asked: VecDeque<(Epoch, StreamId)>,
}

struct Run {
    now: Instant,
    nodes: [Node; 2],
    conns: VecDeque<Conn>,
    books: Books,
    honest: bool,
    /// Nobody has left yet, so side 0 keeps its contact whatever happens.
    keeping: bool,
    flips: u32,
    ids: u64,
}

fn endpoint() -> Endpoint {
    std::net::SocketAddr::from(([10, 0, 0, 1], 7400)).into()
}

impl Node {
    fn new(id: u64) -> Self {
        let member = Member {
            id: MemberId::from_parts(id, id.into()),
            endpoints: Vec::new(),
            name: String::new(),
            labels: BTreeMap::new(),
            joined: None,
        };
        let config = PeerConfig {
            session: config(CREDIT_BYTES_MIN),
            link: LinkConfig { ping: limits::PING, liveness: limits::LIVENESS },
            backoff: BackoffConfig { min: limits::REDIAL_MIN, max: limits::REDIAL_MAX },
            connect: limits::CONNECT,
            hello: limits::HELLO,
            lease: limits::RESUME_LEASE,
        };
        let me = Arc::new(Introduction { member, ..Introduction::default() });
        let with = Surroundings { config, me, counters: Arc::new(Counters::new()) };
        Self { with, peer: None, held: VecDeque::new(), asked: VecDeque::new() }
    }

    fn id(&self) -> MemberId {
        self.with.me.member.id
    }

    /// The peer for this member; another one's goes, as its session has ended.
    fn peer(&mut self, of: MemberId) -> &mut Peer {
        let with = &self.with;
        self.peer.get_or_insert_with(|| Peer::new(with.clone(), of, intake(), Arc::new(types()), 7))
    }
}

impl Conn {
    fn end_of(&mut self, link: LinkId, at: usize) -> Option<&mut End> {
        Some(&mut self.ends[at]).filter(|end| end.link == Some(link))
    }

    fn is_over(&self) -> bool {
        self.ends.iter().all(|end| matches!(end.stage, Stage::Closed))
    }
}

/// A list of operations on a pair of processes.
pub fn peer_pair(bytes: &[u8]) {
    let mut source = Source(bytes);
    let mode = source.u8();
    let mut run = Run {
        now: Instant::now(),
        nodes: [Node::new(1), Node::new(2)],
        conns: VecDeque::new(),
        books: Books::default(),
        honest: mode & 1 == 0,
        keeping: true,
        flips: 0,
        ids: 2,
    };
    run.keep(KEEPER);
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        run.operate(&mut source);
        run.check();
    }
    if run.honest {
        run.finish(usize::from(mode >> 1 & 1), mode >> 2);
    }
    for node in &mut run.nodes {
        if let Some(peer) = &mut node.peer {
            peer.end(Cause::Closed);
            check_balance(peer.session());
        }
    }
    assert!(run.books.receipts.iter().all(|receipt| receipt.now().is_some()), "a message never ended");
}

impl Run {
    fn operate(&mut self, source: &mut Source<'_>) {
        let operation = source.u8();
        let at = usize::from(operation >> 7);
        match operation & 0x1f {
            0..=4 => {
                if let Some(peer) = &self.nodes[at].peer {
                    let intake = Arc::clone(peer.session().intake());
                    self.books.push(&intake, source);
                }
            }
            5..=8 => self.act(at),
            9..=12 => {
                let (which, most) = (usize::from(source.u8()), usize::from(source.u16()));
                self.carry(which, at, most);
            }
            13..=15 => {
                self.carry_all();
            }
            16 => self.handle(at),
            17 => self.grant(at),
            18 => self.pass(Duration::from_millis(source.u8().into())),
            19 => self.pass(Duration::from_millis(u64::from(source.u8()) * 100)),
            20 => self.break_conn(usize::from(source.u8()), true),
            21 => self.break_conn(usize::from(source.u8()), false),
            22 => {
                let which = usize::from(source.u8());
                if let Some(conn) = self.conn(which) {
                    conn.silent = true;
                }
            }
            23 => self.flip(at, source),
            24 => self.keep(at),
            25 if at != KEEPER => self.drop_contact(at),
            26 => self.forget(at),
            27 => self.restart(at),
            28 if !self.honest => self.inject(at, source),
            29 if !self.honest => self.inject_hello(at, source),
            _ => self.act(at),
        }
    }

    fn conn(&mut self, which: usize) -> Option<&mut Conn> {
        let at = which.checked_rem(self.conns.len())?;
        self.conns.get_mut(at)
    }

    // ---- what happens to a side ----

    /// Dials, writes, and lets timers run.
    fn act(&mut self, at: usize) {
        let now = self.now;
        if let Some(peer) = &mut self.nodes[at].peer {
            peer.handle_timeout(now);
        }
        self.take_outputs(at);
        self.dial(at);
        let Some(peer) = &mut self.nodes[at].peer else { return };
        let mut out = Transmit::default();
        peer.poll_transmit(now, &mut out);
        let live = peer.live_link();
        assert!(live.is_some() || out.is_empty(), "nothing is written without a link");
        if let Some(end) = live.and_then(|link| self.conns.iter_mut().find_map(|conn| conn.end_of(link, at)))
        {
            out.parts.iter().for_each(|part| end.pipe.extend(part));
        }
        peer.handle_written(now, true, false);
        self.take_outputs(at);
    }

    fn dial(&mut self, at: usize) {
        let now = self.now;
        let Some(peer) = &mut self.nodes[at].peer else { return };
        let Some(request) = peer.poll_dial(now) else { return };
        assert_eq!(peer.poll_dial(now), None, "one dial at a time");
        let Some(hello) = peer.handle_connected(now, request.link) else { return };
        let open = |link, pipe: VecDeque<u8>| End { link, stage: Stage::Opening(BytesMut::new()), pipe };
        let mut ends = [open(Some(request.link), hello.into()), open(None, VecDeque::new())];
        if at == 1 {
            ends.swap(0, 1);
        }
        self.add(Conn { dialler: at, ends, silent: false });
    }

    fn add(&mut self, conn: Conn) {
        self.conns.retain(|conn| !conn.is_over() || conn.ends.iter().any(|end| !end.pipe.is_empty()));
        if self.conns.len() >= CONNS_MAX {
            self.break_conn(0, true);
        }
        self.conns.push_back(conn);
    }

    fn take_outputs(&mut self, at: usize) {
        loop {
            let node = &mut self.nodes[at];
            let Some(peer) = &mut node.peer else { return };
            let Some(output) = peer.poll_output() else { break };
            match output {
                PeerOutput::Deliver { epoch, delivery } => {
                    self.books.got(at, &delivery, self.honest);
                    let Delivery { stream, records, bytes, .. } = delivery;
                    node.held.push_back(Handled { epoch, stream, records, bytes });
                }
                PeerOutput::Reserve { epoch, stream, .. } => node.asked.push_back((epoch, stream)),
                PeerOutput::Close { link, farewell } => {
                    if let Some(end) = self.conns.iter_mut().find_map(|conn| conn.end_of(link, at)) {
                        end.stage = Stage::Closed;
                        end.pipe.extend(farewell.unwrap_or_default());
                    }
                }
                PeerOutput::Replaced { .. } | PeerOutput::SessionOver { .. } | PeerOutput::Event(_) => {}
            }
        }
        let node = &mut self.nodes[at];
        if let Some(peer) = node.peer.take_if(|peer| peer.is_over()) {
            check_balance(peer.session());
            self.bury(at, peer);
            if at == KEEPER && self.keeping {
                // Contacts of a peer that was replaced go over to who is there now.
                self.keep(KEEPER);
            }
        }
    }

    /// As the driver forgets a peer: its links are closed, what it delivered is still handled.
    fn bury(&mut self, at: usize, mut peer: Peer) {
        peer.end(Cause::Closed);
        while let Some(output) = peer.poll_output() {
            if let PeerOutput::Close { link, .. } = output
                && let Some(end) = self.conns.iter_mut().find_map(|conn| conn.end_of(link, at))
            {
                end.stage = Stage::Closed;
            }
        }
        assert!(peer.session().is_drained(), "an ended session holds nothing");
        let node = &mut self.nodes[at];
        node.held.clear();
        node.asked.clear();
    }

    /// A contact at this side.
    fn keep(&mut self, at: usize) {
        let (now, of) = (self.now, self.nodes[1 - at].id());
        let peer = self.nodes[at].peer(of);
        if peer.id() == of {
            peer.remove_contact(ContactId(1));
        }
        self.take_outputs_of_changed(at);
        let peer = self.nodes[at].peer(of);
        if peer.id() == of {
            peer.add_contact(now, ContactId(1), endpoint());
        }
    }

    /// Without a recursion through `keep`.
    fn take_outputs_of_changed(&mut self, at: usize) {
        if let Some(peer) = self.nodes[at].peer.take_if(|peer| peer.is_over()) {
            check_balance(peer.session());
            self.bury(at, peer);
        }
    }

    fn drop_contact(&mut self, at: usize) {
        if let Some(peer) = &mut self.nodes[at].peer {
            peer.remove_contact(ContactId(1));
        }
        self.take_outputs(at);
    }

    fn handle(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let (Some(peer), Some(handled)) = (&mut node.peer, node.held.pop_front()) {
            peer.handle_handled(self.now, handled);
        }
    }

    fn grant(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let (Some(peer), Some((epoch, stream))) = (&mut node.peer, node.asked.pop_front()) {
            peer.handle_reserved(self.now, epoch, stream, Reservation::new(()));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for at in [0, 1] {
            if let Some(peer) = &mut self.nodes[at].peer {
                peer.handle_timeout(self.now);
            }
            self.take_outputs(at);
        }
    }

    /// The session ends here, by a lease that is over say, and nothing of that reaches the other side.
    fn forget(&mut self, at: usize) {
        let Some(mut peer) = self.nodes[at].peer.take() else { return };
        // What was accepted is delivered also then.
        peer.end(Cause::SessionLost);
        while let Some(output) = peer.poll_output() {
            if let PeerOutput::Deliver { delivery, .. } = output {
                self.books.got(at, &delivery, self.honest);
            }
        }
        self.lose_conns(at);
        self.bury(at, peer);
        if at == KEEPER {
            self.keep(KEEPER);
        }
    }

    /// The process ends and another begins at its address.
    fn restart(&mut self, at: usize) {
        self.forget(at);
        self.ids += 1;
        let id = self.ids;
        if let Some(peer) = self.nodes[at].peer.take() {
            self.bury(at, peer);
        }
        self.lose_conns(at);
        self.nodes[at] = Node::new(id);
        if at == KEEPER {
            self.keep(KEEPER);
        }
    }

    fn lose_conns(&mut self, at: usize) {
        for conn in &mut self.conns {
            conn.ends[at] = End { link: None, stage: Stage::Closed, pipe: VecDeque::new() };
        }
    }

    // ---- what happens to a connection ----

    /// Resets a connection: what is on its way is lost. Both ends learn of it, or only one of them.
    fn break_conn(&mut self, which: usize, both: bool) {
        let Some(conn) = self.conn(which) else { return };
        conn.silent |= !both;
        let links = [0, 1].map(|at| {
            let end = &mut conn.ends[at];
            end.pipe.clear();
            let told = both || at == 0;
            let was = if told { std::mem::replace(&mut end.stage, Stage::Closed) } else { Stage::Closed };
            (end.link, was)
        });
        for (at, (link, was)) in links.into_iter().enumerate() {
            self.note_end(at, link, &was, LinkEnd::Io(std::io::ErrorKind::ConnectionReset));
        }
    }

    fn note_end(&mut self, at: usize, link: Option<LinkId>, was: &Stage, end: LinkEnd) {
        if let (Some(peer), Some(link)) = (&mut self.nodes[at].peer, link) {
            match was {
                Stage::Opening(_) => peer.handle_dial_failed(self.now, link),
                Stage::Frames(_) => peer.handle_link_end(self.now, link, end),
                Stage::Closed => {}
            }
        }
        self.take_outputs(at);
    }

    fn flip(&mut self, at: usize, source: &mut Source<'_>) {
        let (which, place, bit) = (usize::from(source.u8()), usize::from(source.u16()), source.u8() & 7);
        if self.flips >= FLIPS_MAX {
            return;
        }
        let Some(conn) = self.conn(which) else { return };
        let pipe = &mut conn.ends[at].pipe;
        if let Some(place) = place.checked_rem(pipe.len()) {
            pipe[place] ^= 1 << bit;
            self.flips += 1;
        }
    }

    /// The other side's live link brings what no honest one writes.
    fn inject(&mut self, at: usize, source: &mut Source<'_>) {
        let frame = if source.u8() & 1 == 0 {
            repaired_frame(source)
        } else {
            let last = vec![(super::session::NORMAL, Seq(source.number()))];
            encode_control(&Frame::Goodbye { last, confirmed: source.u8() & 1 == 0 }).to_vec()
        };
        let Some(live) = self.nodes[at].peer.as_ref().and_then(Peer::live_link) else { return };
        if let Some(end) = self.conns.iter_mut().find_map(|conn| conn.end_of(live, at)) {
            end.pipe.extend(frame);
        }
    }

    /// A hello of any content, in the name of this side.
    fn inject_hello(&mut self, at: usize, source: &mut Source<'_>) {
        let streams = (0..source.u8() & 3)
            .filter_map(|_| {
                let stream = StreamId::from_wire(source.u16() & 0x1b).ok()?;
                Some(StreamResume { stream, next_expected: Seq(source.number()), credit: source.number() })
            })
            .collect();
        let node = &self.nodes[at];
        let hello = Hello {
            to: Some(self.nodes[1 - at].id()),
            epoch: Epoch(source.number()),
            your_epoch: Epoch(source.number()),
            generation: source.number(),
            attempt: source.number(),
            streams,
            credit: source.number(),
            ..node.with.me.question()
        };
        let bytes = first::encode(&FirstBytes::Hello(Box::new(hello)));
        let closed = End { link: None, stage: Stage::Closed, pipe: bytes.into() };
        let open = End { link: None, stage: Stage::Opening(BytesMut::new()), pipe: VecDeque::new() };
        let ends = if at == 0 { [closed, open] } else { [open, closed] };
        self.add(Conn { dialler: at, ends, silent: false });
    }

    fn carry_all(&mut self) -> usize {
        let mut moved = 0;
        for which in 0..self.conns.len() {
            moved += self.carry(which, 0, usize::MAX) + self.carry(which, 1, usize::MAX);
        }
        moved
    }

    /// Bytes of one side's end arrive at the other end; behind the last of them its end, if it has closed.
    fn carry(&mut self, which: usize, from: usize, most: usize) -> usize {
        let Some(which) = which.checked_rem(self.conns.len()) else { return 0 };
        let (to, conn) = (1 - from, &mut self.conns[which]);
        let end = &mut conn.ends[from];
        let count = end.pipe.len().min(most);
        let bytes: Vec<u8> = end.pipe.drain(..count).collect();
        let ended = end.pipe.is_empty() && matches!(end.stage, Stage::Closed);
        if conn.silent {
            return 0;
        }
        let to_end = &mut conn.ends[to];
        if matches!(to_end.stage, Stage::Closed) {
            return 0;
        }
        if let (Some(link), Stage::Frames(_)) = (to_end.link, &to_end.stage)
            && count > 0
            && let Some(peer) = self.nodes[to].peer.as_mut().filter(|peer| peer.is_live(link))
        {
            peer.handle_heard(self.now);
        }
        self.receive(which, to, &bytes);
        if ended {
            let end = &mut self.conns[which].ends[to];
            let (link, was) = (end.link, std::mem::replace(&mut end.stage, Stage::Closed));
            self.note_end(to, link, &was, LinkEnd::End);
            return count + 1;
        }
        count
    }

    fn receive(&mut self, which: usize, to: usize, bytes: &[u8]) {
        let end = &mut self.conns[which].ends[to];
        match &mut end.stage {
            Stage::Closed => {}
            Stage::Frames(reader) => {
                reader.buffer().extend_from_slice(bytes);
                reader.note_read();
                self.frames(which, to);
            }
            Stage::Opening(so_far) => {
                so_far.extend_from_slice(bytes);
                let opening = match first::length(so_far) {
                    Ok(Some(length)) if so_far.len() >= length => first::decode(&so_far.split_to(length)),
                    Ok(_) => return,
                    Err(error) => Err(error),
                };
                let rest = std::mem::take(so_far);
                match opening {
                    Ok(opening) => self.opened(which, to, opening, &rest),
                    Err(_) => {
                        let (link, was) = (end.link, std::mem::replace(&mut end.stage, Stage::Closed));
                        self.note_end(to, link, &was, LinkEnd::End);
                    }
                }
            }
        }
    }

    fn opened(&mut self, which: usize, to: usize, opening: FirstBytes, rest: &[u8]) {
        let now = self.now;
        let dialled = self.conns[which].dialler == to;
        let adopted = match (opening, self.conns[which].ends[to].link) {
            (reply, Some(link)) if dialled => {
                let Some(peer) = self.nodes[to].peer.as_mut() else { return };
                peer.handle_reply(now, link, reply).then_some((link, None))
            }
            (FirstBytes::Hello(hello), None) if !dialled => self.greet(which, to, &hello),
            _ => None,
        };
        // Closes what the new link replaces before it takes its place; this end keeps its own.
        let end = &mut self.conns[which].ends[to];
        end.stage = Stage::Closed;
        match adopted {
            Some((link, answer)) => {
                end.link = None;
                self.take_outputs(to);
                let end = &mut self.conns[which].ends[to];
                end.link = Some(link);
                end.pipe.extend(answer.unwrap_or_default());
                let mut reader = FrameReader::default();
                reader.buffer().extend_from_slice(rest);
                end.stage = Stage::Frames(reader);
                self.frames(which, to);
            }
            None => self.take_outputs(to),
        }
    }

    fn greet(&mut self, which: usize, to: usize, hello: &Hello) -> Option<(LinkId, Option<Vec<u8>>)> {
        let node = &mut self.nodes[to];
        let of = hello.from.id;
        let judged = node.with.me.judge(hello);
        let link = node.with.counters.link();
        if node.peer.as_ref().is_some_and(|peer| peer.id() != of) {
            // This pair has room for one peer; in a process the old one's would stay beside it until its lease is over.
            if let Some(mut peer) = node.peer.take() {
                peer.end(Cause::SessionLost);
                while let Some(output) = peer.poll_output() {
                    if let PeerOutput::Deliver { delivery, .. } = output {
                        self.books.got(to, &delivery, self.honest);
                    }
                }
                for conn in &mut self.conns {
                    if conn.ends[to].link.is_some() {
                        conn.ends[to].stage = Stage::Closed;
                    }
                }
                self.bury(to, peer);
            }
        }
        let node = &mut self.nodes[to];
        let answered = judged.and_then(|()| node.peer(of).handle_hello(self.now, link, hello));
        match answered {
            Ok(answer) => {
                assert_eq!((answer.to, answer.your_epoch), (Some(of), hello.epoch));
                Some((link, Some(first::encode(&FirstBytes::Answer(Box::new(answer))))))
            }
            Err(reject) => {
                let refusal = first::encode(&FirstBytes::Reject(reject));
                self.conns[which].ends[to].pipe.extend(refusal);
                None
            }
        }
    }

    fn frames(&mut self, which: usize, to: usize) {
        loop {
            let end = &mut self.conns[which].ends[to];
            let (Stage::Frames(reader), Some(link)) = (&mut end.stage, end.link) else { return };
            let frame = reader.next();
            let Some(peer) = &mut self.nodes[to].peer else { return };
            match frame {
                Ok(Some(frame)) => peer.handle_frame(self.now, link, frame),
                Ok(None) => return,
                Err(error) => peer.handle_link_end(self.now, link, LinkEnd::Protocol(error.into())),
            }
            self.take_outputs(to);
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(peer) = &node.peer else { continue };
            check_balance(peer.session());
            let open = |conn: &&Conn| matches!(conn.ends[at].stage, Stage::Frames(_));
            let links: Vec<_> = self.conns.iter().filter(open).map(|conn| conn.ends[at].link).collect();
            assert!(links.len() <= 1, "one link at a time: {links:?}");
            assert_eq!(
                links.first().copied().flatten(),
                peer.live_link(),
                "the link that is open is the live one"
            );
        }
    }

    /// Mends everything; then all must come to its end. At last one side leaves.
    fn finish(&mut self, leaver: usize, loses: u8) {
        self.keep(KEEPER);
        for turn in 0..TURNS_MAX {
            let mut moved = self.carry_all();
            for at in [0, 1] {
                while !self.nodes[at].held.is_empty() {
                    self.handle(at);
                }
                while !self.nodes[at].asked.is_empty() {
                    self.grant(at);
                }
                self.act(at);
            }
            moved += self.conns.iter().flat_map(|conn| &conn.ends).map(|end| end.pipe.len()).sum::<usize>();
            self.check();
            if moved > 0 {
                continue;
            }
            if self.is_at_rest() {
                self.books.check_ends();
                return self.leave(leaver, loses);
            }
            assert!(turn + 1 < TURNS_MAX, "never comes to rest");
            self.pass_to_next();
        }
        panic!("a storm");
    }

    fn is_at_rest(&self) -> bool {
        let linked = |node: &Node| node.peer.as_ref().is_some_and(|peer| peer.live_link().is_some());
        let done = |node: &Node| {
            let session = node.peer.as_ref().map(Peer::session);
            session.is_some_and(|session| session.is_drained() && session.is_handled())
        };
        self.nodes.iter().all(|node| linked(node) && done(node))
    }

    fn pass_to_next(&mut self) {
        let timeouts = self.nodes.iter().filter_map(|node| node.peer.as_ref()?.poll_timeout());
        let Some(next) = timeouts.min() else { panic!("nothing will ever happen again") };
        self.pass(next.saturating_duration_since(self.now));
    }

    /// Whoever leaves is gone as soon as what is broken shows, also if the goodbye or its confirmation is lost.
    fn leave(&mut self, leaver: usize, loses: u8) {
        self.keeping = false;
        if let Some(peer) = &mut self.nodes[leaver].peer {
            peer.leave();
        }
        self.act(leaver);
        if loses & 2 != 0 {
            // The goodbye comes through, and its confirmation is lost.
            (0..self.conns.len()).for_each(|which| {
                self.carry(which, leaver, usize::MAX);
            });
        }
        if loses & 1 != 0 {
            (0..self.conns.len()).for_each(|which| self.break_conn(which, true));
        }
        let from = self.now;
        while self.nodes[leaver].peer.is_some() {
            self.act(0);
            self.act(1);
            if self.carry_all() == 0 && self.nodes[leaver].peer.is_some() {
                self.pass_to_next();
            }
            // Who cannot dial and lost the confirmation waits for the other side, which has gone; its deadline would end it.
            let most = if loses & 2 != 0 { limits::RESUME_LEASE } else { Duration::from_secs(30) };
            assert!(self.now - from < most + Duration::from_secs(1), "whoever leaves is gone");
        }
        let drained = |node: &Node| node.peer.as_ref().is_none_or(|peer| peer.session().is_drained());
        assert!(self.nodes.iter().all(drained));
    }
}
