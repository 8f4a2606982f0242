//! A node: the core behind a lock, and the messenger that carries what it decides.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::builder::{DeadLetter, DeadLetters, Kinds, NodeBuilder};
use super::carry::{Carrier, Parcel};
use super::content::Content;
use super::core::{Answer, Core, CoreConfig, Mark, Output, Page, RouterCounts, Scope, Told, Work};
use super::envelope::{ActorRef, Control, Envelope, Failure, FlowHead, ReplyHead, RouteRecord, decode};
use super::error::{FlowError, RouteError};
use super::host::HostBuilder;
use super::hub::Hub;
use super::key::{KeyId, MessageKey};
use super::running::{self, Shared};
use super::source::{self, Route, RouteChange, RouteSource};
use super::tables;
use super::timer::{Timer, keep_time};
use crate::{HandlerError, Kind, MemberId, Messenger, Raw};

/// Names of keys that this process sent, for errors.
const NAMES_MAX: usize = 65_536;

pub(crate) type Answered = oneshot::Sender<Answer<Content>>;
type TheCore = Core<Content, Answered>;

/// A node of a network of actors. Cheap to clone; the last clone, and the last of its hubs and hosts, closes it: then
/// promises end as closed.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.inner.id()).finish_non_exhaustive()
    }
}

impl Node {
    /// How a node is to be.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Which node this is: the member id of its messenger. When the messenger becomes another member, so does the node: its
    /// hosts stay, and its requests end as [`FlowError::Departed`].
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.inner.id()
    }

    /// The messenger that it routes over.
    #[must_use]
    pub fn messenger(&self) -> &Messenger {
        &self.inner.messenger
    }

    /// A host for actors, to be filled and started.
    pub fn host(&self) -> HostBuilder {
        HostBuilder::new(self.clone())
    }

    /// One more hub.
    #[must_use]
    pub fn hub(&self) -> Hub {
        Hub { inner: Arc::clone(&self.inner), id: self.inner.next_hub.fetch_add(1, Ordering::Relaxed) }
    }

    /// Routes of this node's own hosts: key, host, and who may find it. Of another node: [`Node::tables_of`].
    #[must_use]
    pub fn internal_routes(&self) -> Vec<(MessageKey, u32, Scope)> {
        let core = self.inner.core.lock();
        core.table().own().map(|(key, host, scope)| (key.clone(), host, scope)).collect()
    }

    /// Routes of others, as they said.
    #[must_use]
    pub fn external_routes(&self) -> Vec<(MessageKey, ActorRef)> {
        self.inner.core.lock().table().others().map(|(key, to)| (key.clone(), to)).collect()
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> RouterCounts {
        self.inner.core.lock().counts()
    }

    /// Messages that wait here for room or a provider, promises that are open, messages whose handling has not ended.
    #[must_use]
    pub fn open(&self) -> (usize, usize, usize) {
        self.inner.core.lock().open()
    }

    /// Places of windows that are taken by what is under way.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn under_way(&self) -> usize {
        self.inner.core.lock().under_way()
    }

    /// Ends it: hosts take nothing more, promises end as [`FlowError::Closed`]. The messenger stays.
    pub fn close(&self) {
        self.inner.close();
    }
}

/// See the module's text.
pub(crate) struct Inner {
    /// Of the messenger, as the core knows it.
    id: Mutex<MemberId>,
    pub(crate) messenger: Messenger,
    pub(crate) kinds: Kinds,
    core: Mutex<TheCore>,
    pub(crate) carrier: Carrier,
    hosts: Mutex<HashMap<u32, Arc<Shared>, foldhash::fast::RandomState>>,
    watches: Mutex<HashMap<u64, watch::Sender<Option<Told>>>>,
    names: RwLock<HashMap<KeyId, MessageKey, foldhash::fast::RandomState>>,
    next_watch: AtomicU64,
    next_hub: AtomicU32,
    timer: Arc<Timer>,
    /// Who is told of changes, if not the other routers.
    source: Option<Arc<dyn RouteSource>>,
    announcing: Mutex<()>,
    dead: Option<DeadLetters>,
    closed: AtomicBool,
    pub(crate) gone: CancellationToken,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("id", &self.id()).finish_non_exhaustive()
    }
}

thread_local! {
    /// Between the core and what is done; used again, so that a message costs no allocation here.
    static OUTPUTS: Cell<VecDeque<Output<Content, Answered>>> = const { Cell::new(VecDeque::new()) };
}

impl Inner {
    /// Begins to route. `source`: who is told of changes, if not the other routers.
    pub(super) fn start(
        messenger: &Messenger,
        config: CoreConfig,
        kinds: Kinds,
        source: Option<Arc<dyn RouteSource>>,
        dead: Option<DeadLetters>,
    ) -> Result<Arc<Self>, HandlerError> {
        let id = messenger.id();
        let mut core = Core::new(id, config);
        core.set_joined(messenger.member().joined);
        let inner = Arc::new_cyclic(|weak| Self {
            id: Mutex::new(id),
            carrier: Carrier::new(messenger.clone(), weak.clone()),
            messenger: messenger.clone(),
            kinds,
            core: Mutex::new(core),
            hosts: Mutex::default(),
            watches: Mutex::default(),
            names: RwLock::default(),
            next_watch: AtomicU64::new(1),
            next_hub: AtomicU32::new(1),
            timer: Arc::default(),
            source,
            announcing: Mutex::new(()),
            dead,
            gone: CancellationToken::new(),
            closed: AtomicBool::new(false),
        });
        inner.listen()?;
        tables::answer(&inner)?;
        // Looked at once it is listened: who has a session by now may have said its routes before, to nobody.
        let linked = messenger.stats().peers.into_iter().map(|peer| peer.peer);
        inner.core.lock().set_unheard(linked);
        messenger.spawn(keep_time(Arc::downgrade(&inner), Arc::clone(&inner.timer)));
        messenger.spawn(source::follow_events(Arc::downgrade(&inner), messenger.events()));
        Ok(inner)
    }

    pub(crate) fn id(&self) -> MemberId {
        *self.id.lock()
    }

    /// Whether the messenger is another member than it was.
    pub(crate) fn reborn(&self, me: MemberId) -> bool {
        std::mem::replace(&mut *self.id.lock(), me) != me
    }

    /// Lets something happen to the core, then does what it wants done.
    pub(crate) fn act<R>(self: &Arc<Self>, happen: impl FnOnce(&mut TheCore, Instant) -> R) -> R {
        self.act_at(self.messenger.now(), happen)
    }

    /// The same for whoever has looked at the clock.
    pub(crate) fn act_at<R>(
        self: &Arc<Self>,
        now: Instant,
        happen: impl FnOnce(&mut TheCore, Instant) -> R,
    ) -> R {
        // What is to be done may make more happen: that takes another one.
        let mut outputs = OUTPUTS.take();
        let (result, next) = {
            let mut core = self.core.lock();
            let result = happen(&mut core, now);
            core.swap_outputs(&mut outputs);
            (result, core.take_alarm())
        };
        self.timer.arm(next);
        outputs.drain(..).for_each(|output| self.perform(output));
        OUTPUTS.set(outputs);
        result
    }

    /// What came of a work is with the messenger. Most often nothing is to be done for that, so it looks at no clock.
    pub(crate) fn placed(self: &Arc<Self>, job: u64) {
        let (more, next) = {
            let mut core = self.core.lock();
            let more = core.placed_lately(job);
            (more, core.take_alarm())
        };
        self.timer.arm(next);
        if more {
            self.act(|_, _| ());
        }
    }

    fn perform(self: &Arc<Self>, output: Output<Content, Answered>) {
        match output {
            Output::Wake(host) => self.ring(host),
            Output::Send { to, head, body } => match body.lend(|bytes| Parcel::flow(&head, bytes)) {
                Ok(parcel) => self.carrier.send(self, to, parcel),
                Err(why) => self.act(|core, now| core.handle_unsendable(now, to, head.number, why)),
            },
            Output::Reply { to, head, body, job } => {
                self.carrier.send(self, to, Parcel::reply(head, body, job));
            }
            Output::Control { to, control } => {
                self.carrier.send(self, to, Parcel::control(&control));
            }
            Output::Resolve { token, answer } => drop(token.send(answer)),
            Output::Told { watch, told } => self.told(watch, told),
            Output::News { to } => self.carrier.tell(self, to),
            Output::Announce => self.announce(),
            Output::Dead { envelope, body, why } => self.bury(&envelope, &body, why),
            Output::Settle { node } => self.carrier.settle(self, node, true),
        }
    }

    /// This node's routes have changed.
    fn announce(&self) {
        // Held while it is told, so that it is told in the order in which it happened, whoever does.
        let _one_at_a_time = self.announcing.lock();
        let next = || self.core.lock().take_announcement();
        while let Some((add, remove)) = next() {
            if let Some(source) = &self.source {
                let route = |RouteRecord { key, host }| Route { key, host };
                let (add, remove) = (add.into_iter().map(route), remove.into_iter().map(route));
                source.announce(RouteChange { added: add.collect(), removed: remove.collect() });
            }
        }
    }

    pub(crate) fn take_news(&self, to: MemberId) -> Option<Control> {
        self.core.lock().take_news(to)
    }

    /// A message for another node, or what it says, has come.
    fn listen(self: &Arc<Self>) -> Result<(), HandlerError> {
        let Kinds { flow, reply, control } = self.kinds;
        let inner = Arc::downgrade(self);
        self.messenger.add_raw_handler(flow, move |from, raw: Raw| {
            let inner = inner.upgrade();
            async move {
                if let Some(inner) = inner {
                    inner.take_flow(from, &raw.into_bytes()).await;
                }
            }
        })?;
        self.on(reply, |inner, from, bytes| match decode::<ReplyHead>(&bytes) {
            Ok((head, body)) => {
                inner.act(|core, _| core.handle_reply(head, Some(Content::Bytes(body))));
            }
            Err(error) => tracing::warn!(%from, %error, "an answer that cannot be read"),
        })?;
        self.on(control, |inner, from, bytes| match decode::<Control>(&bytes) {
            Ok((control, _)) => {
                inner.act(|core, now| core.handle_control(now, from, control));
                inner.carrier.prune(inner, from);
            }
            Err(error) => tracing::warn!(%from, %error, "a word of a router that cannot be read"),
        })
    }

    /// A message for a host here. A quick handler runs here and now; a slow one where its host does.
    async fn take_flow(self: &Arc<Self>, from: MemberId, bytes: &Bytes) {
        let (head, body) = match decode::<FlowHead>(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return tracing::warn!(%from, %error, "a message that cannot be read"),
        };
        let (host, body) = (head.host, Content::Bytes(body));
        let quick = self.hosts.lock().get(&host).filter(|shared| shared.is_quick()).cloned();
        let now = self.messenger.now();
        let (sound, work) = self.act_at(now, |core, now| {
            let sound = core.handle_flow(now, from, head, body);
            (sound, quick.as_ref().and_then(|_| core.begin_at_once(now, host)))
        });
        if !sound {
            tracing::warn!(%from, "a message that breaks the router's bounds");
        }
        if let (Some(shared), Some(work)) = (quick, work) {
            running::handle_at_once(self, &shared, host, work, now).await;
        }
    }

    fn on(
        self: &Arc<Self>,
        kind: Kind,
        take: impl Fn(&Arc<Self>, MemberId, Bytes) + Send + Sync + 'static,
    ) -> Result<(), HandlerError> {
        let inner = Arc::downgrade(self);
        self.messenger.add_raw_handler(kind, move |from, raw: Raw| {
            if let Some(inner) = inner.upgrade() {
                take(&inner, from, raw.into_bytes());
            }
            std::future::ready(())
        })
    }

    // ---- hosts ----

    pub(crate) fn add_host(
        self: &Arc<Self>,
        keys: &[(MessageKey, Scope)],
        shared: &Arc<Shared>,
        concurrency: usize,
    ) -> Result<u32, RouteError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(RouteError::Closed);
        }
        // The lock before the core's, so that who is woken is found.
        let mut hosts = self.hosts.lock();
        let now = self.messenger.now();
        let host = {
            let mut core = self.core.lock();
            let host = core.add_host(now, keys)?;
            core.bound_host(host, concurrency);
            host
        };
        hosts.insert(host, Arc::clone(shared));
        drop(hosts);
        keys.iter().for_each(|(key, _)| self.note_name(key.id(), key));
        // What it wants done.
        self.act(|_, _| ());
        Ok(host)
    }

    pub(crate) fn remove_host(self: &Arc<Self>, host: u32) {
        let shared = self.hosts.lock().remove(&host);
        if let Some(shared) = shared {
            shared.stopped.store(true, Ordering::Release);
            shared.bell.notify_waiters();
            shared.bell.notify_one();
        }
        self.act(|core, now| core.remove_host(now, host));
    }

    pub(crate) fn next_work(self: &Arc<Self>, host: u32) -> Option<Work<Content>> {
        self.act(|core, now| core.next_work(now, host))
    }

    fn ring(&self, host: u32) {
        if let Some(shared) = self.hosts.lock().get(&host) {
            shared.bell.notify_one();
        }
    }

    pub(crate) fn has_host(&self, id: KeyId) -> bool {
        self.core.lock().has_host(id)
    }

    /// The hub by which handlers begin flows.
    pub(crate) fn hub_of_actors(self: &Arc<Self>) -> Hub {
        Hub { inner: Arc::clone(self), id: 0 }
    }

    pub(crate) fn page(&self, after: Option<Mark>) -> Page {
        self.core.lock().table().page(after)
    }

    pub(crate) fn sent_to(&self, node: MemberId) -> Vec<u64> {
        self.core.lock().sent_to(node)
    }

    pub(crate) fn is_up(&self, node: MemberId) -> bool {
        self.core.lock().is_up(node)
    }

    /// How many of these at the beginning the node has said to be done.
    pub(crate) fn done_first(&self, node: MemberId, numbers: impl Iterator<Item = u64>) -> usize {
        let core = self.core.lock();
        numbers.take_while(|number| !core.is_sent(node, *number)).count()
    }

    // ---- who waits ----

    pub(crate) fn open(&self) -> Result<(), FlowError> {
        if self.closed.load(Ordering::Acquire) { Err(FlowError::Closed) } else { Ok(()) }
    }

    pub(crate) fn watch(&self) -> (u64, watch::Receiver<Option<Told>>) {
        let id = self.next_watch.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = watch::channel(None);
        self.watches.lock().insert(id, tell);
        (id, told)
    }

    pub(crate) fn unwatch(&self, id: u64) {
        self.watches.lock().remove(&id);
    }

    fn told(&self, watch: u64, told: Told) {
        if let Some(tell) = self.watches.lock().get(&watch) {
            // What is over stays over.
            let over = |told: &Option<Told>| matches!(told, Some(Told::Handled | Told::Failed(_)));
            tell.send_if_modified(|state| {
                let goes = !over(state);
                if goes {
                    *state = Some(told);
                }
                goes
            });
        }
    }

    // ---- names and errors ----

    pub(crate) fn note_name(&self, id: KeyId, key: &MessageKey) {
        if self.names.read().contains_key(&id) {
            return;
        }
        let mut names = self.names.write();
        if names.len() < NAMES_MAX {
            names.insert(id, key.clone());
        }
    }

    fn name(&self, id: KeyId) -> Option<MessageKey> {
        let known = self.names.read().get(&id).cloned();
        known.or_else(|| self.core.lock().table().key(id).cloned())
    }

    pub(crate) fn error(&self, failure: Failure) -> FlowError {
        FlowError::of(failure, |id| self.name(id).map(|key| key.to_string()))
    }

    fn bury(&self, envelope: &Envelope, body: &Content, why: Failure) {
        let why = self.error(why);
        let key = self.name(envelope.key);
        tracing::debug!(?key, flow = %envelope.flow, %why, "a message could not be delivered");
        if let Some(dead) = &self.dead {
            dead(DeadLetter { key, flow: envelope.flow, body: body.to_bytes().ok(), why });
        }
    }

    // ---- time and the end ----

    pub(crate) fn close(self: &Arc<Self>) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let hosts: std::collections::BTreeSet<u32> = self.hosts.lock().keys().copied().collect();
        hosts.into_iter().for_each(|host| self.remove_host(host));
        self.gone.cancel();
        drop(self.act(|core, _| core.close_promises(None)));
        // In their order, so that a seed replays.
        let watches: BTreeMap<u64, _> = self.watches.lock().drain().collect();
        drop(watches);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for shared in self.hosts.get_mut().values() {
            shared.stopped.store(true, Ordering::Release);
            shared.bell.notify_waiters();
            shared.bell.notify_one();
        }
        self.timer.end();
        self.gone.cancel();
    }
}
