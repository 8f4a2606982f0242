//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::Link;

impl Link {
    pub(crate) fn digest(&self, into: &mut impl Hasher) {
        // Which link it is shows where it leads; numbers of pings are compared with each other only to measure.
        let Self {
            id: _,
            config: _,
            since: _,
            heard: _,
            said: _,
            pinged: _,
            nonce: _,
            asked: _,
            answer,
            ping_due,
            stalled_since,
            rtt: _,
            spoke: _,
            note_at: _,
            unheard,
        } = self;
        (answer.is_some(), ping_due, stalled_since.is_some(), unheard.is_some()).hash(into);
    }
}
