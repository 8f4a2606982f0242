//! What is to be written to a link next, in pieces.

use bytes::Bytes;

use crate::limits::WRITE_BYTES;
use crate::wire::{BodyCheck, Frame, frame};

/// Pieces for one vectored write. Filled by `poll_transmit`, emptied by the driver.
#[derive(Debug)]
pub(crate) struct Transmit {
    pub(crate) parts: Vec<Bytes>,
    bytes: usize,
    /// What was there before batches came.
    before_batches: usize,
    /// For batches.
    room_bytes: usize,
    acks_at: usize,
    check: BodyCheck,
}

impl Default for Transmit {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            bytes: 0,
            before_batches: 0,
            room_bytes: WRITE_BYTES,
            acks_at: 0,
            check: BodyCheck::default(),
        }
    }
}

impl Transmit {
    /// For links whose bodies carry this checksum; the default is CRC32C.
    pub(crate) fn new(check: BodyCheck) -> Self {
        Self { check, ..Self::default() }
    }

    /// What frames carry behind their bodies.
    pub(crate) const fn check(&self) -> BodyCheck {
        self.check
    }

    /// The bytes of a frame as this link carries them.
    pub(crate) fn encode(&self, frame: &Frame) -> Bytes {
        frame::encode(frame, self.check)
    }

    pub(crate) fn push(&mut self, part: Bytes) {
        self.bytes += part.len();
        self.parts.push(part);
    }

    /// Puts a piece before others.
    pub(crate) fn insert(&mut self, at: usize, part: Bytes) {
        self.bytes += part.len();
        self.parts.insert(at.min(self.parts.len()), part);
    }

    /// Acknowledgements go here, before whatever is added from now on.
    pub(crate) fn mark_acks(&mut self) {
        self.acks_at = self.parts.len();
    }

    /// Where acknowledgements go.
    pub(crate) const fn acks_at(&self) -> usize {
        self.acks_at
    }

    /// No more batches are added when there are so many bytes of them; at least one always is.
    pub(crate) fn set_room(&mut self, bytes: usize) {
        self.room_bytes = bytes.max(1);
    }

    /// What is here already takes no room from batches that come now: nothing that is sent all the time may starve them.
    pub(crate) const fn begin_batches(&mut self) {
        self.before_batches = self.bytes;
    }

    /// Whether another batch may be added: a write is bounded, because what it holds cannot be overtaken.
    pub(crate) const fn has_room(&self) -> bool {
        self.bytes < WRITE_BYTES && self.bytes - self.before_batches < self.room_bytes
    }

    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Forgets the pieces, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
        self.before_batches = 0;
        self.acks_at = 0;
    }
}
