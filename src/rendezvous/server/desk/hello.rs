//! Who is let in. A hello is judged by what the state says and what the node knows, and again whenever one of them may have changed,
//! until there is an answer.

use std::time::Instant;

use super::commit::{Concern, op_bytes};
use super::config::OP_BYTES_MAX;
use super::node::{Cursor, Feed};
use super::{Desk, Hello};
use crate::rendezvous::state::{GENERATION_MAX, Op, Refused, State, Why};
use crate::rendezvous::words::{Known, Refusal, ToNode, generation_in, term_in};
use crate::{Member, MemberId, ViewId};

/// What is to be done about a hello.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Welcome,
    Refuse(Refusal),
    /// It was a member, and can be one again only as another.
    Evict,
    /// Not now; to be judged again then, or when the state changes.
    Wait(Option<Instant>),
    /// A place is asked for: one it had, or a new one, perhaps that of another run of its process.
    Join {
        keep: bool,
        replaces: Option<MemberId>,
    },
    /// It knows a history that this log does not.
    Suspend(ViewId),
}

impl Desk {
    pub(super) fn handle_hello(
        &mut self,
        now: Instant,
        state: &State,
        from: MemberId,
        member: Member,
        known: Known,
    ) {
        let term = self.reign();
        if let Some(why) = unsound(from, &member, &known, state.view_id()) {
            let why = Refusal::Refused(Refused::Unsound(why));
            self.dismiss(from);
            return self.tell(from, ToNode::Refused { term, why });
        }
        let ours = known.cluster.is_some() && known.cluster == state.cluster();
        let higher = term_in(known.term);
        if ours && generation_in(known.term) == self.view.generation && higher > self.term {
            tracing::warn!(node = %from, term = self.term, higher, "a node has heard of a leader above this one");
            self.higher = self.higher.max(Some(higher));
            return self.let_go(from);
        }
        if let Some(view) = known.view {
            self.generation_seen = self.generation_seen.max(view.generation);
        }
        let gathered = self.gathers.is_some_and(|until| now < until);
        let node = self.nodes.entry(from).or_default();
        let before = node.hello.take();
        // The wait for an older run of the same process counts from the first hello.
        let at = before.as_ref().map_or(now, |before| before.at);
        let gathered = gathered || before.as_ref().is_some_and(|before| before.gathered);
        let joining = before.is_some_and(|before| before.joining);
        if gathered && member.joined.is_some() {
            self.gathered = self.gathered.max(known.view);
        }
        node.hello = Some(Hello { member, known, at, gathered, joining, again: None });
        (node.feed, node.ends) = (None, false);
        self.undecided.insert(from);
        self.decide_hello(now, state, from);
        // Whoever waits is told that there is somebody who listens.
        let again = self.nodes.get(&from).and_then(|node| node.hello.as_ref()?.again);
        if let Some(again) = again {
            let after = again.saturating_duration_since(now);
            self.later.insert(from, after);
        }
    }

    /// Judges all that wait.
    pub(super) fn decide_hellos(&mut self, now: Instant, state: &State) {
        let undecided: Vec<MemberId> = self.undecided.iter().copied().collect();
        undecided.into_iter().for_each(|id| self.decide_hello(now, state, id));
    }

    fn decide_hello(&mut self, now: Instant, state: &State, id: MemberId) {
        let Some(hello) = self.nodes.get(&id).and_then(|node| node.hello.as_ref()) else {
            self.undecided.remove(&id);
            return;
        };
        let (term, verdict) = (self.reign(), self.verdict(now, state, hello));
        if let Verdict::Wait(again) = verdict {
            if let Some(hello) = self.nodes.get_mut(&id).and_then(|node| node.hello.as_mut()) {
                hello.again = again;
            }
            return;
        }
        match verdict {
            Verdict::Wait(_) => {}
            Verdict::Welcome => self.welcome(state, id),
            Verdict::Refuse(why) => {
                if why == Refusal::AnotherHistory
                    && let Some(unsaid) = self.strangers.note(now, id)
                {
                    tracing::error!(node = %id, unsaid, "a node of another cluster's history is refused: {why}");
                }
                self.dismiss(id);
                self.tell(id, ToNode::Refused { term, why });
            }
            Verdict::Evict => {
                self.dismiss(id);
                self.tell(id, ToNode::Evicted { term, why: None });
            }
            Verdict::Suspend(seen) => self.suspend(seen, id, state),
            Verdict::Join { keep, replaces } => self.join(id, keep, replaces),
        }
    }

    fn verdict(&self, now: Instant, state: &State, hello: &Hello) -> Verdict {
        let Some(cluster) = state.cluster() else { return Verdict::Wait(None) };
        let (id, known) = (hello.member.id, &hello.known);
        let seen = known.view.unwrap_or(ViewId { generation: 0, number: 0 });
        let other = known.cluster.is_some_and(|theirs| theirs != cluster);
        if self.suspending.is_some_and(|suspending| suspending >= seen) && state.suspended() < self.suspending
        {
            return Verdict::Wait(None);
        }
        if let Some(suspended) = state.suspended() {
            if seen > suspended {
                return Verdict::Suspend(seen);
            }
            let why = Refusal::Refused(Refused::NeedsRecovery(suspended));
            return Verdict::Refuse(if other { Refusal::AnotherHistory } else { why });
        }
        if !other && seen > state.view_id() {
            return Verdict::Suspend(seen);
        }
        // One of before a recovery is below this history, and may go on in it.
        if other && seen.generation >= state.view_id().generation {
            let fresh = state.members().len() == 0 && state.view_id().number == 0;
            let suspend = fresh && seen > state.view_id();
            return if suspend { Verdict::Suspend(seen) } else { Verdict::Refuse(Refusal::AnotherHistory) };
        }
        if state.member(id).is_some() {
            return Verdict::Welcome;
        }
        if hello.joining {
            return Verdict::Wait(None);
        }
        if state.is_gone(id) {
            return Verdict::Evict;
        }
        self.verdict_on_joining(now, state, hello)
    }

    fn verdict_on_joining(&self, now: Instant, state: &State, hello: &Hello) -> Verdict {
        if let Some(until) = self.gathers.filter(|until| now < *until) {
            return Verdict::Wait(Some(until));
        }
        if hello.member.joined.is_some() {
            // Who has not seen the last view of before may have been dropped by it, and others would refuse it for ever. So would members
            // that are here already: they are told of a view without it.
            return if hello.gathered && self.keeps && hello.known.view >= self.gathered {
                Verdict::Join { keep: true, replaces: None }
            } else {
                Verdict::Evict
            };
        }
        if now < self.opens {
            return Verdict::Wait(Some(self.opens));
        }
        let Some(old) = namesake(state, &hello.member) else {
            return Verdict::Join { keep: false, replaces: None };
        };
        // An older run of this process, or another one that lives and was given the same name: who lives is heard within a ping.
        let heard = self.heard.get(&old);
        if heard.is_some_and(|heard| *heard > hello.at) {
            return Verdict::Join { keep: false, replaces: None };
        }
        let ping = self.config.judge.ping();
        let mut when = hello.at + ping + ping / 2;
        if heard.is_none() {
            // It may not have found this leader yet.
            when = when.max(self.began + self.config.judge.settle());
        }
        if now < when {
            return Verdict::Wait(Some(when));
        }
        Verdict::Join { keep: false, replaces: Some(old) }
    }

    /// After what it is told now it hears nothing more, until it says hello again.
    pub(super) fn dismiss(&mut self, id: MemberId) {
        self.undecided.remove(&id);
        let node = self.nodes.entry(id).or_default();
        (node.hello, node.feed, node.ends) = (None, None, true);
    }

    fn welcome(&mut self, state: &State, id: MemberId) {
        self.undecided.remove(&id);
        let (Some(cluster), Some(member)) = (state.cluster(), state.member(id)) else { return };
        let changes = state.changes_of(id).unwrap_or_default();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(Hello { known, .. }) = node.hello.take() else { return };
        // Places are compared within a generation only: a history that was restored has had others at the same places.
        let same = known.view.is_some_and(|view| view.generation == state.view_id().generation);
        let leads_on = same && (known.index == state.index() || state.change_after(known.index).is_some());
        let cursor = if known.cluster == Some(cluster) && leads_on {
            Cursor::At(known.index)
        } else {
            Cursor::Nothing { least: state.index() }
        };
        node.feed = Some(Feed { cursor, registered: changes, health: None });
        let welcome = ToNode::Welcome { term: self.reign(), cluster, member: member.clone(), changes };
        self.tell(id, welcome);
    }

    fn suspend(&mut self, seen: ViewId, by: MemberId, state: &State) {
        if self.suspending.is_some_and(|before| before >= seen) {
            return;
        }
        tracing::error!(
            node = %by, %seen, have = %state.view_id(),
            "a node knows a view that this cluster's disks do not; nobody is let in until an operator decides: look for the disks, or: karere rendezvous recover"
        );
        self.suspending = Some(seen);
        self.commit.push([(Op::Suspend { seen }, Concern::Nobody)]);
    }

    fn join(&mut self, id: MemberId, keep: bool, replaces: Option<MemberId>) {
        let Some(hello) = self.nodes.get_mut(&id).and_then(|node| node.hello.as_mut()) else { return };
        (hello.joining, hello.again) = (true, None);
        let join = (Op::Join { member: hello.member.clone(), keep }, Concern::Join(id));
        match replaces {
            None => self.commit.push([join]),
            Some(old) => {
                tracing::info!(%old, new = %id, "another run of a member's process joins; the old one is silent");
                self.leaving.entry(old).or_insert(Why::Replaced);
                let leave = Op::Leave { member: old, why: Why::Replaced };
                self.commit.push([(leave, Concern::Out(old, None)), join]);
            }
        }
    }
}

/// What no honest node says.
fn unsound(from: MemberId, member: &Member, known: &Known, ours: ViewId) -> Option<String> {
    if member.id != from {
        return Some(format!("it says that it is {}, and is {from}", member.id));
    }
    let views = known.view.iter().chain(&member.joined);
    // Above the last generation no recovery could come: nobody is believed to have seen more of it than we have.
    let beyond = |view: &&ViewId| view.generation >= GENERATION_MAX && **view > ours;
    if let Some(view) = views.into_iter().find(beyond) {
        return Some(format!("view {view} is in a generation above which there is none, {GENERATION_MAX}"));
    }
    let bytes = op_bytes(&Op::Join { member: member.clone(), keep: false });
    (bytes > OP_BYTES_MAX).then(|| format!("what it says of itself has {bytes} bytes"))
}

/// A member of this name that is reached at one of the same places.
fn namesake(state: &State, member: &Member) -> Option<MemberId> {
    let same = |other: &&Member| {
        other.id != member.id
            && other.name == member.name
            && other.endpoints.iter().any(|endpoint| member.endpoints.contains(endpoint))
    };
    state.members().find(same).map(|other| other.id)
}
