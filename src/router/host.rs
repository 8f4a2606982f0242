//! Hosts: handlers of actors, and how many of them run at once.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::content::{self, Content};
use super::core::{Product, Scope, Work};
use super::envelope::{ActorRef, Correlation, Distribution, Envelope, TraceContext};
use super::error::RouteError;
use super::hub::Hub;
use super::key::{KeyId, MessageKey, id_of};
use super::node::{Inner, Node};
use crate::{MemberId, Message};

/// Handlers of one host that may run at once.
pub(crate) const CONCURRENCY_MAX: usize = 1024;

tokio::task_local! {
    static WITHIN: ();
}

/// Whether a handler of an actor runs here: then nothing waits for room, because it could wait for itself.
pub(crate) fn is_within_actor() -> bool {
    WITHIN.try_with(|()| ()).is_ok()
}

/// Why a handler did not do what it was to: whoever waits for the flow's answer gets the text, nobody a stack trace.
/// Everything that is an error becomes one by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(String);

impl Failed {
    /// With this text, of which up to 1 KiB travels.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What comes of a message: none, one or many messages, each of which goes on in the flow.
#[derive(Debug, Default)]
pub struct Replies(Vec<Product<Content>>);

impl Replies {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more, to whoever handles it; or home, if it is what the flow's caller waits for.
    #[must_use]
    pub fn and<M: Message>(self, message: M) -> Self {
        self.and_to(id_of::<M>(), message, Distribution::Unicast)
    }

    /// One more in a partition.
    #[must_use]
    pub fn and_in<M: Message>(
        self,
        partition: impl Into<std::borrow::Cow<'static, [u8]>>,
        message: M,
    ) -> Self {
        self.and_to(MessageKey::of::<M>().in_partition(partition).id(), message, Distribution::Unicast)
    }

    /// One more, to all who handle it. It carries no callback point.
    #[must_use]
    pub fn and_broadcast<M: Message>(mut self, message: M) -> Self {
        let (key, to) = (id_of::<M>(), Distribution::Broadcast);
        // Each of them reads it. What cannot be encoded says so where it is read.
        let body = content::encode(&message).map_or_else(|_| Content::value(message), Content::Bytes);
        self.0.push(Product { key, body, to, affinity: None, idempotent: false });
        self
    }

    fn and_to<M: Message>(mut self, key: KeyId, message: M, to: Distribution) -> Self {
        let body = Content::value(message);
        self.0.push(Product { key, body, to, affinity: None, idempotent: false });
        self
    }
}

/// What a handler may return.
pub trait IntoReplies {
    /// As what goes on.
    fn into_replies(self) -> Replies;
}

impl IntoReplies for Replies {
    fn into_replies(self) -> Replies {
        self
    }
}

impl IntoReplies for () {
    fn into_replies(self) -> Replies {
        Replies::new()
    }
}

impl<M: Message> IntoReplies for M {
    fn into_replies(self) -> Replies {
        Replies::new().and(self)
    }
}

impl<M: Message> IntoReplies for Option<M> {
    fn into_replies(self) -> Replies {
        self.into_iter().fold(Replies::new(), Replies::and)
    }
}

impl<M: Message> IntoReplies for Vec<M> {
    fn into_replies(self) -> Replies {
        self.into_iter().fold(Replies::new(), Replies::and)
    }
}

/// What a handler may know of the message it handles.
#[derive(Debug)]
pub struct Context {
    envelope: Arc<Envelope>,
    hub: Hub,
    here: ActorRef,
    expires: Instant,
}

impl Context {
    fn new(node: &Arc<Inner>, envelope: &Arc<Envelope>, host: u32, expires: Instant) -> Self {
        let here = ActorRef { node: node.id(), host };
        Self { envelope: Arc::clone(envelope), hub: node.hub_of_actors(), here, expires }
    }

    /// Which flow it belongs to.
    #[must_use]
    pub fn flow(&self) -> Correlation {
        self.envelope.flow
    }

    /// How often the flow went from node to node so far.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.envelope.hops
    }

    /// Who waits for the flow's answer, if anybody does.
    #[must_use]
    pub fn caller(&self) -> Option<MemberId> {
        self.envelope.callback.as_ref().map(|callback| callback.member)
    }

    /// The trace that it travels with.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.envelope.trace
    }

    /// Where the flow was, if that was asked for.
    #[must_use]
    pub fn trail(&self) -> Option<&[ActorRef]> {
        self.envelope.trail.as_deref()
    }

    /// The actor that handles it.
    #[must_use]
    pub fn here(&self) -> ActorRef {
        self.here
    }

    /// When nobody waits for the flow any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.expires
    }

    /// A hub, to begin other flows. What is sent by it in a handler never waits for room.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

type Outcome = Result<Vec<Product<Content>>, String>;
type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler whose type was erased.
trait Handle: Send + Sync {
    fn call(&self, content: Content, context: Context) -> Handling;
}

struct Typed<M, F>(F, std::marker::PhantomData<fn(M)>);

impl<M, F, R, O> Handle for Typed<M, F>
where
    M: Message,
    F: Fn(M, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, Failed>> + Send + 'static,
    O: IntoReplies + 'static,
{
    fn call(&self, content: Content, context: Context) -> Handling {
        let future = match content.decode::<M>() {
            Ok(message) => (self.0)(message, context),
            Err(error) => {
                return Box::pin(std::future::ready(Err(format!(
                    "cannot read a {}: {error}",
                    M::KIND.name()
                ))));
            }
        };
        Box::pin(
            async move { future.await.map(|replies| replies.into_replies().0).map_err(|failed| failed.0) },
        )
    }
}

/// An actor that takes several types of messages: says which, and how.
pub trait Actor: Send + Sync + 'static {
    /// Adds its handlers to a host.
    fn handlers(self: Arc<Self>, host: HostBuilder) -> HostBuilder;
}

/// A host that is not started yet; see [`Node::host`].
#[must_use = "nothing is handled before `start`"]
pub struct HostBuilder {
    node: Node,
    concurrency: usize,
    scope: Scope,
    partition: std::borrow::Cow<'static, [u8]>,
    routes: Vec<(MessageKey, Scope, Arc<dyn Handle>)>,
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.routes.iter().map(|(key, ..)| key);
        f.debug_struct("HostBuilder")
            .field("concurrency", &self.concurrency)
            .field("keys", &keys.collect::<Vec<_>>())
            .finish()
    }
}

impl HostBuilder {
    pub(crate) fn new(node: Node) -> Self {
        let (scope, partition) = (Scope::Network, std::borrow::Cow::Borrowed(&[][..]));
        Self { node, concurrency: 1, scope, partition, routes: Vec::new() }
    }

    /// How many handlers may run at once, 1 to 1024. With 1, the default, each begins when the one before has ended, also
    /// where that waits.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers.clamp(1, CONCURRENCY_MAX);
        self
    }

    /// What is added from here on is not announced, and cannot be reached from other nodes.
    pub fn local(mut self) -> Self {
        self.scope = Scope::Local;
        self
    }

    /// What is added from here on takes messages of this partition only.
    pub fn partition(mut self, partition: impl Into<std::borrow::Cow<'static, [u8]>>) -> Self {
        self.partition = partition.into();
        self
    }

    /// A handler for messages of type `M`. What it returns goes on in the flow; that it failed is told to whoever waits for
    /// the flow's answer. A panic counts as failure, and costs this message only.
    pub fn on<M, F, R, O>(mut self, handler: F) -> Self
    where
        M: Message,
        F: Fn(M, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, Failed>> + Send + 'static,
        O: IntoReplies + 'static,
    {
        let key = MessageKey::of::<M>().in_partition(self.partition.clone());
        self.routes.push((key, self.scope, Arc::new(Typed(handler, std::marker::PhantomData))));
        self
    }

    /// All handlers of an actor.
    pub fn actor<A: Actor>(self, actor: A) -> Self {
        Arc::new(actor).handlers(self)
    }

    /// Registers all its handlers, tells the network, and begins to handle. The host lives until [`Host::stop`] or until the
    /// node is closed.
    ///
    /// # Errors
    ///
    /// [`RouteError`]: nothing was registered.
    pub fn start(self) -> Result<Host, RouteError> {
        let inner = &self.node.inner;
        let keys: Vec<_> = self.routes.iter().map(|(key, scope, _)| (key.clone(), *scope)).collect();
        let handlers = self.routes.into_iter().map(|(key, _, handler)| (key.id(), handler)).collect();
        let shared = Arc::new(Shared {
            handlers,
            bell: Notify::new(),
            stopped: AtomicBool::new(false),
            several: self.concurrency > 1,
            slow: AtomicBool::new(false),
            quick: AtomicU32::new(0),
        });
        let id = inner.add_host(&keys, &shared, self.concurrency)?;
        for _ in 0..self.concurrency {
            inner.messenger.spawn(work(Arc::downgrade(inner), Arc::clone(&shared), id));
        }
        Ok(Host { node: self.node, id })
    }
}

/// A host that runs.
#[derive(Clone, Debug)]
pub struct Host {
    node: Node,
    id: u32,
}

impl Host {
    /// Where it is.
    #[must_use]
    pub fn actor(&self) -> ActorRef {
        ActorRef { node: self.node.id(), host: self.id }
    }

    /// Takes these no more. What it has not begun of them goes to other providers; its other routes stay.
    pub fn unassign(&self, keys: &[MessageKey]) {
        let ids: Vec<_> = keys.iter().map(MessageKey::id).collect();
        self.node.inner.act(|core, now| core.remove_routes(now, self.id, &ids));
    }

    /// Takes nothing more. What it has not begun goes to other providers, what it has begun is ended.
    pub fn stop(&self) {
        self.node.inner.remove_host(self.id);
    }
}

/// What the tasks of a host share.
pub(crate) struct Shared {
    handlers: HashMap<KeyId, Arc<dyn Handle>, foldhash::fast::RandomState>,
    pub(crate) bell: Notify,
    pub(crate) stopped: AtomicBool,
    /// More than one task takes its work.
    several: bool,
    /// The last handler kept its thread for long.
    slow: AtomicBool,
    /// Handlers that were quick, one after the other, up to the last.
    quick: AtomicU32,
}

/// So many handlers that were quick, one after the other, and the next one runs where its message arrives: a wake-up and a turn of
/// another task cost several times what a quick handler takes. One that is slow all the same, or waits, holds up what arrived
/// behind it by no more than its first step, and not again for as many messages.
const QUICK_IN_A_ROW: u32 = if cfg!(any(test, feature = "testing")) { 4 } else { 64 };

impl Shared {
    /// Its handlers may run where their messages arrive.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= QUICK_IN_A_ROW && !self.stopped.load(Ordering::Acquire)
    }

    /// A handler was, or was not, done at once and in a short time.
    fn note_quick(&self, quick: bool) {
        let before = self.quick.load(Ordering::Relaxed);
        let now = if quick { before.saturating_add(1).min(QUICK_IN_A_ROW) } else { 0 };
        if now != before {
            self.quick.store(now, Ordering::Relaxed);
        }
    }
}

/// A handler that keeps its thread for longer is worth another thread. Below that waking one costs more than it gains.
const SLOW: Duration = Duration::from_micros(50);

/// One handler at a time, until the host stops.
async fn work(inner: std::sync::Weak<Inner>, shared: Arc<Shared>, host: u32) {
    loop {
        if shared.stopped.load(Ordering::Acquire) {
            return shared.bell.notify_one();
        }
        let Some(node) = inner.upgrade() else { return };
        let Some(work) = node.next_work(host) else {
            drop(node);
            shared.bell.notified().await;
            continue;
        };
        if shared.several && shared.slow.load(Ordering::Relaxed) {
            // There may be more: for another of the host's tasks.
            shared.bell.notify_one();
        }
        let from = node.messenger.now();
        let Work { job, envelope, body, expires } = work;
        let context = Context::new(&node, &envelope, host, expires);
        drop(node);
        let handling = WITHIN.sync_scope((), || shared.begin(&envelope, body, context));
        let (outcome, waited) = WITHIN.scope((), shared.run(handling)).await;
        let Some(node) = inner.upgrade() else { return };
        let now = node.messenger.now();
        let slow = now.saturating_duration_since(from) > SLOW;
        shared.note_quick(!slow && !waited);
        if shared.several && slow != shared.slow.load(Ordering::Relaxed) {
            shared.slow.store(slow, Ordering::Relaxed);
        }
        node.act_at(now, |core, now| core.handle_handled(now, job, &envelope, expires, outcome));
        drop(node);
        tokio::task::coop::consume_budget().await;
    }
}

/// Handles a message in the task in which it arrived. If the handler has to wait, it goes on in a task of its own.
pub(crate) async fn handle_at_once(
    node: &Arc<Inner>,
    shared: &Arc<Shared>,
    host: u32,
    work: Work<Content>,
    from: Instant,
) {
    let Work { job, envelope, body, expires } = work;
    let context = Context::new(node, &envelope, host, expires);
    // The waker only: the first step is taken here, whatever comes of it.
    let waker = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let first = within_actor(node, || {
        let mut handling = shared.begin(&envelope, body, context);
        match step(&mut handling, &mut std::task::Context::from_waker(&waker)) {
            Poll::Ready(outcome) => Ok(outcome),
            Poll::Pending => Err(handling),
        }
    });
    let now = node.messenger.now();
    let slow = now.saturating_duration_since(from) > SLOW;
    shared.note_quick(!slow && first.is_ok());
    match first {
        Ok(outcome) => {
            node.act_at(now, |core, now| core.handle_handled(now, job, &envelope, expires, outcome));
        }
        Err(handling) => {
            let (inner, shared) = (Arc::downgrade(node), Arc::clone(shared));
            node.messenger.spawn(async move {
                let (outcome, _) = WITHIN.scope((), shared.run(handling)).await;
                let Some(node) = inner.upgrade() else { return };
                node.act(|core, now| core.handle_handled(now, job, &envelope, expires, outcome));
            });
        }
    }
    // What else this thread has to do gets its turn after some of them.
    tokio::task::coop::consume_budget().await;
}

/// It is a handler of an actor that runs, and none of the messenger's.
fn within_actor<T>(node: &Inner, work: impl FnOnce() -> T) -> T {
    node.messenger.outside_handler(|| WITHIN.sync_scope((), work))
}

/// One step of a handler. A panic is a failure.
fn step(handling: &mut Handling, cx: &mut std::task::Context<'_>) -> Poll<Outcome> {
    catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(cx)))
        .unwrap_or_else(|panic| Poll::Ready(Err(text_of(&*panic))))
}

impl Shared {
    /// Calls the handler of a message. A panic of the call is a failure.
    fn begin(&self, envelope: &Envelope, body: Content, context: Context) -> Handling {
        let Some(handler) = self.handlers.get(&envelope.key) else {
            return Box::pin(std::future::ready(Err("no handler".to_owned())));
        };
        catch_unwind(AssertUnwindSafe(|| handler.call(body, context)))
            .unwrap_or_else(|panic| Box::pin(std::future::ready(Err(text_of(&*panic)))))
    }

    /// Runs a handler to its end, and tells whether it had to wait.
    async fn run(&self, mut handling: Handling) -> (Outcome, bool) {
        let mut waited = false;
        let outcome = std::future::poll_fn(|cx| {
            let polled = step(&mut handling, cx);
            if polled.is_pending() && !std::mem::replace(&mut waited, true) && self.several {
                // What comes next is for another of the host's tasks.
                self.bell.notify_one();
            }
            polled
        });
        let outcome = outcome.await;
        (outcome, waited)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(panic = text, "a handler of an actor panicked");
    format!("the handler panicked: {text}")
}
