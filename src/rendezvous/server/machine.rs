//! The state as the log's machine, and a bell that rings when it has changed.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

use crate::rendezvous::raft::{At, Machine};
use crate::rendezvous::state::{State, encode_outcomes};

/// What was decided so far, as this server has applied it. Clones are of the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    state: Arc<RwLock<State>>,
    bell: Arc<Notify>,
}

impl Applied {
    /// To look at, not to hold.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Rings after each change: one waiter is woken, or the next not made to wait.
    pub(super) fn bell(&self) -> &Notify {
        &self.bell
    }
}

impl Machine for Applied {
    fn apply(&mut self, at: At, command: &[u8]) -> Bytes {
        let outcomes = self.state.write().apply(at.index, command);
        self.bell.notify_one();
        encode_outcomes(&outcomes)
    }

    fn snapshot(&self) -> Bytes {
        self.state.read().snapshot()
    }

    fn restore(&mut self, _at: At, snapshot: &[u8]) -> Result<(), String> {
        let restored = self.state.write().restore(snapshot);
        self.bell.notify_one();
        restored
    }
}
