//! What really happened, told live.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::plan::Fault;

/// A fault that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FaultEvent {
    /// Since the proxy started.
    pub at: Duration,
    /// The number of the connection, from 1; 0 for one that was refused.
    pub connection: u64,
    /// The fault; byte offsets count from the start of the connection.
    pub fault: Fault,
    /// A few words for a display.
    pub detail: String,
}

/// A feed of events. It never holds the proxy up: who lags behind loses the oldest.
#[derive(Debug)]
#[must_use = "events are kept only for those who read them"]
pub struct FaultEvents {
    receiver: broadcast::Receiver<FaultEvent>,
    missed: u64,
}

impl FaultEvents {
    pub(super) fn new(receiver: broadcast::Receiver<FaultEvent>) -> FaultEvents {
        FaultEvents { receiver, missed: 0 }
    }

    /// The next event; none when the proxy is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<FaultEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// An event that is there already; none if there is none now.
    pub fn try_next(&mut self) -> Option<FaultEvent> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(missed)) => self.missed += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// How many events this feed has lost by lagging behind.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
