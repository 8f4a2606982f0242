//! How one delivery runs through handlers: order kept, panics counted, no allocation a message.

use std::any::Any;
use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;

use super::message::Kind;
use super::taking::{Piece, Pieces};
use crate::member::MemberId;
use crate::wire::record::{self, RecordHeader};

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
    records: Bytes,
    /// The next message, if `present`, by its place. It stays where it is until it is done with: moving it, just
    /// written, would cost more than handling it.
    header: RecordHeader,
    body: Range<usize>,
    present: bool,
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

    /// Whether there is a next message, and it is of this type, in a version that is understood.
    #[inline]
    pub(crate) fn is_next(&self, kind: Kind) -> bool {
        self.present && self.header.hash == kind.hash() && self.header.version <= kind.version()
    }

    /// Its body, borrowed.
    #[inline]
    pub(super) fn body(&self) -> &[u8] {
        self.records.get(self.body.clone()).unwrap_or_default()
    }

    /// Its body, shared.
    #[inline]
    pub(super) fn shared(&self) -> Bytes {
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

    /// The next message, to be taken by whoever handles it.
    pub(crate) fn piece(&self) -> Piece<'_> {
        Piece { header: self.header, records: &self.records, body: self.body.clone() }
    }

    /// The messages at the head that are of the type of the first, without passing over them.
    pub(crate) fn ahead(&self, most: usize) -> Pieces {
        let mut pieces = Pieces::new(&self.records);
        let mut next = self.present.then(|| (self.header, self.body.clone()));
        while let Some((header, body)) = next.filter(|_| pieces.len() < most) {
            let mut at = body.end;
            pieces.push(header, body);
            next = std::iter::from_fn(|| {
                let rest = self.records.get(at..).filter(|rest| !rest.is_empty())?;
                let (header, body) = record::locate(rest).ok()?;
                let body = at + body.start..at + body.end;
                at = body.end;
                Some((header, body))
            })
            .find(|(header, _)| !header.is(record::VOID))
            .filter(|(header, _)| header.hash == self.header.hash);
        }
        pieces
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
    pub(super) async fn handle<R: Future<Output = ()>>(&mut self, call: impl FnOnce() -> R) {
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
