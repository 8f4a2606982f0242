//! A door for the fuzzer: cores that talk to each other in their real bytes, and strangers who say anything.
//!
//! What holds among honest nodes, whatever is lost and whoever comes and goes: each request ends once, by an answer of its own
//! flow or a failure; what is not idempotent is handled once at most; when all is over nothing is left. Of strangers: nothing
//! that they say panics, or stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::envelope::{ActorRef, Body, Control, Distribution, FlowHead, ReplyHead, decode, encode};
use super::super::key::MessageKey;
use super::{Core, CoreConfig, Order, Output, Product, Scope, Work};
use crate::{Cause, Kind, Lost, MemberId};

const OPERATIONS_MAX: usize = 400;
const NODES: u64 = 3;
const KEYS: [&str; 4] = ["a", "b", "c", "answer"];

/// Names a message among all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob(Bytes);

impl Body for Blob {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Blob {
    fn of(tag: u64) -> Self {
        Self(Bytes::copy_from_slice(&tag.to_le_bytes()))
    }

    fn tag(&self) -> Option<u64> {
        self.0.as_ref().try_get_u64_le().ok()
    }
}

/// As it travels.
#[derive(Clone, Debug)]
enum Packet {
    Flow(u64, Bytes),
    Reply(Bytes),
    Control(Bytes),
}

/// What is known of a message.
#[derive(Debug)]
struct Message {
    /// The request that it belongs to.
    token: Option<u32>,
    twice: bool,
    handled: BTreeMap<ActorRef, u32>,
    to_all: bool,
}

struct Side {
    core: Core<Blob, u32>,
    hosts: Vec<u32>,
    busy: Vec<(u32, Work<Blob>)>,
    promises: Vec<u64>,
}

struct Run {
    source: Bytes,
    now: Instant,
    sides: BTreeMap<MemberId, Side>,
    ways: BTreeMap<(MemberId, MemberId), VecDeque<Packet>>,
    messages: BTreeMap<u64, Message>,
    open: BTreeSet<u32>,
    next: u64,
    /// Strangers speak as well: then only what must hold of strangers does.
    hostile: bool,
}

fn member(number: u64) -> MemberId {
    MemberId::from_parts(number, 7)
}

fn key(at: u8) -> MessageKey {
    let name = KEYS.get(usize::from(at) % KEYS.len()).copied().unwrap_or("a");
    MessageKey::of_kind(Kind::new(name, 1))
}

/// Any operations on cores, and any bytes between them.
pub(crate) fn router(now: Instant, input: &[u8]) {
    let mut source = Bytes::copy_from_slice(input);
    let mode = source.try_get_u8().unwrap_or(0);
    let config = CoreConfig {
        grace: Duration::from_millis(50),
        hops_max: 6,
        depth_max: 5,
        queued_bytes_max: if mode & 2 == 0 { 64 } else { 1 << 20 },
        waiting_max: if mode & 4 == 0 { 8 } else { 1024 },
        routes_max: 16,
        ..CoreConfig::default()
    };
    let side = |at| Side {
        core: Core::new(member(at), config.clone()),
        hosts: Vec::new(),
        busy: Vec::new(),
        promises: Vec::new(),
    };
    let mut run = Run {
        source,
        now,
        sides: (1..=NODES).map(|at| (member(at), side(at))).collect(),
        ways: BTreeMap::new(),
        messages: BTreeMap::new(),
        open: BTreeSet::new(),
        next: 1,
        hostile: mode & 1 == 1,
    };
    run.all_up();
    for at in 0..OPERATIONS_MAX {
        let Ok(operation) = run.source.try_get_u8() else { break };
        run.operate(operation);
        if at % 16 == 0 {
            run.check();
        }
    }
    run.finish();
}

impl Run {
    fn u8(&mut self) -> u8 {
        self.source.try_get_u8().unwrap_or(0)
    }

    fn node(&mut self) -> MemberId {
        member(u64::from(self.u8()) % NODES + 1)
    }

    /// One of them, or somebody whom nobody knows.
    fn anybody(&mut self) -> MemberId {
        member(u64::from(self.u8()) % (NODES + 2) + 1)
    }

    fn act<R>(&mut self, at: MemberId, act: impl FnOnce(&mut Core<Blob, u32>, Instant) -> R) -> Option<R> {
        let now = self.now;
        let result = act(&mut self.sides.get_mut(&at)?.core, now);
        self.perform(at);
        Some(result)
    }

    fn all_up(&mut self) {
        let all: Vec<MemberId> = self.sides.keys().copied().collect();
        for at in &all {
            for other in all.iter().filter(|other| *other != at) {
                self.act(*at, |core, now| core.handle_node_up(now, *other));
            }
        }
    }

    fn operate(&mut self, operation: u8) {
        let at = self.node();
        match operation & 15 {
            0..=3 => {
                let from = self.node();
                self.deliver(from, at);
            }
            4 | 5 => self.begin(at, operation & 1 == 0),
            6 => self.change_hosts(at),
            7..=9 => self.next_work(at),
            10 | 11 => self.handled(at),
            12 => {
                let units = [1, 20, 300, 4_000];
                let unit = units.get(usize::from(operation >> 4) % units.len()).copied().unwrap_or(1);
                let time = u64::from(self.u8()) * unit;
                self.pass(Duration::from_millis(time));
            }
            13 => {
                let other = self.node();
                if operation & 16 == 0 {
                    self.act(at, |core, now| core.handle_node_down(now, other));
                } else {
                    self.act(at, |core, now| core.handle_node_up(now, other));
                }
            }
            14 if self.hostile => self.stranger(at),
            14 => self.lose(at),
            _ => self.give_up(at),
        }
    }

    // ---- flows ----

    fn begin(&mut self, at: MemberId, asks: bool) {
        let (what, ways) = (self.u8(), self.u8());
        let (tag, token) = (self.next, self.next as u32);
        self.next += 1;
        let to = match ways & 7 {
            0 if !asks => Distribution::Broadcast,
            1 => Distribution::Node(self.anybody()),
            2 => Distribution::Actor(ActorRef { node: self.anybody(), host: u32::from(what >> 5) }),
            _ => Distribution::Unicast,
        };
        let order = Order {
            key: key(what).id(),
            body: Blob::of(tag),
            to,
            time_to_live: Duration::from_millis(u64::from(ways) * 20),
            idempotent: what & 16 != 0,
            affinity: (ways & 8 != 0).then(|| u64::from(ways >> 4)),
            trace: None,
            trail: ways & 16 != 0,
            watch: (what & 8 != 0).then_some(tag),
            tell: what & 8 != 0,
        };
        let message = Message {
            token: asks.then_some(token),
            twice: order.idempotent,
            handled: BTreeMap::new(),
            to_all: to == Distribution::Broadcast,
        };
        self.messages.insert(tag, message);
        if !asks {
            self.act(at, |core, now| core.submit(now, order).is_ok());
            return;
        }
        let keys = vec![key(3).id()];
        // Before it begins: it may end at once.
        self.open.insert(token);
        let asked =
            self.act(at, |core, now| core.request(now, 1, keys.into_iter().collect(), token, order).ok());
        match (asked.flatten(), self.sides.get_mut(&at)) {
            (Some(promise), Some(side)) => side.promises.push(promise),
            _ => drop(self.open.remove(&token)),
        }
    }

    fn change_hosts(&mut self, at: MemberId) {
        let what = self.u8();
        let hosts = self.sides.get(&at).map_or(&[][..], |side| &side.hosts);
        let host = hosts.get(usize::from(what >> 4) % hosts.len().max(1)).copied();
        match (what & 3, host) {
            (0, Some(host)) => {
                if let Some(side) = self.sides.get_mut(&at) {
                    side.hosts.retain(|other| *other != host);
                }
                self.act(at, |core, now| core.remove_host(now, host));
            }
            (1, Some(host)) => {
                let id = key(what >> 2).id();
                self.act(at, |core, now| core.remove_routes(now, host, &[id]));
            }
            _ => {
                let scope = if what & 128 == 0 { Scope::Network } else { Scope::Local };
                let keys = [(key(what >> 2), scope), (key(what >> 4), Scope::Network)];
                let added = self.act(at, |core, now| core.add_host(now, &keys).ok()).flatten();
                self.sides.get_mut(&at).into_iter().for_each(|side| side.hosts.extend(added));
            }
        }
    }

    fn next_work(&mut self, at: MemberId) {
        let Some(side) = self.sides.get(&at) else { return };
        let hosts = side.hosts.clone();
        for host in hosts {
            let Some(work) = self.act(at, |core, now| core.next_work(now, host)).flatten() else { continue };
            assert!(work.expires > self.now, "what is late is handled");
            if let Some(message) = work.body.tag().and_then(|tag| self.messages.get_mut(&tag)) {
                let times = message.handled.entry(ActorRef { node: at, host }).or_default();
                *times += 1;
                let all: u32 = if message.to_all { *times } else { message.handled.values().sum() };
                assert!(all == 1 || message.twice || self.hostile, "handled {all} times: {message:?}");
            }
            if let Some(side) = self.sides.get_mut(&at) {
                side.busy.push((host, work));
            }
        }
    }

    fn handled(&mut self, at: MemberId) {
        let what = self.u8();
        let Some(side) = self.sides.get_mut(&at).filter(|side| !side.busy.is_empty()) else { return };
        let (_, work) = side.busy.swap_remove(usize::from(what >> 2) % side.busy.len());
        let outcome = if what & 3 == 3 {
            Err("no luck".to_owned())
        } else {
            Ok((0..what & 3).map(|_| self.product(&work)).collect())
        };
        self.act(at, |core, now| core.handle_handled(now, work.job, &work.envelope, work.expires, outcome));
    }

    fn product(&mut self, of: &Work<Blob>) -> Product<Blob> {
        let what = self.u8();
        let tag = self.next;
        self.next += 1;
        let token = of.body.tag().and_then(|tag| self.messages.get(&tag)).and_then(|message| message.token);
        let to_all = what & 0xf0 == 0xf0;
        let message = Message { token, twice: what & 8 != 0, handled: BTreeMap::new(), to_all };
        self.messages.insert(tag, message);
        let to = if to_all { Distribution::Broadcast } else { Distribution::Unicast };
        let key = key(what).id();
        Product { key, body: Blob::of(tag), to, affinity: None, idempotent: what & 8 != 0 }
    }

    /// Nobody waits for an answer any more, or nobody of a hub.
    fn give_up(&mut self, at: MemberId) {
        let what = self.u8();
        let Some(side) = self.sides.get_mut(&at) else { return };
        let given_up = if what == 0 {
            side.core.close_promises(Some(1))
        } else {
            let promise = side.promises.get(usize::from(what) % side.promises.len().max(1));
            promise.and_then(|promise| side.core.drop_promise(*promise)).into_iter().collect()
        };
        for token in given_up {
            assert!(self.open.remove(&token), "{token} had ended");
        }
    }

    // ---- between nodes ----

    fn perform(&mut self, at: MemberId) {
        loop {
            let mut outputs = VecDeque::new();
            let Some(side) = self.sides.get_mut(&at) else { return };
            side.core.swap_outputs(&mut outputs);
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.carry(at, output));
        }
    }

    fn carry(&mut self, at: MemberId, output: Output<Blob, u32>) {
        let now = self.now;
        let Some(Side { core, .. }) = self.sides.get_mut(&at) else { return };
        let (to, packet) = match output {
            Output::Send { to, head, body } => {
                let bytes = encode(&head, &body.0).unwrap_or_default();
                let read = decode::<FlowHead>(&bytes).ok();
                assert_eq!(read, Some((head, body.0)), "it is read as it was written");
                let number = read.map_or(0, |(head, _)| head.number);
                (to, Packet::Flow(number, bytes))
            }
            Output::Reply { to, head, body, job } => {
                let known = to != at && (1..=NODES).any(|one| member(one) == to);
                if !known {
                    return core.handle_unknown_caller(now, to, head, body, job);
                }
                job.into_iter().for_each(|job| core.placed(now, job));
                let body = body.map(|body| body.0).unwrap_or_default();
                (to, Packet::Reply(encode(&head, &body).unwrap_or_default()))
            }
            Output::Control { to, control } => (to, said(&control)),
            Output::News { to } => match core.take_news(to) {
                Some(news) => (to, said(&news)),
                None => return,
            },
            Output::Resolve { token, answer } => {
                assert!(self.open.remove(&token), "{token} ends twice");
                if let (Ok((_, body)), false) = (&answer.outcome, self.hostile) {
                    let of = body.tag().and_then(|tag| self.messages.get(&tag));
                    assert_eq!(of.and_then(|of| of.token), Some(token), "an answer of another flow");
                }
                return;
            }
            Output::Settle { node } => return self.settle(at, node),
            Output::Wake(_) | Output::Told { .. } | Output::Announce | Output::Dead { .. } => return,
        };
        if self.sides.contains_key(&to) {
            self.ways.entry((at, to)).or_default().push_back(packet);
        }
    }

    /// What a node that is gone had: what had not left certainly did not arrive.
    fn settle(&mut self, at: MemberId, node: MemberId) {
        let sent = self.sides.get(&at).map(|side| side.core.sent_to(node)).unwrap_or_default();
        let way = self.ways.entry((at, node)).or_default();
        let waiting: BTreeSet<u64> = way.iter().filter_map(Packet::number).collect();
        way.retain(|packet| packet.number().is_none_or(|number| !sent.contains(&number)));
        for number in sent {
            let gone = Cause::Departed;
            let lost =
                if waiting.contains(&number) { Lost::NotSent(gone) } else { Lost::Indeterminate(gone) };
            let now = self.now;
            self.sides
                .get_mut(&at)
                .into_iter()
                .for_each(|side| side.core.handle_lost(now, node, number, lost));
        }
    }

    fn deliver(&mut self, from: MemberId, to: MemberId) {
        if let Some(packet) = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            self.give(from, to, &packet);
        }
    }

    fn give(&mut self, from: MemberId, to: MemberId, packet: &Packet) {
        let sound = match packet {
            Packet::Flow(_, bytes) => decode::<FlowHead>(bytes).map(|(head, body)| {
                self.act(to, |core, now| core.handle_flow(now, from, head, Blob(body)));
            }),
            Packet::Reply(bytes) => decode::<ReplyHead>(bytes).map(|(head, body)| {
                self.act(to, |core, _| core.handle_reply(head, Some(Blob(body))));
            }),
            Packet::Control(bytes) => decode::<Control>(bytes).map(|(control, _)| {
                self.act(to, |core, now| core.handle_control(now, from, control));
            }),
        };
        assert!(sound.is_ok() || self.hostile, "an honest word cannot be read");
    }

    /// The session of two is lost, and all on its way with it; each is told.
    fn lose(&mut self, at: MemberId) {
        let other = self.node();
        if at == other {
            return;
        }
        for (one, with) in [(at, other), (other, at)] {
            self.settle(one, with);
            self.perform(one);
            self.ways.remove(&(one, with));
        }
        for (one, with) in [(at, other), (other, at)] {
            self.act(one, |core, _| core.handle_session_lost(with));
        }
    }

    /// Any bytes, or what is on its way with some bytes changed.
    fn stranger(&mut self, at: MemberId) {
        let (from, what) = (self.anybody(), self.u8());
        let known = self.ways.get(&(from, at)).and_then(VecDeque::front).cloned();
        let mut bytes = match (what & 3, known) {
            (0, _) | (_, None) => BytesMut::new(),
            (_, Some(Packet::Flow(_, bytes) | Packet::Reply(bytes) | Packet::Control(bytes))) => bytes.into(),
        };
        if bytes.is_empty() {
            let length = usize::from(self.u8()).min(self.source.len());
            bytes.put(self.source.split_to(length));
        }
        for _ in 0..what >> 6 {
            let (place, byte) = (usize::from(self.u8()), self.u8());
            let length = bytes.len().max(1);
            bytes.get_mut(place % length).into_iter().for_each(|place| *place = byte);
        }
        let bytes = bytes.freeze();
        let packet = match what >> 2 & 3 {
            0 | 1 => Packet::Flow(0, bytes),
            2 => Packet::Reply(bytes),
            _ => Packet::Control(bytes),
        };
        self.give(from, at, &packet);
    }

    // ---- time and the end ----

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // A step for each time that something wants to be called, as the timer does.
        for _ in 0..1_000 {
            let next = self.sides.values().filter_map(|side| side.core.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let all: Vec<MemberId> = self.sides.keys().copied().collect();
            for at in all {
                self.act(at, |core, now| core.handle_timeout(now));
            }
        }
        self.now = end;
    }

    fn check(&self) {
        for Side { core, .. } in self.sides.values() {
            assert!(core.outputs.is_empty(), "something is not done");
            let queued = core.hosts.values().flat_map(|host| &host.queue);
            let elsewhere = queued.filter_map(|work| match core.jobs.get(&work.job)?.source {
                super::Source::Elsewhere { bytes, .. } => Some(bytes),
                super::Source::Here { .. } => None,
            });
            assert_eq!(elsewhere.sum::<usize>(), core.queued_bytes, "bytes of others that wait");
            assert!(core.table.own().count() <= core.config.routes_max);
            let (mut told, mut after) = (0, None);
            loop {
                let page = core.table.page(after);
                told += page.internal.len() + page.external.len();
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(told, core.table.own().count() + core.table.others().count());
        }
    }

    /// All that is on its way comes, all work ends, all nodes go, all time passes.
    fn finish(&mut self) {
        for _ in 0..100 {
            let ways: Vec<_> =
                self.ways.iter().filter(|(_, way)| !way.is_empty()).map(|(way, _)| *way).collect();
            for (from, to) in &ways {
                self.deliver(*from, *to);
            }
            for at in 1..=NODES {
                self.next_work(member(at));
                self.handled(member(at));
            }
            if ways.is_empty() {
                self.pass(Duration::from_millis(20));
            }
        }
        for at in 1..=NODES {
            for other in 1..=NODES + 2 {
                self.act(member(at), |core, now| core.handle_node_down(now, member(other)));
            }
        }
        self.pass(Duration::from_secs(60));
        for at in 1..=NODES {
            while self.sides.get(&member(at)).is_some_and(|side| !side.busy.is_empty()) {
                self.handled(member(at));
                self.next_work(member(at));
            }
            for host in self.sides.get(&member(at)).map(|side| side.hosts.clone()).unwrap_or_default() {
                self.act(member(at), |core, now| core.remove_host(now, host));
            }
        }
        // Answers wait for callers as long as strangers say.
        self.pass(Duration::from_millis(u64::from(u32::MAX) + 1_000));
        self.check();
        assert!(self.open.is_empty(), "requests that never end: {:?}", self.open);
        for Side { core, .. } in self.sides.values() {
            assert_eq!((core.open(), core.lanes.under_way(), core.queued_bytes), ((0, 0, 0), 0, 0));
            assert!(core.nodes.is_empty() && core.held.is_empty() && core.owing.is_empty());
        }
    }
}

impl Packet {
    const fn number(&self) -> Option<u64> {
        match self {
            Self::Flow(number, _) => Some(*number),
            Self::Reply(_) | Self::Control(_) => None,
        }
    }
}

fn said(control: &Control) -> Packet {
    let bytes = encode(control, &[]).unwrap_or_default();
    let read = decode::<Control>(&bytes).ok();
    assert_eq!(read.map(|(read, _)| read).as_ref(), Some(control), "it is read as it was written");
    Packet::Control(bytes)
}
