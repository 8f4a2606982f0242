//! The asking side: one request from its encoding to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::RequestError;
use super::pending::{Outcome, Pending};
use super::wire::{self, Code, Type};
use super::{Request, push, push_with};
use crate::driver::PeerHandle;
use crate::limits::REQUEST_DEPTH_MAX;
use crate::member::MemberId;
use crate::messenger::{EncodeError, Message, Messenger, dispatch};
use crate::session::{Cause, Lost, Receipt, Refused, Ticket};
use crate::wire::{Class, Protocol, StreamId};

/// A request that is encoded and not queued yet.
pub(super) struct Prepared {
    id: u64,
    depth: u8,
    stream: StreamId,
    frame: Bytes,
}

impl Prepared {
    pub(super) fn new<R: Request>(
        messenger: &Messenger,
        class: Class,
        request: &R,
        timeout: Duration,
    ) -> Result<Self, RequestError> {
        if let Some(by) = messenger.inner.closed.get() {
            return Err(RequestError::Closed(by));
        }
        let depth = dispatch::request_depth();
        if depth >= REQUEST_DEPTH_MAX {
            return Err(RequestError::TooDeep { most: REQUEST_DEPTH_MAX });
        }
        let shared = &messenger.inner.shared.requests;
        let kind = R::KIND;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let of = Type { hash: kind.hash(), version: kind.version() };
        let frame = postcard::to_extend(request, wire::begin_request(id, depth, of, timeout))
            .map_err(|error| EncodeError { kind: kind.name(), cause: error.to_string() })?;
        if frame.len() > shared.message_bytes {
            let bytes = frame.len() - wire::REQUEST_BYTES;
            let most = shared.message_bytes - wire::REQUEST_BYTES.min(shared.message_bytes);
            return Err(RequestError::TooLarge { kind: kind.name(), bytes, most });
        }
        let stream = StreamId::new(Protocol::REQUESTS, class, kind.is_open());
        Ok(Self { id, depth, stream, frame: frame.into() })
    }

    /// Queues it, and waits for its end.
    pub(super) async fn ask(
        self,
        messenger: &Messenger,
        member: MemberId,
        timeout: Duration,
    ) -> Result<(Type, Bytes), RequestError> {
        let mut asked = self.queue(messenger, member)?;
        match tokio::time::timeout(timeout, asked.outcome()).await {
            Err(_over) => Err(RequestError::Timeout),
            Ok(Outcome::Reply { of, body }) => Ok((of, body)),
            Ok(Outcome::Failed { code, text }) => Err(failed(code, text)),
            Ok(Outcome::Lost(lost)) => Err(lost.into()),
        }
    }

    fn queue(self, messenger: &Messenger, member: MemberId) -> Result<Asked, RequestError> {
        let (handle, extension) = messenger.extension(member).ok_or(RequestError::Absent(member))?;
        let (ticket, receipt) = Ticket::new();
        let pending = Arc::clone(&extension.pending);
        // Before it is queued: the reply could be quicker than we are.
        let reply = pending.begin(self.id, receipt.clone()).ok_or(RequestError::Full(member))?;
        match push_with(&handle, self.stream, None, &self.frame, Some(ticket), &|| false) {
            Ok(()) => {
                let Self { id, depth, stream, .. } = self;
                Ok(Asked { handle, pending, receipt, reply, id, depth, stream })
            }
            Err(refused) => {
                pending.forget(self.id);
                Err(match refused {
                    Refused::Full(_) => RequestError::Full(member),
                    Refused::Closed(_) => RequestError::Absent(member),
                })
            }
        }
    }
}

/// A request that was queued. Dropped before its end it is called off.
struct Asked {
    handle: Arc<PeerHandle>,
    pending: Arc<Pending>,
    /// What becomes of the request itself.
    receipt: Receipt,
    reply: oneshot::Receiver<Outcome>,
    id: u64,
    depth: u8,
    stream: StreamId,
}

impl Asked {
    async fn outcome(&mut self) -> Outcome {
        let closed = |_| Outcome::Lost(Lost::Indeterminate(Cause::Closed));
        tokio::select! {
            biased;
            outcome = &mut self.reply => outcome.unwrap_or_else(closed),
            Err(lost) = self.receipt.acked() => {
                self.pending.forget(self.id);
                Outcome::Lost(lost)
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.pending.forget(self.id) {
            // Best effort. What the other side does not hear of ends by its timeout there.
            let _full = push(&self.handle, self.stream, None, &wire::cancel(self.id, self.depth).into());
        }
    }
}

/// Decodes a reply.
pub(super) fn reply<M: Message>((of, body): (Type, Bytes)) -> Result<M, RequestError> {
    let kind = M::KIND;
    if of.hash != kind.hash() || of.version > kind.version() {
        let text = format!("another type than `{}`, or a newer version of it", kind.name());
        return Err(RequestError::ReplyUnusable(text));
    }
    postcard::from_bytes(&body).map_err(|error| RequestError::ReplyUnusable(error.to_string()))
}

fn failed(code: Code, text: String) -> RequestError {
    match code {
        Code::NotUnderstood => RequestError::NotUnderstood,
        Code::Handler => RequestError::Handler(text),
        Code::Panicked => RequestError::Panicked,
        Code::Undecodable => RequestError::Undecodable(text),
        Code::Busy => RequestError::Busy,
        Code::NoReply => RequestError::ReplyUnusable(text),
    }
}
