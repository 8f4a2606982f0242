//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::{Batch, FRAME_HEADER_BYTES, Sent};
use crate::session::digest::types_of;

impl Batch {
    pub(in crate::session) fn digest(&self, into: &mut impl Hasher) {
        // What is noted of its records follows from its bytes.
        let Self {
            bytes,
            shared,
            count,
            messages,
            starts_message,
            large_bytes,
            tickets: _,
            types: _,
            mixed: _,
            serial: _,
            marks: _,
        } = self;
        (count, messages, starts_message, large_bytes, shared).hash(into);
        bytes.get(FRAME_HEADER_BYTES..).hash(into);
    }

    pub(in crate::session) fn types_kept(&self, note: &mut impl FnMut(u32)) {
        types_of(self.bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default(), note);
    }
}

impl Sent {
    pub(in crate::session) fn types_kept(&self, note: &mut impl FnMut(u32)) {
        let records = self.parts.first().and_then(|part| part.get(FRAME_HEADER_BYTES..));
        let bytes = self.record_bytes as usize;
        types_of(records.and_then(|records| records.get(..bytes)).unwrap_or_default(), note);
    }
}
