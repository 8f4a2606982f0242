//! What came from a peer that has joined and is in no view here yet. Held, bounded in bytes and time, and not
//! acknowledged: neither in an ack nor in a hello. A view that includes the peer lets it in, in order; otherwise it is
//! dropped, and the sender still has it. Rule 15 of docs/PROTOCOL.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::ProtocolError;
use crate::limits::{QUARANTINE_BYTES, QUARANTINE_PROCESS_BYTES};
use crate::wire::frame::Batch;
use crate::wire::{Seq, StreamId};

/// What becomes of records on streams that are for members only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Both are in one view.
    Open,
    /// It has joined, and no view here says so yet.
    Hold,
    /// It has never joined.
    Shut,
}

/// What all quarantines of a process hold, in record bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuarantineRoom(Arc<AtomicUsize>);

impl QuarantineRoom {
    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= QUARANTINE_PROCESS_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Quarantine {
    time: Duration,
    room: QuarantineRoom,
    held: Vec<Batch>,
    bytes: usize,
    until: Option<Instant>,
}

impl Quarantine {
    pub(super) fn new(time: Duration, room: QuarantineRoom) -> Self {
        Self { time, room, held: Vec::new(), bytes: 0, until: None }
    }

    /// Holds a batch. `accepted` is the last record of its stream that was let in.
    pub(super) fn hold(&mut self, now: Instant, batch: &Batch, accepted: Seq) -> Result<(), ProtocolError> {
        let expected = self.last(batch.stream).unwrap_or(accepted).next();
        if batch.first > expected {
            return Err(ProtocolError::Gap { stream: batch.stream, found: batch.first, expected });
        }
        if last(batch) < expected {
            // All of it is held already.
            return Ok(());
        }
        let bytes = batch.records.len();
        if self.bytes + bytes > QUARANTINE_BYTES || !self.room.take(bytes) {
            return Err(ProtocolError::QuarantineFull);
        }
        self.bytes += bytes;
        self.until.get_or_insert(now + self.time);
        // Copied: a slice would keep the whole read buffer.
        self.held.push(Batch { records: Bytes::copy_from_slice(&batch.records), ..batch.clone() });
        Ok(())
    }

    fn last(&self, stream: StreamId) -> Option<Seq> {
        self.held.iter().rev().find(|batch| batch.stream == stream).map(last)
    }

    /// All that is held, in the order in which it came; nothing is any more.
    pub(super) fn release(&mut self) -> Vec<Batch> {
        self.until = None;
        self.room.give_back(std::mem::take(&mut self.bytes));
        std::mem::take(&mut self.held)
    }

    /// When it has lasted too long.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Record bytes held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.release();
    }
}

const fn last(batch: &Batch) -> Seq {
    Seq(batch.first.0 + batch.count as u64 - 1)
}
