//! What a leader does in one term: lets nodes in, puts what they ask into the log, tells them what was decided, judges who has
//! failed. Sans-IO: messages and decisions come in by `handle_*`, what is to be said goes out by `poll_*`, the state of the log is
//! read by reference. Made anew at each election, so nothing of it can be said in another term.
//!
//! It is told until when it may speak ([`Desk::handle_lease`]). Outside its lease it says only that it may not.
//!
//! Poll order after each input: [`Desk::poll_proposal`], [`Desk::poll_ping`], [`Desk::poll_send`], [`Desk::poll_answer`], each
//! until it gives nothing; then [`Desk::poll_timeout`].

mod asked;
mod commit;
mod config;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod door;
mod feed;
mod hello;
mod node;
mod say;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use self::config::DeskConfig;
pub(crate) use self::say::Saying;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::commit::{Commit, Concern};
use self::config::{NODES_MAX, TOOLS_MAX};
use self::feed::Versions;
use self::node::{Hello, Node};
use self::table::Table;
use crate::rendezvous::damp::Damped;
use crate::rendezvous::judge::{Judge, ProbeId};
use crate::rendezvous::state::{ClusterId, Op, Outcome, State, Why};
use crate::rendezvous::words::{Health, Ping, Pong, Refusal, ToNode, ToServer, reign, term_in};
use crate::{MemberId, ViewId};

/// What a tool asks that the log decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// See [`Ask::Evict`](crate::rendezvous::words::Ask::Evict).
    Evict(MemberId),
    /// See [`Ask::Recover`](crate::rendezvous::words::Ask::Recover).
    Recover,
}

/// What became of it.
pub(crate) type Ordered = Result<(), String>;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Desk {
    config: DeskConfig,
    term: u64,
    seed: u64,
    began: Instant,
    /// It may speak before this.
    until: Instant,
    /// Since when it was seen that it may not.
    silent: Option<Instant>,
    /// The first members are let in from then on.
    opens: Instant,
    /// Those of before are collected before this, after a recovery.
    gathers: Option<Instant>,
    /// The last view of before a recovery that anybody has seen who was gathered.
    gathered: Option<ViewId>,
    /// Whether those may keep their places: nobody was told of a view without them in which they could have been.
    keeps: bool,
    commit: Commit,
    nodes: BTreeMap<MemberId, Node>,
    /// Who is to be told something, each once.
    line: VecDeque<MemberId>,
    /// Who is told to ask again, and after which time; may be said outside the lease.
    later: BTreeMap<MemberId, Duration>,
    /// Whose hello waits.
    undecided: BTreeSet<MemberId>,
    versions: Versions,
    judge: Judge,
    table: Table,
    /// Those whom the judge knows: the members of `view`.
    members: BTreeSet<MemberId>,
    view: ViewId,
    index: u64,
    generation_seen: u64,
    heard: BTreeMap<MemberId, Instant>,
    /// Why members go that are on their way out.
    leaving: BTreeMap<MemberId, Why>,
    /// The last question to a witness about a suspect.
    probes: BTreeMap<(MemberId, MemberId), ProbeId>,
    ping: bool,
    pings: u64,
    answers: VecDeque<(u64, Ordered)>,
    tools: BTreeSet<u64>,
    /// A suspension is on its way into the log, up to this view.
    suspending: Option<ViewId>,
    /// Somebody has heard of a leader in this term.
    higher: Option<u64>,
    /// Nodes of another cluster's history, as the log was told of them.
    strangers: Damped<MemberId>,
    /// Who came while it could not speak.
    put_off: BTreeSet<MemberId>,
}

impl Desk {
    /// Of a leader that has applied all that was decided before its term, and may speak until `until`. `found`: the cluster that
    /// is begun if the log holds none.
    pub(crate) fn new(
        config: DeskConfig,
        term: u64,
        found: ClusterId,
        seed: u64,
        now: Instant,
        until: Instant,
        state: &State,
    ) -> Self {
        let members: BTreeSet<MemberId> = state.members().map(|member| member.id).collect();
        let judge = Judge::new(config.judge, seed, now, members.iter().copied());
        let opens = if members.is_empty() { now + config.settle } else { now };
        let mut desk = Self {
            config,
            term,
            seed,
            began: now,
            until,
            silent: None,
            opens,
            gathers: None,
            gathered: None,
            keeps: members.is_empty(),
            commit: Commit::default(),
            nodes: BTreeMap::new(),
            line: VecDeque::new(),
            later: BTreeMap::new(),
            undecided: BTreeSet::new(),
            versions: Versions::default(),
            judge,
            table: Table::default(),
            members,
            view: state.view_id(),
            index: state.index(),
            generation_seen: 0,
            heard: BTreeMap::new(),
            leaving: BTreeMap::new(),
            probes: BTreeMap::new(),
            ping: false,
            pings: 0,
            answers: VecDeque::new(),
            tools: BTreeSet::new(),
            suspending: None,
            higher: None,
            strangers: Damped::default(),
            put_off: BTreeSet::new(),
        };
        if state.cluster().is_none() {
            desk.commit.push([(Op::Found { cluster: found }, Concern::Nobody)]);
        }
        if is_recovered(state.view_id()) {
            desk.gathers = Some(now + config.gather);
        }
        desk
    }

    /// In which it speaks.
    pub(crate) const fn term(&self) -> u64 {
        self.term
    }

    /// How a member fares.
    pub(crate) fn health_of(&self, member: MemberId) -> Health {
        self.table.of(member)
    }

    /// What it speaks with: the term, in the generation of the history.
    pub(super) const fn reign(&self) -> u64 {
        reign(self.view.generation, self.term)
    }

    /// Whether it may speak.
    pub(crate) fn speaks(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Whom it has spoken to, and can again.
    pub(crate) fn audience(&self) -> Vec<MemberId> {
        self.nodes.keys().copied().collect()
    }

    // ---- what comes in ----

    /// Until when it may speak, if it may now. Said anew before anything is said by it. If it could not for longer than a ping, nobody
    /// could answer it either: everybody is given time again.
    pub(crate) fn handle_lease(&mut self, now: Instant, until: Option<Instant>) {
        let Some(until) = until else {
            self.until = self.until.min(now);
            self.silent.get_or_insert(now);
            return;
        };
        self.until = until;
        // They need not wait for as long as they were told.
        let put_off = std::mem::take(&mut self.put_off);
        self.later.extend(put_off.into_iter().map(|id| (id, Duration::ZERO)));
        if self.silent.take().is_some_and(|since| now.duration_since(since) >= self.config.judge.ping()) {
            self.judge = Judge::new(self.config.judge, self.seed, now, self.members.iter().copied());
            self.probes.clear();
            self.members.iter().for_each(|member| self.table.set(*member, Health::Healthy));
        }
    }

    /// A message of a node.
    ///
    /// # Errors
    ///
    /// The message, if there is no room for what it asks: to be handed in again later.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        state: &State,
        from: MemberId,
        message: ToServer,
    ) -> Result<(), Box<ToServer>> {
        if !self.speaks(now) {
            if self.put_off.len() < NODES_MAX {
                self.later.insert(from, self.config.judge.ping());
                self.put_off.insert(from);
            }
            return Ok(());
        }
        let node = self.nodes.get(&from);
        let room = node.map_or(self.nodes.len() < NODES_MAX, Node::has_room);
        if !room || !self.commit.has_room() {
            return Err(Box::new(message));
        }
        self.handle_heard(now, from);
        match message {
            ToServer::Hello { member, known, changes: _ } => {
                self.handle_hello(now, state, from, member, known)
            }
            ToServer::Leave => self.handle_leave(state, from),
            ToServer::Routes { from: first, to, add, remove } if self.is_welcome(from) => {
                let op = Op::Routes { member: from, from: first, to, add, remove };
                self.handle_routes(from, to, op);
            }
            ToServer::Lease { number, op } if self.is_welcome(from) => self.handle_lease_op(from, number, op),
            ToServer::Report { of, what } if self.is_welcome(from) => self.handle_report(now, from, of, what),
            ToServer::Probed { member, answered } => self.handle_probed(now, from, member, answered),
            // Who was not welcomed in this term has not said hello to this leader yet, or is told to in a moment.
            ToServer::Routes { .. } | ToServer::Lease { .. } | ToServer::Report { .. } => {
                if self.nodes.get(&from).is_none_or(|node| node.hello.is_none()) {
                    self.later.insert(from, Duration::ZERO);
                }
            }
        }
        Ok(())
    }

    /// The answer to a ping.
    pub(crate) fn handle_pong(&mut self, now: Instant, from: MemberId, pong: Pong) {
        if term_in(pong.term) == self.term {
            self.handle_heard(now, from);
        }
    }

    /// Something was applied: the state is another one now.
    pub(crate) fn handle_applied(&mut self, now: Instant, state: &State) {
        if state.view_id() != self.view {
            self.handle_view(now, state);
        }
        if state.index() != self.index {
            self.index = state.index();
            let fed: Vec<MemberId> =
                self.nodes.iter().filter(|(_, node)| node.feed.is_some()).map(|(id, _)| *id).collect();
            fed.into_iter().for_each(|id| self.line_up(id));
        }
        if self.suspending.is_some() && state.suspended() >= self.suspending {
            self.suspending = None;
        }
        if let Some(seen) = state.suspended() {
            self.stop_feeds(seen);
        }
        self.decide_hellos(now, state);
    }

    /// What became of the proposal under way: `None`, nobody knows, and who is concerned has to ask again.
    pub(crate) fn handle_decided(&mut self, now: Instant, state: &State, outcomes: Option<Vec<Outcome>>) {
        let decided = self.commit.handle_decided(outcomes);
        // First what the state says: who is a member now, and who is not.
        self.handle_applied(now, state);
        for (concern, outcome) in decided {
            match outcome {
                Some(outcome) => self.tell_outcome(concern, outcome),
                None => self.tell_unknown(concern),
            }
        }
        self.decide_hellos(now, state);
    }

    /// A node's queue had no room for what it was to be told; the caller keeps that, and waits for room.
    pub(crate) fn handle_blocked(&mut self, id: MemberId) {
        // Of a stranger nothing else is kept.
        let stranger = || Node { ends: true, ..Node::default() };
        self.nodes.entry(id).or_insert_with(stranger).blocked = true;
    }

    /// It was told.
    pub(crate) fn handle_room(&mut self, id: MemberId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.blocked = false;
            self.line_up(id);
        }
    }

    /// The session with a node is over: nothing can be said to it before its next hello.
    pub(crate) fn handle_gone(&mut self, id: MemberId) {
        let in_line = self.nodes.remove(&id).is_some_and(|node| node.in_line);
        if in_line {
            self.line.retain(|other| *other != id);
        }
        self.undecided.remove(&id);
        self.later.remove(&id);
        self.put_off.remove(&id);
    }

    /// A tool wants this; `number` comes back with the answer.
    pub(crate) fn handle_order(&mut self, now: Instant, state: &State, number: u64, order: Order) {
        if !self.speaks(now) {
            let why =
                "this server leads, but hears no majority of the servers; nothing has changed; try again";
            return self.answers.push_back((number, Err(why.to_owned())));
        }
        if self.tools.len() >= TOOLS_MAX {
            let why = format!("{TOOLS_MAX} tools wait for an answer already; nothing has changed; try again");
            return self.answers.push_back((number, Err(why)));
        }
        match order {
            Order::Evict(member) if state.member(member).is_none() => {
                let why =
                    format!("{member} is not a member of view {}; nothing has changed", state.view_id());
                self.answers.push_back((number, Err(why)));
            }
            Order::Evict(member) => {
                self.tools.insert(number);
                self.leaving.entry(member).or_insert(Why::Removed);
                let leave = Op::Leave { member, why: Why::Removed };
                self.commit.push([(leave, Concern::Out(member, Some(number)))]);
            }
            Order::Recover => {
                self.tools.insert(number);
                let recover = Op::Recover { above: self.generation_seen };
                self.commit.push([(recover, Concern::Recover(number))]);
            }
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, state: &State) {
        if self.speaks(now) {
            self.run_judge(now);
            if self.gathers.is_some_and(|until| until <= now) {
                self.gathers = None;
            }
            self.decide_hellos(now, state);
        }
    }

    // ---- what goes out ----

    /// A command for the log. None follows before [`Desk::handle_decided`].
    pub(crate) fn poll_proposal(&mut self, now: Instant) -> Option<Bytes> {
        if self.speaks(now) { self.commit.poll() } else { None }
    }

    /// A ping that is due, and for whom.
    pub(crate) fn poll_ping(&mut self, now: Instant) -> Option<(Ping, Vec<MemberId>)> {
        if !std::mem::take(&mut self.ping) || !self.speaks(now) {
            return None;
        }
        self.pings += 1;
        let fed = self.nodes.iter().filter(|(_, node)| node.feed.is_some()).map(|(id, _)| *id).collect();
        Some((Ping { term: self.reign(), number: self.pings, index: self.index }, fed))
    }

    /// What a tool is answered.
    pub(crate) fn poll_answer(&mut self) -> Option<(u64, Ordered)> {
        self.answers.pop_front()
    }

    /// A term above its own that somebody has heard of; said once.
    pub(crate) const fn poll_higher(&mut self) -> Option<u64> {
        self.higher.take()
    }

    /// When [`Desk::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let hellos = self.undecided.iter().filter_map(|id| self.nodes.get(id)?.hello.as_ref()?.again);
        hellos.chain(self.judge.poll_timeout()).chain(self.gathers).min()
    }

    // ---- parts ----

    /// Nothing is known of a node any more, but that it has no room.
    fn let_go(&mut self, id: MemberId) {
        let blocked = self.nodes.get(&id).is_some_and(|node| node.blocked);
        self.handle_gone(id);
        if blocked {
            self.nodes.insert(id, Node { blocked, ends: true, ..Node::default() });
        }
    }

    fn is_welcome(&self, id: MemberId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.feed.is_some())
    }

    fn tell(&mut self, id: MemberId, word: ToNode) {
        self.nodes.entry(id).or_default().words.push_back(word);
        self.line_up(id);
    }

    fn line_up(&mut self, id: MemberId) {
        if let Some(node) = self.nodes.get_mut(&id)
            && !node.in_line
            && !node.blocked
        {
            node.in_line = true;
            self.line.push_back(id);
        }
    }

    /// Members came or went.
    fn handle_view(&mut self, now: Instant, state: &State) {
        let recovered = is_recovered(state.view_id()) && state.view_id().generation > self.view.generation;
        if recovered {
            (self.gathers, self.gathered) = (Some(now + self.config.gather), None);
            self.keeps = state.members().len() == 0;
            // Who waits already is among them.
            for hello in self.nodes.values_mut().filter_map(|node| node.hello.as_mut()) {
                hello.gathered = true;
                let seen = hello.known.view.filter(|_| hello.member.joined.is_some());
                self.gathered = self.gathered.max(seen);
            }
        }
        self.view = state.view_id();
        let members: BTreeSet<MemberId> = state.members().map(|member| member.id).collect();
        for joined in members.difference(&self.members) {
            self.judge.handle_joined(now, *joined);
        }
        let left: Vec<MemberId> = self.members.difference(&members).copied().collect();
        self.members = members;
        for id in left {
            self.judge.handle_left(now, id);
            self.table.forget(id);
            self.heard.remove(&id);
            self.probes.retain(|(witness, suspect), _| *witness != id && *suspect != id);
            let why = self.leaving.remove(&id);
            self.tell_left(id, why);
        }
    }

    /// A member is one no more: that is the last it hears.
    fn tell_left(&mut self, id: MemberId, why: Option<Why>) {
        let term = self.reign();
        if !self.nodes.contains_key(&id) {
            return;
        }
        self.dismiss(id);
        let word = match why {
            Some(Why::Left) => ToNode::Farewell { term },
            why => ToNode::Evicted { term, why },
        };
        self.tell(id, word);
    }

    /// Nothing is decided about members: everybody is told why, once.
    fn stop_feeds(&mut self, seen: ViewId) {
        let term = self.reign();
        let fed: Vec<MemberId> =
            self.nodes.iter().filter(|(_, node)| node.feed.is_some()).map(|(id, _)| *id).collect();
        for id in fed {
            self.dismiss(id);
            let why = Refusal::Refused(crate::rendezvous::state::Refused::NeedsRecovery(seen));
            self.tell(id, ToNode::Refused { term, why });
        }
    }
}

/// Nothing has happened since its history began anew.
const fn is_recovered(view: ViewId) -> bool {
    view.generation > 1 && view.number <= 1
}
