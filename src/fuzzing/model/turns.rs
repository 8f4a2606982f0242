//! What the driver of a process does at once: obeys its peers, dials, writes, hands over what arrives, forgets who is
//! over. `driver/peer_task.rs`, `driver/peers.rs` and `driver/contacts.rs` in small.

use super::books::Fault;
use super::conn::{Conn, Packet, Stage};
use super::side::{Contact, Life};
use super::{Seen, World, incarnation_of, side_of};
use crate::link::{LinkEnd, LinkId};
use crate::member::MemberId;
use crate::peer::{Disconnect, PeerEvent, PeerOutput, Standing};
use crate::session::{Cause, Handled, Transmit};
use crate::wire::first::{self, Code};
use crate::wire::{FirstBytes, Hello, Reject};

/// Turns until everything rests. More is a storm.
const TURNS_MAX: usize = 100;

impl World {
    /// Until nothing happens by itself.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut busy = false;
            for side in [0, 1] {
                let all: Vec<MemberId> = self.sides[side].rooms.keys().copied().collect();
                for of in all {
                    busy |= self.turn(side, of);
                }
                let there = &mut self.sides[side];
                if there.life == Life::Leaving && there.rooms.is_empty() {
                    there.life = Life::Gone;
                    self.conns.iter_mut().for_each(|conn| conn.close(side));
                }
            }
            if !busy {
                return self.sweep();
            }
        }
        self.fault(Fault::Storm, format!("{TURNS_MAX} turns and no rest"));
    }

    fn turn(&mut self, side: usize, of: MemberId) -> bool {
        let mut busy = self.obey(side, of);
        busy |= self.dial(side, of);
        if !self.scenario.lazy {
            busy |= self.write_room(side, of);
        }
        busy |= self.forget(side, of);
        busy
    }

    pub(super) fn obey_all(&mut self, side: usize) {
        let all: Vec<MemberId> = self.sides[side].rooms.keys().copied().collect();
        for of in all {
            self.obey(side, of);
        }
    }

    /// Does what a peer asks for.
    fn obey(&mut self, side: usize, of: MemberId) -> bool {
        let mut busy = false;
        loop {
            let Some(room) = self.sides[side].rooms.get_mut(&of) else { return busy };
            let Some(output) = room.peer.poll_output() else { return busy };
            busy = true;
            match output {
                PeerOutput::Deliver { epoch, delivery } => {
                    self.handle(side, of, epoch, &delivery);
                    let handled = Handled {
                        epoch,
                        stream: delivery.stream,
                        records: delivery.records,
                        bytes: delivery.bytes,
                    };
                    let room = self.sides[side].room(of);
                    room.written = false;
                    room.peer.handle_handled(room.now, handled);
                }
                PeerOutput::Close { link, farewell } => {
                    if let Some(conn) = self.conn_of(side, (of, link)) {
                        if let Some(farewell) = farewell {
                            self.write(conn, side, &[farewell]);
                        }
                        self.conns[conn].close(side);
                    }
                }
                PeerOutput::Replaced { contacts, by } => {
                    self.see(Seen::WrongMember);
                    if !contacts.is_empty() && self.sides[side].life == Life::Running {
                        self.attach(side, by);
                    }
                }
                PeerOutput::Event(event) => self.event(side, &event),
                PeerOutput::SessionOver(_)
                | PeerOutput::Datagram(_)
                | PeerOutput::Answered(_)
                | PeerOutput::Reserve { .. } => {}
            }
        }
    }

    fn event(&mut self, side: usize, event: &PeerEvent) {
        match event {
            PeerEvent::Misbehaving { .. }
            | PeerEvent::Disconnected { reason: Disconnect::Misbehaved | Disconnect::Corrupt, .. }
            | PeerEvent::Refused { .. } => self.fault(Fault::Protocol, format!("side {side}: {event:?}")),
            PeerEvent::Disconnected { reason: Disconnect::Superseded, .. } => self.see(Seen::Superseded),
            PeerEvent::Disconnected { reason: Disconnect::NotInView, .. } => self.see(Seen::NotInView),
            PeerEvent::SessionLost { .. } => self.see(Seen::Forgot),
            PeerEvent::Expelled { .. } => self.see(Seen::Removed),
            _ => {}
        }
    }

    fn dial(&mut self, side: usize, of: MemberId) -> bool {
        let Some(room) = self.sides[side].rooms.get_mut(&of) else { return false };
        let Some(request) = room.peer.poll_dial(room.now) else { return false };
        if self.sides[side].roster.seat(of).gone.is_some() {
            self.fault(Fault::Removed, format!("side {side} dials {of}, which is removed"));
        }
        self.conns.push(Conn::dialled(side, (of, request.link)));
        true
    }

    /// Writes what is to be written on the live link.
    pub(super) fn write_room(&mut self, side: usize, of: MemberId) -> bool {
        let Some(room) = self.sides[side].rooms.get_mut(&of) else { return false };
        let mut out = Transmit::default();
        room.peer.poll_transmit(room.now, &mut out);
        room.written = true;
        if out.is_empty() {
            return false;
        }
        room.peer.handle_written(room.now, true, false);
        let link = room.peer.live_link().map(|link| (of, link));
        match link.and_then(|link| self.conn_of(side, link)) {
            Some(conn) => self.write(conn, side, &out.parts),
            None => self.fault(Fault::Links, format!("side {side} writes to {of} without a link")),
        }
        true
    }

    /// As the driver forgets who is over.
    fn forget(&mut self, side: usize, of: MemberId) -> bool {
        let there = &mut self.sides[side];
        let Some(mut room) = there
            .rooms
            .get(&of)
            .is_some_and(|room| room.peer.is_over())
            .then(|| there.rooms.remove(&of))
            .flatten()
        else {
            return false;
        };
        room.peer.end(Cause::Closed);
        let mut closes = Vec::new();
        while let Some(output) = room.peer.poll_output() {
            if let PeerOutput::Close { link, .. } = output {
                closes.push(link);
            }
        }
        if let Some(why) = room.peer.gone() {
            there.roster.note_gone(of, why);
        }
        if there.contact == Contact::Held(of) {
            there.contact = Contact::Seeks(Some(of));
        }
        let (queued, pending) = room.peer.session().queued_and_pending();
        for link in closes {
            if let Some(conn) = self.conn_of(side, (of, link)) {
                self.conns[conn].close(side);
            }
        }
        if pending > 0 {
            self.fault(Fault::Books, format!("side {side} forgets {pending} of {queued} messages to {of}"));
        }
        true
    }

    // ---- what arrives ----

    pub(super) fn deliver(&mut self, conn: usize, to: usize) {
        while let Some(packet) = self.conns[conn].ends[to].inbound.pop_front() {
            match packet {
                Packet::First(first) => self.first(conn, to, *first),
                Packet::Frames(frames) => {
                    for (frame, _) in frames {
                        let end = &self.conns[conn].ends[to];
                        let (Stage::Live, Some((of, link))) = (end.stage, end.link) else { break };
                        let Some(room) = self.sides[to].rooms.get_mut(&of) else { break };
                        if room.peer.is_live(link) {
                            room.peer.handle_heard(room.now);
                        }
                        room.written = false;
                        room.peer.handle_frame(room.now, link, frame);
                        self.obey(to, of);
                    }
                }
                Packet::End => self.ended(conn, to),
            }
            if self.scenario.by_frame || !self.conns[conn].ends[to].reads() {
                break;
            }
        }
    }

    /// The other end has closed.
    fn ended(&mut self, conn: usize, to: usize) {
        let end = &self.conns[conn].ends[to];
        if let (stage, Some((of, link))) = (end.stage, end.link)
            && let Some(room) = self.sides[to].rooms.get_mut(&of)
        {
            room.written = false;
            if stage == Stage::Live {
                room.peer.handle_link_end(room.now, link, LinkEnd::End);
            } else {
                room.peer.handle_dial_failed(room.now, link);
            }
            self.obey(to, of);
        }
        self.conns[conn].close(to);
    }

    fn first(&mut self, conn: usize, to: usize, first: FirstBytes) {
        let end = &self.conns[conn].ends[to];
        match (end.stage, end.link, first) {
            (Stage::Greeting, Some((of, link)), reply) => self.reply(conn, to, (of, link), reply),
            (Stage::Asked, None, FirstBytes::Hello(hello)) => {
                let of = hello.from.id;
                match self.greet(conn, to, &hello) {
                    Ok(answer) => {
                        // Closes what the new link replaces before it takes its place.
                        self.obey(to, of);
                        self.conns[conn].ends[to].stage = Stage::Live;
                        let bytes = first::encode(&FirstBytes::Answer(Box::new(answer)));
                        self.write_first(conn, to, &bytes);
                    }
                    Err(reject) => {
                        self.obey(to, of);
                        let bytes = first::encode(&FirstBytes::Reject(reject));
                        self.write_first(conn, to, &bytes);
                        self.conns[conn].close(to);
                    }
                }
            }
            (stage, _, first) => {
                self.fault(Fault::Protocol, format!("{first:?} came at side {to}, {stage:?}"));
            }
        }
    }

    fn reply(&mut self, conn: usize, to: usize, (of, link): (MemberId, LinkId), reply: FirstBytes) {
        if let FirstBytes::Reject(reject) = &reply {
            match reject.code {
                Code::Duplicate => self.see(Seen::Duplicate),
                Code::Busy => self.see(Seen::Busy),
                _ => {}
            }
        }
        let room = self.sides[to].room(of);
        room.written = false;
        let adopted = room.peer.handle_reply(room.now, link, reply);
        self.obey(to, of);
        if adopted {
            self.conns[conn].ends[to].stage = Stage::Live;
        } else {
            self.conns[conn].close(to);
        }
    }

    fn greet(&mut self, conn: usize, to: usize, hello: &Hello) -> Result<Hello, Box<Reject>> {
        let of = hello.from.id;
        debug_assert!(side_of(of) == 1 - to && incarnation_of(of) < 4);
        let there = &mut self.sides[to];
        there.with.me.judge(hello)?;
        let seat = there.roster.seat(of);
        if seat.judge(hello.from.joined) == Standing::Removed && !there.rooms.contains_key(&of) {
            return Err(Box::new(seat.refusal(&there.with.me)));
        }
        let knows = there.rooms.get(&of).is_some_and(|room| !room.peer.has_ended());
        if there.life != Life::Running && !knows {
            return Err(Box::new(there.with.me.reject(Code::Busy, "too many")));
        }
        let link = there.with.counters.link();
        self.conns[conn].ends[to].link = Some((of, link));
        let room = self.sides[to].room(of);
        room.written = false;
        let answer = room.peer.handle_hello(room.now, link, hello);
        if answer.is_err() {
            self.conns[conn].ends[to].link = None;
        }
        answer
    }
}
