//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::Outbox;

impl Outbox {
    pub(in crate::session) fn digest(&self, into: &mut impl Hasher) {
        let Self {
            stream,
            queue,
            window,
            cursor,
            next,
            offset,
            acked,
            handled,
            credit,
            window_bytes,
            in_message,
            held,
            head_refused,
            blocked_since,
            waits_since: _,
            blocked: _,
            unacked,
            unhandled,
            served: _,
        } = self;
        (stream, cursor, next, offset, acked, handled, credit).hash(into);
        (window_bytes, in_message, held, head_refused, blocked_since.is_some()).hash(into);
        queue.len().hash(into);
        queue.iter().for_each(|batch| batch.digest(into));
        window.len().hash(into);
        window.iter().for_each(|(sent, _)| (sent.first, sent.count, &sent.parts).hash(into));
        let seqs = |list: &std::collections::VecDeque<(crate::wire::Seq, _)>, into: &mut _| {
            list.len().hash(into);
            list.iter().for_each(|(seq, _)| seq.hash(into));
        };
        seqs(unacked, into);
        seqs(unhandled, into);
    }

    pub(in crate::session) fn types_kept(&self, note: &mut impl FnMut(u32)) {
        self.queue.iter().for_each(|batch| batch.types_kept(note));
        self.window.iter().for_each(|(sent, _)| sent.types_kept(note));
    }
}
