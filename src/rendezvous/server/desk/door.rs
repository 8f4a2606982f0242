//! A door for the fuzzer: a leader's desk over a real state, and nodes that say anything.
//!
//! Whatever they say: nothing panics; outside its lease the desk says only that it may not speak; what each is told follows from what it
//! was told before; what is kept is bounded; what goes into the log can be read there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::{COMMAND_BYTES, NODE_ASKED_MAX, NODES_MAX, OP_BYTES_MAX, WAITING_BYTES_MAX};
use super::node::Cursor;
use super::{Desk, DeskConfig, Order, Saying};
use crate::rendezvous::common::{Change, ClusterId, LeaseOp, Why};
use crate::rendezvous::door::{Source, member};
use crate::rendezvous::judge::JudgeConfig;
use crate::rendezvous::state::{Op, Outcome, Refused, State, encode};
use crate::rendezvous::words::{Everything, Known, Pong, Report, ToNode, ToServer, reign, term_in};
use crate::{Member, MemberId, ViewId};

const OPERATIONS_MAX: usize = 300;
const NODES: u8 = 6;
const TERM: u64 = 7;
const CLUSTER: ClusterId = ClusterId(7);
const PING: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_millis(300);
/// How often time may stand still for a desk that wants to act.
const TURNS_MAX: usize = 16;

/// How far a node was told what changed.
#[derive(Debug, Default)]
struct Fed {
    /// Up to which change; `None`: it was not welcomed, or is being told everything.
    at: Option<u64>,
    welcomed: bool,
    parts: Vec<u8>,
    next_part: u32,
}

struct Run<'s, 'a> {
    source: &'s mut Source<'a>,
    now: Instant,
    state: State,
    index: u64,
    desk: Desk,
    leased: bool,
    proposed: Option<Bytes>,
    fed: BTreeMap<MemberId, Fed>,
    blocked: Vec<MemberId>,
    reigns: BTreeMap<MemberId, u64>,
    orders: u64,
}

pub(in crate::rendezvous) fn leader(now: Instant, source: &mut Source<'_>) {
    let eviction = Duration::from_secs(5);
    let Ok(judge) = JudgeConfig::new(PING, eviction, PING, PING * 2) else { return };
    let config = DeskConfig { judge, settle: PING * 2, gather: PING * 3 };
    let mut state = State::default();
    let mut index = 0;
    let before = source.u8();
    if before & 1 == 1 {
        let join = |n| Op::Join { member: member(u128::from(n)), keep: false };
        let ops: Vec<Op> = (1..=before % 4).map(join).collect();
        for ops in [vec![Op::Found { cluster: CLUSTER }], ops] {
            index += 1;
            state.apply(index, &encode(&ops));
        }
    }
    let desk = Desk::new(config, TERM, CLUSTER, before.into(), now, now + LEASE, &state);
    let mut run = Run {
        source,
        now,
        state,
        index,
        desk,
        leased: true,
        proposed: None,
        fed: BTreeMap::new(),
        blocked: Vec::new(),
        reigns: BTreeMap::new(),
        orders: 0,
    };
    run.settle();
    for _ in 0..OPERATIONS_MAX {
        if run.source.is_empty() {
            break;
        }
        run.operate();
        run.settle();
        run.check();
    }
}

impl Run<'_, '_> {
    fn operate(&mut self) {
        self.renew();
        match self.source.u8() {
            0..=0x6f => self.say(),
            0x70..=0x77 => {
                let (from, term) = (self.node(), self.source.near(TERM));
                let pong = Pong { term, number: self.source.number() };
                self.desk.handle_pong(self.now, from, pong);
            }
            0x78..=0x9f => self.decide(),
            0xa0..=0xa3 => self.lose(),
            0xa4..=0xa7 => self.other_command(),
            0xa8..=0xaf => {
                let gone = self.node();
                self.desk.handle_gone(gone);
                self.fed.remove(&gone);
                self.blocked.retain(|id| *id != gone);
            }
            0xb0..=0xb3 => {
                if let Some(id) = self.blocked.pop() {
                    self.desk.handle_room(id);
                }
            }
            0xb4..=0xbb => {
                self.orders += 1;
                let order = if self.source.bit() { Order::Recover } else { Order::Evict(self.node()) };
                self.desk.handle_order(self.now, &self.state, self.orders, order);
            }
            0xbc..=0xbf => self.leased = self.source.u8() & 3 != 0,
            _ => {
                let how = self.source.u8();
                self.now = match (how, self.desk.poll_timeout()) {
                    (0..=0x9f, Some(at)) => self.now.max(at),
                    _ => self.now + Duration::from_millis(u64::from(how) * 10),
                };
            }
        }
    }

    fn renew(&mut self) {
        self.desk.handle_lease(self.now, self.leased.then(|| self.now + LEASE));
    }

    fn node(&mut self) -> MemberId {
        member(u128::from(self.source.u8() % NODES) + 1).id
    }

    // ---- what nodes say ----

    fn say(&mut self) {
        let n = u128::from(self.source.u8() % NODES) + 1;
        let from = member(n).id;
        let word = self.word(n);
        if let Err(word) = self.desk.handle_message(self.now, &self.state, from, word) {
            drop(word);
            self.check();
        }
    }

    fn word(&mut self, n: u128) -> ToServer {
        let id = member(n).id;
        match self.source.u8() {
            0..=0x7f => self.hello(n),
            0x80..=0xaf => {
                let from = self.source.near(self.state.changes_of(id).unwrap_or_default());
                let to = self.source.near(from.saturating_add(1));
                let (add, remove) = (self.source.some(3, Source::route), self.source.some(2, Source::route));
                ToServer::Routes { from, to, add, remove }
            }
            0xb0..=0xb7 => {
                let what = if self.source.bit() { Report::Lost } else { Report::Heard };
                ToServer::Report { of: self.node(), what }
            }
            0xb8..=0xc7 => ToServer::Probed { member: self.node(), answered: self.source.bit() },
            0xc8..=0xdf => {
                let (how, name) = (self.source.u8(), "a".repeat(usize::from(self.source.u8() % 4)));
                let op = match how & 3 {
                    0 | 1 => LeaseOp::Acquire { name, wait: how & 4 == 0 },
                    _ => LeaseOp::Release { name },
                };
                ToServer::Lease { number: self.source.number(), op }
            }
            0xe0..=0xe7 => ToServer::Leave,
            _ => {
                let most = usize::from(self.source.u8());
                let bytes = self.source.bytes(most);
                postcard::from_bytes(bytes).unwrap_or(ToServer::Leave)
            }
        }
    }

    fn hello(&mut self, n: u128) -> ToServer {
        let how = self.source.u8();
        let id = member(n).id;
        let mut who = self.state.member(id).cloned().unwrap_or_else(|| member(n));
        if how & 1 == 1 {
            who.joined = Some(self.source.view(self.state.view_id())).filter(|_| how & 2 == 0);
        }
        if how & 0x1c == 0x1c {
            // Another run of the process of another one.
            who.endpoints = member(u128::from(self.source.u8() % NODES) + 1).endpoints;
        }
        let who = if how >= 0xf8 { Member { id: member(77).id, ..who } } else { who };
        let fed = self.fed.get(&id).and_then(|fed| fed.at);
        let cluster = match self.source.u8() {
            0..=0x9f => Some(CLUSTER),
            0xa0..=0xdf => None,
            0xe0.. => Some(ClusterId(8)),
        };
        // Who knows a later view stops everything: seldom.
        let (view, ours) = (self.source.view(self.state.view_id()), self.state.view_id());
        let view = if self.source.u8() < 0xf4 { view.min(ours) } else { view };
        let known = Known {
            cluster,
            view: Some(view).filter(|_| how & 0x20 == 0),
            index: fed.unwrap_or_else(|| self.source.near(self.state.index())),
            term: self.source.near(self.reigns.get(&id).copied().unwrap_or(TERM)),
        };
        ToServer::Hello { member: who, known, changes: self.source.number() }
    }

    // ---- the log ----

    fn apply(&mut self, command: &[u8]) -> Vec<Outcome> {
        self.index += 1;
        let outcomes = self.state.apply(self.index, command);
        let unreadable = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refused::Unreadable(_)));
        assert!(!outcomes.iter().any(unreadable), "{outcomes:?}");
        outcomes
    }

    fn decide(&mut self) {
        if let Some(command) = self.proposed.take() {
            let outcomes = self.apply(&command);
            self.desk.handle_decided(self.now, &self.state, Some(outcomes));
        }
    }

    /// Nobody knows what became of it; it may be decided all the same.
    fn lose(&mut self) {
        if let Some(command) = self.proposed.take() {
            if self.source.bit() {
                self.apply(&command);
            }
            self.desk.handle_decided(self.now, &self.state, None);
        }
    }

    /// What a leader of before had proposed.
    fn other_command(&mut self) {
        let op = match self.source.u8() & 3 {
            0 => Op::Leave { member: self.node(), why: Why::Silent },
            1 => Op::Recover { above: 0 },
            2 => Op::Suspend { seen: self.source.view(self.state.view_id()) },
            _ => Op::Join { member: member(u128::from(self.source.u8() % NODES) + 1), keep: false },
        };
        self.apply(&encode(&[op]));
        self.desk.handle_applied(self.now, &self.state);
    }

    // ---- what the desk does ----

    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.renew();
            self.desk.handle_applied(self.now, &self.state);
            self.desk.handle_timeout(self.now, &self.state);
            if let Some(command) = self.desk.poll_proposal(self.now) {
                assert!(self.proposed.is_none(), "one at a time");
                assert!(command.len() <= COMMAND_BYTES + OP_BYTES_MAX, "{} bytes", command.len());
                self.proposed = Some(command);
            }
            let _ping = self.desk.poll_ping(self.now);
            while let Some(saying) = self.desk.poll_send(self.now, &self.state) {
                self.told(&saying);
            }
            while let Some((number, _)) = self.desk.poll_answer() {
                assert!(number <= self.orders);
            }
            if let Some(higher) = self.desk.poll_higher() {
                assert!(higher > TERM);
            }
            if self.desk.poll_timeout().is_none_or(|at| at > self.now) || !self.leased {
                return;
            }
        }
        panic!("it turns on the spot");
    }

    fn told(&mut self, Saying { to, what }: &Saying) {
        assert!(self.leased || matches!(what, ToNode::Later { .. }), "outside its lease: {what:?}");
        assert!(!to.is_empty());
        let said = what.reign();
        assert_eq!(term_in(said), TERM);
        for one in to {
            // "Later" goes before all else, and nobody looks at its reign.
            let before = self.reigns.entry(*one).or_default();
            assert!(said >= *before || matches!(what, ToNode::Later { .. }), "a reign of before: {what:?}");
            if !matches!(what, ToNode::Later { .. }) {
                *before = said;
            }
            assert!(!self.blocked.contains(one) || matches!(what, ToNode::Later { .. }), "it has no room");
            self.take(*one, what);
            if self.source.u8() >= 0xf8 && !self.blocked.contains(one) {
                self.desk.handle_blocked(*one);
                self.blocked.push(*one);
            }
        }
    }

    /// What a node makes of it.
    fn take(&mut self, one: MemberId, what: &ToNode) {
        let fed = self.fed.entry(one).or_default();
        match what {
            ToNode::Welcome { member, .. } => {
                assert_eq!(member.id, one);
                // Whoever is told everything begins with that.
                let cursor = self.desk.nodes.get(&one).and_then(|node| Some(node.feed.as_ref()?.cursor));
                let at = if let Some(Cursor::At(at)) = cursor { Some(at) } else { None };
                assert!(at.is_none_or(|at| at <= self.state.index()), "a place that is not yet");
                *fed = Fed { at, welcomed: true, ..Fed::default() };
            }
            ToNode::Everything { part, parts, piece, .. } => {
                assert!(fed.welcomed && part < parts, "everything to one who is not welcome");
                if *part == 0 {
                    (fed.next_part, fed.at) = (0, None);
                    fed.parts.clear();
                }
                assert_eq!(*part, fed.next_part, "parts come in order");
                fed.next_part += 1;
                fed.parts.extend_from_slice(piece);
                if part + 1 == *parts {
                    let all = postcard::take_from_bytes::<Everything>(&fed.parts);
                    let Ok((all, [])) = all else { panic!("everything that cannot be read") };
                    assert!(all.index <= self.index, "what is not yet");
                    fed.at = Some(all.index);
                }
            }
            ToNode::Change { change, .. } => {
                assert!(fed.welcomed, "a change to one who is not welcome");
                let Ok((change, [])) = postcard::take_from_bytes::<Change>(change) else {
                    panic!("a change that cannot be read");
                };
                assert_eq!(Some(change.after), fed.at, "a gap");
                fed.at = Some(change.index);
            }
            ToNode::Evicted { .. } | ToNode::Farewell { .. } | ToNode::Refused { .. } => {
                *fed = Fed::default()
            }
            ToNode::NotLeader { .. }
            | ToNode::Later { .. }
            | ToNode::Registered { .. }
            | ToNode::Health { .. }
            | ToNode::Probe { .. }
            | ToNode::Lease { .. } => {}
        }
    }

    fn check(&self) {
        let desk = &self.desk;
        assert!(desk.nodes.len() <= NODES_MAX && desk.later.len() <= NODES_MAX);
        assert!(desk.commit.bytes() <= WAITING_BYTES_MAX + 2 * OP_BYTES_MAX);
        for node in desk.nodes.values() {
            // Beside what it asked: that it is welcome, that it is one no more, a probe.
            assert!(node.asked + node.words.len() <= 2 * NODE_ASKED_MAX, "{node:?}");
        }
        let members = self.state.members().len();
        assert!(desk.heard.len() <= members && desk.members.len() == members);
        assert!(desk.leaving.len() <= members + usize::from(NODES), "{:?}", desk.leaving);
        assert!(desk.undecided.iter().all(|id| desk.nodes.get(id).is_some_and(|node| node.hello.is_some())));
        assert!(desk.probes.len() <= members * members);
        assert!(self.state.view_id() < ViewId { generation: u64::MAX, number: 0 });
    }
}

const _: () = assert!(term_in(reign(1, TERM)) == TERM);
