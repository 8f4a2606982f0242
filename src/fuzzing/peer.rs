//! Two processes that dial each other through connections that break as the fuzzer says: cut, bent, silent; processes
//! restart, sessions are forgotten, both dial at once, views come and go. Does what the driver does.

mod conn;
mod datagrams;
mod leaving;
mod node;
mod views;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use conn::{Conn, End, Stage};
use datagrams::Datagrams;
use node::Node;
pub(super) use node::{endpoint, member, member_id, surroundings};
use views::System;

use super::Source;
use super::session::{Books, check_balance};
use crate::member::Views;
use crate::peer::{ContactId, Peer, PeerOutput};
use crate::session::{Cause, Delivery, Handled, Reservation, Transmit};

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

struct Run {
    now: Instant,
    nodes: [Node; 2],
    conns: VecDeque<Conn>,
    books: Books,
    datagrams: Datagrams,
    system: System,
    honest: bool,
    /// Nobody has left yet, so side 0 keeps its contact whatever happens.
    keeping: bool,
    flips: u32,
    ids: u64,
}

/// A list of operations on a pair of processes.
pub fn peer_pair(bytes: &[u8]) {
    let mut source = Source(bytes);
    let mode = source.u8();
    let views = if mode & 0x10 == 0 { Views::Agreed } else { Views::Local };
    let mut run = Run {
        now: Instant::now(),
        nodes: [Node::new(1, views), Node::new(2, views)],
        conns: VecDeque::new(),
        books: Books::default(),
        datagrams: Datagrams::default(),
        system: System::new(views),
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
        run.finish(usize::from(mode >> 1 & 1), mode >> 2 & 3);
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
                self.want(at);
                if let Some(peer) = &self.nodes[at].peer {
                    let intake = Arc::clone(peer.session().intake());
                    self.books.push(&intake, source, None, operation & 0x20 == 0);
                }
            }
            5 | 6 => self.act(at),
            7 => self.decide(at, operation >> 5 & 3),
            8 => self.install_next(at),
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
            27 if operation & 0x20 == 0 => self.restart(at),
            27 => self.reincarnate(at),
            28 if !self.honest => self.inject(at, source),
            29 if !self.honest => self.inject_hello(at, source),
            30 => self.send_datagram(at, source),
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
            let peer_id = peer.id();
            let Some(output) = peer.poll_output() else { break };
            match output {
                PeerOutput::Deliver { epoch, delivery } => {
                    node.admits(peer_id, delivery.stream);
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
                PeerOutput::Datagram(datagram) => self.datagrams.got(at, &datagram, self.honest),
                PeerOutput::Answered(_)
                | PeerOutput::Replaced { .. }
                | PeerOutput::SessionOver(_)
                | PeerOutput::Event(_) => {}
            }
        }
        let node = &mut self.nodes[at];
        if let Some(peer) = node.peer.take_if(|peer| peer.is_over()) {
            check_balance(peer.session());
            node.note_gone(&peer);
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
        if self.nodes[at].roster.seat(of).gone.is_some() {
            return; // It looks for whoever comes to that address instead.
        }
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
        let node = &mut self.nodes[at];
        if let Some(peer) = node.peer.take_if(|peer| peer.is_over()) {
            check_balance(peer.session());
            node.note_gone(&peer);
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
                self.nodes[at].admits(peer.id(), delivery.stream);
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
        self.nodes[at] = Node::new(id, self.system.views());
        self.system.restarted(at);
        if at == KEEPER || self.nodes[KEEPER].peer.is_none() {
            self.keep(KEEPER);
        }
    }

    fn lose_conns(&mut self, at: usize) {
        for conn in &mut self.conns {
            conn.ends[at] = End { link: None, stage: Stage::Closed, pipe: VecDeque::new() };
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(peer) = &node.peer else { continue };
            check_balance(peer.session());
            node.check(peer);
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
        self.reconcile();
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
}
