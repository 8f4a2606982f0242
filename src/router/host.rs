//! Hosts: handlers of actors, and how many of them run at once. How they run is in `running`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use super::content::Content;
use super::core::{Product, Scope};
use super::envelope::{ActorRef, Correlation, Distribution, Envelope, TraceContext};
use super::error::RouteError;
use super::hub::Hub;
use super::key::{KeyId, MessageKey, id_of};
use super::node::{Inner, Node};
use super::running::{Shared, work};
use crate::{MemberId, Message};

/// Handlers of one host that may run at once.
pub(crate) const CONCURRENCY_MAX: usize = 1024;

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
        let body = Content::encode(&message).unwrap_or_else(|_| Content::value(message));
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
    pub(super) fn new(node: &Arc<Inner>, envelope: &Arc<Envelope>, host: u32, expires: Instant) -> Self {
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

pub(super) type Outcome = Result<Vec<Product<Content>>, String>;
pub(super) type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler whose type was erased.
pub(super) trait Handle: Send + Sync {
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
        let shared = Arc::new(Shared::new(handlers, self.concurrency > 1));
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
