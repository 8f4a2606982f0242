//! What is counted of messages.

use crate::wire::{Epoch, StreamId};

/// What a handler is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handled {
    /// The session that delivered it.
    pub(crate) epoch: Epoch,
    pub(crate) stream: StreamId,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// How messages ended, and what it took. Messages, not records, but for `resent` and `duplicates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) acked: u64,
    pub(crate) not_sent: u64,
    pub(crate) indeterminate: u64,
    /// Records written again.
    pub(crate) resent: u64,
    /// Records received again.
    pub(crate) duplicates: u64,
    /// Records that handlers are done with.
    pub(crate) handled: u64,
    /// Frame bytes of batches written.
    pub(crate) bytes_written: u64,
    /// Record bytes accepted.
    pub(crate) bytes_accepted: u64,
}

impl Accounts {
    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.not_sent += other.not_sent;
        self.indeterminate += other.indeterminate;
        self.resent += other.resent;
        self.duplicates += other.duplicates;
        self.handled += other.handled;
        self.bytes_written += other.bytes_written;
        self.bytes_accepted += other.bytes_accepted;
    }
}
