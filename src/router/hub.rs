//! Hubs: where flows begin, and where their answers come back.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::content::Content;
use super::core::{Answer, Order, Told};
use super::envelope::{ActorRef, CALLBACK_KEYS_MAX, Correlation, Distribution, Keys, TraceContext};
use super::error::FlowError;
use super::key::{KeyId, MessageKey, id_of};
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
    hub: Hub,
    message: M,
    to: Distribution,
    partition: Cow<'static, [u8]>,
    time_to_live: Duration,
    idempotent: bool,
    affinity: Option<u64>,
    trace: Option<TraceContext>,
    trail: bool,
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

    fn order(self, watch: Option<u64>, tell: bool) -> Result<Order<Content>, FlowError> {
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

/// A flow that is to end with an answer, and does not say yet which.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Asking<M>(Sending<M>);

impl<M: Message> Asking<M> {
    /// The first `R` of the flow is the answer, wherever it is made.
    pub fn callback<R: Message>(self) -> Request<M, R> {
        Request {
            sending: self.0,
            keys: Wanted::One(MessageKey::of::<R>(), id_of::<R>()),
            answer: PhantomData,
        }
    }

    /// The first message with one of these keys is the answer: at most 16 count.
    pub fn callbacks(self, keys: impl IntoIterator<Item = MessageKey>) -> Request<M, Reply> {
        let keys = keys.into_iter().take(CALLBACK_KEYS_MAX).map(with_id).collect();
        Request { sending: self.0, keys: Wanted::Some(keys), answer: PhantomData }
    }
}

/// Which messages are an answer.
#[derive(Debug)]
enum Wanted {
    One(MessageKey, KeyId),
    Some(Vec<(MessageKey, KeyId)>),
}

impl Wanted {
    fn ids(&self) -> Keys {
        match self {
            Self::One(_, id) => Keys::from_buf([*id]),
            Self::Some(keys) => keys.iter().map(|(_, id)| *id).collect(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&MessageKey, KeyId)> {
        let (one, some) = match self {
            Self::One(key, id) => (Some((key, *id)), &[][..]),
            Self::Some(keys) => (None, &keys[..]),
        };
        one.into_iter().chain(some.iter().map(|(key, id)| (key, *id)))
    }

    /// The key that has this id.
    fn find(self, wanted: KeyId) -> Option<MessageKey> {
        match self {
            Self::One(key, id) => (id == wanted).then_some(key),
            Self::Some(keys) => keys.into_iter().find(|(_, id)| *id == wanted).map(|(key, _)| key),
        }
    }
}

fn with_id(key: MessageKey) -> (MessageKey, KeyId) {
    let id = key.id();
    (key, id)
}

/// An answer of one of several types.
#[derive(Debug)]
pub struct Reply {
    key: MessageKey,
    content: Content,
    flow: Correlation,
    hops: u8,
    trail: Option<Vec<ActorRef>>,
}

impl Reply {
    /// What it is.
    #[must_use]
    pub const fn key(&self) -> &MessageKey {
        &self.key
    }

    /// Which flow it ended.
    #[must_use]
    pub const fn flow(&self) -> Correlation {
        self.flow
    }

    /// How often the flow went from node to node, the way home counted.
    #[must_use]
    pub const fn hops(&self) -> u8 {
        self.hops
    }

    /// Where the flow was, if that was asked for.
    #[must_use]
    pub fn trail(&self) -> Option<&[ActorRef]> {
        self.trail.as_deref()
    }

    /// As a message of this type; `None` if it is of another. It can be read once.
    ///
    /// # Errors
    ///
    /// [`FlowError::Decode`].
    #[must_use]
    pub fn read<R: Message>(&self) -> Option<Result<R, FlowError>> {
        let fits = self.key.identity() == R::KIND.name() && self.key.version() == R::KIND.version();
        fits.then(|| self.content.decode().map_err(FlowError::Decode))
    }
}

/// What a request may wait for.
pub trait FromReply: Sized {
    #[doc(hidden)]
    fn from_reply(reply: Reply) -> Result<Self, FlowError>;
}

impl FromReply for Reply {
    fn from_reply(reply: Reply) -> Result<Self, FlowError> {
        Ok(reply)
    }
}

impl<R: Message> FromReply for R {
    fn from_reply(reply: Reply) -> Result<Self, FlowError> {
        reply.content.decode().map_err(FlowError::Decode)
    }
}

/// A flow that is to end with an answer of type `R`. Awaited, it ends with the answer, or with the reason that there is
/// none; never later than its deadline. Dropped meanwhile, nobody waits for the answer any more.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Request<M, R> {
    sending: Sending<M>,
    keys: Wanted,
    answer: PhantomData<fn() -> R>,
}

impl<M: Message, R> Request<M, R> {
    /// How long it waits; 30 s unless it is said. The flow lives no longer.
    pub const fn deadline(mut self, time: Duration) -> Self {
        self.sending.time_to_live = time;
        self
    }

    /// See [`Sending::partition`].
    pub fn partition(mut self, partition: impl Into<Cow<'static, [u8]>>) -> Self {
        self.sending = self.sending.partition(partition);
        self
    }

    /// See [`Sending::idempotent`].
    pub const fn idempotent(mut self) -> Self {
        self.sending.idempotent = true;
        self
    }

    /// See [`Sending::affinity`].
    pub const fn affinity(mut self, key: u64) -> Self {
        self.sending.affinity = Some(key);
        self
    }

    /// See [`Sending::trace`].
    pub const fn trace(mut self, trace: TraceContext) -> Self {
        self.sending.trace = Some(trace);
        self
    }

    /// See [`Sending::trail`].
    pub const fn trail(mut self) -> Self {
        self.sending.trail = true;
        self
    }
}

/// A request that was begun: its answer, once that is here. What `Request` is awaited as. Cancel safe in this sense only: dropped,
/// nobody waits for the answer any more, and the flow goes on.
#[must_use = "nothing is sent before it is awaited"]
pub struct Answering<M, R>(State<M, R>);

/// By hand, and not an `async` block in a box: that would hold all of this at once, and cost more to allocate and to move than what is
/// done in it.
enum State<M, R> {
    Begins(Request<M, R>),
    Waits(Promise),
    Over,
}

// Nothing is pinned in it.
impl<M, R> Unpin for Answering<M, R> {}

impl<M, R> fmt::Debug for Answering<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::Begins(_) => "not begun",
            State::Waits(_) => "waits",
            State::Over => "over",
        };
        f.debug_tuple("Answering").field(&state).finish()
    }
}

/// Who waits for an answer. Dropped before it came, nobody does.
struct Promise {
    inner: Arc<Inner>,
    id: u64,
    keys: Wanted,
    answered: oneshot::Receiver<Answer<Content>>,
    /// It is resolved, or the node is closed: nothing is left to be dropped.
    over: bool,
}

impl Promise {
    fn begin<M: Message, R>(request: Request<M, R>) -> Result<Self, FlowError> {
        let Request { sending, keys, .. } = request;
        let (inner, hub) = (Arc::clone(&sending.hub.inner), sending.hub.id);
        keys.iter().for_each(|(key, id)| inner.note_name(id, key));
        let order = sending.order(None, false)?;
        let (token, answered) = oneshot::channel::<Answer<Content>>();
        let asked = inner.act(|core, now| core.request(now, hub, keys.ids(), token, order));
        let id = asked.map_err(|_returned| FlowError::Full)?;
        Ok(Self { inner, id, keys, answered, over: false })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, FlowError>> {
        let answer = ready!(Pin::new(&mut self.answered).poll(cx));
        self.over = true;
        Poll::Ready(answer.map_err(|_closed| FlowError::Closed).and_then(|answer| self.reply(answer)))
    }

    fn reply(&mut self, answer: Answer<Content>) -> Result<Reply, FlowError> {
        let Answer { outcome, flow, hops, trail } = answer;
        let (id, content) = outcome.map_err(|failure| self.inner.error(failure))?;
        let keys = std::mem::replace(&mut self.keys, Wanted::Some(Vec::new()));
        let key = keys.find(id);
        let key = key.ok_or_else(|| FlowError::Decode("an answer that nobody asked for".to_owned()))?;
        Ok(Reply { key, content, flow, hops, trail })
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.over {
            self.inner.act(|core, _| drop(core.drop_promise(self.id)));
        }
    }
}

impl<M: Message, R: FromReply> Future for Answering<M, R> {
    type Output = Result<R, FlowError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Begins(_) = &self.0
            && let State::Begins(request) = std::mem::replace(&mut self.0, State::Over)
        {
            self.0 = State::Waits(Promise::begin(request)?);
        }
        let State::Waits(promise) = &mut self.0 else {
            // As other futures do that are polled after their end.
            return Poll::Pending;
        };
        let reply = ready!(promise.poll(cx));
        self.0 = State::Over;
        Poll::Ready(reply.and_then(R::from_reply))
    }
}

impl<M: Message, R: FromReply> IntoFuture for Request<M, R> {
    type Output = Result<R, FlowError>;
    type IntoFuture = Answering<M, R>;

    fn into_future(self) -> Answering<M, R> {
        Answering(State::Begins(self))
    }
}
