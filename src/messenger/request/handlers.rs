//! Request handlers by type, and what they answer.

use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Request;
use super::wire::{self, Code, Type};
use crate::limits::TYPES_MAX;
use crate::member::MemberId;
use crate::messenger::{HandlerError, Kind, Message};

/// What a handler came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The whole reply as it travels.
    Reply(Vec<u8>),
    Failed(Code, String),
}

/// A request handler whose types were erased.
pub(super) trait Responder: Send + Sync {
    /// Decodes, handles, and encodes the reply. A panic anywhere in it unwinds out of the future.
    fn answer(
        &self,
        from: MemberId,
        id: u64,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

struct Typed<R, F> {
    handler: F,
    request: PhantomData<fn(R)>,
}

impl<R, F, Fut> Responder for Typed<R, F>
where
    R: Request,
    F: Fn(MemberId, R) -> Fut + Send + Sync,
    Fut: Future<Output = Result<R::Reply, String>> + Send,
{
    fn answer(
        &self,
        from: MemberId,
        id: u64,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            let request = match postcard::from_bytes::<R>(&body) {
                Ok(request) => request,
                Err(error) => return Answer::Failed(Code::Undecodable, error.to_string()),
            };
            drop(body);
            match (self.handler)(from, request).await {
                Ok(reply) => encode::<R::Reply>(id, &reply),
                Err(text) => Answer::Failed(Code::Handler, text),
            }
        })
    }
}

fn encode<M: Message>(id: u64, reply: &M) -> Answer {
    let of = Type { hash: M::KIND.hash(), version: M::KIND.version() };
    match postcard::to_extend(reply, wire::begin_reply(id, of)) {
        Ok(encoded) => Answer::Reply(encoded),
        Err(error) => Answer::Failed(Code::NoReply, error.to_string()),
    }
}

/// A handler's future: a panic in it, or in its drop, costs this one request and not the task.
pub(super) struct Guarded<'a>(Option<Pin<Box<dyn Future<Output = Answer> + Send + 'a>>>);

impl<'a> Guarded<'a> {
    pub(super) fn new(answer: Pin<Box<dyn Future<Output = Answer> + Send + 'a>>) -> Self {
        Self(Some(answer))
    }
}

impl Future for Guarded<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let Some(answer) = &mut self.0 else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().copied();
            let text =
                text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
            tracing::error!(panic = text, "a request handler panicked");
            // What it said stays here: it may hold what is none of the requester's business.
            Poll::Ready(Answer::Failed(Code::Panicked, String::new()))
        })
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        let answer = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(answer))).is_err() {
            tracing::error!("a request handler panicked while it was dropped");
        }
    }
}

#[derive(Clone)]
struct Registered {
    kind: Kind,
    responder: Arc<dyn Responder>,
}

/// All request handlers of a messenger.
#[derive(Clone, Default)]
pub(crate) struct Responders(HashMap<u32, Registered>);

impl Responders {
    pub(super) fn add<R, F, Fut>(&mut self, handler: F) -> Result<(), HandlerError>
    where
        R: Request,
        F: Fn(MemberId, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, String>> + Send + 'static,
    {
        let kind = R::KIND;
        if let Some(other) = self.0.get(&kind.hash()) {
            let (name, other) = (kind.name(), other.kind.name());
            return Err(if name == other {
                HandlerError::Duplicate { name }
            } else {
                HandlerError::Collision { name, other }
            });
        }
        if self.0.len() >= TYPES_MAX {
            return Err(HandlerError::TooMany { most: TYPES_MAX });
        }
        let responder = Arc::new(Typed { handler, request: PhantomData });
        self.0.insert(kind.hash(), Registered { kind, responder });
        Ok(())
    }

    /// Who handles this type in this version, if it may come on this stream: a stranger's only if it is open to anyone.
    pub(super) fn find(&self, of: Type, open: bool) -> Option<&Arc<dyn Responder>> {
        let registered = self.0.get(&of.hash)?;
        let fits = of.version <= registered.kind.version() && (!open || registered.kind.is_open());
        fits.then_some(&registered.responder)
    }
}
