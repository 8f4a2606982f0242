//! Handlers by message type, and how one of them runs: order kept, panics counted, no allocation a message.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;

use super::message::{Kind, Message, Raw};
use crate::limits::TYPES_MAX;
use crate::member::MemberId;
use crate::wire::record::{self, RecordHeader};
use crate::wire::{Protocol, TypeEntry};

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

/// What a handler did not do for a message.
#[derive(Debug, Default)]
pub(crate) struct HandlerCounts {
    /// Handlers that panicked.
    pub(crate) panics: AtomicU64,
    /// Bodies that could not be decoded.
    pub(crate) undecodable: AtomicU64,
    /// Records of a type that nobody here handles, or of a stranger who may not send it.
    pub(crate) refused: AtomicU64,
    /// Records that waited for their handler, or were with it, when the messenger closed.
    pub(crate) dropped: AtomicU64,
}

/// Before the first record.
const NO_HEADER: RecordHeader = RecordHeader { length: 0, flags: 0, version: 0, hash: 0 };

/// The records of one delivery that are left to be handled.
pub(crate) struct Run<'a> {
    pub(crate) from: MemberId,
    pub(super) records: Bytes,
    /// The next message, if `present`, by its place. It stays where it is until it is done with: moving it, just
    /// written, would cost more than handling it.
    pub(super) header: RecordHeader,
    pub(super) body: Range<usize>,
    pub(super) present: bool,
    /// Records handled so far, and their bytes.
    done: (u64, u64),
    progress: Progress<'a>,
    counts: &'a HandlerCounts,
}

/// Whom a run tells how far it is.
#[derive(Clone, Copy)]
pub(crate) struct Progress<'a> {
    /// Records and bytes that are done: told at the end, and when a handler is not ready at once, so that credit for
    /// what is done comes back meanwhile.
    pub(crate) report: &'a (dyn Fn(u64, u64) + Send + Sync),
    /// Raised for each message: each has one reply that may draw on the reserve.
    pub(crate) message: &'a AtomicU64,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        from: MemberId,
        records: Bytes,
        progress: Progress<'a>,
        counts: &'a HandlerCounts,
    ) -> Self {
        let mut run = Self::of_one(from, NO_HEADER, records, progress, counts);
        run.body = 0..0;
        run.fetch();
        run
    }

    /// One message that came in chunks.
    pub(crate) fn of_one(
        from: MemberId,
        header: RecordHeader,
        records: Bytes,
        progress: Progress<'a>,
        counts: &'a HandlerCounts,
    ) -> Self {
        let body = 0..records.len();
        Self { from, records, header, body, present: true, done: (0, 0), progress, counts }
    }

    #[inline]
    fn fetch(&mut self) {
        self.present = false;
        let mut at = self.body.end;
        while let Some(rest) = self.records.get(at..).filter(|rest| !rest.is_empty()) {
            // The session has checked all of them.
            let Ok((header, body)) = record::locate(rest) else { return };
            (self.header, self.body) = (header, at + body.start..at + body.end);
            at = self.body.end;
            if !header.is(record::VOID) {
                self.present = true;
                return;
            }
            self.count();
        }
    }

    #[inline]
    fn count(&mut self) {
        self.done.0 += 1;
        self.done.1 += self.header.wire_bytes();
    }

    /// The type of the next message.
    pub(crate) fn next_type(&self) -> Option<(u32, u16)> {
        self.present.then_some((self.header.hash, self.header.version))
    }

    /// Whether there is a next message, and it is of this type.
    #[inline]
    pub(crate) fn is_next(&self, hash: u32) -> bool {
        self.present && self.header.hash == hash
    }

    /// Its body, borrowed.
    #[inline]
    fn body(&self) -> &[u8] {
        self.records.get(self.body.clone()).unwrap_or_default()
    }

    /// Its body, shared.
    #[inline]
    fn shared(&self) -> Bytes {
        self.records.slice(self.body.clone())
    }

    /// The next message is done with.
    #[inline]
    pub(crate) fn finish(&mut self) {
        self.count();
        self.fetch();
        // One task at a time runs a stream's handlers.
        let message = self.progress.message;
        message.store(message.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// What handlers did not do.
    pub(crate) const fn counts(&self) -> &HandlerCounts {
        self.counts
    }

    /// Passes over the next message: nobody handles it.
    pub(crate) fn refuse(&mut self) {
        if self.present {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            self.finish();
        }
    }

    /// Tells what is done.
    pub(crate) fn flush(&mut self) {
        let (records, bytes) = std::mem::take(&mut self.done);
        if records > 0 {
            (self.progress.report)(records, bytes);
        }
    }

    /// Runs one handler to its end. A panic, of the call or of the future it gives, costs this one message.
    #[inline]
    async fn handle<R: Future<Output = ()>>(&mut self, call: impl FnOnce() -> R) {
        let outcome = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(future) => self.poll_to_end(pin!(future)).await,
            Err(panic) => Err(panic),
        };
        if let Err(panic) = outcome {
            self.note_panic(&*panic);
        }
    }

    #[inline]
    async fn poll_to_end(
        &mut self,
        mut future: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Box<dyn Any + Send>> {
        std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => {
                self.flush();
                Poll::Pending
            }
            Err(panic) => Poll::Ready(Err(panic)),
        })
        .await
    }

    fn note_panic(&self, panic: &(dyn Any + Send)) {
        self.counts.note_panic(self.from, panic);
    }
}

impl HandlerCounts {
    /// A handler panicked over a message.
    pub(crate) fn note_panic(&self, from: MemberId, panic: &(dyn Any + Send)) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        tracing::error!(%from, panic = text, "a handler panicked; its message counts as handled");
    }

    /// A body could not be decoded.
    pub(crate) fn note_undecodable(&self, from: MemberId, kind: &str, error: &postcard::Error) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%from, kind, %error, "cannot decode a message");
    }
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
            while run.is_next(M::KIND.hash()) {
                match postcard::from_bytes::<M>(run.body()) {
                    Ok(message) => {
                        let from = run.from;
                        run.handle(|| (self.handler)(from, message)).await;
                    }
                    Err(error) => run.counts.note_undecodable(run.from, M::KIND.name(), &error),
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
            while run.is_next(self.kind.hash()) {
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
        // One place is the fallback's, one the byte streams'.
        if self.by_hash.len() + 2 >= TYPES_MAX {
            return Err(HandlerError::TooMany { most: TYPES_MAX - 2 });
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

    /// Who handles this type, if it may come on this stream: a stranger's only if it is open to anyone.
    pub(crate) fn find(&self, hash: u32, open: bool) -> Option<&Arc<dyn Handler>> {
        match self.by_hash.get(&hash) {
            Some(registered) => (!open || registered.kind.is_open()).then_some(&registered.handler),
            None => self.fallback.as_ref(),
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
            protocol: Protocol::APPLICATION,
            hash: registered.kind.hash(),
            version: registered.kind.version(),
            open: registered.kind.is_open(),
            any: false,
            name: registered.kind.name().to_owned(),
        });
        let fallback = self.fallback.iter().map(|_| any(Protocol::APPLICATION, "*"));
        named.chain(fallback).chain([any(Protocol::BYTES, "karere.bytes")]).collect()
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_hash.values().map(|registered| registered.kind.name())).finish()
    }
}
