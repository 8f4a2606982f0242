//! The last changes, so that who was away for a while need not be told everything.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::rendezvous::common::Change;

/// Whether it says nothing.
pub(super) fn is_empty(change: &Change) -> bool {
    change.view.is_none() && change.routes.is_empty() && change.leases.is_empty()
}

/// Changes that are kept: some seconds of a busy network; who is further behind gets everything.
const CHANGES_MAX: usize = 4096;
/// Their bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The last changes, encoded once for all who are told.
#[derive(Debug, Default)]
pub(super) struct History {
    /// (`after`, `index`, encoded), each `after` being the `index` before it.
    changes: VecDeque<(u64, u64, Bytes)>,
    bytes: usize,
}

impl History {
    pub(super) fn push(&mut self, change: &Change) {
        let encoded = postcard::to_stdvec(change).map(Bytes::from).unwrap_or_default();
        self.bytes += encoded.len();
        self.changes.push_back((change.after, change.index, encoded));
        while self.changes.len() > CHANGES_MAX || (self.bytes > BYTES_MAX && self.changes.len() > 1) {
            if let Some((_, _, gone)) = self.changes.pop_front() {
                self.bytes -= gone.len();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The change that follows this place, and its own place; `None` if it is not kept.
    pub(super) fn next_after(&self, place: u64) -> Option<(u64, Bytes)> {
        let at = self.changes.partition_point(|(after, _, _)| *after < place);
        let (after, index, encoded) = self.changes.get(at)?;
        (*after == place).then(|| (*index, encoded.clone()))
    }
}
