//! Hubs: where flows begin. Those that end with an answer go on in `asking`.

use std::borrow::Cow;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::asking::Asking;
use super::content::Content;
use super::core::{Order, Told};
use super::envelope::{ActorRef, Distribution, TraceContext};
use super::error::FlowError;
use super::key::{MessageKey, id_of};
use super::node::Inner;
use super::running::is_within_actor;
use crate::{MemberId, Message};

/// How long a flow lives unless it is said.
pub(crate) const TIME_TO_LIVE: Duration = Duration::from_secs(30);

/// A hub of a node: sends messages into the network and waits for answers. Cheap to clone. Answers to one hub never reach
/// another.
#[derive(Clone, Debug)]
pub struct Hub {
    pub(crate) inner: Arc<Inner>,
    pub(crate) id: u32,
}

impl Hub {
    /// Sends a message to whoever handles it, one of them. Nothing happens before the [`Sending`] is awaited.
    pub fn send<M: Message>(&self, message: M) -> Sending<M> {
        Sending::new(self.clone(), message, Distribution::Unicast)
    }

    /// Sends a message to all who handle it: each host of this node, and each host of each other node that is known to have
    /// one.
    pub fn broadcast<M: Message>(&self, message: M) -> Sending<M> {
        Sending::new(self.clone(), message, Distribution::Broadcast)
    }

    /// Begins a flow that is to end with an answer. Say which by [`Asking::callback`].
    pub fn request<M: Message>(&self, message: M) -> Asking<M> {
        Asking(Sending::new(self.clone(), message, Distribution::Unicast))
    }

    /// To this node, and no other.
    #[must_use]
    pub fn to(&self, node: MemberId) -> Direct {
        Direct { hub: self.clone(), to: Distribution::Node(node) }
    }

    /// To this actor, and no other.
    #[must_use]
    pub fn to_actor(&self, actor: ActorRef) -> Direct {
        Direct { hub: self.clone(), to: Distribution::Actor(actor) }
    }
}

/// A hub that sends to one place only, and nowhere else if that cannot be reached.
#[derive(Clone, Debug)]
pub struct Direct {
    hub: Hub,
    to: Distribution,
}

impl Direct {
    /// As [`Hub::send`], to this place.
    pub fn send<M: Message>(&self, message: M) -> Sending<M> {
        Sending::new(self.hub.clone(), message, self.to)
    }

    /// As [`Hub::request`], to this place.
    pub fn request<M: Message>(&self, message: M) -> Asking<M> {
        Asking(Sending::new(self.hub.clone(), message, self.to))
    }
}

/// A message that is to be sent. Awaited, it ends when the message has found its place: with a host here, or with the
/// messenger. It waits for room in between, but not in a handler of an actor. Dropped meanwhile, the message may still go.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Sending<M> {
    pub(super) hub: Hub,
    message: M,
    to: Distribution,
    partition: Cow<'static, [u8]>,
    pub(super) time_to_live: Duration,
    pub(super) idempotent: bool,
    pub(super) affinity: Option<u64>,
    pub(super) trace: Option<TraceContext>,
    pub(super) trail: bool,
}

impl<M: Message> Sending<M> {
    const fn new(hub: Hub, message: M, to: Distribution) -> Self {
        Self {
            hub,
            message,
            to,
            partition: Cow::Borrowed(&[]),
            time_to_live: TIME_TO_LIVE,
            idempotent: false,
            affinity: None,
            trace: None,
            trail: false,
        }
    }

    /// To those that handle this partition.
    pub fn partition(mut self, partition: impl Into<Cow<'static, [u8]>>) -> Self {
        self.partition = partition.into();
        self
    }

    /// How long the flow lives, from now on; 30 s unless it is said. What waits for longer is dropped and told.
    pub const fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = time;
        self
    }

    /// It may be handled twice rather than not at all: it goes to another provider also when nobody knows what became of it
    /// at the first.
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Messages with the same number go to the same provider, as long as it is there. When one of N goes, only what it had
    /// goes elsewhere.
    pub const fn affinity(mut self, key: u64) -> Self {
        self.affinity = Some(key);
        self
    }

    /// A trace that travels with the flow.
    pub const fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// The flow remembers where it was, up to 32 places.
    pub const fn trail(mut self) -> Self {
        self.trail = true;
        self
    }

    /// Sends it, and tells what becomes of it there.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: it was not sent.
    pub fn tracked(self) -> Result<Delivery, FlowError> {
        let inner = Arc::clone(&self.hub.inner);
        let (watch, states) = inner.watch();
        let order = self.order(Some(watch), true)?;
        inner.act(|core, now| core.submit(now, order)).map_err(|_body| FlowError::Full)?;
        Ok(Delivery { inner, watch, states })
    }

    pub(super) fn order(self, watch: Option<u64>, tell: bool) -> Result<Order<Content>, FlowError> {
        let Self { hub, message, to, partition, time_to_live, idempotent, affinity, trace, trail } = self;
        hub.inner.open()?;
        let (key, id) = if partition.is_empty() {
            (MessageKey::of::<M>(), id_of::<M>())
        } else {
            let key = MessageKey::of::<M>().in_partition(partition);
            let id = key.id();
            (key, id)
        };
        hub.inner.note_name(id, &key);
        // What stays here is not encoded; what goes to all is read by each.
        let stays = to != Distribution::Broadcast && hub.inner.has_host(id);
        let body = if stays { Content::value(message) } else { Content::encode(&message)? };
        Ok(Order { key: id, body, to, time_to_live, idempotent, affinity, trace, trail, watch, tell })
    }
}

impl<M: Message> IntoFuture for Sending<M> {
    type Output = Result<(), FlowError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let within = is_within_actor();
        Box::pin(async move {
            let inner = Arc::clone(&self.hub.inner);
            if within {
                let order = self.order(None, false)?;
                inner.act(|core, now| core.submit(now, order)).map_err(|_body| FlowError::Full)?;
                return Ok(());
            }
            let (watch, mut states) = inner.watch();
            let order = self.order(Some(watch), false)?;
            let _unwatch = Unwatch { inner: Arc::clone(&inner), watch };
            inner.act(|core, now| core.submit(now, order)).map_err(|_body| FlowError::Full)?;
            let state = states.wait_for(Option::is_some).await.map_err(|_closed| FlowError::Closed)?.clone();
            match state {
                Some(Told::Failed(failure)) => Err(inner.error(failure)),
                Some(Told::Placed | Told::Accepted | Told::Handled) | None => Ok(()),
            }
        })
    }
}

struct Unwatch {
    inner: Arc<Inner>,
    watch: u64,
}

impl Drop for Unwatch {
    fn drop(&mut self) {
        self.inner.unwatch(self.watch);
    }
}

/// What becomes of one message that was sent by [`Sending::tracked`].
#[derive(Debug)]
#[must_use = "it tells nothing unless it is asked"]
pub struct Delivery {
    inner: Arc<Inner>,
    watch: u64,
    states: watch::Receiver<Option<Told>>,
}

impl Delivery {
    /// Waits until a host has it. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: no host has it, or its node departed.
    pub async fn accepted(&mut self) -> Result<(), FlowError> {
        self.reaches(|told| matches!(told, Told::Accepted | Told::Handled)).await
    }

    /// Waits until its handler has ended, well or not. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: nobody knows that it was handled.
    pub async fn handled(&mut self) -> Result<(), FlowError> {
        self.reaches(|told| matches!(told, Told::Handled)).await
    }

    async fn reaches(&mut self, is_there: impl Fn(&Told) -> bool) -> Result<(), FlowError> {
        let ends = |told: &Told| is_there(told) || matches!(told, Told::Failed(_));
        let there = self.states.wait_for(|state| state.as_ref().is_some_and(ends)).await;
        match there.map_err(|_closed| FlowError::Closed)?.clone() {
            Some(Told::Failed(failure)) => Err(self.inner.error(failure)),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.inner.unwatch(self.watch);
    }
}
