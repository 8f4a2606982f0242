//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::Inbox;

impl Inbox {
    pub(in crate::session) fn digest(&self, into: &mut impl Hasher) {
        let Self {
            stream,
            limits: _,
            next,
            offset,
            handled,
            handled_offset,
            granted,
            told,
            told_offset,
            reassembly,
            repeat,
        } = self;
        (stream, next, offset, handled, handled_offset, granted, told_offset, repeat).hash(into);
        (told.accepted, told.handled, told.credit).hash(into);
        // Large messages are not in any model.
        debug_assert!(reassembly.is_none());
    }
}
