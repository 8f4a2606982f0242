//! What happened to peers, for whoever listens: bounded, and never in the messenger's way.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::peer::PeerEvent;

/// Events from the moment of [`Messenger::events`](crate::Messenger::events) on. A listener that is more than 1,024
/// events behind misses the oldest.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<PeerEvent>,
    missed: u64,
}

impl Events {
    pub(crate) const fn new(receiver: broadcast::Receiver<PeerEvent>) -> Self {
        Self { receiver, missed: 0 }
    }

    /// The next event; `None` when the messenger is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<PeerEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// How many events this listener has missed by being slow.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }
}
