//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::{Batch, FRAME_HEADER_BYTES};

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
}
