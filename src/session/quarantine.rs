//! What came from a peer that has joined and is in no view here yet. Held, bounded in bytes and time, and not
//! acknowledged: neither in an ack nor in a hello. A view that includes the peer lets it in, in order; otherwise it is
//! dropped, and the sender still has it. Rule 15 of docs/PROTOCOL.md.

#[cfg(any(test, feature = "testing"))]
mod digest;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Session;
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

impl Session {
    /// What passes on streams that are for members only. What was held comes in when both are in one view, and is
    /// dropped, unacknowledged, when the gate is shut.
    pub(crate) fn set_gate(&mut self, now: Instant, gate: Gate) -> Result<(), ProtocolError> {
        self.gate = gate;
        match gate {
            Gate::Hold => Ok(()),
            Gate::Shut => {
                self.drop_quarantined();
                Ok(())
            }
            Gate::Open => self.quarantine.release().iter().try_for_each(|batch| self.accept(now, batch)),
        }
    }

    /// When the quarantine has lasted too long, if anything is held.
    pub(crate) const fn quarantined_until(&self) -> Option<Instant> {
        self.quarantine.until()
    }

    /// Record bytes held in quarantine.
    pub(crate) const fn quarantined_bytes(&self) -> usize {
        self.quarantine.bytes()
    }

    /// Nothing of it was acknowledged: its sender still has it.
    pub(crate) fn drop_quarantined(&mut self) {
        drop(self.quarantine.release());
    }

    /// Whether both are in one view.
    pub(crate) const fn is_admitted(&self) -> bool {
        matches!(self.gate, Gate::Open)
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
