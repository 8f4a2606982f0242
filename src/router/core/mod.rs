//! What the router decides: who gets a message, when it waits, where an answer goes, how each flow ends. Sans-IO: messages,
//! nodes and time come in by `handle_*`, what is to be done comes out by [`Core::poll_output`].
//!
//! `B` is a body, `T` whoever waits for a promise.

mod arriving;
mod discovery;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod door;
mod ending;
mod flow;
mod hosting;
mod lanes;
mod nodes;
mod owed;
mod placing;
mod promises;
mod table;
#[cfg(test)]
mod tests;

pub use flow::RouterCounts;
pub(crate) use flow::{Answer, CoreConfig, Flow, Order, Output, Product, Told, Work};
pub(crate) use table::{Mark, Page, Refused};
pub use table::{Preference, Scope};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use discovery::Discovery;
use lanes::{LaneId, Lanes};
use promises::Promises;
use table::Table;

use super::envelope::{
    ActorRef, Body, Callback, Control, Correlation, Distribution, Envelope, Failure, Keys, ReplyHead,
    RouteRecord,
};
use super::key::KeyId;
use crate::{MemberId, ViewId};

/// Providers that are tried for one message, one after the other.
const TRIES_MAX: u8 = 8;
/// When a node that had no room is tried again.
const BUSY: Duration = Duration::from_millis(20);
/// What is done is told after this, or at once when it is much: a quarter of a window.
const DONE_DELAY: Duration = Duration::from_millis(5);
const DONE_MANY: usize = lanes::WINDOW / 4;
/// Who may have told of its routes too early is asked again after this, and then after twice as long, so often: what it answers before it
/// has heard that this node listens by now is lost as well. Who does not answer at all has no router yet, and will tell by itself.
const UNHEARD: Duration = Duration::from_millis(250);
const UNHEARD_TRIES: u32 = 8;
/// How often what waits is looked through for what has no time left.
const SWEEP: Duration = Duration::from_millis(50);

/// A host here: what waits for it, and how many of its handlers run.
#[derive(Debug)]
struct Host<B> {
    queue: VecDeque<Work<B>>,
    running: usize,
    running_max: usize,
}

/// Whose work a message is, until all that came of it has its place.
#[derive(Debug)]
struct Job {
    /// Whose work.
    host: u32,
    /// A handler has begun it, where it arrived.
    at_once: bool,
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
    sent: HashMap<u64, Sent<B>, foldhash::fast::RandomState>,
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
    /// Nodes that were up and are not, the last ones.
    gone: VecDeque<MemberId>,
    /// Who may have told of its routes before this node listened, and has not told them since.
    unheard: BTreeSet<MemberId>,
    /// Of those, who is up: when it is asked again, and how often it was.
    asked: BTreeMap<MemberId, (Instant, u32)>,
    /// Nodes with something in `done`.
    owing: BTreeSet<MemberId>,
    done_at: Option<Instant>,
    retries: VecDeque<(Instant, Flow<B>)>,
    /// By caller.
    held: BTreeMap<MemberId, Vec<Held<B>>>,
    sweep_at: Option<Instant>,
    /// When the last work was handled.
    handled_at: Option<Instant>,
    /// Of bodies of other nodes that wait for hosts.
    queued_bytes: usize,
    counts: RouterCounts,
    /// When [`Core::handle_timeout`] is called at the latest, and whether that was not told yet.
    alarm: Option<Instant>,
    alarm_changed: bool,
    outputs: VecDeque<Output<B, T>>,
    /// Changes of this node's routes that somebody else is to tell: new ones, and those that are no more.
    announcements: VecDeque<(Vec<RouteRecord>, Vec<RouteRecord>)>,
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
            gone: VecDeque::new(),
            unheard: BTreeSet::new(),
            asked: BTreeMap::new(),
            owing: BTreeSet::new(),
            done_at: None,
            retries: VecDeque::new(),
            held: BTreeMap::new(),
            sweep_at: None,
            handled_at: None,
            queued_bytes: 0,
            counts: RouterCounts::default(),
            alarm: None,
            alarm_changed: false,
            outputs: VecDeque::new(),
            announcements: VecDeque::new(),
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
        self.set_out(
            now,
            Flow { envelope: flow, body: body.body, expires, parent: None, watch, tries: 0, doubt: None },
        );
        Ok(correlation)
    }

    /// A flow begins, and its answer comes back.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        hub: u32,
        keys: Keys,
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
        self.wake_by(deadline);
        let (member, joined) = (self.me, self.joined);
        let callback = Callback { keys, member, joined, hub, promise };
        let (envelope, begun) = self.begin(now, order, Some(callback));
        let Begun { body, expires, watch } = begun;
        self.set_out(now, Flow { envelope, body, expires, parent: None, watch, tries: 0, doubt: None });
        Ok(promise)
    }

    /// The first message of a flow goes its way.
    fn set_out(&mut self, now: Instant, flow: Flow<B>) {
        // No host has the number 0: between nodes it means all of them.
        if matches!(flow.envelope.to, Distribution::Actor(ActorRef { host: 0, .. })) {
            let key = flow.envelope.key;
            return self.end(now, flow, Failure::Unroutable(key));
        }
        self.place(now, flow, None);
    }

    fn begin(
        &mut self,
        now: Instant,
        order: Order<B>,
        callback: Option<Callback>,
    ) -> (Arc<Envelope>, Begun<B>) {
        let Order { key, body, to, time_to_live, idempotent, affinity, trace, trail, watch, tell } = order;
        let flow = Correlation { member: self.me, number: self.next_flow };
        self.next_flow += 1;
        let trail = trail.then(Vec::new);
        let envelope =
            Envelope { key, flow, hops: 0, depth: 0, to, idempotent, tell, callback, affinity, trace, trail };
        (Arc::new(envelope), Begun { body, expires: now + time_to_live, watch })
    }

    fn job(&mut self, host: u32, source: Source) -> u64 {
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, Job { host, at_once: false, source, open: 0, handled: false });
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
        let asked = self.asked.values().map(|(at, _)| *at).min();
        [self.promises.deadline(), self.discovery.deadline(), self.done_at, self.sweep_at, retry, asked]
            .into_iter()
            .flatten()
            .min()
    }

    /// Something is to be done by then.
    fn wake_by(&mut self, at: Instant) {
        if self.alarm.is_none_or(|alarm| at < alarm) {
            (self.alarm, self.alarm_changed) = (Some(at), true);
        }
    }

    /// When [`Core::handle_timeout`] is to be called, if that is earlier than was said before. Cheaper than to look at all deadlines
    /// for each message.
    pub(crate) fn take_alarm(&mut self) -> Option<Instant> {
        debug_assert!(
            self.poll_timeout().is_none_or(|at| self.alarm.is_some_and(|alarm| alarm <= at)),
            "a deadline that nobody is told of"
        );
        std::mem::take(&mut self.alarm_changed).then_some(self.alarm).flatten()
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
