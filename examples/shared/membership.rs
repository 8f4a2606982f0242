//! Who is in the cluster: the deciding half of the two membership examples, without sockets, clocks or tasks.
//!
//! The oldest member decides. A view is decided when a majority of the view before it has accepted it (`Prepare`,
//! `Ready`), and then installed everywhere (`Install`): two phases, because with one a coordinator that dies while it
//! tells could leave two members in different views of one number. When the older ones are gone, the next oldest claims
//! a higher generation; a majority promises it, and says what it had accepted, which comes first (Lamport's Paxos, one
//! instance a view; generations are ballots). So a minority installs nothing, and waits.
//!
//! Whoever is suspected is checked first, by each who suspects it: one sick reporter evicts nobody, and a claim is
//! promised only by those who found the older ones gone themselves. Who was removed by mistake hears it from the
//! messenger, comes back as another member and joins anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use karere::{Disconnect, Endpoint, Member, MemberId, PeerEvent, View, ViewId};

use crate::notes::{Action, Fact, Note};

/// So many may wait to be let in.
const JOINERS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    Checking,
    Gone,
}

#[derive(Debug)]
enum Round {
    Idle,
    Claim {
        generation: u64,
        promises: BTreeMap<MemberId, (Option<View>, Option<View>)>,
    },
    /// `bases`: views of which a majority each has to accept it.
    Prepare {
        view: View,
        bases: Vec<View>,
        ready: BTreeSet<MemberId>,
    },
}

/// See the module's text. After any input, poll actions until none comes.
#[derive(Debug)]
pub(crate) struct Membership {
    me: Member,
    /// Where to ask to be let in, and whose turn it is.
    candidates: Vec<Endpoint>,
    turn: usize,
    view: Option<View>,
    /// Promised to accept nothing of a lower generation, and to whom.
    promised: (u64, Option<MemberId>),
    accepted: Option<View>,
    /// The generation in which this member decides, if a majority promised it that.
    owned: Option<u64>,
    round: Round,
    /// A claim that waits for our own checks.
    asked: Option<(MemberId, u64)>,
    suspects: BTreeMap<MemberId, Suspicion>,
    /// Who wants to be let in, and when it asked last.
    joiners: BTreeMap<MemberId, (Member, Instant)>,
    leavers: BTreeSet<MemberId>,
    leaving: bool,
    retry: Duration,
    next: Instant,
    /// After a refusal, not before then.
    rest_until: Instant,
    actions: VecDeque<Action>,
}

fn is_majority(of: &View, answered: impl Iterator<Item = MemberId>) -> bool {
    answered.filter(|id| of.contains(*id)).count() * 2 > of.members().len()
}

impl Membership {
    /// Founds a cluster, or asks these to be let into theirs.
    pub(crate) fn start(now: Instant, me: Member, join: Vec<Endpoint>, retry: Duration) -> Self {
        let mut this = Self {
            me,
            candidates: join,
            turn: 0,
            view: None,
            promised: (0, None),
            accepted: None,
            owned: None,
            round: Round::Idle,
            asked: None,
            suspects: BTreeMap::new(),
            joiners: BTreeMap::new(),
            leavers: BTreeSet::new(),
            leaving: false,
            retry,
            next: now + retry,
            rest_until: now,
            actions: VecDeque::new(),
        };
        if this.candidates.is_empty() {
            let id = ViewId { generation: 1, number: 1 };
            this.owned = Some(1);
            this.adopt(View::new(id, [Member { joined: Some(id), ..this.me.clone() }]));
        } else {
            this.ask_to_join();
        }
        this
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) const fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    pub(crate) const fn me(&self) -> MemberId {
        self.me.id
    }

    // ---- inputs ----

    pub(crate) fn handle_note(&mut self, now: Instant, from: MemberId, note: Note) {
        match note {
            Note::Join { who } => self.join(now, from, who),
            Note::Redirect { to } if self.view.is_none() => {
                self.actions.extend(to.into_iter().next().map(Action::Contact))
            }
            Note::Suspect { who } => self.suspect(who, &format!("reported by {from:.8}")),
            Note::Leave => drop(self.leavers.insert(from)),
            Note::Claim { generation } => self.claimed(from, generation),
            Note::Promise { generation, installed, accepted } => {
                if let Round::Claim { generation: ours, promises } = &mut self.round
                    && *ours == generation
                {
                    promises.insert(from, (installed, accepted));
                    self.count_promises();
                }
            }
            Note::Prepare { view } => self.prepare(from, view),
            Note::Ready { view } => {
                if let Round::Prepare { view: ours, ready, .. } = &mut self.round
                    && ours.id() == view
                {
                    ready.insert(from);
                    self.count_ready();
                }
            }
            Note::Refused { promised, installed } => self.refused(now, promised, installed),
            Note::Install { view } => self.adopt(view),
            Note::Redirect { .. } | Note::Check => {}
        }
        self.advance(now);
    }

    pub(crate) fn handle_event(&mut self, now: Instant, event: &PeerEvent) {
        match event {
            PeerEvent::Disconnected {
                reason: Disconnect::Closed | Disconnect::Superseded | Disconnect::NotInView,
                ..
            } => {}
            PeerEvent::Disconnected { peer, reason } => {
                self.suspect(*peer, &format!("Disconnected {reason:?}"))
            }
            PeerEvent::Stuck { peer, .. } => self.suspect(*peer, "Stuck"),
            PeerEvent::Unreachable { peer, .. } => self.suspect(*peer, "Unreachable"),
            PeerEvent::OneWaySilence { peer, .. } => self.suspect(*peer, "OneWaySilence"),
            PeerEvent::Replaced { old, new } => self.suspect(*old, &format!("Replaced by {new:.8}")),
            PeerEvent::SessionLost { peer } => self.suspect(*peer, "SessionLost"),
            // A goodbye raises no suspicion; whether it was meant for us is looked at all the same.
            PeerEvent::Left { peer } => drop(self.check(*peer)),
            PeerEvent::Expelled { by } if self.view.as_ref().is_some_and(|view| view.contains(*by)) => {
                self.expelled(&format!("{by:.8}"));
            }
            PeerEvent::Connected { peer } | PeerEvent::Recovered { peer } => {
                if self.suspects.get(peer) == Some(&Suspicion::Gone) {
                    self.handle_checked(now, *peer, true);
                }
            }
            // Slow is no death, and what else there may be is no evidence.
            _ => {}
        }
        self.advance(now);
    }

    /// What a check found.
    pub(crate) fn handle_checked(&mut self, now: Instant, who: MemberId, alive: bool) {
        if !self.suspects.contains_key(&who) {
            return;
        }
        self.actions.push_back(Action::Say(Fact::Checked { who, alive }));
        if alive {
            self.suspects.remove(&who);
        } else {
            self.suspects.insert(who, Suspicion::Gone);
            self.report(who);
        }
        if let Some((from, generation)) = self.asked.take() {
            self.claimed(from, generation);
        }
        self.advance(now);
    }

    /// Somebody is at an address that we asked for.
    pub(crate) fn handle_contact(&mut self, id: MemberId) {
        if self.view.is_none() {
            self.send(id, Note::Join { who: self.me.clone() });
        }
    }

    /// This process is another member now; it joins again.
    pub(crate) fn handle_reincarnated(&mut self, now: Instant, me: Member) {
        let join = std::mem::take(&mut self.candidates);
        *self = Self::start(now, me, join, self.retry);
    }

    /// Leaves the view, if others are in it; `Action::Leave` comes when it is out.
    pub(crate) fn handle_leave(&mut self, now: Instant) {
        self.leaving = true;
        match &self.view {
            Some(view) if view.members().len() > 1 => self.ask_to_leave(),
            Some(_) | None => self.actions.push_back(Action::Leave),
        }
        self.advance(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + self.retry;
        let Some(view) = self.view.clone() else {
            self.ask_to_join();
            return;
        };
        let gone: Vec<_> =
            self.suspects.iter().filter(|(_, is)| **is == Suspicion::Gone).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|who| self.report(who));
        if self.leaving {
            self.ask_to_leave();
        }
        match &self.round {
            // Somebody may have missed it: one after the other is told again.
            Round::Idle if self.is_acting() => {
                let others: Vec<_> = view.others(self.me.id).collect();
                if let Some(to) = self.turn.checked_rem(others.len()).and_then(|at| others.get(at)) {
                    self.send(*to, Note::Install { view });
                }
                self.turn = self.turn.wrapping_add(1);
            }
            Round::Idle => {}
            Round::Claim { promises, .. } => {
                let fact = Fact::Waiting { answered: promises.len(), of: view.members().len() };
                self.actions.push_back(Action::Say(fact));
                self.ask_for_promises();
            }
            Round::Prepare { ready, .. } => {
                let fact = Fact::Waiting { answered: ready.len(), of: view.members().len() };
                self.actions.push_back(Action::Say(fact));
                self.ask_for_acceptance();
            }
        }
        self.advance(now);
    }

    // ---- who decides ----

    fn is_gone(&self, id: MemberId) -> bool {
        self.suspects.get(&id) == Some(&Suspicion::Gone)
    }

    /// The oldest that we have not found gone.
    fn acting(&self) -> Option<&Member> {
        self.view.as_ref()?.members().iter().find(|member| !self.is_gone(member.id))
    }

    fn is_acting(&self) -> bool {
        self.acting().is_some_and(|member| member.id == self.me.id)
    }

    /// What the next view should hold, if that is anything else than this one.
    fn wanted(&self) -> Option<Vec<Member>> {
        let view = self.view.as_ref()?;
        let stays = |member: &&Member| !self.is_gone(member.id) && !self.leavers.contains(&member.id);
        let mut members: Vec<_> = view.members().iter().filter(stays).cloned().collect();
        let joiners = self.joiners.values().map(|(joiner, _)| joiner);
        members.extend(joiners.filter(|joiner| !view.contains(joiner.id)).cloned());
        (members != view.members() && !members.is_empty()).then_some(members)
    }

    /// Decides what there is to decide, if it is on us and nothing is under way.
    fn advance(&mut self, now: Instant) {
        if !matches!(self.round, Round::Idle) || now < self.rest_until || !self.is_acting() {
            return;
        }
        // Who asks no more is gone, and would be missed in the next majority.
        let fresh = self.retry * 3;
        self.joiners.retain(|_, (_, asked)| now.duration_since(*asked) < fresh);
        let (Some(view), Some(members)) = (self.view.clone(), self.wanted()) else { return };
        match self.owned {
            Some(generation) => {
                let number = view.id().number + 1;
                self.propose(ViewId { generation, number }, members, vec![view]);
            }
            None => {
                let generation = self.promised.0.max(view.id().generation) + 1;
                self.promised = (generation, Some(self.me.id));
                let mine = (self.view.clone(), self.accepted.clone());
                self.round = Round::Claim { generation, promises: BTreeMap::from([(self.me.id, mine)]) };
                self.actions.push_back(Action::Say(Fact::Claimed { generation }));
                self.ask_for_promises();
                self.count_promises();
            }
        }
    }

    // ---- suspicion ----

    fn suspect(&mut self, who: MemberId, why: &str) {
        if self.check(who) {
            self.actions.push_back(Action::Say(Fact::Suspect { who, why: why.to_owned() }));
        }
    }

    /// Whether it is to be checked from now on, and was not yet.
    fn check(&mut self, who: MemberId) -> bool {
        let known = self.view.as_ref().is_some_and(|view| view.contains(who));
        // Who is leaving may be gone at any time.
        let counts = known && who != self.me.id && !self.leavers.contains(&who);
        let begins = counts && !self.suspects.contains_key(&who);
        if begins {
            self.suspects.insert(who, Suspicion::Checking);
            self.actions.push_back(Action::Check(who));
        }
        begins
    }

    /// Tells whoever should decide; it checks for itself.
    fn report(&mut self, who: MemberId) {
        if let Some(to) = self.acting().map(|member| member.id)
            && to != self.me.id
        {
            self.send(to, Note::Suspect { who });
        }
    }

    fn expelled(&mut self, by: &str) {
        if self.leaving {
            self.actions.push_back(Action::Leave);
            return;
        }
        self.actions.push_back(Action::Say(Fact::Expelled { by: by.to_owned() }));
        self.actions.push_back(Action::Reincarnate);
        for member in
            self.view.iter().flat_map(|view| view.members()).filter(|member| member.id != self.me.id)
        {
            let new = member.endpoints.iter().filter(|endpoint| !self.candidates.contains(endpoint));
            self.candidates.extend(new.cloned().collect::<Vec<_>>());
        }
        self.view = None;
        self.round = Round::Idle;
    }

    // ---- joining and leaving ----

    fn ask_to_join(&mut self) {
        let place = self.turn.checked_rem(self.candidates.len());
        self.turn = self.turn.wrapping_add(1);
        let candidate = place.and_then(|place| self.candidates.get(place)).cloned();
        self.actions.extend(candidate.map(Action::Contact));
    }

    fn join(&mut self, now: Instant, from: MemberId, who: Member) {
        let Some(view) = &self.view else { return };
        if view.contains(from) {
            let note = Note::Install { view: view.clone() };
            return self.send(from, note);
        }
        let same =
            |member: &&Member| member.endpoints.iter().any(|endpoint| who.endpoints.contains(endpoint));
        if let Some(old) = view.members().iter().find(same).map(|member| member.id) {
            self.suspect(old, &format!("{from:.8} joins from its address"));
        }
        match self.acting().map(|member| (member.id, member.endpoints.clone())) {
            Some((id, to)) if id != self.me.id => self.send(from, Note::Redirect { to }),
            Some(_) if from == who.id && self.joiners.len() < JOINERS_MAX => {
                drop(self.joiners.insert(from, (who, now)))
            }
            Some(_) | None => {}
        }
    }

    fn ask_to_leave(&mut self) {
        match self.acting().map(|member| member.id) {
            Some(id) if id != self.me.id => self.send(id, Note::Leave),
            Some(_) | None => drop(self.leavers.insert(self.me.id)),
        }
    }

    // ---- the first phase, when the generation's owner is gone ----

    fn claimed(&mut self, from: MemberId, generation: u64) {
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

    fn refused(&mut self, now: Instant, promised: u64, installed: Option<View>) {
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

    fn ask_for_promises(&mut self) {
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

    fn count_promises(&mut self) {
        let Round::Claim { promises, .. } = &self.round else { return };
        let installed = promises.values().filter_map(|(view, _)| view.clone()).max_by_key(View::id);
        if let Some(newer) = installed {
            // It may hold us no more, and then the round is over.
            self.adopt(newer);
        }
        let Round::Claim { generation, promises } = &self.round else { return };
        let Some(base) = self.view.clone() else { return };
        let accepted = promises.values().filter_map(|(_, view)| view.as_ref());
        let accepted = accepted.filter(|view| view.id() > base.id()).max_by_key(|view| view.id()).cloned();
        let (generation, bases) = (*generation, Vec::from_iter([base].into_iter().chain(accepted.clone())));
        if !bases.iter().all(|base| is_majority(base, promises.keys().copied())) {
            return;
        }
        self.round = Round::Idle;
        self.owned = Some(generation);
        // What somebody accepted may have been decided: it comes first, as it is.
        if let Some(accepted) = accepted {
            let id = ViewId { generation, number: accepted.id().number + 1 };
            self.propose(id, accepted.members().to_vec(), bases);
        }
    }

    // ---- the second phase ----

    fn propose(&mut self, id: ViewId, members: Vec<Member>, bases: Vec<View>) {
        let joined = |member: Member| Member { joined: member.joined.or(Some(id)), ..member };
        let view = View::new(id, members.into_iter().map(joined));
        self.accepted = Some(view.clone());
        self.round = Round::Prepare { view, bases, ready: BTreeSet::from([self.me.id]) };
        self.ask_for_acceptance();
        self.count_ready();
    }

    fn ask_for_acceptance(&mut self) {
        let Round::Prepare { view, bases, ready } = &self.round else { return };
        let ids = bases.iter().flat_map(|base| base.members()).map(|member| member.id);
        let ids: BTreeSet<_> = ids.filter(|id| !ready.contains(id)).collect();
        let prepare = Note::Prepare { view: view.clone() };
        ids.into_iter().for_each(|id| self.actions.push_back(Action::Send(id, prepare.clone())));
    }

    fn prepare(&mut self, from: MemberId, view: View) {
        let installed = self.view.as_ref().map(View::id);
        let generation = view.id().generation;
        if generation < self.promised.0 || installed.is_some_and(|installed| view.id() <= installed) {
            return self.refuse(from);
        }
        self.promised = (generation, Some(from));
        self.give_way();
        let note = Note::Ready { view: view.id() };
        self.accepted = Some(view);
        self.send(from, note);
    }

    fn count_ready(&mut self) {
        let Round::Prepare { view, bases, ready } = &self.round else { return };
        if !bases.iter().all(|base| is_majority(base, ready.iter().copied())) {
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
    fn adopt(&mut self, view: View) {
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

    fn send(&mut self, to: MemberId, note: Note) {
        self.actions.push_back(Action::Send(to, note));
    }
}
