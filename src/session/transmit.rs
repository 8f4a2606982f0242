//! What is to be written to a link next, in pieces.

use bytes::Bytes;

use crate::limits::WRITE_BYTES;
use crate::wire::{BodyCheck, Frame, frame};

/// Pieces for one vectored write. Filled by `poll_transmit`, emptied by the driver.
#[derive(Debug, Default)]
pub(crate) struct Transmit {
    pub(crate) parts: Vec<Bytes>,
    bytes: usize,
    acks_at: usize,
    check: BodyCheck,
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

    /// Whether another frame may be added: a write is bounded, because what the kernel holds cannot be overtaken.
    pub(crate) const fn has_room(&self) -> bool {
        self.bytes < WRITE_BYTES
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
        self.acks_at = 0;
    }
}
