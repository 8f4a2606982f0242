//! Handlers by message type. How one of them runs is in [`super::run`].

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::message::{Kind, Message, Raw};
use super::run::Run;
use crate::limits::TYPES_MAX;
use crate::member::MemberId;
use crate::wire::{Protocol, StreamId, TypeEntry};

/// Why a handler was not registered. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// The type has one already.
    #[error("`{name}` has a handler already")]
    Duplicate {
        /// The type's name.
        name: &'static str,
    },
    /// Two names with one hash: rename one of them.
    #[error("`{name}` and `{other}` have the same hash; rename one of them")]
    Collision {
        /// The type that was to be registered.
        name: &'static str,
        /// The type that is registered.
        other: &'static str,
    },
    /// The thread that was to run it did not start.
    #[error("cannot start a thread for the handler: {why}")]
    Thread {
        /// What the operating system says.
        why: String,
    },
    /// There is a fallback handler already.
    #[error("there is a fallback handler already")]
    SecondFallback,
    /// More types than a hello can tell.
    #[error("more than {most} types")]
    TooMany {
        /// The bound.
        most: usize,
    },
}

/// A handler whose message type was erased. Handles all messages of its type at the head of a run.
pub(crate) trait Handler: Send + Sync {
    fn run<'a>(&'a self, run: &'a mut Run<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

struct Typed<M, F> {
    handler: F,
    message: std::marker::PhantomData<fn(M)>,
}

impl<M, F, R> Handler for Typed<M, F>
where
    M: Message,
    F: Fn(MemberId, M) -> R + Send + Sync,
    R: Future<Output = ()> + Send,
{
    fn run<'a>(&'a self, run: &'a mut Run<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            while run.is_next(M::KIND) {
                // Reading it is the user's code as well.
                match catch_unwind(AssertUnwindSafe(|| postcard::from_bytes::<M>(run.body()))) {
                    Ok(Ok(message)) => {
                        let from = run.from;
                        run.handle(|| (self.handler)(from, message)).await;
                    }
                    Ok(Err(error)) => run.counts().note_undecodable(run.from, M::KIND.name(), &error),
                    Err(panic) => run.counts().note_panic(run.from, &*panic),
                }
                run.finish();
            }
        })
    }
}

struct RawTyped<F> {
    kind: Kind,
    handler: F,
}

impl<F, R> Handler for RawTyped<F>
where
    F: Fn(MemberId, Raw) -> R + Send + Sync,
    R: Future<Output = ()> + Send,
{
    fn run<'a>(&'a self, run: &'a mut Run<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            while run.is_next(self.kind) {
                let (from, bytes) = (run.from, run.shared());
                run.handle(|| (self.handler)(from, Raw::new(self.kind, bytes))).await;
                run.finish();
            }
        })
    }
}

/// A message of a type that has no handler here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// The hash of its type's name.
    pub hash: u32,
    /// The version of its body.
    pub version: u16,
    /// Its body, encoded.
    pub bytes: Bytes,
}

struct Fallback<F>(F);

impl<F, R> Handler for Fallback<F>
where
    F: Fn(MemberId, Unmatched) -> R + Send + Sync,
    R: Future<Output = ()> + Send,
{
    fn run<'a>(&'a self, run: &'a mut Run<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let Some((hash, version)) = run.next_type() else { return };
            let message = Unmatched { hash, version, bytes: run.shared() };
            let from = run.from;
            run.handle(|| (self.0)(from, message)).await;
            run.finish();
        })
    }
}

#[derive(Clone)]
struct Registered {
    kind: Kind,
    handler: Arc<dyn Handler>,
}

/// All handlers of a messenger.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    by_hash: HashMap<u32, Registered>,
    fallback: Option<Arc<dyn Handler>>,
}

impl Handlers {
    pub(crate) fn add<M, F, R>(&mut self, handler: F) -> Result<(), HandlerError>
    where
        M: Message,
        F: Fn(MemberId, M) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.insert(M::KIND, Arc::new(Typed { handler, message: std::marker::PhantomData }))
    }

    pub(crate) fn add_raw<F, R>(&mut self, kind: Kind, handler: F) -> Result<(), HandlerError>
    where
        F: Fn(MemberId, Raw) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.insert(kind, Arc::new(RawTyped { kind, handler }))
    }

    pub(crate) fn insert(&mut self, kind: Kind, handler: Arc<dyn Handler>) -> Result<(), HandlerError> {
        if let Some(other) = self.by_hash.get(&kind.hash()) {
            let (name, other) = (kind.name(), other.kind.name());
            return Err(if name == other {
                HandlerError::Duplicate { name }
            } else {
                HandlerError::Collision { name, other }
            });
        }
        // One place is the fallback's, three are those of byte streams, requests and replies.
        if self.by_hash.len() + 4 >= TYPES_MAX {
            return Err(HandlerError::TooMany { most: TYPES_MAX - 4 });
        }
        self.by_hash.insert(kind.hash(), Registered { kind, handler });
        Ok(())
    }

    pub(crate) fn set_fallback<F, R>(&mut self, handler: F) -> Result<(), HandlerError>
    where
        F: Fn(MemberId, Unmatched) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.insert_fallback(Arc::new(Fallback(handler)))
    }

    pub(crate) fn insert_fallback(&mut self, handler: Arc<dyn Handler>) -> Result<(), HandlerError> {
        if self.fallback.is_some() {
            return Err(HandlerError::SecondFallback);
        }
        self.fallback = Some(handler);
        Ok(())
    }

    /// Who handles this type in this version, if it may come on this stream: that of its protocol, and a stranger's only if
    /// it is open to anyone. The fallback is the application's.
    pub(crate) fn find(&self, hash: u32, version: u16, stream: StreamId) -> Option<&Arc<dyn Handler>> {
        match self.by_hash.get(&hash) {
            Some(Registered { kind, handler }) => {
                let fits = stream.protocol() == kind.protocol() && (!stream.is_open() || kind.is_open());
                (fits && version <= kind.version()).then_some(handler)
            }
            None => self.fallback.as_ref().filter(|_| stream.protocol() == Protocol::APPLICATION),
        }
    }

    /// What the peers are told.
    pub(crate) fn types(&self) -> Vec<TypeEntry> {
        let any = |protocol, name: &str| TypeEntry {
            protocol,
            hash: 0,
            version: 0,
            open: true,
            any: true,
            name: name.to_owned(),
        };
        let named = self.by_hash.values().map(|registered| TypeEntry {
            protocol: registered.kind.protocol(),
            hash: registered.kind.hash(),
            version: registered.kind.version(),
            open: registered.kind.is_open(),
            any: false,
            name: registered.kind.name().to_owned(),
        });
        let fallback = self.fallback.iter().map(|_| any(Protocol::APPLICATION, "*"));
        let ours = [
            any(Protocol::BYTES, "karere.bytes"),
            any(Protocol::REQUESTS, "karere.requests"),
            any(Protocol::REPLIES, "karere.replies"),
        ];
        named.chain(fallback).chain(ours).collect()
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_hash.values().map(|registered| registered.kind.name())).finish()
    }
}
