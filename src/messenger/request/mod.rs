//! Requests and replies: protocols 6 and 7 (docs/PROTOCOL.md).
//!
//! The session below is reliable and tells the end of each message, so a request ends by its reply, by what became of
//! the request itself, by the end of its session, or by its timeout; nothing is asked twice.
//!
//! Rooms: [`wire`] the messages, [`pending`] who waits for a reply, [`asking`] one request, [`lane`] who waits for a
//! handler, [`handlers`] the handlers, [`answering`] the tasks that run them.

mod answering;
mod asking;
#[cfg(any(test, feature = "testing"))]
pub(super) mod door;
mod error;
mod handlers;
mod lane;
mod pending;
mod wire;

pub(super) use answering::Inbound;
pub use error::RequestError;
pub(super) use handlers::Responders;
pub(super) use pending::Pending;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use self::asking::Prepared;
use super::{ClassSender, HandlerError, Message, Messenger};
use crate::driver::PeerHandle;
use crate::member::MemberId;
use crate::session::{Body, Cause, Outgoing, Refused, Ticket};
use crate::wire::{Class, Epoch, Protocol, StreamId};

/// The type under which requests and replies travel; their protocols have no other.
const HASH: u32 = 0;
const VERSION: u16 = 1;

/// A message that is answered.
///
/// ```
/// use karere::{Kind, Message, Request};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Balance { account: u64 }
/// impl Message for Balance {
///     const KIND: Kind = Kind::new("bank.balance", 1).open();
/// }
/// #[derive(Serialize, Deserialize)]
/// struct Cents(i64);
/// impl Message for Cents {
///     const KIND: Kind = Kind::new("bank.cents", 1).open();
/// }
/// impl Request for Balance {
///     type Reply = Cents;
/// }
/// ```
pub trait Request: Message {
    /// What answers it. Its kind's name and version are checked; whether it is open does not matter, a reply goes the way
    /// of its request.
    type Reply: Message;
}

/// What all requests of a messenger share.
pub(super) struct Requests {
    /// Used once each, over all members and sessions: a late reply never answers another request.
    next_id: AtomicU64,
    responders: ArcSwap<Responders>,
    message_bytes: usize,
    /// Replies that nobody waited for any more.
    pub(super) late_replies: AtomicU64,
    /// Requests that came and were stopped, or not begun, because nobody waited any more.
    pub(super) called_off: AtomicU64,
}

impl Requests {
    pub(super) fn new(message_bytes: usize) -> Self {
        Self {
            next_id: AtomicU64::new(1),
            responders: ArcSwap::default(),
            message_bytes,
            late_replies: AtomicU64::new(0),
            called_off: AtomicU64::new(0),
        }
    }
}

/// Whether a protocol is spoken in this room.
pub(super) fn speaks(protocol: Protocol) -> bool {
    protocol == Protocol::REQUESTS || protocol == Protocol::REPLIES
}

impl Messenger {
    /// Asks a member and waits for its reply, which never waits behind requests. It is encoded now, and queued when the
    /// future is first polled; then `timeout` begins. It does not wait for room. The timeout travels with it.
    ///
    /// It may be called inside handlers. Inside request handlers the other side handles it in a lane of its own, so that
    /// members that ask each other do not wait for each other.
    ///
    /// Dropping the future calls the request off: its handler is not begun, or stopped at its next await; so does
    /// the end of the timeout. That is best effort: it may have been handled.
    ///
    /// # Errors
    ///
    /// [`RequestError`], at once when the session ends;
    /// [`may_have_been_handled`](RequestError::may_have_been_handled) says whether it is safe to ask again.
    pub fn request<'s, R: Request>(
        &'s self,
        request: &R,
        member: MemberId,
        timeout: Duration,
    ) -> impl Future<Output = Result<R::Reply, RequestError>> + Send + use<'s, R> {
        request_in(self, Class::Normal, request, member, timeout)
    }

    /// Answers requests of type `R`: one after the other for each sender and class, side by side for different ones
    /// and for those that are made inside request handlers. An error goes to the asker as
    /// [`RequestError::Handler`] (its first 512 bytes), a panic as [`RequestError::Panicked`].
    ///
    /// The handler's future is dropped at an await when nobody waits for the reply any more: the asker dropped its
    /// future, or its timeout is over. It is not when the session ends: what was accepted is handled.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed. Names of requests and of messages are apart.
    pub fn add_request_handler<R, F, Fut>(&self, handler: F) -> Result<(), HandlerError>
    where
        R: Request,
        F: Fn(MemberId, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, String>> + Send + 'static,
    {
        let _one_at_a_time = self.inner.registering.lock();
        let responders = &self.inner.shared.requests.responders;
        let mut changed = Responders::clone(&responders.load());
        changed.add(handler)?;
        responders.store(Arc::new(changed));
        Ok(())
    }
}

impl<'a> ClassSender<'a> {
    /// As [`Messenger::request`], in this class; so is the reply.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::request`].
    pub fn request<R: Request>(
        &self,
        request: &R,
        member: MemberId,
        timeout: Duration,
    ) -> impl Future<Output = Result<R::Reply, RequestError>> + Send + use<'a, R> {
        request_in(self.messenger, self.class, request, member, timeout)
    }
}

/// The request is not held by the future, so it need not be `Sync`.
fn request_in<'s, R: Request>(
    messenger: &'s Messenger,
    class: Class,
    request: &R,
    member: MemberId,
    timeout: Duration,
) -> impl Future<Output = Result<R::Reply, RequestError>> + Send + use<'s, R> {
    let prepared = Prepared::new(messenger, class, request, timeout);
    async move { asking::reply(prepared?.ask(messenger, member, timeout).await?) }
}

/// Queues what may draw on the reserve for replies: replies, refusals, and what calls a request off. All of them are
/// taken in at once on the other side, so the reserve comes back whatever else waits.
fn push(handle: &PeerHandle, stream: StreamId, epoch: Option<Epoch>, frame: &Bytes) -> Result<(), Refused> {
    push_with(handle, stream, epoch, frame, None, &|| true)
}

/// Queues a message of these protocols. `epoch`: for this session only.
fn push_with(
    handle: &PeerHandle,
    stream: StreamId,
    epoch: Option<Epoch>,
    frame: &Bytes,
    ticket: Option<Ticket>,
    reply: &dyn Fn() -> bool,
) -> Result<(), Refused> {
    let out = Outgoing { stream, hash: HASH, version: VERSION, body: Body::Shared(frame), reply };
    let wake = {
        let mut intake = handle.intake.lock();
        if epoch.is_some_and(|epoch| epoch != intake.epoch()) {
            return Err(Refused::Closed(Cause::SessionLost));
        }
        intake.push(out, ticket)?
    };
    if wake {
        handle.doorbell.ring();
    }
    Ok(())
}
