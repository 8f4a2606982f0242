//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::{Intake, Lane};

impl Intake {
    pub(in crate::session) fn digest(&self, into: &mut impl Hasher) {
        // What is charged and counted follows from what is here; who waits, and terms, are not in any model.
        let Self {
            closed,
            link_up,
            epoch,
            account: _,
            buffers: _,
            lanes,
            last: _,
            queued: _,
            waiting: _,
            refused,
            register: _,
        } = self;
        (closed, link_up, epoch, refused).hash(into);
        for Lane { stream, queue, keys: _ } in lanes.iter().filter(|lane| !lane.queue.is_empty()) {
            (stream, queue.len()).hash(into);
            queue.iter().for_each(|batch| batch.digest(into));
        }
    }

    pub(in crate::session) fn types_kept(&self, note: &mut impl FnMut(u32)) {
        let queued = self.lanes.iter().flat_map(|lane| &lane.queue);
        queued.for_each(|batch| batch.types_kept(note));
    }
}
