//! What was sent and what came, and what must hold of it at every moment.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::conn::Stage;
use super::side::Life;
use super::{World, id, incarnation_of, side_of};
use crate::member::MemberId;
use crate::session::{Body, Content, Delivery, Lost, Outgoing, Receipt, Ticket, types_of};
use crate::wire::first::Code;
use crate::wire::{Class, Epoch, FirstBytes, Frame, Protocol, Seq, StreamId, record};

/// What must never happen. The names are those of the properties that the checker prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A message came twice.
    Twice,
    /// A message came after a later one of its stream.
    Order,
    /// A message came at another process than it was sent to, or from another.
    Address,
    /// A message was acknowledged and has not come once.
    Acked,
    /// A message is *not sent* and came.
    NotSent,
    /// Queued is not acked and not sent and indeterminate and pending.
    Books,
    /// Two live links at a side, or one that is not the peer's.
    Links,
    /// All is quiet and the two sides have settled on different links.
    SameLink,
    /// What is for members only came from one who is in no view here.
    Admission,
    /// More was acknowledged, or said in a hello to have come, than was delivered.
    Claim,
    /// A message of one who leaves was lost, or one is in doubt, though nothing broke and nobody ran out of time.
    Leave,
    /// Something but a last word was written to a member that is removed; or it was dialled.
    Removed,
    /// A protocol error between two honest processes.
    Protocol,
    /// Epochs of a pair did not increase.
    Epochs,
    /// It never comes to rest, or links follow each other for ever.
    Storm,
    /// When nothing breaks any more, something never ends.
    Calm,
    /// A panic: a `debug_assert!` of the rooms, an overflow.
    Panic,
}

/// What a scenario shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Something was written again.
    Again,
    /// Something came again and was dropped.
    Twice,
    /// A hello was refused for another link.
    Duplicate,
    /// A link gave way to another.
    Superseded,
    /// A side learnt that the other had forgotten the session.
    Forgot,
    /// A message ended as indeterminate.
    Indeterminate,
    /// A message ended as not sent.
    NotSent,
    /// What was not written in a session that was lost came in the next.
    Renumbered,
    /// Another process was met at the address.
    WrongMember,
    /// Something was held in quarantine.
    Held,
    /// Something that was held came in.
    LetIn,
    /// A quarantine ended for want of a view.
    NotInView,
    /// A process learnt that it was removed.
    Removed,
    /// A goodbye was confirmed.
    Goodbye,
    /// A process that leaves refused a hello.
    Busy,
}

/// One message.
struct Message {
    from: MemberId,
    to: MemberId,
    receipt: Receipt,
    /// The session that it was queued in.
    epoch: Epoch,
    times: u8,
    /// Its end was seen.
    ended: bool,
}

/// See the module's text. A message is known by its tag, which travels as its type's hash.
#[derive(Default)]
pub(super) struct Books {
    messages: BTreeMap<u32, Message>,
    /// The newest that came: from whom, to whom, on which stream.
    newest: BTreeMap<(MemberId, MemberId, StreamId), u32>,
    /// The last session of one with another.
    epochs: BTreeMap<(MemberId, MemberId), Epoch>,
    pub(super) faults: Vec<(Fault, String)>,
    pub(super) seen: u64,
}

impl World {
    pub(super) fn fault(&mut self, fault: Fault, what: String) {
        self.books.faults.push((fault, what));
    }

    pub(super) const fn see(&mut self, seen: Seen) {
        self.books.seen |= 1 << seen as u64;
    }

    pub(super) fn send(&mut self, side: usize, to: u8) {
        let (from, to) = (self.id(side), id(1 - side, to));
        let nth = self.left.sent[side];
        self.left.sent[side] += 1;
        let tag = (side as u32) << 8 | u32::from(nth);
        let stream = self.stream(side, nth.into());
        let room = self.sides[side].room(to);
        room.written = false;
        let (ticket, receipt) = Ticket::new();
        let body = Bytes::from_static(b"m");
        let out = Outgoing { stream, hash: tag, version: 1, body: Body::Slice(&body), reply: &|| false };
        let epoch = room.peer.session().epoch();
        if room.peer.session().intake().lock().push(out, Some(ticket)).is_ok() {
            self.books.messages.insert(tag, Message { from, to, receipt, epoch, times: 0, ended: false });
        }
    }

    /// The stream of a message.
    fn stream(&self, side: usize, nth: usize) -> StreamId {
        StreamId::new(Protocol::APPLICATION, Class::Normal, self.scenario.sends[side][nth])
    }

    /// A handler gets what came.
    pub(super) fn handle(&mut self, side: usize, from: MemberId, epoch: Epoch, delivery: &Delivery) {
        let stream = delivery.stream;
        let me = self.id(side);
        let member = self.sides[side].roster.view().is_some_and(|view| view.contains(from));
        if !stream.is_open() && !member {
            self.fault(Fault::Admission, format!("side {side}: {stream:?} came from {from}"));
        }
        self.sides[side].room(from).note_delivered(epoch, stream, delivery.records);
        let Content::Records(all) = &delivery.content else { return };
        let mut all = all.clone();
        while let Ok(record) = record::take(&mut all) {
            self.came(from, me, epoch, stream, record.header.hash);
        }
    }

    fn came(&mut self, from: MemberId, to: MemberId, epoch: Epoch, stream: StreamId, tag: u32) {
        let Some(message) = self.books.messages.get_mut(&tag) else {
            return self.fault(Fault::Address, format!("{tag:#x} was never sent"));
        };
        message.times += 1;
        let (times, meant) = (message.times, (message.from, message.to));
        // The epoch is the receiver's, so only a later one of the sender's tells.
        if self.sides[side_of(from)]
            .rooms
            .get(&to)
            .is_some_and(|room| room.peer.session().epoch() > message.epoch)
        {
            self.see(Seen::Renumbered);
        }
        if times > 1 {
            self.fault(Fault::Twice, format!("message {tag:#x} came {times} times, now in {epoch:?}"));
        }
        if meant != (from, to) {
            self.fault(Fault::Address, format!("message {tag:#x}: meant {meant:?}, came {from} to {to}"));
        }
        let before = self.books.newest.insert((from, to, stream), tag);
        if before.is_some_and(|before| before > tag) {
            self.fault(Fault::Order, format!("message {tag:#x} came after {before:x?}"));
        }
    }

    // ---- what is said ----

    pub(super) fn judge_first(&mut self, side: usize, first: &FirstBytes) {
        let hello = match first {
            FirstBytes::Hello(hello) | FirstBytes::Answer(hello) => hello,
            FirstBytes::Reject(reject) => {
                if matches!(reject.code, Code::Malformed | Code::Corrupt | Code::Identity) {
                    self.fault(Fault::Protocol, format!("side {side} refuses: {}", reject.text));
                }
                return;
            }
        };
        let Some(of) = hello.to else { return };
        if self.sides[side].roster.seat(of).gone.is_some() {
            self.fault(Fault::Removed, format!("side {side} says hello to {of}"));
        }
        for point in &hello.streams {
            self.judge_claim(side, of, hello.epoch, point.stream, point.next_expected.previous());
        }
    }

    pub(super) fn judge_frame(&mut self, conn: usize, side: usize, frame: &Frame) {
        let Some((of, _)) = self.conns[conn].ends[side].link else { return };
        let last = matches!(frame, Frame::Close { .. } | Frame::Goodbye { confirmed: true, .. });
        if !last && self.sides[side].roster.seat(of).gone.is_some() {
            self.fault(Fault::Removed, format!("side {side} writes {frame:?} to {of}, which is removed"));
        }
        match frame {
            Frame::Ack(acks) => {
                let Some(epoch) = self.sides[side].rooms.get(&of).map(|room| room.peer.session().epoch())
                else {
                    return;
                };
                for ack in acks {
                    self.judge_claim(side, of, epoch, ack.stream, ack.accepted);
                }
            }
            Frame::Close { code: Code::Malformed | Code::Corrupt, text } => {
                self.fault(Fault::Protocol, format!("side {side} closes: {text}"));
            }
            Frame::Goodbye { confirmed: true, .. } => self.see(Seen::Goodbye),
            _ => {}
        }
    }

    fn judge_claim(&mut self, side: usize, of: MemberId, epoch: Epoch, stream: StreamId, accepted: Seq) {
        let Some(room) = self.sides[side].rooms.get(&of) else { return };
        let delivered = if room.epoch == epoch { room.delivered(stream) } else { 0 };
        if accepted.0 > delivered {
            let what = format!("side {side} says that {} came of {stream:?}, {delivered} did", accepted.0);
            self.fault(Fault::Claim, what);
        }
    }

    /// The sessions that there are now; those of a pair follow each other.
    pub(super) fn note_epochs(&mut self) {
        let (mut found, mut storms) = (Vec::new(), Vec::new());
        let most = self.scenario.generations_max();
        for side in &mut self.sides {
            let me = side.id();
            for (of, room) in &mut side.rooms {
                let epoch = room.peer.session().epoch();
                room.note_epoch(epoch);
                if room.peer.dials().generation > most {
                    storms.push(format!("{me} and {of}: links follow each other for ever"));
                }
                // A peer that is made anew is another session: it must not have the epoch of the one before.
                let known = std::mem::replace(&mut room.known, true);
                let before = self.books.epochs.insert((me, *of), epoch);
                let rises = |before: Epoch| if known { before <= epoch } else { before < epoch };
                if before.is_some_and(|before| !rises(before)) {
                    found.push(format!("{me}: {epoch:?} after {before:?} with {of}"));
                }
            }
        }
        found.into_iter().for_each(|what| self.fault(Fault::Epochs, what));
        storms.into_iter().for_each(|what| self.fault(Fault::Storm, what));
    }

    /// What became of messages by the last action. Who leaves loses none of them by the other's leaving at the same time; of who
    /// stays none is in doubt.
    pub(super) fn note_ends(&mut self) {
        let mut found = Vec::new();
        let sound = self.is_sound();
        for (tag, message) in &mut self.books.messages {
            let Some(end) = message.receipt.now().filter(|_| !message.ended) else { continue };
            message.ended = true;
            let side = &self.sides[side_of(message.from)];
            let lost = match end {
                Ok(()) => false,
                Err(Lost::NotSent(_)) => side.life != Life::Running,
                Err(Lost::Indeterminate(_)) => true,
            };
            if sound && lost && side.id() == message.from {
                found.push(format!("message {tag:#x} ended so, beside a goodbye: {end:?}"));
            }
        }
        found.into_iter().for_each(|what| self.fault(Fault::Leave, what));
    }

    /// Whether nothing has happened by which a message may be lost to one who leaves.
    fn is_sound(&self) -> bool {
        let (left, most) = (&self.left, self.scenario);
        let lost = (left.breaks, left.leases, left.quarantines, left.restarts, left.drops, left.deadlines);
        let nothing = (most.breaks, most.leases, most.quarantines, most.restarts, most.drops, [true; 2]);
        lost == nothing && most.views.is_empty()
    }

    // ---- what holds ----

    /// After each action.
    pub(super) fn judge(&mut self) {
        self.judge_messages();
        for side in [0, 1] {
            self.judge_rooms(side);
        }
        self.judge_same_link();
    }

    fn judge_messages(&mut self) {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        for (tag, message) in &self.books.messages {
            // Of a process that is no more nobody holds a receipt.
            if self.sides[side_of(message.from)].id() != message.from {
                continue;
            }
            match message.receipt.now() {
                Some(Ok(())) if message.times != 1 => {
                    found.push((
                        Fault::Acked,
                        format!("message {tag:#x} is acked, and came {} times", message.times),
                    ));
                }
                Some(Err(Lost::NotSent(cause))) => {
                    seen.push(Seen::NotSent);
                    if message.times > 0 {
                        found.push((
                            Fault::NotSent,
                            format!("message {tag:#x} was not sent ({cause}), and came"),
                        ));
                    }
                }
                Some(Err(Lost::Indeterminate(_))) => seen.push(Seen::Indeterminate),
                Some(Ok(())) | None => {}
            }
        }
        found.into_iter().for_each(|(fault, what)| self.fault(fault, what));
        seen.into_iter().for_each(|seen| self.see(seen));
    }

    fn judge_rooms(&mut self, side: usize) {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        let there = &self.sides[side];
        let me = there.id();
        for (of, room) in &there.rooms {
            let session = room.peer.session();
            let accounts = session.accounts();
            let (queued, pending) = session.queued_and_pending();
            let ended = accounts.acked + accounts.not_sent + accounts.indeterminate;
            let open = |message: &&Message| {
                (message.from, message.to) == (me, *of) && message.receipt.now().is_none()
            };
            let receipts = self.books.messages.values().filter(open).count() as u64;
            if queued != ended + pending || pending != receipts {
                let what =
                    format!("side {side}: {queued} queued, {pending} and {receipts} pending, {accounts:?}");
                found.push((Fault::Books, what));
            }
            for (seen_now, so) in [
                (Seen::Again, accounts.resent > 0),
                (Seen::Twice, accounts.duplicates > 0),
                (Seen::Held, session.quarantined_bytes() > 0),
            ] {
                seen.extend(so.then_some(seen_now));
            }
            let live: Vec<_> = self
                .conns
                .iter()
                .map(|conn| &conn.ends[side])
                .filter(|end| end.stage == Stage::Live && end.link.is_some_and(|(other, _)| other == *of))
                .filter_map(|end| end.link.map(|(_, link)| link))
                .collect();
            let dials = self.conns.iter().map(|conn| &conn.ends[side]).filter(|end| {
                matches!(end.stage, Stage::Connecting | Stage::Greeting)
                    && end.link.is_some_and(|(other, _)| other == *of)
            });
            if dials.count() + live.len() > 1 {
                found.push((Fault::Links, format!("side {side} dials {of} beside another link")));
            }
            if live != Vec::from_iter(room.peer.live_link()) {
                let what = format!("side {side} has links {live:?} to {of}, and {:?}", room.peer.live_link());
                found.push((Fault::Links, what));
            }
        }
        found.into_iter().for_each(|(fault, what)| self.fault(fault, what));
        seen.into_iter().for_each(|seen| self.see(seen));
    }

    /// When all is quiet, the live link is the same on both sides.
    fn judge_same_link(&mut self) {
        let mut inner = Vec::new();
        self.inner_actions(&mut inner);
        if !inner.is_empty() || self.sides.iter().any(|side| side.life != Life::Running) {
            return;
        }
        let half = |conn: &super::conn::Conn| {
            let live = conn.ends.each_ref().map(|end| end.stage == Stage::Live);
            live[0] != live[1]
        };
        if self.conns.iter().any(half) {
            let ends: Vec<_> =
                self.conns.iter().map(|conn| conn.ends.each_ref().map(|end| end.stage)).collect();
            self.fault(Fault::SameLink, format!("all is quiet, and connections are {ends:?}"));
        }
    }

    /// Messages that are not ended, and may never be: why, or `None` if they should.
    pub(super) fn unended(&self) -> Option<String> {
        let pending = |(tag, message): (&u32, &Message)| {
            let sender = &self.sides[side_of(message.from)];
            if sender.id() != message.from || message.receipt.now().is_some() {
                return None;
            }
            let receiver = &self.sides[side_of(message.to)];
            if receiver.id() != message.to || receiver.life == Life::Gone {
                // Who is no more and was not said to have left is waited for; its view or its contact decide.
                return None;
            }
            let shared = [(sender, message.to), (receiver, message.from)]
                .iter()
                .all(|(side, other)| side.roster.is_member(*other));
            let nth = (tag & 0xff) as usize;
            let open = self.scenario.sends[side_of(message.from)][nth];
            (open || shared).then(|| {
                format!("message {tag:#x} to {}'{}", side_of(message.to), incarnation_of(message.to))
            })
        };
        self.books.messages.iter().find_map(pending)
    }

    /// Messages of which a copy is somewhere: on its way, with its sender, in quarantine.
    fn living(&self) -> Vec<u32> {
        let mut living = Vec::new();
        let mut note = |tag| living.push(tag);
        let rooms = self.sides.iter().flat_map(|side| side.rooms.values());
        rooms.for_each(|room| room.peer.session().types_kept(&mut note));
        for packet in self.conns.iter().flat_map(|conn| &conn.ends).flat_map(|end| &end.inbound) {
            let super::conn::Packet::Frames(frames) = packet else { continue };
            for (frame, _) in frames {
                if let Frame::Batch(batch) = frame {
                    types_of(&batch.records, &mut note);
                }
            }
        }
        living
    }

    /// For the digest: all that is in the books and counts.
    ///
    /// A message that has ended and of which there is no copy any more stays as it is: it cannot come, and its receipt says
    /// what it says for ever. What was to be judged of it was judged. So it is left out; and so is the newest that came,
    /// but whether it is newer than one that may still come (those that are yet to be sent are newer than all). The same
    /// goes for epochs of processes that are no more: there will be no other.
    pub(super) fn digest_books(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let living = self.living();
        for (tag, message) in &self.books.messages {
            let lives = living.contains(tag);
            let gone = self.sides[side_of(message.from)].id() != message.from;
            if !lives && (gone || message.receipt.now().is_some()) {
                continue;
            }
            let end = match message.receipt.now() {
                None => 0,
                Some(Ok(())) => 1,
                Some(Err(Lost::NotSent(_))) => 2,
                Some(Err(Lost::Indeterminate(_))) => 3,
            };
            let stream = self.stream(side_of(message.from), (tag & 0xff) as usize);
            let newest = self.books.newest.get(&(message.from, message.to, stream));
            let late = newest.is_some_and(|newest| newest > tag);
            (tag, message.to, message.times, end, late, gone).hash(into);
        }
        let epochs = self.books.epochs.iter();
        epochs.filter(|((me, _), _)| self.id(side_of(*me)) == *me).for_each(|epoch| epoch.hash(into));
        for (fault, _) in &self.books.faults {
            (*fault as u8).hash(into);
        }
    }
}
