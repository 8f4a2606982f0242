//! Views: decided by the fuzzer, installed at each side in its own time; agreed ones, or a side's own.

use std::sync::Arc;

use super::{Node, Run, endpoint, member};
use crate::limits::QUARANTINE_BYTES;
use crate::member::{Member, MemberId, View, ViewId, Views};
use crate::peer::{Gone, Introduction, Peer, ViewError};
use crate::wire::StreamId;

/// What decides views: one for both sides if they are agreed, else one a side.
pub(super) struct System {
    views: Views,
    /// Agreed ones, in order.
    decided: Vec<View>,
    /// How many of them each side has installed or was not there for.
    installed: [usize; 2],
    /// Number of the last view: of all agreed ones, or of each side's own.
    number: [u64; 2],
    /// Who was in an agreed view and is not in the newest.
    gone: Vec<MemberId>,
}

impl System {
    pub(super) const fn new(views: Views) -> Self {
        Self { views, decided: Vec::new(), installed: [0; 2], number: [0; 2], gone: Vec::new() }
    }

    pub(super) const fn views(&self) -> Views {
        self.views
    }

    /// It hears of what is decided from now on.
    pub(super) fn restarted(&mut self, at: usize) {
        self.installed[at] = self.decided.len();
    }

    fn next_id(&mut self, at: usize) -> ViewId {
        let at = if self.views == Views::Agreed { 0 } else { at };
        self.number[at] += 1;
        ViewId { generation: 1 + at as u64, number: self.number[at] }
    }

    /// A view of these, who joined in it if no view before held them.
    fn decide(&mut self, ids: impl Iterator<Item = MemberId>) {
        let id = self.next_id(0);
        let last = self.decided.last();
        let joined = |id| last.and_then(|last| last.member(id)).and_then(|member| member.joined);
        let ids = ids.filter(|id| !self.gone.contains(id));
        let view = View::new(id, ids.map(|of| located(of, joined(of).or(Some(id)))));
        let before = last.into_iter().flat_map(|last| last.members()).map(|member| member.id);
        self.gone.extend(before.filter(|id| !view.contains(*id)));
        self.decided.push(view);
    }
}

fn located(id: MemberId, joined: Option<ViewId>) -> Member {
    Member { endpoints: vec![endpoint()], joined, ..member(id) }
}

impl Node {
    /// What is for members comes from those in the view only.
    pub(super) fn admits(&self, from: MemberId, stream: StreamId) {
        let member = self.roster.view().is_some_and(|view| view.contains(from));
        assert!(stream.is_open() || member, "{stream:?} came from {from}, who is in no view");
    }

    /// Holds after every step.
    pub(super) fn check(&self, peer: &Peer) {
        let seat = self.roster.seat(peer.id());
        assert!(seat.gone.is_none() || peer.has_ended(), "a session with one who is gone: {seat:?}");
        assert!(peer.session().quarantined_bytes() <= QUARANTINE_BYTES);
    }

    /// As the driver does when it forgets a peer.
    pub(super) fn note_gone(&mut self, peer: &Peer) {
        if let Some(why) = peer.gone()
            && peer.is_of(self.id())
        {
            self.roster.note_gone(peer.id(), why);
        }
    }
}

impl Run {
    /// `who`: this side in bit 0, the other in bit 1. A view of its own is installed at once.
    pub(super) fn decide(&mut self, at: usize, who: u8) {
        let sides = [(at, who & 1 == 0), (1 - at, who & 2 == 0)];
        let ids: Vec<_> =
            sides.into_iter().filter(|(_, holds)| *holds).map(|(side, _)| self.nodes[side].id()).collect();
        if self.system.views == Views::Agreed {
            self.system.decide(ids.into_iter());
            return;
        }
        let id = self.system.next_id(at);
        let joined = |of| self.nodes.iter().find(|node| node.id() == of)?.with.me.member.joined;
        let view = View::new(id, ids.into_iter().map(|of| located(of, joined(of).or(Some(id)))));
        self.install(at, view);
    }

    /// The next of the agreed views that this side has not installed.
    pub(super) fn install_next(&mut self, at: usize) {
        let Some(view) = self.system.decided.get(self.system.installed[at]).cloned() else { return };
        self.system.installed[at] += 1;
        self.install(at, view);
    }

    /// As the driver does it.
    fn install(&mut self, at: usize, view: View) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let (id, me) = (view.id(), node.id());
        let mine = view.member(me).and_then(|member| member.joined);
        let before: Vec<_> = node.roster.view().into_iter().flat_map(|before| before.others(me)).collect();
        let told = match node.roster.install(me, view) {
            Ok(_) => {
                let mut introduction = Introduction::clone(&node.with.me);
                introduction.member.joined = introduction.member.joined.or(mine).or(Some(id));
                introduction.view = Some(id);
                node.with.me = Arc::new(introduction);
                true
            }
            Err(ViewError::Expelled { .. }) => {
                before.iter().for_each(|other| node.roster.note_gone(*other, Gone::Shunned));
                false
            }
            Err(error) => panic!("{error}"),
        };
        if let Some(peer) = node.peer.as_mut().filter(|peer| told || before.contains(&peer.id())) {
            peer.handle_view(now, Arc::clone(&node.with.me), node.roster.seat(peer.id()));
        }
        self.take_outputs(at);
        let node = &self.nodes[at];
        for left in before.iter().filter(|other| !node.roster.is_member(**other)) {
            let held = node.peer.as_ref().is_some_and(|peer| peer.id() == *left);
            assert!(!held, "nothing is left of it in the same step");
        }
        self.want(at);
    }

    /// A member's peer is made when it is first wanted.
    pub(super) fn want(&mut self, at: usize) {
        let other = self.nodes[1 - at].id();
        if self.nodes[at].roster.is_member(other) {
            self.nodes[at].peer(other);
        }
    }

    /// The same process, another member: it has no view, and begins its sessions anew.
    pub(super) fn reincarnate(&mut self, at: usize) {
        self.ids += 1;
        let id = super::member_id(self.ids);
        let node = &mut self.nodes[at];
        let me = Introduction { member: member(id), view: None, ..Introduction::clone(&node.with.me) };
        node.with.me = Arc::new(me);
        node.roster.begin_anew();
        if let Some(peer) = &mut node.peer {
            peer.abandon();
        }
        self.system.restarted(at);
        self.take_outputs(at);
        // Connections that were being opened in the old name come to nothing.
        self.lose_conns(at);
        if self.nodes[super::KEEPER].peer.is_none() {
            self.keep(super::KEEPER);
        }
    }

    /// Who was removed comes back as another; then both are in one view, and know it.
    pub(super) fn reconcile(&mut self) {
        for at in [0, 1] {
            let [me, other] = [at, 1 - at].map(|side| self.nodes[side].id());
            let removed = self.nodes[1 - at].roster.seat(me).gone == Some(Gone::Departed);
            let expelled = self.nodes[at].roster.seat(other).gone == Some(Gone::Shunned);
            if removed || expelled || self.system.gone.contains(&me) {
                self.restart(at);
            }
        }
        if self.system.number == [0; 2] {
            return; // No view was ever decided: a contact is all.
        }
        for at in [0, 1] {
            self.decide(at, 0);
        }
        for at in [0, 1] {
            while self.system.installed[at] < self.system.decided.len() {
                self.install_next(at);
            }
        }
    }
}
