//! What each action does.

use std::sync::Arc;
use std::time::Duration;

use super::conn::{Stage, other_of};
use super::side::{Contact, LIVENESS, Life, Side, endpoint};
use super::{Action, World, id};
use crate::link::LinkEnd;
use crate::member::{Member, MemberId, View, ViewId};
use crate::peer::{ContactId, Gone, Introduction, ViewError};
use crate::session::Cause;

const CONTACT: ContactId = ContactId(1);

impl World {
    /// Lets one of [`World::actions`] happen, then everything that follows at once, and looks whether all still holds.
    pub fn apply(&mut self, action: Action) {
        self.repeat(action);
        self.judge();
    }

    /// As [`World::apply`], on a way that was gone before and judged then.
    pub fn repeat(&mut self, action: Action) {
        self.conns.iter_mut().for_each(|conn| conn.written = false);
        self.happen(action);
        self.settle();
        self.note_epochs();
        self.note_ends();
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::Send { side, to } => self.send(side.into(), to),
            Action::Connect { conn } => self.connect(conn.into()),
            Action::Deliver { conn, to } => self.deliver(conn.into(), to.into()),
            Action::Break { conn } => {
                self.left.breaks -= 1;
                self.conns[usize::from(conn)].broken = true;
            }
            Action::Notice { conn, side } => self.notice(conn.into(), side.into()),
            Action::Write { side, of } => {
                self.write_room(side.into(), id(1 - usize::from(side), of));
            }
            Action::Dial { side, of } => self.let_pass(side.into(), of),
            Action::Lease { side, of } => {
                self.left.leases = self.left.leases.saturating_sub(1);
                self.let_pass(side.into(), of);
            }
            Action::Quarantine { side, of } => {
                self.left.quarantines = self.left.quarantines.saturating_sub(1);
                self.let_pass(side.into(), of);
            }
            Action::Install { side } => self.install(side.into()),
            Action::Restart { side } => self.restart(side.into()),
            Action::Leave { side } => {
                self.left.leaves[usize::from(side)] = false;
                let side = &mut self.sides[usize::from(side)];
                side.life = Life::Leaving;
                for room in side.rooms.values_mut() {
                    room.peer.leave();
                    room.written = false;
                }
            }
            Action::Deadline { side } => {
                self.left.deadlines[usize::from(side)] = false;
                let side = &mut self.sides[usize::from(side)];
                side.rooms.values_mut().for_each(|room| room.peer.end(Cause::Closed));
            }
            Action::Drop { side } => self.drop_contact(side.into()),
            Action::Find { side } => {
                let at = usize::from(side);
                self.attach(at, self.id(1 - at));
            }
        }
    }

    fn connect(&mut self, conn: usize) {
        let Some((dialler, end)) =
            self.conns[conn].ends.iter().enumerate().find(|(_, end)| end.stage == Stage::Connecting)
        else {
            return;
        };
        let Some((of, link)) = end.link else { return };
        let refused = self.sides[1 - dialler].life == Life::Gone;
        let room = self.sides[dialler].room(of);
        if refused {
            room.peer.handle_dial_failed(room.now, link);
            self.conns[conn].close(dialler);
            self.conns[conn].close(1 - dialler);
            return;
        }
        match room.peer.handle_connected(room.now, link) {
            Some(hello) => {
                self.conns[conn].ends[dialler].stage = Stage::Greeting;
                self.write_first(conn, dialler, &hello);
            }
            None => self.conns[conn].close(dialler),
        }
    }

    fn notice(&mut self, conn: usize, side: usize) {
        let end = &mut self.conns[conn].ends[side];
        let (stage, link) = (end.stage, end.link);
        end.inbound.clear();
        if let (Some((of, link)), Some(room)) =
            (link, other_of(link).and_then(|(_, of)| self.sides[side].rooms.get_mut(&of)))
        {
            debug_assert_eq!(room.peer.id(), of);
            room.written = false;
            match stage {
                Stage::Live if side == 1 => {
                    room.now += LIVENESS;
                    room.peer.handle_timeout(room.now);
                }
                Stage::Live => {
                    let end = LinkEnd::Io(std::io::ErrorKind::ConnectionReset);
                    room.peer.handle_link_end(room.now, link, end);
                }
                Stage::Connecting | Stage::Greeting => room.peer.handle_dial_failed(room.now, link),
                Stage::Asked | Stage::Closed => {}
            }
        }
        self.obey_all(side);
        self.conns[conn].die(side);
    }

    /// The one deadline that a peer waits for is there.
    fn let_pass(&mut self, side: usize, of: u8) {
        let of = id(1 - side, of);
        let Some(room) = self.sides[side].rooms.get_mut(&of) else { return };
        if let Some(at) = room.peer.poll_timeout() {
            room.now = room.now.max(at) + Duration::ZERO;
            room.peer.handle_timeout(room.now);
            room.written = false;
        }
    }

    /// A contact of this side goes to this member.
    pub(super) fn attach(&mut self, side: usize, of: MemberId) {
        let there = &mut self.sides[side];
        there.contact = Contact::Held(of);
        let room = there.room(of);
        room.peer.add_contact(room.now, CONTACT, endpoint(1 - side));
    }

    fn drop_contact(&mut self, side: usize) {
        self.left.drops[side] = false;
        let there = &mut self.sides[side];
        let contact = std::mem::replace(&mut there.contact, Contact::None);
        if let Contact::Held(of) = contact
            && let Some(room) = there.rooms.get_mut(&of)
        {
            room.peer.remove_contact(CONTACT);
        }
    }

    /// The process there ends without a word, and another begins. What it had written is on its way.
    fn restart(&mut self, at: usize) {
        self.left.restarts[at] -= 1;
        let incarnation = self.sides[at].incarnation + 1;
        self.sides[at] = Side::new(at, incarnation, &self.sides[at].with.sent);
        if self.scenario.contacts[at] {
            self.sides[at].contact = Contact::Seeks(None);
        }
        for conn in &mut self.conns {
            match conn.ends[at].stage {
                Stage::Connecting => {
                    // Nobody there has seen anything of it.
                    conn.die(at);
                    conn.die(1 - at);
                }
                // The connection will come to stand at the new process.
                Stage::Asked if conn.ends[1 - at].stage == Stage::Connecting => {}
                Stage::Asked | Stage::Greeting | Stage::Live => conn.die(at),
                Stage::Closed => {}
            }
        }
    }

    /// As the driver does it, but that each peer is told at once.
    pub(super) fn install(&mut self, at: usize) {
        let Some(next) = self.next_view(at) else { return };
        let number = |number| ViewId { generation: 1, number };
        let member = |(side, incarnation, joined): &super::Member| Member {
            id: id(*side, *incarnation),
            endpoints: vec![endpoint(*side)],
            name: String::new(),
            labels: Default::default(),
            joined: Some(number(*joined)),
        };
        let view = View::new(number(next as u64 + 1), self.scenario.views[next].iter().map(member));
        let side = &mut self.sides[at];
        side.installed = next + 1;
        let (me, view_id) = (side.id(), view.id());
        let mine = view.member(me).and_then(|member| member.joined);
        let before = side.roster.view().cloned();
        match side.roster.install(me, view) {
            Ok(_) => {
                let old = &side.with.me;
                let joined = old.member.joined.or(mine).or(Some(view_id));
                let member = Member { joined, ..old.member.clone() };
                let me = Introduction { member, view: Some(view_id), ..Introduction::clone(old) };
                side.with.me = Arc::new(me);
            }
            Err(ViewError::Expelled { .. }) => {
                for other in before.iter().flat_map(|before| before.others(me)) {
                    side.roster.note_gone(other, Gone::Shunned);
                }
            }
            Err(error) => self.fault(super::Fault::Panic, format!("the scenario's views: {error}")),
        }
        let side = &mut self.sides[at];
        let mut let_in = false;
        for (of, room) in &mut side.rooms {
            let held = room.peer.session().quarantined_bytes() > 0;
            room.peer.handle_view(room.now, Arc::clone(&side.with.me), side.roster.seat(*of));
            room.written = false;
            let_in |= held && room.peer.session().is_admitted();
        }
        if let_in {
            self.see(super::Seen::LetIn);
        }
    }
}
