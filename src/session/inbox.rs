//! One stream's way in: duplicates dropped, order kept, chunks put together, credit granted.

#[cfg(any(test, feature = "testing"))]
mod digest;

use std::any::Any;
use std::fmt;

use bytes::{Bytes, BytesMut};

use super::error::ProtocolError;
use crate::limits::{ACK_RECORDS, ACK_SHARE, CHUNK_BYTES};
use crate::wire::frame::Batch;
use crate::wire::record::{self, Record};
use crate::wire::{Seq, StreamAck, StreamId, StreamResume};

/// What the application gets.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) stream: StreamId,
    pub(crate) content: Content,
    /// Records it stands for; given back with `handle_handled`.
    pub(crate) records: u64,
    /// Record bytes it stands for.
    pub(crate) bytes: u64,
}

/// The two shapes of a delivery.
#[derive(Debug)]
pub(crate) enum Content {
    /// Whole messages, still encoded as records.
    Records(Bytes),
    /// One message that came in chunks, with the memory reserved for it.
    Large { hash: u32, version: u16, body: Bytes, reservation: Option<Reservation> },
}

/// Memory reserved for a large message; given back when dropped. What it is made of is the driver's business.
pub(crate) struct Reservation(#[allow(dead_code, reason = "held for its drop")] Option<Box<dyn Any + Send>>);

impl Reservation {
    pub(crate) fn new(permit: impl Any + Send) -> Self {
        Self(Some(Box::new(permit)))
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reservation")
    }
}

/// A message of which some chunks came.
#[derive(Debug)]
struct Reassembly {
    hash: u32,
    version: u16,
    total: usize,
    body: BytesMut,
    records: u64,
    bytes: u64,
    reservation: Reserved,
}

#[derive(Debug)]
enum Reserved {
    /// Fits into the ordinary credit.
    NotNeeded,
    Waiting,
    Granted(Reservation),
}

/// What is the same for all streams of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InboxLimits {
    pub(crate) credit_bytes: u64,
    pub(crate) message_bytes_max: usize,
}

/// What a batch led to.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) duplicates: u64,
    /// Record bytes, duplicates not counted.
    pub(crate) bytes: u64,
    /// Memory to be reserved before the rest of a message may come.
    pub(crate) reserve: Option<u64>,
}

/// See the module's text. Invariants: `handled <= accepted`, `granted` only grows.
#[derive(Debug)]
pub(crate) struct Inbox {
    stream: StreamId,
    limits: InboxLimits,
    next: Seq,
    /// Record bytes accepted.
    offset: u64,
    handled: Seq,
    handled_offset: u64,
    /// Credit told to the peer, or about to be.
    granted: u64,
    /// As last acknowledged.
    told: StreamAck,
    told_offset: u64,
    reassembly: Option<Reassembly>,
    /// A repeated record, or a new link: an acknowledgement was lost, so say it again.
    repeat: bool,
}

impl Inbox {
    pub(crate) fn new(stream: StreamId, limits: InboxLimits) -> Self {
        let granted = limits.credit_bytes;
        let told = StreamAck { stream, accepted: Seq::NONE, handled: Seq::NONE, credit: granted };
        Self {
            stream,
            limits,
            next: Seq(1),
            offset: 0,
            handled: Seq::NONE,
            handled_offset: 0,
            granted,
            told,
            told_offset: 0,
            reassembly: None,
            repeat: false,
        }
    }

    /// The head of a message came, and not its last chunk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn is_in_message(&self) -> bool {
        self.reassembly.is_some()
    }

    /// What the hello says of this stream; it acknowledges as well.
    pub(crate) fn resume_point(&self) -> StreamResume {
        StreamResume { stream: self.stream, next_expected: self.next, credit: self.granted }
    }

    pub(crate) fn handle_batch(&mut self, batch: &Batch) -> Result<Accepted, ProtocolError> {
        if batch.first > self.next {
            let (found, expected) = (batch.first, self.next);
            return Err(ProtocolError::Gap { stream: self.stream, found, expected });
        }
        let mut accepted = Accepted::default();
        let known = (self.next.0 - batch.first.0).min(u64::from(batch.count));
        let mut records = batch.records.clone();
        for _ in 0..known {
            record::take(&mut records)?;
        }
        if known > 0 {
            accepted.duplicates = known;
            self.repeat = true;
        }
        let fresh = u64::from(batch.count) - known;
        let bytes = records.len() as u64;
        if self.offset + bytes > self.granted && fresh > 0 {
            let (offset, credit) = (self.offset + bytes, self.granted);
            return Err(ProtocolError::BeyondCredit { stream: self.stream, offset, credit });
        }
        self.split(batch.count, fresh, records, &mut accepted)?;
        self.next = Seq(self.next.0 + fresh);
        self.offset += bytes;
        accepted.bytes = bytes;
        self.extend_credit();
        Ok(accepted)
    }

    /// Whole messages stay together; a chunk, which travels alone, goes to the reassembly. Every record is checked
    /// before anything of the batch counts.
    fn split(
        &mut self,
        count: u32,
        fresh: u64,
        mut records: Bytes,
        accepted: &mut Accepted,
    ) -> Result<(), ProtocolError> {
        let stream = self.stream;
        let mut at = 0;
        let mut chunk = false;
        for _ in 0..fresh {
            let header = record::check(records.get(at..).unwrap_or_default())?;
            at += header.wire_bytes() as usize;
            chunk |= !header.is(record::WHOLE);
        }
        if at != records.len() {
            return Err(ProtocolError::Count { stream, count });
        }
        if chunk && count > 1 {
            return Err(ProtocolError::Chunks { stream, what: "a chunk among other records" });
        }
        if !chunk && fresh > 0 {
            if self.reassembly.is_some() {
                return Err(ProtocolError::Chunks { stream, what: "a message begins inside another" });
            }
            let bytes = records.len() as u64;
            let content = Content::Records(records);
            accepted.deliveries.push(Delivery { stream, content, records: fresh, bytes });
        } else if fresh > 0 {
            let record = record::take(&mut records)?;
            let delivery = self.chunk(&record, &mut accepted.reserve)?;
            accepted.deliveries.extend(delivery);
        }
        Ok(())
    }

    /// Nothing changes before all is checked: after an error the same number may come again, and be good.
    fn chunk(
        &mut self,
        record: &Record,
        reserve: &mut Option<u64>,
    ) -> Result<Option<Delivery>, ProtocolError> {
        let stream = self.stream;
        let fail = |what| Err(ProtocolError::Chunks { stream, what });
        let header = record.header;
        let first = header.is(record::FIRST);
        let (total, so_far) = match (&self.reassembly, record.total) {
            (Some(_), _) if first => return fail("a message begins inside another"),
            (Some(begun), _) if (begun.hash, begun.version) != (header.hash, header.version) => {
                return fail("the type changes between chunks");
            }
            (Some(begun), _) => (begun.total, begun.body.len()),
            (None, _) if !first => return fail("a chunk without its first"),
            (None, None) => return fail("the first chunk does not state the total"),
            (None, Some(total)) => (self.check_total(total)?, 0),
        };
        let came = so_far + record.body.len();
        let complete = came == total;
        if came > total {
            return fail("more than the stated total");
        }
        if complete != header.is(record::LAST) {
            return fail("the last chunk and the stated total do not fit");
        }
        if first {
            self.begin(record, total, reserve);
        }
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.body.extend_from_slice(&record.body);
            reassembly.records += 1;
            reassembly.bytes += header.wire_bytes();
        }
        if !complete {
            return Ok(None);
        }
        Ok(self.reassembly.take().map(|whole| Delivery {
            stream: self.stream,
            records: whole.records,
            bytes: whole.bytes,
            content: Content::Large {
                hash: whole.hash,
                version: whole.version,
                body: whole.body.freeze(),
                reservation: match whole.reservation {
                    Reserved::Granted(reservation) => Some(reservation),
                    Reserved::NotNeeded | Reserved::Waiting => None,
                },
            },
        }))
    }

    fn check_total(&self, total: u64) -> Result<usize, ProtocolError> {
        let (stream, most) = (self.stream, self.limits.message_bytes_max);
        let fits = usize::try_from(total).ok().filter(|total| *total <= most);
        fits.ok_or(ProtocolError::MessageTooLarge { stream, bytes: total, most: most as u64 })
    }

    fn begin(&mut self, record: &Record, total: usize, reserve: &mut Option<u64>) {
        let needed = wire_bytes_of(total) > self.limits.credit_bytes;
        if needed {
            *reserve = Some(total as u64);
        }
        self.reassembly = Some(Reassembly {
            hash: record.header.hash,
            version: record.header.version,
            total,
            body: BytesMut::with_capacity(if needed { record.body.len() } else { total }),
            records: 0,
            bytes: 0,
            reservation: if needed { Reserved::Waiting } else { Reserved::NotNeeded },
        });
    }

    /// The memory for the message under way is there: the rest of it may come. Stale ones are given back.
    pub(crate) fn handle_reserved(&mut self, reservation: Reservation) {
        if let Some(reassembly) = &mut self.reassembly
            && matches!(reassembly.reservation, Reserved::Waiting)
        {
            let rest = reassembly.total.saturating_sub(reassembly.body.len());
            reassembly.body.reserve(rest);
            reassembly.reservation = Reserved::Granted(reservation);
            self.extend_credit();
        }
    }

    /// Handlers are done with so much, in order.
    pub(crate) fn handle_handled(&mut self, records: u64, bytes: u64) {
        self.handled = Seq(self.handled.0 + records);
        self.handled_offset += bytes;
        debug_assert!(self.handled < self.next && self.handled_offset <= self.offset);
        self.extend_credit();
    }

    fn extend_credit(&mut self) {
        self.granted = self.granted.max(self.handled_offset + self.limits.credit_bytes);
        if let Some(Reassembly { reservation: Reserved::Granted(_), total, body, .. }) = &self.reassembly {
            let rest = wire_bytes_of(total.saturating_sub(body.len()));
            self.granted = self.granted.max(self.offset + rest);
        }
    }

    /// Something changed since the last acknowledgement.
    pub(crate) fn is_ack_wanted(&self) -> bool {
        self.repeat || self.ack() != self.told
    }

    /// Enough changed that the acknowledgement goes alone.
    pub(crate) fn is_ack_due(&self) -> bool {
        let share = self.limits.credit_bytes / ACK_SHARE;
        self.repeat
            || self.offset - self.told_offset >= share
            || self.granted - self.told.credit >= share
            || self.next.previous().0 - self.told.accepted.0 >= ACK_RECORDS
    }

    fn ack(&self) -> StreamAck {
        let accepted = self.next.previous();
        StreamAck { stream: self.stream, accepted, handled: self.handled, credit: self.granted }
    }

    /// The acknowledgement, said now.
    pub(crate) fn say_ack(&mut self) -> StreamAck {
        self.told = self.ack();
        self.told_offset = self.offset;
        self.repeat = false;
        self.told
    }

    /// On a new link all of it is said once more.
    pub(crate) fn link_up(&mut self) {
        self.repeat = true;
    }

    /// Which stream this is.
    pub(crate) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// The last record accepted.
    pub(crate) const fn accepted(&self) -> Seq {
        self.next.previous()
    }

    /// Record bytes that wait for their handler.
    pub(crate) const fn unhandled_bytes(&self) -> u64 {
        self.offset - self.handled_offset
    }
}

/// Record bytes of a message, or the rest of one, that comes in chunks. A bound: never too little.
fn wire_bytes_of(body_bytes: usize) -> u64 {
    let chunks = body_bytes / CHUNK_BYTES + 2;
    (body_bytes + chunks * (record::HEADER_BYTES + record::TOTAL_EXTENSION_BYTES)) as u64
}
