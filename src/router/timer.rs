//! Rings when the core wants to be called.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::node::Inner;

/// When the core wants to be called.
#[derive(Debug, Default)]
pub(super) struct Timer {
    at: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Timer {
    /// Nobody waits for it any more.
    pub(super) fn end(&self) {
        self.changed.notify_one();
    }

    /// At this time, if not before.
    pub(super) fn arm(&self, next: Option<Instant>) {
        let Some(next) = next else { return };
        let mut at = self.at.lock();
        if at.is_none_or(|at| next < at) {
            *at = Some(next);
            self.changed.notify_one();
        }
    }
}

/// Closes the node when it is dropped.
struct CloseAtEnd(Weak<Inner>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.close();
        }
    }
}

/// Calls the core when it wants to be called. Keeps nothing of the node while it waits.
pub(super) async fn keep_time(inner: Weak<Inner>, timer: Arc<Timer>) {
    // Ends with the messenger: nobody would wake who waits.
    let _end = CloseAtEnd(inner.clone());
    loop {
        let at = *timer.at.lock();
        let changed = timer.changed.notified();
        match at {
            None => changed.await,
            Some(at) => {
                if tokio::time::timeout_at(at.into(), changed).await.is_err() {
                    *timer.at.lock() = None;
                    let Some(inner) = inner.upgrade() else { return };
                    inner.act(|core, now| core.handle_timeout(now));
                }
            }
        }
        if inner.strong_count() == 0 {
            return;
        }
    }
}
