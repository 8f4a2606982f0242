//! Flows that end with an answer: which message that is, and who waits for it.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use super::content::Content;
use super::core::Answer;
use super::envelope::{ActorRef, CALLBACK_KEYS_MAX, Correlation, Keys, TraceContext};
use super::error::FlowError;
use super::hub::Sending;
use super::key::{KeyId, MessageKey, id_of};
use super::node::Inner;
use crate::Message;

/// A flow that is to end with an answer, and does not say yet which.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Asking<M>(pub(super) Sending<M>);

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
