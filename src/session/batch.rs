//! Batches: records of one stream that will travel in one frame, from the producer's hands to the window.

#[cfg(any(test, feature = "testing"))]
mod digest;
mod marks;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::receipt::Ticket;
use crate::limits::{BATCH_BYTES, BATCH_RECORDS_MAX, OWN_FRAME_BYTES, RECORD_OVERHEAD_BYTES};
use crate::wire::frame::{BODY_CRC_BYTES, FrameHeader, FrameKind, HEADER_BYTES as FRAME_HEADER_BYTES};
use crate::wire::record::{self, HEADER_BYTES as RECORD_HEADER_BYTES, RecordHeader};
use crate::wire::{BodyCheck, Seq, StreamId};

pub(crate) use marks::{Mark, Terms};

/// Distinct types remembered for a batch; with more of them each record is looked at.
const TYPES_NOTED: usize = 6;
/// A batch starts small, so that a destination that sends little holds little.
const FIRST_BYTES: usize = 1024;

/// Records that were not written yet. The first [`FRAME_HEADER_BYTES`] of `bytes` wait for the frame's header, so
/// that header, records and checksum become one contiguous piece without a copy.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: BytesMut,
    /// The body of a single large record, shared with whoever else it goes to.
    shared: Option<Bytes>,
    count: u32,
    messages: u32,
    starts_message: bool,
    /// Bytes of the chunked message that begins here, else 0.
    large_bytes: u64,
    tickets: SmallVec<[(u32, Ticket); 1]>,
    types: SmallVec<[(u32, u16); 2]>,
    mixed: bool,
    /// See [`Batch::numbered`].
    serial: u64,
    /// Messages with terms.
    marks: Option<Box<marks::Marks>>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::in_buffer(BytesMut::with_capacity(FIRST_BYTES))
    }

    /// An empty batch in a buffer that is used again.
    pub(crate) fn in_buffer(mut bytes: BytesMut) -> Self {
        bytes.clear();
        bytes.resize(FRAME_HEADER_BYTES, 0);
        Self {
            bytes,
            shared: None,
            count: 0,
            messages: 0,
            starts_message: true,
            large_bytes: 0,
            tickets: SmallVec::new(),
            types: SmallVec::new(),
            mixed: false,
            serial: 0,
            marks: None,
        }
    }

    /// Whether a record with `body_bytes` may be added.
    #[inline]
    pub(crate) fn has_room(&self, body_bytes: usize) -> bool {
        self.shared.is_none()
            && self.count < BATCH_RECORDS_MAX
            && (self.count == 0 || self.bytes.len() + RECORD_HEADER_BYTES + body_bytes <= BATCH_BYTES)
    }

    /// Whether adding `body_bytes` would make a small buffer grow; the caller may have a large one at hand.
    #[inline]
    pub(crate) fn would_grow(&self, body_bytes: usize) -> bool {
        self.bytes.len() + RECORD_HEADER_BYTES + body_bytes + BODY_CRC_BYTES > self.bytes.capacity()
    }

    /// Whether a record with `body_bytes` may be added to what is here, without a larger buffer.
    #[inline]
    pub(crate) fn takes(&self, body_bytes: usize) -> bool {
        let bytes = self.bytes.len() + RECORD_HEADER_BYTES + body_bytes;
        bytes + BODY_CRC_BYTES <= self.bytes.capacity().min(BATCH_BYTES)
            && body_bytes < OWN_FRAME_BYTES
            && self.count < BATCH_RECORDS_MAX
            && self.shared.is_none()
    }

    /// Moves what is there into a larger buffer.
    pub(crate) fn move_to(&mut self, mut larger: BytesMut) {
        larger.clear();
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }

    /// Appends a whole message.
    #[inline]
    pub(crate) fn push(&mut self, hash: u32, version: u16, body: &[u8], ticket: Option<Ticket>) {
        let header = RecordHeader { length: body.len() as u32, flags: record::WHOLE, version, hash };
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(body);
        if let Some(ticket) = ticket {
            self.tickets.push((self.count, ticket));
        }
        self.count += 1;
        self.messages += 1;
        self.note_type(hash, version);
    }

    /// A batch of one record whose body is shared: a large message or one chunk of it. `extension` stands before
    /// the body and counts into the header's length.
    pub(crate) fn of_shared(
        header: RecordHeader,
        extension: &[u8],
        body: Bytes,
        ticket: Option<Ticket>,
    ) -> Self {
        debug_assert_eq!(header.length as usize, extension.len() + body.len());
        let capacity = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + extension.len();
        let mut batch = Self::in_buffer(BytesMut::with_capacity(capacity));
        batch.bytes.extend_from_slice(&header.encode());
        batch.bytes.extend_from_slice(extension);
        batch.shared = Some(body);
        batch.count = 1;
        batch.messages = u32::from(header.is(record::LAST));
        batch.starts_message = header.is(record::FIRST);
        batch.tickets.extend(ticket.map(|ticket| (0, ticket)));
        batch.note_type(header.hash, header.version);
        batch
    }

    #[inline]
    fn note_type(&mut self, hash: u32, version: u16) {
        let noted = (hash, version);
        if self.types.last() != Some(&noted) && !self.types.contains(&noted) {
            self.note_new_type(noted);
        }
    }

    fn note_new_type(&mut self, noted: (u32, u16)) {
        if self.types.len() < TYPES_NOTED {
            self.types.push(noted);
        } else {
            self.mixed = true;
        }
    }

    pub(crate) const fn records(&self) -> u32 {
        self.count
    }

    pub(crate) const fn messages(&self) -> u32 {
        self.messages
    }

    /// The first chunk of a message of so many bytes.
    pub(crate) fn begins_large(mut self, bytes: u64) -> Self {
        self.large_bytes = bytes;
        self
    }

    /// Bytes of the chunked message that begins here, else 0.
    pub(crate) const fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    pub(crate) const fn starts_message(&self) -> bool {
        self.starts_message
    }

    /// What credit counts: headers, extensions and bodies of the records.
    pub(crate) fn record_bytes(&self) -> u64 {
        (self.bytes.len() - FRAME_HEADER_BYTES + self.shared.as_ref().map_or(0, Bytes::len)) as u64
    }

    /// Record bytes of its first record: the least that can be split off.
    pub(crate) fn first_record_bytes(&self) -> u64 {
        if self.count == 1 {
            return self.record_bytes();
        }
        let first = record::peek(self.bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default());
        first.map_or(self.record_bytes(), |header| header.wire_bytes())
    }

    /// What it costs its destination.
    pub(crate) fn charge(&self) -> usize {
        let records = self.record_bytes() as usize + self.count as usize * RECORD_OVERHEAD_BYTES;
        self.marks.as_ref().map_or(records, |marks| marks.adjust(records))
    }

    pub(crate) fn into_tickets(self) -> impl Iterator<Item = Ticket> {
        self.tickets.into_iter().map(|(_, ticket)| ticket)
    }

    /// Whether each record's type passes. Looks at records one by one only when there are too many types.
    pub(crate) fn all_types(&self, passes: impl Fn(u32, u16) -> bool) -> bool {
        !self.mixed && self.types.iter().all(|(hash, version)| passes(*hash, *version))
    }

    /// The type of its first record.
    pub(crate) fn first_type(&self) -> Option<(u32, u16)> {
        self.types.first().copied()
    }

    /// Splits off the records that do not pass, with what each of them is, one batch each.
    pub(crate) fn split_by_type(self, passes: impl Fn(u32, u16) -> bool) -> (Option<Self>, Vec<Self>) {
        if self.shared.is_some() {
            let kept = self.all_types(&passes);
            return if kept { (Some(self), Vec::new()) } else { (None, vec![self]) };
        }
        let mut kept = Self::new().numbered(self.serial);
        let mut refused = Vec::new();
        for record in self.into_records() {
            if passes(record.header.hash, record.header.version) {
                kept.take_over(record);
            } else {
                let mut alone = Self::new();
                alone.take_over(record);
                refused.push(alone);
            }
        }
        ((kept.count > 0).then_some(kept), refused)
    }

    /// Splits off as many records as fit into `room` record bytes; the rest stays behind in order.
    pub(crate) fn split_to_fit(self, room: u64) -> (Option<Self>, Option<Self>) {
        if self.record_bytes() <= room {
            return (Some(self), None);
        }
        if self.shared.is_some() || self.count <= 1 {
            return (None, Some(self));
        }
        let (mut fits, mut rest) = (Self::new(), Self::new().numbered(self.serial));
        for record in self.into_records() {
            let to = if rest.count == 0 && fits.record_bytes() + record.header.wire_bytes() <= room {
                &mut fits
            } else {
                &mut rest
            };
            to.take_over(record);
        }
        ((fits.count > 0).then_some(fits), (rest.count > 0).then_some(rest))
    }

    /// The records of a batch that holds whole messages. Encoded by ourselves, so they decode.
    fn into_records(self) -> impl Iterator<Item = Waiting> {
        let mut records = self.bytes.freeze();
        bytes::Buf::advance(&mut records, FRAME_HEADER_BYTES);
        let mut tickets = self.tickets.into_iter().peekable();
        let mut marks = self.marks.map(|marks| marks.into_live()).into_iter().flatten().peekable();
        (0..self.count).map_while(move |index| {
            let record = record::take(&mut records).ok()?;
            let ticket = tickets.next_if(|(at, _)| *at == index).map(|(_, ticket)| ticket);
            let mark = marks.next_if(|mark| mark.is_at(index));
            Some(Waiting { header: record.header, body: record.body, ticket, mark })
        })
    }

    /// Appends a record of another batch.
    fn take_over(&mut self, Waiting { header, body, ticket, mark }: Waiting) {
        self.push(header.hash, header.version, &body, ticket);
        if let Some(mark) = mark {
            self.mark_again(mark);
        }
    }

    /// Gives the records their numbers and seals the frame.
    pub(crate) fn stamp(
        mut self,
        stream: StreamId,
        first: Seq,
        check: BodyCheck,
        tickets: &mut impl Extend<(Seq, Ticket)>,
    ) -> Sent {
        let record_bytes = self.record_bytes();
        let charge = self.charge();
        let header = FrameHeader {
            stream: stream.to_wire(),
            first,
            count: self.count,
            ..FrameHeader::new(FrameKind::Batch, record_bytes as u32)
        };
        let (head, records) = self.bytes.split_at_mut(FRAME_HEADER_BYTES);
        head.copy_from_slice(&header.encode());
        let checksum = (check == BodyCheck::Crc).then(|| {
            let own = crate::wire::crc(records);
            self.shared.as_ref().map_or(own, |shared| crc32c::crc32c_append(own, shared)).to_le_bytes()
        });
        tickets.extend(self.tickets.into_iter().map(|(at, ticket)| (Seq(first.0 + u64::from(at)), ticket)));
        let mut parts = SmallVec::new();
        match self.shared {
            None => {
                self.bytes.extend_from_slice(checksum.as_ref().map_or(&[], |bytes| bytes));
                parts.push(self.bytes.freeze());
            }
            Some(shared) => {
                parts.push(self.bytes.freeze());
                parts.push(shared);
                parts.extend(checksum.map(|bytes| Bytes::copy_from_slice(&bytes)));
            }
        }
        Sent {
            first,
            count: self.count,
            messages: self.messages,
            ends_message: self.messages > 0,
            record_bytes,
            charge,
            parts,
        }
    }
}

/// A record that goes from one batch to another.
struct Waiting {
    header: RecordHeader,
    body: Bytes,
    ticket: Option<Ticket>,
    mark: Option<Mark>,
}

/// A batch that was handed to a write and is kept until it is acknowledged. Its bytes never change again.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) first: Seq,
    pub(crate) count: u32,
    pub(crate) messages: u32,
    /// Its last record ends a message; only a chunk that is not the last does not.
    pub(crate) ends_message: bool,
    pub(crate) record_bytes: u64,
    pub(crate) charge: usize,
    /// The frame in pieces: all in one, or head, shared body, checksum if there is one.
    pub(crate) parts: SmallVec<[Bytes; 1]>,
}

impl Sent {
    /// The number of its last record.
    pub(crate) const fn last(&self) -> Seq {
        Seq(self.first.0 + self.count as u64 - 1)
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// The buffer, if it is a large one that nobody else reads any more.
    pub(crate) fn into_buffer(mut self) -> Option<BytesMut> {
        match self.parts.pop() {
            Some(part) if self.parts.is_empty() => {
                part.try_into_mut().ok().filter(|buffer| buffer.capacity() >= BATCH_BYTES)
            }
            _ => None,
        }
    }
}
