//! Cores that talk to each other, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::super::envelope::{ActorRef, Body, Control, Distribution, FlowHead, ReplyHead};
use super::super::super::key::{KeyId, MessageKey};
use super::super::{Answer, Core, CoreConfig, Order, Output, Product, Scope, Told, Work};
use crate::{Cause, Kind, Lost, MemberId};

/// A body: a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blob(pub(super) u64);

impl Body for Blob {
    fn bytes(&self) -> usize {
        8
    }
}

pub(super) fn member(number: u64) -> MemberId {
    MemberId::from_parts(number, 7)
}

pub(super) fn key(name: &'static str) -> MessageKey {
    MessageKey::of_kind(Kind::new(name, 1))
}

pub(super) fn order(key: &MessageKey, body: u64) -> Order<Blob> {
    Order {
        key: key.id(),
        body: Blob(body),
        to: Distribution::Unicast,
        time_to_live: Duration::from_secs(10),
        idempotent: false,
        affinity: None,
        trace: None,
        trail: false,
        watch: None,
        tell: false,
    }
}

pub(super) fn product(key: &MessageKey, body: u64) -> Product<Blob> {
    Product { key: key.id(), body: Blob(body), to: Distribution::Unicast, affinity: None, idempotent: false }
}

/// What is on its way between two nodes.
#[derive(Debug)]
pub(super) enum Packet {
    Flow(FlowHead, Blob),
    Reply(ReplyHead, Option<Blob>),
    Control(Control),
}

/// One node, and what it said.
pub(super) struct Side {
    pub(super) core: Core<Blob, u32>,
    /// Promises that ended, by token.
    pub(super) answers: BTreeMap<u32, Answer<Blob>>,
    pub(super) told: Vec<(u64, Told)>,
    pub(super) dead: Vec<(KeyId, Blob)>,
    pub(super) wakes: Vec<u32>,
}

/// See the module's text.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) sides: BTreeMap<MemberId, Side>,
    /// In order for each pair.
    pub(super) ways: BTreeMap<(MemberId, MemberId), VecDeque<Packet>>,
    /// What was sent, of each kind.
    pub(super) sent: BTreeMap<&'static str, usize>,
}

impl Net {
    /// So many nodes that know each other.
    pub(super) fn of(count: u64) -> Self {
        Self::with(count, |_| ())
    }

    pub(super) fn with(count: u64, change: impl Fn(&mut CoreConfig)) -> Self {
        let mut config = CoreConfig::default();
        change(&mut config);
        let side = |at| Side {
            core: Core::new(member(at), config.clone()),
            answers: BTreeMap::new(),
            told: Vec::new(),
            dead: Vec::new(),
            wakes: Vec::new(),
        };
        let sides = (1..=count).map(|at| (member(at), side(at))).collect();
        let mut net = Self { now: Instant::now(), sides, ways: BTreeMap::new(), sent: BTreeMap::new() };
        for at in 1..=count {
            for other in (1..=count).filter(|other| *other != at) {
                net.act(at, |core, now| core.handle_node_up(now, member(other)));
            }
        }
        net.settle();
        net
    }

    pub(super) fn side(&mut self, at: u64) -> &mut Side {
        self.sides.get_mut(&member(at)).unwrap()
    }

    /// Lets something happen at a node, and takes what it wants done.
    pub(super) fn act<R>(&mut self, at: u64, happen: impl FnOnce(&mut Core<Blob, u32>, Instant) -> R) -> R {
        let now = self.now;
        let result = happen(&mut self.side(at).core, now);
        self.perform(at);
        result
    }

    fn perform(&mut self, at: u64) {
        while let Some(output) = self.side(at).core.poll_output() {
            let mut send = |to, packet, what| {
                *self.sent.entry(what).or_default() += 1;
                self.ways.entry((member(at), to)).or_default().push_back(packet);
            };
            match output {
                Output::Send { to, head, body } => send(to, Packet::Flow(head, body), "flow"),
                Output::Control { to, control } => {
                    let what = match control {
                        Control::Discover(_) => "discover",
                        Control::Done(_) => "done",
                        Control::Accepted(_) => "accepted",
                        Control::Returned { .. } => "returned",
                        Control::Routes { .. } => "routes",
                    };
                    send(to, Packet::Control(control), what);
                }
                Output::Reply { to, head, body, job } => {
                    if self.sides.contains_key(&to) {
                        send(to, Packet::Reply(head, body), "reply");
                        if let Some(job) = job {
                            let now = self.now;
                            self.side(at).core.placed(now, job);
                        }
                    } else {
                        let now = self.now;
                        self.side(at).core.handle_unknown_caller(now, to, head, body, job);
                    }
                }
                Output::News { to } => {
                    if let Some(news) = self.side(at).core.take_news(to) {
                        *self.sent.entry("routes").or_default() += 1;
                        self.ways.entry((member(at), to)).or_default().push_back(Packet::Control(news));
                    }
                }
                Output::Announce => panic!("routers tell each other"),
                Output::Resolve { token, answer } => {
                    let before = self.side(at).answers.insert(token, answer);
                    assert!(before.is_none(), "promise {token} ended twice");
                }
                Output::Told { watch, told } => self.side(at).told.push((watch, told)),
                Output::Dead { envelope, body, .. } => self.side(at).dead.push((envelope.key, body)),
                Output::Wake(host) => self.side(at).wakes.push(host),
                Output::Settle { node } => {
                    for number in self.side(at).core.sent_to(node) {
                        let now = self.now;
                        let lost = Lost::Indeterminate(Cause::Departed);
                        self.side(at).core.handle_lost(now, node, number, lost);
                    }
                }
            }
        }
    }

    /// One packet of this pair arrives, if one is there.
    pub(super) fn deliver(&mut self, from: MemberId, to: MemberId) -> bool {
        let Some(packet) = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        let Some(at) = (1..=64).find(|at| member(*at) == to).filter(|_| self.sides.contains_key(&to)) else {
            return true;
        };
        self.act(at, |core, now| match packet {
            Packet::Flow(head, body) => assert!(core.handle_flow(now, from, head, body)),
            Packet::Reply(head, body) => core.handle_reply(head, body),
            Packet::Control(control) => core.handle_control(now, from, control),
        });
        true
    }

    /// Until nothing is on its way.
    pub(super) fn settle(&mut self) {
        while let Some((from, to)) = self.ways.iter().find(|(_, way)| !way.is_empty()).map(|(way, _)| *way) {
            self.deliver(from, to);
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let next = self.sides.values().filter_map(|side| side.core.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let all: Vec<u64> = (1..=64).filter(|at| self.sides.contains_key(&member(*at))).collect();
            all.into_iter().for_each(|at| self.act(at, |core, now| core.handle_timeout(now)));
            self.settle();
        }
        self.now = end;
    }

    /// A host that takes these.
    pub(super) fn host(&mut self, at: u64, keys: &[&MessageKey]) -> u32 {
        let keys: Vec<_> = keys.iter().map(|key| (MessageKey::clone(key), Scope::Network)).collect();
        let host = self.act(at, |core, now| core.add_host(now, &keys)).unwrap();
        self.settle();
        host
    }

    pub(super) fn work(&mut self, at: u64, host: u32) -> Option<Work<Blob>> {
        self.act(at, |core, now| core.next_work(now, host))
    }

    pub(super) fn handled(
        &mut self,
        at: u64,
        work: &Work<Blob>,
        outcome: Result<Vec<Product<Blob>>, String>,
    ) {
        self.act(at, |core, now| core.handle_handled(now, work.job, &work.envelope, work.expires, outcome));
    }

    pub(super) fn request(
        &mut self,
        at: u64,
        hub: u32,
        token: u32,
        keys: &[&MessageKey],
        order: Order<Blob>,
    ) -> u64 {
        let keys = keys.iter().map(|key| key.id()).collect();
        self.act(at, |core, now| core.request(now, hub, keys, token, order)).map_err(|_| "refused").unwrap()
    }

    pub(super) fn submit(&mut self, at: u64, order: Order<Blob>) {
        self.act(at, |core, now| core.submit(now, order)).unwrap();
    }

    pub(super) fn count(&self, what: &str) -> usize {
        self.sent.get(what).copied().unwrap_or(0)
    }
}

pub(super) fn actor(at: u64, host: u32) -> ActorRef {
    ActorRef { node: member(at), host }
}
