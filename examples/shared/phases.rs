//! How a view is decided: the first phase when the generation's owner is gone, the second for each view.

use std::collections::BTreeSet;
use std::time::Instant;

use karere::{Member, MemberId, View, ViewId};

use super::{Membership, Promises, Round, Suspicion};
use crate::notes::{Action, Fact, Note};

fn is_majority(of: &View, answered: impl Iterator<Item = MemberId>) -> bool {
    answered.filter(|id| of.contains(*id)).count() * 2 > of.members().len()
}

/// The newest view that somebody accepted and that may have been decided: by those who have promised nothing yet, together
/// with those who had accepted it, or something newer, when they promised.
fn may_be_decided(base: &View, promises: &Promises) -> Option<View> {
    let accepted = |id: &MemberId| promises.get(id).and_then(|(_, view)| view.as_ref().map(View::id));
    let may_be = |view: &View| {
        let may = |id: &MemberId| !promises.contains_key(id) || accepted(id) >= Some(view.id());
        let ids = |of: &View| of.members().iter().map(|member| member.id).filter(may).collect::<Vec<_>>();
        is_majority(base, ids(base).into_iter()) && is_majority(view, ids(view).into_iter())
    };
    let newer = promises.values().filter_map(|(_, view)| view.as_ref()).filter(|view| view.id() > base.id());
    newer.filter(|view| may_be(view)).max_by_key(|view| view.id()).cloned()
}

impl Membership {
    // ---- the first phase, when the generation's owner is gone ----

    pub(super) fn claimed(&mut self, from: MemberId, generation: u64) {
        if self.promised == (generation, Some(from)) {
            // It asks again.
            return self.promise(from, generation);
        }
        if self.is_gone(from) {
            // So it is there after all. It will ask again.
            self.suspects.insert(from, Suspicion::Checking);
            return self.actions.push_back(Action::Check(from));
        }
        let members = self.view.iter().flat_map(|view| view.members()).map(|member| member.id);
        let older: Vec<_> = members.take_while(|id| *id != from).collect();
        let is_member = self.view.as_ref().is_none_or(|view| view.contains(from));
        let alive = older.contains(&self.me.id) && !self.leaving;
        if generation <= self.promised.0 || !is_member || alive {
            return self.refuse(from);
        }
        older.iter().for_each(|id| self.suspect(*id, &format!("{from:.8} claims")));
        if older.iter().any(|id| self.suspects.get(id) == Some(&Suspicion::Checking)) {
            self.asked = Some((from, generation));
        } else if older.iter().all(|id| self.is_gone(*id) || self.leavers.contains(id) || *id == self.me.id) {
            self.promised = (generation, Some(from));
            self.give_way();
            self.promise(from, generation);
        } else {
            self.refuse(from);
        }
    }

    /// Somebody else decides. What this member has proposed and not decided never will be, because nobody else counts
    /// who accepts it; unless it was proposed by others before.
    fn give_way(&mut self) {
        if let Round::Prepare { view, bases, .. } = &self.round
            && bases.len() == 1
        {
            self.accepted.take_if(|accepted| accepted.id() == view.id());
        }
        self.owned = None;
        self.round = Round::Idle;
    }

    fn promise(&mut self, to: MemberId, generation: u64) {
        let (installed, accepted) = (self.view.clone(), self.accepted.clone());
        self.send(to, Note::Promise { generation, installed, accepted });
    }

    fn refuse(&mut self, to: MemberId) {
        self.send(to, Note::Refused { promised: self.promised.0, installed: self.view.clone() });
    }

    pub(super) fn refused(&mut self, now: Instant, promised: u64, installed: Option<View>) {
        if let Some(view) = installed {
            self.adopt(view);
        }
        if promised > self.promised.0 {
            self.promised = (promised, None);
            self.give_way();
        }
        if matches!(self.round, Round::Claim { .. }) {
            self.round = Round::Idle;
        }
        self.rest_until = now + self.retry;
    }

    pub(super) fn ask_for_promises(&mut self) {
        let Round::Claim { generation, promises } = &self.round else { return };
        let bases = self
            .view
            .iter()
            .chain(&self.accepted)
            .chain(promises.values().filter_map(|(_, view)| view.as_ref()));
        let ids = bases.flat_map(|base| base.members()).map(|member| member.id);
        let ids: BTreeSet<_> = ids.filter(|id| !promises.contains_key(id)).collect();
        let claim = Note::Claim { generation: *generation };
        ids.into_iter().for_each(|id| self.actions.push_back(Action::Send(id, claim.clone())));
    }

    pub(super) fn count_promises(&mut self) {
        let Round::Claim { promises, .. } = &self.round else { return };
        let installed = promises.values().filter_map(|(view, _)| view.clone()).max_by_key(View::id);
        if let Some(newer) = installed {
            // It may hold us no more, and then the round is over.
            self.adopt(newer);
        }
        let Round::Claim { generation, promises } = &self.round else { return };
        let Some(base) = self.view.clone() else { return };
        let accepted = may_be_decided(&base, promises);
        let (generation, bases) = (*generation, Vec::from_iter([base].into_iter().chain(accepted.clone())));
        if !bases.iter().all(|base| is_majority(base, promises.keys().copied())) {
            return;
        }
        self.round = Round::Idle;
        self.owned = Some(generation);
        // It comes first, as it is.
        if let Some(accepted) = accepted {
            let id = ViewId { generation, number: accepted.id().number + 1 };
            self.propose(id, accepted.members().to_vec(), bases);
        }
    }

    // ---- the second phase ----

    pub(super) fn propose(&mut self, id: ViewId, members: Vec<Member>, bases: Vec<View>) {
        let joined = |member: Member| Member { joined: member.joined.or(Some(id)), ..member };
        let view = View::new(id, members.into_iter().map(joined));
        self.accepted = Some(view.clone());
        self.round = Round::Prepare { view, bases, ready: BTreeSet::from([self.me.id]) };
        self.ask_for_acceptance();
        self.count_ready();
    }

    pub(super) fn ask_for_acceptance(&mut self) {
        let Round::Prepare { view, bases, ready } = &self.round else { return };
        let ids = bases.iter().chain([view]).flat_map(|base| base.members()).map(|member| member.id);
        let ids: BTreeSet<_> = ids.filter(|id| !ready.contains(id)).collect();
        let prepare = Note::Prepare { view: view.clone() };
        ids.into_iter().for_each(|id| self.actions.push_back(Action::Send(id, prepare.clone())));
    }

    pub(super) fn prepare(&mut self, from: MemberId, view: View) {
        let installed = self.view.as_ref().map(View::id);
        let generation = view.id().generation;
        if generation < self.promised.0 || installed.is_some_and(|installed| view.id() <= installed) {
            return self.refuse(from);
        }
        if self.accepted.as_ref().is_some_and(|accepted| view.id() < accepted.id()) {
            return;
        }
        self.promised = (generation, Some(from));
        self.give_way();
        let note = Note::Ready { view: view.id() };
        self.accepted = Some(view);
        self.send(from, note);
    }

    pub(super) fn count_ready(&mut self) {
        let Round::Prepare { view, bases, ready } = &self.round else { return };
        if !bases.iter().chain([view]).all(|base| is_majority(base, ready.iter().copied())) {
            return;
        }
        let members = bases.iter().chain([view]).flat_map(|view| view.members());
        let ids: BTreeSet<_> = members.map(|member| member.id).filter(|id| *id != self.me.id).collect();
        let view = view.clone();
        let install = Note::Install { view: view.clone() };
        ids.into_iter().for_each(|id| self.actions.push_back(Action::Send(id, install.clone())));
        self.adopt(view);
    }

    /// A view that was decided.
    pub(super) fn adopt(&mut self, view: View) {
        if self.view.as_ref().is_some_and(|installed| view.id() <= installed.id()) {
            return;
        }
        if !view.contains(self.me.id) {
            if self.view.is_some() {
                self.expelled(&format!("view {}", view.id()));
            }
            return;
        }
        if view.id().generation > self.promised.0 {
            self.promised = (view.id().generation, None);
        }
        self.owned = self.owned.filter(|owned| *owned >= view.id().generation);
        self.accepted.take_if(|accepted| accepted.id() <= view.id());
        if matches!(&self.round, Round::Prepare { view: ours, .. } if ours.id() <= view.id()) {
            self.round = Round::Idle;
        }
        self.suspects.retain(|id, _| view.contains(*id));
        self.leavers.retain(|id| view.contains(*id));
        self.joiners.retain(|id, _| !view.contains(*id));
        if self.view.is_none() {
            self.actions.push_back(Action::Say(Fact::Joined));
        }
        self.view = Some(view.clone());
        self.actions.extend([Action::Install(view), Action::DropContacts, Action::Say(Fact::View)]);
    }
}
