//! Closes links when there are too many: the most idle ones of those that nobody wants kept.
//!
//! Looks when a link comes up above the bound, and then at most each second; a message costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Driver, clock};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// A link that carried something, or came up, less than so long ago is not idle: whoever dialled it has something to say,
/// and would dial again for ever.
const GRACE: Duration = Duration::from_secs(1);

/// How many links are up, and how many may be.
#[derive(Debug)]
pub(super) struct Links {
    up: AtomicUsize,
    most: usize,
    above: Notify,
}

impl Links {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { up: AtomicUsize::new(0), most, above: Notify::new() })
    }

    /// A link is up for as long as what is returned lives.
    pub(super) fn come_up(self: &Arc<Self>) -> LinkUp {
        if self.up.fetch_add(1, Ordering::SeqCst) >= self.most {
            self.above.notify_one();
        }
        LinkUp(Arc::clone(self))
    }

    fn excess(&self) -> usize {
        self.up.load(Ordering::SeqCst).saturating_sub(self.most)
    }

    /// Waits until there are too many.
    async fn are_too_many(&self) {
        while self.excess() == 0 {
            self.above.notified().await;
        }
    }
}

/// Counts one link for as long as it lives.
#[derive(Debug)]
pub(super) struct LinkUp(Arc<Links>);

impl Drop for LinkUp {
    fn drop(&mut self) {
        self.0.up.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs until the driver stops.
pub(super) async fn run(driver: Arc<Driver>) {
    let sweeps = async {
        loop {
            driver.links.are_too_many().await;
            sweep(&driver);
            tokio::time::sleep(PAUSE).await;
        }
    };
    let _stopped = driver.stop.run_until_cancelled(sweeps).await;
}

/// Closes the most idle links, as many as there are too many. Each peer's lock is held for a look at it.
fn sweep(driver: &Driver) {
    let (excess, now) = (driver.links.excess(), clock::now());
    let idle = |handle| {
        let handle: Arc<super::PeerHandle> = handle;
        let since = handle.peer.lock().idle_since()?;
        (now.saturating_duration_since(since) >= GRACE).then_some((since, handle))
    };
    let mut idle: Vec<_> = driver.peers().into_iter().filter_map(idle).collect();
    idle.sort_unstable_by_key(|(since, _)| *since);
    let mut closed = 0;
    for (_, handle) in idle {
        if closed >= excess {
            return;
        }
        if handle.peer.lock().close_idle(now) {
            handle.doorbell.ring();
            closed += 1;
        }
    }
    if closed < excess {
        tracing::debug!(links = driver.links.most + excess - closed, "more links than wanted, none idle");
    }
}
