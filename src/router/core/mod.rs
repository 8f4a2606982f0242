//! What the router decides: who gets a message, when it waits, where an answer goes, how each flow ends. Sans-IO: messages,
//! nodes and time come in by `handle_*`, what is to be done comes out by [`Core::poll_output`].
//!
//! `B` is a body, `T` whoever waits for a promise.

mod arriving;
mod discovery;
mod ending;
mod flow;
mod lanes;
mod promises;
mod table;
#[cfg(test)]
mod tests;

pub use flow::RouterCounts;
pub(crate) use flow::{Answer, CoreConfig, Flow, Order, Output, Product, Told, Work};
pub(crate) use table::Refused;
pub use table::{Preference, Scope};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use discovery::Discovery;
use lanes::{LaneId, Lanes};
use promises::Promises;
use table::{Table, Wish};

use super::envelope::{
    ActorRef, Body, Callback, Control, Correlation, Distribution, Envelope, FlowHead, ReplyHead, Returned,
    RouteRecord,
};
use super::envelope::{Failure, TRAIL_MAX};
use super::key::{KeyId, MessageKey};
use crate::{MemberId, ViewId};

/// Providers that are tried for one message, one after the other.
const TRIES_MAX: u8 = 8;
/// When a node that had no room is tried again.
const BUSY: Duration = Duration::from_millis(20);
/// What is done is told after this, or at once when it is much: a quarter of a window.
const DONE_DELAY: Duration = Duration::from_millis(5);
const DONE_MANY: usize = lanes::WINDOW / 4;
/// How often what waits is looked through for what has no time left.
const SWEEP: Duration = Duration::from_millis(50);

/// A host here: what waits for it.
#[derive(Debug)]
struct Host<B> {
    queue: VecDeque<Work<B>>,
}

/// Whose work a message is, until all that came of it has its place.
#[derive(Debug)]
struct Job {
    source: Source,
    /// What came of it and has no place yet.
    open: usize,
    handled: bool,
}

#[derive(Debug)]
enum Source {
    /// It takes a place of a lane here. What it came of is not done before it is: if this node dies, all of it is lost
    /// together, and whoever sent the first of it must know.
    Here { lane: LaneId, watch: Option<u64>, parent: Option<u64>, doubt: Option<MemberId> },
    /// Another node waits for word of it.
    Elsewhere { from: MemberId, number: u64, bytes: usize },
}

/// What another node has of this one.
#[derive(Debug)]
struct Sent<B> {
    lane: LaneId,
    flow: Flow<B>,
}

/// Another node.
#[derive(Debug)]
struct Node<B> {
    /// It may be sent to.
    up: bool,
    news: News,
    sent: BTreeMap<u64, Sent<B>>,
    done: Vec<u64>,
    /// Of messages of it to several hosts here: how many are not done.
    shared: BTreeMap<u64, usize>,
}

/// What a node was not told yet of this one's routes: all of them, or what has changed. What is removed comes first.
#[derive(Debug, Default)]
struct News {
    all: bool,
    add: Vec<RouteRecord>,
    remove: Vec<(KeyId, u32)>,
}

impl News {
    const fn is_empty(&self) -> bool {
        !self.all && self.add.is_empty() && self.remove.is_empty()
    }
}

/// What a node said of its routes before it was known.
#[derive(Debug)]
struct Early {
    all: bool,
    add: Vec<RouteRecord>,
    remove: Vec<(KeyId, u32)>,
}

/// An answer for a caller that is not known yet.
#[derive(Debug)]
struct Held<B> {
    until: Instant,
    head: ReplyHead,
    body: Option<B>,
    job: Option<u64>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Core<B, T> {
    me: MemberId,
    /// Who this node was before, the last ones.
    was: VecDeque<MemberId>,
    joined: Option<ViewId>,
    config: CoreConfig,
    table: Table,
    lanes: Lanes<(Flow<B>, ActorRef)>,
    promises: Promises<T>,
    discovery: Discovery<Flow<B>>,
    hosts: BTreeMap<u32, Host<B>>,
    next_host: u32,
    jobs: HashMap<u64, Job, foldhash::fast::RandomState>,
    next_job: u64,
    next_flow: u64,
    /// Of messages to other nodes. None is used twice, though a node goes and comes again.
    next_number: u64,
    nodes: BTreeMap<MemberId, Node<B>>,
    /// The oldest first.
    early: VecDeque<(MemberId, Vec<Early>)>,
    /// Nodes with something in `done`.
    owing: BTreeSet<MemberId>,
    done_at: Option<Instant>,
    retries: VecDeque<(Instant, Flow<B>)>,
    /// By caller.
    held: BTreeMap<MemberId, Vec<Held<B>>>,
    sweep_at: Option<Instant>,
    /// Of bodies of other nodes that wait for hosts.
    queued_bytes: usize,
    counts: RouterCounts,
    outputs: VecDeque<Output<B, T>>,
}

impl<B: Body + Clone, T> Core<B, T> {
    pub(crate) fn new(me: MemberId, config: CoreConfig) -> Self {
        Self {
            me,
            was: VecDeque::new(),
            joined: None,
            table: Table::new(me, config.routes_max),
            config,
            lanes: Lanes::default(),
            promises: Promises::default(),
            discovery: Discovery::default(),
            hosts: BTreeMap::new(),
            next_host: 1,
            jobs: HashMap::default(),
            next_job: 1,
            next_flow: 1,
            next_number: 1,
            nodes: BTreeMap::new(),
            early: VecDeque::new(),
            owing: BTreeSet::new(),
            done_at: None,
            retries: VecDeque::new(),
            held: BTreeMap::new(),
            sweep_at: None,
            queued_bytes: 0,
            counts: RouterCounts::default(),
            outputs: VecDeque::new(),
        }
    }

    // ---- hosts and routes of this node ----

    /// A host of these keys: all are registered, or none.
    pub(crate) fn add_host(&mut self, now: Instant, keys: &[(MessageKey, Scope)]) -> Result<u32, Refused> {
        let host = self.next_host;
        self.table.register(host, keys)?;
        self.next_host += 1;
        self.hosts.insert(host, Host { queue: VecDeque::new() });
        self.announce_added(now, host, keys);
        Ok(host)
    }

    fn announce_added(&mut self, now: Instant, host: u32, keys: &[(MessageKey, Scope)]) {
        let shared = keys.iter().filter(|(_, scope)| *scope == Scope::Network);
        let add: Vec<_> = shared.map(|(key, _)| RouteRecord { key: key.clone(), host }).collect();
        if !add.is_empty() {
            self.announce(add, Vec::new());
        }
        for (key, _) in keys {
            self.found(now, key.id());
        }
    }

    /// Others are to hear of it: from this router, or from whoever tells them instead.
    fn announce(&mut self, add: Vec<RouteRecord>, remove: Vec<(KeyId, u32)>) {
        if !self.config.exchange {
            return self.outputs.push_back(Output::Announce { add, remove });
        }
        for to in self.nodes_up() {
            self.news(to, |news| {
                news.add.retain(|route| !remove.contains(&(route.key.id(), route.host)));
                news.add.extend_from_slice(&add);
                news.remove.extend_from_slice(&remove);
            });
        }
    }

    /// A host takes these no more; what waits for it goes elsewhere.
    pub(crate) fn remove_routes(&mut self, now: Instant, host: u32, ids: &[KeyId]) {
        let shared = |id: &&KeyId| self.table.unregister(host, **id) == Some(Scope::Network);
        let remove: Vec<_> = ids.iter().filter(shared).map(|id| (*id, host)).collect();
        if !remove.is_empty() {
            self.announce(Vec::new(), remove);
        }
        let me = ActorRef { node: self.me, host };
        // First those that wait for room at it: what it gives back makes room.
        let left: Vec<_> = self.lanes.sift(|(flow, to)| *to != me || !ids.contains(&flow.envelope.key));
        left.into_iter().for_each(|(flow, _)| self.again(now, flow, Some(me)));
        let Some(waiting) = self.hosts.get_mut(&host) else { return };
        let (go, stay) = waiting.queue.drain(..).partition(|work: &Work<B>| ids.contains(&work.envelope.key));
        waiting.queue = stay;
        let go: VecDeque<Work<B>> = go;
        go.into_iter().for_each(|work| self.give_back(now, work, host));
    }

    /// A host ends.
    pub(crate) fn remove_host(&mut self, now: Instant, host: u32) {
        let ids = self.table.keys_of(host);
        self.remove_routes(now, host, &ids);
        self.hosts.remove(&host);
    }

    /// What a host here did not begin.
    fn give_back(&mut self, now: Instant, work: Work<B>, host: u32) {
        let Work { job, envelope, body, expires } = work;
        let Some(Job { source, .. }) = self.jobs.remove(&job) else { return };
        match source {
            Source::Here { lane, watch, parent, doubt } => {
                let next = self.lanes.give_back(lane);
                let flow = Flow { envelope, body, expires, parent, watch, tries: 0, doubt };
                self.again(now, flow, Some(ActorRef { node: self.me, host }));
                next.into_iter().for_each(|(flow, to)| self.dispatch(now, flow, to));
            }
            Source::Elsewhere { from, number, bytes } => {
                self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
                if self.is_shared(from, number) {
                    // Others here may have handled it.
                    return self.owe(now, from, number);
                }
                // To all hosts here: there may be another by now, which others know of.
                let to_all = matches!(envelope.to, Distribution::Actor(ActorRef { host: 0, .. }));
                let why = if to_all { Returned::Busy } else { Returned::NotHere };
                self.control(from, Control::Returned { number, why });
            }
        }
    }

    /// The next message for a host.
    pub(crate) fn next_work(&mut self, now: Instant, host: u32) -> Option<Work<B>> {
        loop {
            let work = self.hosts.get_mut(&host)?.queue.pop_front()?;
            let Some(job) = self.jobs.get(&work.job) else { continue };
            if let Source::Elsewhere { bytes, .. } = job.source {
                self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
            }
            if work.expires > now {
                self.counts.delivered += 1;
                return Some(work);
            }
            // Nobody waits for it any more.
            self.fail(&work.envelope, Some(work.body), Failure::Expired, None);
            self.drop_expired(now, work.job);
        }
    }

    // ---- flows ----

    /// A flow begins.
    pub(crate) fn submit(&mut self, now: Instant, order: Order<B>) -> Result<Correlation, B> {
        if self.waiting() >= self.config.waiting_max {
            return Err(order.body);
        }
        let (flow, body) = self.begin(now, order, None);
        let correlation = flow.flow;
        let Begun { expires, watch, .. } = body;
        self.place(
            now,
            Flow { envelope: flow, body: body.body, expires, parent: None, watch, tries: 0, doubt: None },
            None,
        );
        Ok(correlation)
    }

    /// A flow begins, and its answer comes back.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        hub: u32,
        keys: Vec<KeyId>,
        token: T,
        order: Order<B>,
    ) -> Result<u64, (T, B)> {
        if self.waiting() >= self.config.waiting_max {
            return Err((token, order.body));
        }
        let flow = Correlation { member: self.me, number: self.next_flow };
        let deadline = now + order.time_to_live;
        let promise = match self.promises.open(hub, flow, keys.clone(), deadline, token) {
            Ok(promise) => promise,
            Err(token) => return Err((token, order.body)),
        };
        let (member, joined) = (self.me, self.joined);
        let callback = Callback { keys, member, joined, hub, promise };
        let (envelope, begun) = self.begin(now, order, Some(callback));
        let Begun { body, expires, watch } = begun;
        self.place(now, Flow { envelope, body, expires, parent: None, watch, tries: 0, doubt: None }, None);
        Ok(promise)
    }

    fn begin(&mut self, now: Instant, order: Order<B>, callback: Option<Callback>) -> (Envelope, Begun<B>) {
        let Order { key, body, to, time_to_live, idempotent, affinity, trace, trail, watch, tell } = order;
        let flow = Correlation { member: self.me, number: self.next_flow };
        self.next_flow += 1;
        let trail = trail.then(Vec::new);
        let envelope =
            Envelope { key, flow, hops: 0, depth: 0, to, idempotent, tell, callback, affinity, trace, trail };
        (envelope, Begun { body, expires: now + time_to_live, watch })
    }

    /// Finds a provider, or lets it wait for one, or fails it.
    fn place(&mut self, now: Instant, flow: Flow<B>, but: Option<ActorRef>) {
        if flow.expires <= now {
            return self.end(now, flow, Failure::Expired);
        }
        let Envelope { key, depth, affinity, .. } = flow.envelope;
        let wish =
            Wish { preference: self.config.preference, affinity, node: None, from_outside: false, but };
        match flow.envelope.to {
            Distribution::Broadcast => return self.broadcast(now, flow),
            Distribution::Actor(to) if but == Some(to) || !self.knows(to, key) => {
                return self.end(now, flow, Failure::Unroutable(key));
            }
            Distribution::Actor(to) => return self.assign(now, flow, to),
            Distribution::Unicast | Distribution::Node(_) => {}
        }
        let node = if let Distribution::Node(node) = flow.envelope.to { Some(node) } else { None };
        let Self { table, lanes, .. } = self;
        let chosen = table.choose(key, Wish { node, ..wish }, |to| lanes.has_room((to, depth)));
        match chosen {
            Some(to) => self.assign(now, flow, to),
            None if node.is_some() => self.end(now, flow, Failure::Unroutable(key)),
            None => self.discover(now, flow),
        }
    }

    fn knows(&self, to: ActorRef, key: KeyId) -> bool {
        match to {
            ActorRef { node, host } if node == self.me => self.table.holds(host, key, false),
            // All hosts of a node.
            ActorRef { node, host: 0 } => !self.table.hosts_of(node, key).is_empty(),
            to => self.table.has(to, key),
        }
    }

    fn discover(&mut self, now: Instant, flow: Flow<B>) {
        let (key, until) = (flow.envelope.key, flow.expires.min(now + self.config.grace));
        match self.discovery.wait(now, key, until, flow) {
            Ok(true) => {
                self.counts.discoveries += 1;
                let up: Vec<_> = self.nodes.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
                up.into_iter().for_each(|to| self.control(to, Control::Discover(vec![key])));
            }
            Ok(false) => {}
            Err(flow) => self.end(now, flow, Failure::Unroutable(key)),
        }
    }

    /// Somebody holds this key now.
    fn found(&mut self, now: Instant, id: KeyId) {
        self.discovery.found(id).into_iter().for_each(|flow| self.place(now, flow, None));
    }

    /// One for each host here and each other node; they have nothing to come back to.
    fn broadcast(&mut self, now: Instant, flow: Flow<B>) {
        let key = flow.envelope.key;
        let me = self.me;
        let here = self.table.hosts_with(key, false).into_iter().map(|host| ActorRef { node: me, host });
        let there = self.table.nodes_with(key).into_iter().map(|node| ActorRef { node, host: 0 });
        let all: Vec<_> = here.chain(there).collect();
        let Some(last) = all.len().checked_sub(1) else {
            return self.end(now, flow, Failure::Unroutable(key));
        };
        if let Some(parent) = flow.parent {
            self.hold(parent, last);
        }
        for (at, to) in all.into_iter().enumerate() {
            let copy = Flow {
                // Each copy has its own place, and goes nowhere else.
                envelope: Envelope { callback: None, to: Distribution::Actor(to), ..flow.envelope.clone() },
                body: flow.body.clone(),
                // It is told when the last has its place.
                watch: flow.watch.filter(|_| at == last),
                ..flow
            };
            self.assign(now, copy, to);
        }
    }

    fn assign(&mut self, now: Instant, flow: Flow<B>, to: ActorRef) {
        let lane = (to, flow.envelope.depth);
        if self.lanes.take(lane) {
            self.dispatch(now, flow, to);
        } else {
            self.lanes.wait(lane, (flow, to));
            self.sweep_at.get_or_insert(now + SWEEP);
        }
    }

    /// It has its place in the lane.
    fn dispatch(&mut self, now: Instant, flow: Flow<B>, to: ActorRef) {
        let lane = (to, flow.envelope.depth);
        if to.node != self.me {
            return self.forward(now, flow, lane);
        }
        let Flow { envelope, body, expires, parent, watch, doubt, .. } = flow;
        if !self.hosts.contains_key(&to.host) {
            let flow = Flow { envelope, body, expires, parent, watch, tries: 0, doubt };
            let next = self.lanes.give_back(lane);
            self.again(now, flow, Some(to));
            next.into_iter().for_each(|(flow, to)| self.dispatch(now, flow, to));
            return;
        }
        let job = self.job(Source::Here { lane, watch, parent, doubt });
        self.tell(watch, Told::Placed);
        self.tell(watch, Told::Accepted);
        self.enqueue(to.host, Work { job, envelope, body, expires });
    }

    fn enqueue(&mut self, host: u32, mut work: Work<B>) {
        let here = ActorRef { node: self.me, host };
        if let Some(trail) = work.envelope.trail.as_mut().filter(|trail| trail.len() < TRAIL_MAX) {
            trail.push(here);
        }
        if let Some(queue) = self.hosts.get_mut(&host).map(|host| &mut host.queue) {
            queue.push_back(work);
            if queue.len() == 1 {
                self.outputs.push_back(Output::Wake(host));
            }
        }
    }

    fn forward(&mut self, now: Instant, mut flow: Flow<B>, lane: LaneId) {
        let to = lane.0;
        let left = flow.expires.saturating_duration_since(now);
        let known = self.nodes.get(&to.node).map(|node| node.up);
        if known != Some(true) || flow.envelope.hops >= self.config.hops_max {
            let next = self.lanes.give_back(lane);
            match known {
                _ if flow.envelope.hops >= self.config.hops_max => self.end(now, flow, Failure::Limit),
                // Its routes came before the view that holds it, which is about to be seen.
                None => self.retries.push_back((now + BUSY, flow)),
                Some(_) => {
                    self.table.forget(to.node);
                    self.again(now, flow, Some(to));
                }
            }
            next.into_iter().for_each(|(flow, to)| self.dispatch(now, flow, to));
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let mut envelope = flow.envelope.clone();
        envelope.hops += 1;
        let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        let head = FlowHead { number, host: to.host, left_ms, envelope };
        let body = flow.body.clone();
        let parent = flow.parent.take();
        self.tell(flow.watch, Told::Placed);
        node_insert(&mut self.nodes, to.node, number, Sent { lane, flow });
        self.counts.forwarded += 1;
        self.outputs.push_back(Output::Send { to: to.node, head, body });
        if let Some(parent) = parent {
            self.placed(now, parent);
        }
    }

    /// To another provider, if there is one.
    fn again(&mut self, now: Instant, mut flow: Flow<B>, but: Option<ActorRef>) {
        flow.tries += 1;
        self.counts.rerouted += 1;
        if flow.tries >= TRIES_MAX {
            let key = flow.envelope.key;
            return self.end(now, flow, Failure::Unroutable(key));
        }
        self.place(now, flow, but);
    }

    fn job(&mut self, source: Source) -> u64 {
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, Job { source, open: 0, handled: false });
        id
    }

    fn hold(&mut self, job: u64, more: usize) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.open += more;
        }
    }

    fn tell(&mut self, watch: Option<u64>, told: Told) {
        if let Some(watch) = watch {
            self.outputs.push_back(Output::Told { watch, told });
        }
    }

    fn control(&mut self, to: MemberId, control: Control) {
        self.outputs.push_back(Output::Control { to, control });
    }

    // ---- what is to be done ----

    #[cfg(test)]
    pub(crate) fn poll_output(&mut self) -> Option<Output<B, T>> {
        self.outputs.pop_front()
    }

    /// All of them, for an empty one.
    pub(crate) fn swap_outputs(&mut self, empty: &mut VecDeque<Output<B, T>>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.outputs, empty);
    }

    /// When [`Core::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.retries.front().map(|(at, _)| *at);
        [self.promises.deadline(), self.discovery.deadline(), self.done_at, self.sweep_at, retry]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) const fn counts(&self) -> RouterCounts {
        self.counts
    }

    pub(crate) const fn table(&self) -> &Table {
        &self.table
    }

    /// Whether this key has a host here: then a message is best not encoded yet.
    pub(crate) fn has_host(&self, id: KeyId) -> bool {
        !self.table.hosts_with(id, false).is_empty()
    }

    /// Flows that wait for room or a provider, promises that are open, work that is not done.
    pub(crate) fn open(&self) -> (usize, usize, usize) {
        (self.waiting(), self.promises.len(), self.jobs.len())
    }

    /// Flows that wait here, for whatever it is.
    fn waiting(&self) -> usize {
        self.lanes.waiting() + self.discovery.len() + self.retries.len()
    }
}

#[cfg(any(test, feature = "testing"))]
impl<B, T> Core<B, T> {
    /// Places of windows that are taken.
    pub(crate) fn under_way(&self) -> usize {
        self.lanes.under_way()
    }
}

/// What [`Core::begin`] leaves of an order.
struct Begun<B> {
    body: B,
    expires: Instant,
    watch: Option<u64>,
}

fn node_insert<B>(nodes: &mut BTreeMap<MemberId, Node<B>>, to: MemberId, number: u64, sent: Sent<B>) {
    if let Some(node) = nodes.get_mut(&to) {
        node.sent.insert(number, sent);
    }
}
