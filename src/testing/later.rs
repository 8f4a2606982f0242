//! What will happen, and when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::net::ProcessId;
use super::views::Change;
use crate::member::{MemberId, View};

#[derive(Clone, Debug)]
pub(super) enum Later {
    /// The membership system decides.
    Join(ProcessId, MemberId),
    Remove(MemberId),
    /// A process hears of a view, or of a change.
    Install(ProcessId, View),
    Change(ProcessId, Change),
    Reincarnate(ProcessId, MemberId),
    Thaw(ProcessId),
    /// A process begins at this address.
    Begin(SocketAddr),
    /// A process, which may have spoken with others by now, begins to route.
    Route(ProcessId),
    /// The road is free again.
    Free(SocketAddr, SocketAddr),
    Descriptors(ProcessId),
    Prompt(ProcessId),
    /// Something fails between these two once more, while they are mending what failed before.
    Again(ProcessId, ProcessId),
    /// As soon as one of them is in the midst of a resume, or at the last moment.
    AtResume(ProcessId, ProcessId, Instant),
    /// A contact is let go.
    Release(ProcessId),
}

/// In the order of time; of the same moment in the order in which it was added.
#[derive(Debug)]
pub(super) struct Queue<L = Later> {
    due: BTreeMap<(Instant, u64), L>,
    next: u64,
}

impl<L> Default for Queue<L> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), next: 0 }
    }
}

impl<L> Queue<L> {
    pub(super) fn add(&mut self, at: Instant, later: L) {
        self.next += 1;
        self.due.insert((at, self.next), later);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<L> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}
