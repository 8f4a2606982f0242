//! The driver: sockets, clocks and tasks. It decides nothing; it carries what the cores decide.
//!
//! One task owns one peer ([`peer_task`]); one accepts connections ([`acceptor`]). All are owned by the driver's
//! tracker and end with its token.

mod acceptor;
pub(crate) mod clock;
mod connect;
mod contacts;
mod doorbell;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod gate;
pub(crate) mod guard;
mod handle;
mod janitor;
mod loopback;
pub(crate) mod net;
mod opening;
pub(crate) mod own;
mod partings;
mod peer_task;
mod peers;
mod resolve;
mod search;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod views;
mod wire_io;

pub(crate) use handle::{Incoming, PeerHandle};
pub(crate) use net::{Listener, Net};
pub(crate) use peers::Past;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use contacts::Held;
use guard::Guard;

use crate::config::Settings;
use crate::link::LinkId;
use crate::member::MemberId;
use crate::peer::{
    ContactId, Counters, Introduction, PeerConfig, PeerEvent, Roster, SessionOver, Surroundings,
};
use crate::session::{Budget, Buffers, Cause, Delivery, QuarantineRoom};
use crate::wire::frame::Datagram;
use crate::wire::{BodyCheck, Epoch, TypeEntry};

/// Connections that are said goodbye to at the same time; beyond it they are just closed.
const PARTING_MAX: usize = 256;

/// What the messenger does with what comes from a peer. Called from the peer's task: must not wait.
pub(crate) trait Inbound: Send {
    /// For a handler; `PeerHandle::note_handled` answers.
    fn deliver(&mut self, epoch: Epoch, delivery: Delivery);

    /// For a handler, or dropped when it has no time.
    fn datagram(&mut self, datagram: Datagram);

    /// The session ended; what was delivered before is still handled. `None`: no other follows.
    fn session_over(&mut self, over: SessionOver, next: Option<Epoch>);

    /// The peer's task has done what there was to do: there may be room again.
    fn turn_over(&mut self);
}

/// What the driver needs of the messenger.
pub(crate) trait Application: Send + Sync + 'static {
    /// A peer begins.
    fn attach(&self, handle: &Arc<PeerHandle>) -> Box<dyn Inbound>;

    /// For whoever listens.
    fn event(&self, event: PeerEvent);
}

/// Looked up for each message: ids are chosen by peers, so the hash is seeded, and it is a quick one.
type Peers = HashMap<MemberId, Arc<PeerHandle>, foldhash::fast::RandomState>;

/// See the module's text.
pub(crate) struct Driver {
    surroundings: Surroundings,
    /// What hellos say of this process from now on. Changes under the registry's lock.
    me: ArcSwap<Introduction>,
    pub(crate) net: Arc<dyn Net>,
    /// TLS, if this process speaks it.
    guard: Option<Arc<dyn Guard>>,
    pub(crate) contact_give_up: Duration,
    /// Memory for messages larger than the credit; permits of 1 KiB.
    pub(crate) reassembly: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    budget: Arc<Budget>,
    buffers: Arc<Buffers>,
    application: OnceLock<Arc<dyn Application>>,
    peers: ArcSwap<Peers>,
    /// Held while peers come and go.
    registry: Mutex<Registry>,
    types: ArcSwap<Vec<TypeEntry>>,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    parting: Arc<Semaphore>,
    partings: Arc<partings::Partings>,
    refused: AtomicU64,
    accept_errors: AtomicU64,
    next_contact: AtomicU64,
    forgotten: Notify,
    /// Rung when another view is installed, or none.
    viewed: Notify,
    links: Arc<janitor::Links>,
}

#[derive(Debug)]
struct Registry {
    closed: bool,
    roster: Roster,
    contacts: BTreeMap<ContactId, Held>,
    gone: Past,
}

impl Driver {
    /// Must be called in a tokio runtime; all tasks run there.
    pub(crate) fn new(
        settings: &Settings,
        introduction: Introduction,
        net: Arc<dyn Net>,
        guard: Option<Arc<dyn Guard>>,
    ) -> Arc<Self> {
        let kib = Self::reassembly_permits(settings.reassembly_bytes as u64) as usize;
        let me = Arc::new(introduction);
        let driver = Arc::new(Self {
            me: ArcSwap::new(Arc::clone(&me)),
            surroundings: Surroundings {
                config: settings.peer,
                me,
                counters: Arc::new(Counters::new()),
                quarantine: QuarantineRoom::default(),
                sent: Arc::default(),
            },
            net,
            guard,
            contact_give_up: settings.contact_give_up,
            reassembly: Arc::new(Semaphore::new(kib)),
            stop: CancellationToken::new(),
            budget: Arc::new(Budget::new(settings.budget)),
            buffers: Arc::new(Buffers::default()),
            application: OnceLock::new(),
            peers: ArcSwap::default(),
            registry: Mutex::new(Registry {
                closed: false,
                roster: Roster::new(settings.views),
                contacts: BTreeMap::new(),
                gone: Past::default(),
            }),
            types: ArcSwap::default(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            parting: Arc::new(Semaphore::new(PARTING_MAX)),
            partings: Arc::default(),
            refused: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            next_contact: AtomicU64::new(1),
            forgotten: Notify::new(),
            viewed: Notify::new(),
            links: janitor::Links::new(settings.links),
        });
        driver.spawn(janitor::run(Arc::clone(&driver)));
        driver
    }

    /// What hellos say of this process now.
    pub(crate) fn me(&self) -> Arc<Introduction> {
        self.me.load_full()
    }

    /// Times and bounds.
    fn config(&self) -> &PeerConfig {
        &self.surroundings.config
    }

    /// What frames carry behind their bodies.
    pub(crate) fn body_check(&self) -> BodyCheck {
        self.surroundings.config.body_check
    }

    /// A number for a link.
    fn link(&self) -> LinkId {
        self.surroundings.counters.link()
    }

    /// What a peer or a search that begins now shares.
    fn surroundings(&self) -> Surroundings {
        Surroundings { me: self.me(), ..self.surroundings.clone() }
    }

    /// Before anything else: who handles what comes.
    pub(crate) fn set_application(&self, application: Arc<dyn Application>) {
        let _only_once = self.application.set(application);
    }

    /// Starts taking connections in.
    pub(crate) fn accept(self: &Arc<Self>, listener: Arc<dyn Listener>) {
        self.spawn(acceptor::run(Arc::clone(self), listener));
    }

    /// Runs a task that the driver owns.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(gate) = self.net.gate() {
            self.tasks.spawn_on(gate.hold(task), &self.runtime);
            return;
        }
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Tasks that have not ended.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Permits of the reassembly pool for so many bytes.
    fn reassembly_permits(bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX / 8)
    }

    // ---- types, events, counts ----

    /// What this process understands has changed.
    pub(crate) fn set_types(&self, types: Vec<TypeEntry>) {
        let types = Arc::new(types);
        // Under the registry's lock no peer is made with the types of before.
        let _registry = self.registry.lock();
        self.types.store(Arc::clone(&types));
        for handle in self.peers() {
            handle.peer.lock().set_types(Arc::clone(&types));
            handle.doorbell.ring();
        }
    }

    /// Messages of this type are about to be sent. Costs a load, but for the first.
    #[inline]
    pub(crate) fn note_sent(&self, hash: u32, name: &'static str) {
        if !self.surroundings.sent.knows(hash, name) {
            self.compare_sent(hash, name);
        }
    }

    #[cold]
    fn compare_sent(&self, hash: u32, name: &'static str) {
        // Who sends the same meanwhile waits until all peers were compared.
        let _registry = self.registry.lock();
        if self.surroundings.sent.add(hash, name) {
            self.peers().iter().for_each(|handle| handle.peer.lock().note_sent(hash, name));
        }
        self.surroundings.sent.settle(hash, name);
    }

    fn event(&self, event: PeerEvent) {
        if let Some(application) = self.application.get() {
            application.event(event);
        }
    }

    fn count_refusal(&self, why: &dyn fmt::Display) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::info!("refused a connection: {why}");
    }

    fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections refused, and attempts to accept that failed.
    pub(crate) fn refusals(&self) -> (u64, u64) {
        (self.refused.load(Ordering::Relaxed), self.accept_errors.load(Ordering::Relaxed))
    }

    /// Says last words to a member on a connection, in the background, unless a view removes it meanwhile.
    fn part_from(&self, member: MemberId, conn: net::BoxConn, words: Vec<bytes::Bytes>) {
        self.part(opening::part_unless_removed(self.partings.begin(member), conn, words));
    }

    /// Says last words on a connection in the background; drops it when too many are parting.
    fn part(&self, parting: impl Future<Output = ()> + Send + 'static) {
        if let Ok(permit) = Arc::clone(&self.parting).try_acquire_owned() {
            self.spawn(async move {
                parting.await;
                drop(permit);
            });
        }
    }

    // ---- the end ----

    /// Takes no new peers from now on; those that are there say goodbye when their queues are empty.
    pub(crate) fn leave(&self) {
        self.registry.lock().closed = true;
        for handle in self.peers() {
            handle.peer.lock().leave();
            handle.doorbell.ring();
        }
    }

    /// Ends every session: what was written is indeterminate, the rest not sent.
    pub(crate) fn end(&self) {
        self.registry.lock().closed = true;
        self.stop.cancel();
        for handle in self.peers() {
            handle.peer.lock().end(Cause::Closed);
            handle.doorbell.ring();
        }
        self.tasks.close();
    }

    /// Waits until no peer is left.
    pub(crate) async fn empty(&self) {
        loop {
            let forgotten = self.forgotten.notified();
            if self.peers.load().is_empty() {
                return;
            }
            forgotten.await;
        }
    }

    /// Waits until every task has ended; after [`Driver::end`].
    pub(crate) async fn joined(&self) {
        self.tasks.wait().await;
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("me", &self.me().member.id).finish_non_exhaustive()
    }
}

/// Before an application is set, and when it is gone, there is nobody.
pub(crate) struct Nobody;

impl Inbound for Nobody {
    fn deliver(&mut self, _epoch: Epoch, _delivery: Delivery) {}

    fn datagram(&mut self, _datagram: Datagram) {}

    fn session_over(&mut self, _over: SessionOver, _next: Option<Epoch>) {}

    fn turn_over(&mut self) {}
}
