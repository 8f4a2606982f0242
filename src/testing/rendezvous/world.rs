//! A world of a rendezvous from its beginning to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::node::{NodePlace, Note, Notes, Running};
use super::plan::{CALM, CHAOS, Plan};
use super::server::{ServerPlace, server_address};
use super::watch::{Figures, Speaker, Watch};
use crate::driver::clock;
use crate::rendezvous::Why;
use crate::rendezvous::doors::Change;
use crate::session::Receipt;
use crate::testing::later::Queue;
use crate::testing::net::{Network, ProcessId};
use crate::testing::trace::Trace;
use crate::testing::{Outcome, Violation};
use crate::{MemberId, ViewId};

/// How often all is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(25);
/// How often servers are looked at while none may speak, and when one begins to: what is wrong with a new leader may be over soon.
const CLOSE_LOOK: Duration = Duration::from_millis(2);

/// Something that was begun and ends later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// A server begins in its place, on its disk.
    ServerBegins(usize),
    ServerGoesOn(usize),
    NodeBegins(usize),
    NodeGoesOn(usize),
    /// It has left, and its process ends.
    NodeEnds(usize),
    /// A road is free again.
    Free(std::net::SocketAddr, std::net::SocketAddr),
    /// An operator has looked at what was lost, and lets history go on.
    Recover,
}

/// A message that is not known to have ended.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) number: u64,
    pub(super) receipt: Receipt,
}

/// See the module's text.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) chance: fastrand::Rng,
    pub(super) network: Arc<Network>,
    pub(super) servers: Vec<ServerPlace>,
    pub(super) nodes: Vec<NodePlace>,
    pub(super) later: Queue<Later>,
    pub(super) notes: Arc<Notes>,
    pub(super) sent: Vec<Sent>,
    pub(super) watch: Watch,
    pub(super) now: Instant,
    pub(super) outcome: Outcome,
    began: Instant,
    looked: Instant,
    /// When servers are looked at next.
    watched: Instant,
    processes: usize,
    /// The log, as far as it was followed: the place of its last change.
    followed: u64,
    trace: Trace,
    pub(super) is_calm: bool,
    pub(super) disks_lost: bool,
    /// Until when a node is not heard by servers, and by one other, that others reach.
    pub(super) doubted: Option<Instant>,
}

fn running_but<'a>(all: &'a [&'a Running], id: MemberId) -> impl Iterator<Item = &'a &'a Running> {
    all.iter().filter(move |other| other.id() != id)
}

/// In a runtime of one thread whose clock is stopped.
pub(in crate::testing) async fn run(seed: u64, trace: Trace) -> (Outcome, Trace) {
    let mut world = World::new(seed, trace);
    world.live().await;
    world.outcome.virtual_time = world.now.duration_since(world.began);
    world.outcome.members = world.processes;
    world.outcome.messages = world.watch.figures.messages;
    world.outcome.rendezvous = Figures { worlds: 1, ..world.watch.figures.clone() };
    world.outcome.digest = world.trace.digest();
    (world.outcome, world.trace)
}

impl World {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let plan = Plan::of(&mut chance);
        let network = Network::new(chance.u64(..), plan.weather);
        let now = clock::now();
        Self {
            plan,
            chance,
            network,
            servers: (0..plan.servers).map(ServerPlace::new).collect(),
            nodes: (0..plan.nodes).map(NodePlace::new).collect(),
            later: Queue::default(),
            notes: Arc::default(),
            sent: Vec::new(),
            watch: Watch::default(),
            now,
            outcome: Outcome { seed, ..Outcome::default() },
            began: now,
            looked: now,
            watched: now,
            processes: 0,
            followed: 0,
            trace,
            is_calm: false,
            disks_lost: false,
            doubted: None,
        }
    }

    async fn live(&mut self) {
        self.say(|world| format!("{:?}", world.plan));
        for at in 0..self.plan.servers {
            let at_once = self.now + self.millis(0, 500);
            self.later.add(at_once, Later::ServerBegins(at));
        }
        for at in 0..self.plan.nodes {
            let soon = self.now + self.millis(0, 6_000);
            self.later.add(soon, Later::NodeBegins(at));
        }
        // A cluster that does not exist yet has nothing to lose.
        self.pass(self.now + Duration::from_secs(4)).await;
        let end = self.began + CHAOS;
        let lost = self.now + self.millis(10_000, 40_000);
        while self.now < end && self.goes_on() {
            let pause = self.plan.pause.as_micros() as u64;
            let until = self.now + Duration::from_micros(self.chance.u64(..=2 * pause));
            self.pass(until).await;
            self.act().await;
            if self.plan.loses_disks && !self.disks_lost && self.now >= lost {
                self.lose_disks();
            }
        }
        self.calm_down().await;
    }

    pub(super) fn goes_on(&self) -> bool {
        self.outcome.violation.is_none()
    }

    // ---- time ----

    pub(super) async fn pass(&mut self, until: Instant) {
        loop {
            let next = self.later.next().map_or(until, |next| next.min(until));
            let next = next.min(self.looked + LOOK).min(self.watched).max(self.now);
            tokio::time::sleep_until(next.into()).await;
            self.now = clock::now();
            self.drain();
            while let Some(later) = self.later.take(self.now) {
                self.happen(later).await;
                self.drain();
            }
            let is_due = self.now >= self.looked + LOOK;
            if is_due || self.now >= self.watched {
                self.look_at_leaders();
            }
            if is_due {
                self.looked = self.now;
                self.look();
            }
            if self.now >= until || !self.goes_on() {
                return;
            }
        }
    }

    fn drain(&mut self) {
        for note in self.notes.take() {
            let judged = match note {
                Note::Installed { by, cluster, view } => {
                    self.mix(1, view.id().number ^ u64::from(by.to_bytes()[15]) << 32);
                    self.say(|_| format!("{by:.8} installs {view:?}"));
                    self.watch.view_installed(by, cluster, &view)
                }
                Note::Delivered { from, to, number } => {
                    self.mix(2, number);
                    self.watch.delivered(from, to, number)
                }
                Note::Granted { name, cluster, to, lease } => {
                    self.mix(3, lease.token().get());
                    let judged = self.watch.granted(cluster, &name, to, lease.token());
                    let holder = self.nodes.iter_mut().filter_map(|place| place.running.as_mut());
                    // Whoever is gone meanwhile lets it go.
                    if let Some(running) = holder.into_iter().find(|running| running.id() == to) {
                        running.leases.push(lease);
                    }
                    judged
                }
            };
            self.judge("what nodes are told", judged);
        }
        if let Some(text) = crate::testing::take_panic() {
            self.violated("nothing panics", text);
        }
    }

    fn look_at_leaders(&mut self) {
        let now = self.now;
        let speaker = |(place, server): (usize, &ServerPlace)| {
            Some(Speaker { place, term: server.speaks_in(now)?, knows: server.knows()? })
        };
        let speakers: Vec<Speaker> = self.servers.iter().enumerate().filter_map(speaker).collect();
        let judged = self.watch.may_speak(&speakers, now);
        self.judge("one leader speaks at a time", judged);
        let judged = self.watch.knows_what_was_decided(&speakers);
        self.judge("who may speak knows what was decided", judged);
        self.watched = now + if self.watch.is_changing(&speakers, now) { CLOSE_LOOK } else { LOOK };
        self.follow_log();
    }

    /// A look at everything.
    fn look(&mut self) {
        self.look_at_routes();
        self.look_at_receipts();
    }

    /// Follows what was decided, on the server that knows most.
    fn follow_log(&mut self) {
        let running = self.servers.iter().filter_map(|place| place.running.as_ref());
        let furthest = running.max_by_key(|running| running.server.with_state(|state| state.index()));
        let Some(server) = furthest else { return };
        let (mut at, changes, index) = server.server.with_state(|state| {
            let (mut at, mut changes) = (self.followed, Vec::new());
            while let Some((index, bytes)) = state.change_after(at) {
                changes.push(bytes);
                at = index;
            }
            (at, changes, state.index())
        });
        if at < index {
            // It begins from a snapshot: what it holds is not told one by one.
            at = index;
        }
        self.followed = at;
        for bytes in changes {
            match postcard::from_bytes::<Change>(&bytes) {
                Ok(change) => self.decided(&change),
                Err(error) => self.violated("changes can be read", error.to_string()),
            }
        }
    }

    fn decided(&mut self, change: &Change) {
        self.mix(4, change.index);
        self.say(|_| format!("decided: {change:?}"));
        for (member, why) in &change.left {
            if *why != Why::Silent {
                continue;
            }
            let judged = self.watch.evicted_in_time(*member, self.now);
            self.judge("a leader gives everybody time", judged);
            let place = |place: &&NodePlace| place.running.as_ref().is_some_and(|one| one.id() == *member);
            let Some(ill) = self.nodes.iter().find(place).map(|place| place.ill) else { continue };
            let judged = self.watch.evicted(*member, ill, self.now);
            self.judge("nobody who is well is evicted", judged);
        }
    }

    /// What members were told to be decided, a leader that may speak knows.
    fn look_at_routes(&mut self) {
        let leader = self.servers.iter().find(|place| place.speaks_in(self.now).is_some());
        let Some(leader) = leader.and_then(|place| place.running.as_ref()) else { return };
        let mut wrong = Vec::new();
        for running in self.nodes.iter().filter_map(|place| place.running.as_ref()) {
            let (id, told) = (running.id(), running.rendezvous.registered_routes());
            let (true, Some(told)) = (running.rendezvous.standing().borrow().is_joined(), told) else {
                continue;
            };
            let known: Option<BTreeSet<_>> = leader
                .server
                .with_state(|state| state.member(id).map(|_| state.routes_of(id).cloned().collect()));
            if known.as_ref().is_some_and(|known| *known != told) {
                wrong.push(format!(
                    "{id:.8} was told that {told:?} are registered, the leader knows {known:?}"
                ));
            }
        }
        self.watch.figures.looks += 1;
        if let Some(wrong) = wrong.pop() {
            self.violated("what is registered is not lost", wrong);
        }
    }

    pub(super) fn look_at_receipts(&mut self) {
        let mut open = Vec::with_capacity(self.sent.len());
        for sent in std::mem::take(&mut self.sent) {
            match sent.receipt.now() {
                None => open.push(sent),
                Some(Ok(())) => {}
                Some(Err(_)) => self.watch.lost(sent.from, sent.to, sent.number),
            }
        }
        self.sent = open;
    }

    // ---- what is told ----

    pub(super) fn judge(&mut self, invariant: &str, judged: Result<(), String>) {
        if let Err(text) = judged {
            self.violated(invariant, text);
        }
    }

    pub(super) fn violated(&mut self, invariant: &str, text: String) {
        let at = self.now.duration_since(self.began);
        self.trace.say(at, || format!("VIOLATED {invariant}: {text}"));
        self.outcome.violation.get_or_insert(Violation { invariant: invariant.to_owned(), text, at });
    }

    pub(super) fn say(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.keeps() {
            let text = text(self);
            self.trace.say(self.now.duration_since(self.began), || text);
        }
    }

    fn mix(&mut self, kind: u64, number: u64) {
        let at = self.now.duration_since(self.began).as_micros() as u64;
        self.trace.mix_in(at, kind << 56 ^ number);
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.chance.u64(least..=most))
    }

    pub(super) fn hit(&mut self, fault: Fault) {
        *self.outcome.faults.entry(format!("{fault:?}")).or_default() += 1;
        self.mix(5, fault as u64);
    }

    // ---- processes ----

    pub(super) fn next_process(&mut self) -> ProcessId {
        self.processes += 1;
        ProcessId(self.processes - 1)
    }

    async fn happen(&mut self, later: Later) {
        self.say(|_| format!("{later:?}"));
        match later {
            Later::ServerBegins(at) => self.begin_server(at).await,
            Later::NodeBegins(at) => self.begin_node(at).await,
            Later::ServerGoesOn(at) => {
                if let Some(running) = self.servers[at].running.as_mut() {
                    running.frozen = false;
                    running.host.gate_of().open();
                }
            }
            Later::NodeGoesOn(at) => {
                if let Some(running) = self.nodes[at].running.as_mut() {
                    running.frozen = false;
                    running.host.gate_of().open();
                }
                self.nodes[at].is_ill_until(self.now);
            }
            Later::NodeEnds(at) => {
                let network = Arc::clone(&self.network);
                self.nodes[at].end(&network, false);
                let again = self.now + self.millis(50, 3_000);
                self.later.add(again, Later::NodeBegins(at));
            }
            Later::Free(from, to) => self.network.free(from, to),
            Later::Recover => self.recover().await,
        }
    }

    /// The log that was followed is lost.
    pub(super) fn log_begins_anew(&mut self) {
        self.followed = 0;
        self.watch.log_begins_anew();
    }

    async fn begin_server(&mut self, at: usize) {
        if self.servers[at].running.is_some() {
            return;
        }
        let process = self.next_process();
        let peers: Vec<_> = (0..self.plan.servers).map(server_address).collect();
        let wrong = if self.chance.u8(..4) == 0 { self.chance.i64(-100_000..100_000) } else { 0 };
        let network = Arc::clone(&self.network);
        let started = self.servers[at].start(&network, process, &peers, wrong).await;
        self.judge("starts", started);
    }

    async fn begin_node(&mut self, at: usize) {
        if self.nodes[at].running.is_some() {
            return;
        }
        let process = self.next_process();
        let servers: Vec<_> = (0..self.plan.servers).map(server_address).collect();
        let wrong = if self.chance.u8(..4) == 0 { self.chance.i64(-100_000..100_000) } else { 0 };
        let (network, notes) = (Arc::clone(&self.network), Arc::clone(&self.notes));
        let started = self.nodes[at].start(&network, process, &servers, wrong, &notes).await;
        self.judge("starts", started);
        for _ in 0..self.chance.u8(..3) {
            self.change_actors(at);
        }
    }

    pub(super) fn change_actors(&mut self, at: usize) {
        let chance = &mut self.chance;
        let changed = self.nodes[at].running.as_mut().map(|running| running.change_actors(chance));
        self.judge("hosts start", changed.unwrap_or(Ok(())));
    }

    // ---- the end ----

    /// Nothing fails from now on, everybody runs, and all must come to agree.
    async fn calm_down(&mut self) {
        if !self.goes_on() {
            return;
        }
        self.is_calm = true;
        self.say(|_| "calm".to_owned());
        self.network.free_all();
        for at in 0..self.plan.servers {
            self.happen(Later::ServerGoesOn(at)).await;
            self.happen(Later::ServerBegins(at)).await;
        }
        for at in 0..self.plan.nodes {
            self.happen(Later::NodeGoesOn(at)).await;
            self.nodes[at].is_ill_until(self.now + Duration::from_secs(10));
        }
        let most = self.now + CALM;
        let mut agreed = Err("nobody looked".to_owned());
        while self.goes_on() && self.now < most {
            self.pass(self.now + 10 * LOOK).await;
            agreed = self.all_agree();
            if agreed.is_ok() && self.later.is_empty() {
                break;
            }
        }
        self.judge("all agree in the end", agreed);
        if self.goes_on() {
            self.last_messages().await;
        }
    }

    /// One leader, one view of all who run, the same routes everywhere.
    fn all_agree(&self) -> Result<(), String> {
        let leaders = self.servers.iter().filter(|place| place.speaks_in(self.now).is_some()).count();
        if leaders != 1 {
            return Err(format!("{leaders} servers may speak"));
        }
        let all_running: Vec<_> = self.nodes.iter().filter_map(|place| place.running.as_ref()).collect();
        let all: BTreeSet<MemberId> = all_running.iter().map(|running| running.id()).collect();
        let mut views: BTreeSet<Option<ViewId>> = BTreeSet::new();
        for running in &all_running {
            let id = running.id();
            let standing = running.rendezvous.standing().borrow().clone();
            if !standing.is_joined() {
                return Err(format!("{id:.8} is {standing}"));
            }
            let view = running.messenger.view();
            views.insert(view.as_ref().map(|view| view.id()));
            let seen: BTreeSet<MemberId> =
                view.iter().flat_map(|view| view.members()).map(|one| one.id).collect();
            if seen != all {
                return Err(format!("{id:.8} sees {seen:?}, there are {all:?}"));
            }
            if let Some((key, to)) =
                running.node.external_routes().into_iter().find(|(_, to)| !all.contains(&to.node))
            {
                return Err(format!("{id:.8} knows a route of {:.8}, which is no member: {key}", to.node));
            }
            for other in running_but(&all_running, id) {
                let own: BTreeSet<_> =
                    other.node.internal_routes().into_iter().map(|(key, host, _)| (key, host)).collect();
                let seen: BTreeSet<_> = running
                    .node
                    .external_routes()
                    .into_iter()
                    .filter(|(_, to)| to.node == other.id())
                    .map(|(key, to)| (key, to.host))
                    .collect();
                if own != seen {
                    return Err(format!("{id:.8} knows {seen:?} of {:.8}, which has {own:?}", other.id()));
                }
            }
        }
        if views.len() > 1 { Err(format!("views differ: {views:?}")) } else { Ok(()) }
    }

    /// From each to each; and all that was ever sent between those who are there has arrived.
    async fn last_messages(&mut self) {
        for from in 0..self.plan.nodes {
            for to in 0..self.plan.nodes {
                if from != to {
                    self.send(from, to);
                }
            }
        }
        let most = self.now + Duration::from_secs(20);
        while self.goes_on() && self.now < most && !self.sent.is_empty() {
            self.pass(self.now + 4 * LOOK).await;
        }
        self.pass(self.now + Duration::from_secs(1)).await;
        let members: BTreeSet<MemberId> =
            self.nodes.iter().filter_map(|place| Some(place.running.as_ref()?.id())).collect();
        let judged = self.watch.all_arrived(&members);
        self.judge("between members nothing is lost", judged);
    }
}
