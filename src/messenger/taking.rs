//! From records to what the user's code takes, for handlers that run it elsewhere than in the messenger's tasks.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Messenger;
use super::handlers::{Handler, HandlerCounts, HandlerError, Run, Unmatched};
use super::message::{Kind, Message, Raw};
use crate::wire::record::{self, RecordHeader};

/// One message, where it came.
pub(crate) struct Piece<'a> {
    pub(super) header: RecordHeader,
    pub(super) records: &'a Bytes,
    pub(super) body: Range<usize>,
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        self.records.get(self.body.clone()).unwrap_or_default()
    }

    fn shared(&self) -> Bytes {
        self.records.slice(self.body.clone())
    }
}

/// Messages of one delivery, to be taken somewhere else. Bounded by the delivery.
pub(crate) struct Pieces {
    records: Bytes,
    places: Vec<(RecordHeader, Range<usize>)>,
}

impl Pieces {
    pub(super) fn new(records: &Bytes) -> Self {
        Self { records: records.clone(), places: Vec::new() }
    }

    pub(super) fn push(&mut self, header: RecordHeader, body: Range<usize>) {
        self.places.push((header, body));
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Piece<'_>> {
        let piece = |(header, body): &(RecordHeader, Range<usize>)| Piece {
            header: *header,
            records: &self.records,
            body: body.clone(),
        };
        self.places.iter().map(piece)
    }
}

impl Run<'_> {
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
}

/// How a piece becomes what the user's code takes.
pub(crate) trait Take: Send + Sync + 'static {
    type Message: Send + 'static;

    /// Which type; `None`: whatever nobody else handles.
    fn kind(&self) -> Option<Kind>;

    fn take(&self, piece: &Piece<'_>) -> Result<Self::Message, postcard::Error>;
}

/// Typed messages.
pub(crate) struct TakeTyped<M>(PhantomData<fn() -> M>);

impl<M> TakeTyped<M> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<M: Message> Take for TakeTyped<M> {
    type Message = M;

    fn kind(&self) -> Option<Kind> {
        Some(M::KIND)
    }

    fn take(&self, piece: &Piece<'_>) -> Result<M, postcard::Error> {
        postcard::from_bytes(piece.bytes())
    }
}

/// Bytes as they came.
pub(crate) struct TakeRaw(pub(crate) Kind);

impl Take for TakeRaw {
    type Message = Raw;

    fn kind(&self) -> Option<Kind> {
        Some(self.0)
    }

    fn take(&self, piece: &Piece<'_>) -> Result<Raw, postcard::Error> {
        Ok(Raw::new(self.0, piece.shared()))
    }
}

/// What nobody else handles.
pub(crate) struct TakeUnmatched;

impl Take for TakeUnmatched {
    type Message = Unmatched;

    fn kind(&self) -> Option<Kind> {
        None
    }

    fn take(&self, piece: &Piece<'_>) -> Result<Unmatched, postcard::Error> {
        let RecordHeader { hash, version, .. } = piece.header;
        Ok(Unmatched { hash, version, bytes: piece.shared() })
    }
}

/// Does something when it goes.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Messenger {
    /// Registers a handler that takes messages by itself.
    pub(crate) fn register_taker(
        &self,
        kind: Option<Kind>,
        handler: Arc<dyn Handler>,
    ) -> Result<(), HandlerError> {
        self.register(|handlers| match kind {
            Some(kind) => handlers.insert(kind, handler),
            None => handlers.insert_fallback(handler),
        })
    }

    /// What handlers did not do.
    pub(crate) fn handler_counts(&self) -> Arc<HandlerCounts> {
        Arc::clone(&self.inner.shared.counts)
    }

    /// Does something once, when the messenger has stopped, however that came about.
    pub(crate) fn when_stopped(&self, act: impl FnMut() + Send + 'static) {
        let driver = &self.inner.shared.driver;
        let (at_end, stop) = (AtEnd(act), driver.stop.clone());
        driver.spawn(async move {
            let _at_end = at_end;
            stop.cancelled().await;
        });
    }
}
