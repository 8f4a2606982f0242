//! The end of a messenger: in order, or at once.

use std::time::Duration;

use super::Messenger;

/// How long [`Messenger::close`] waits for its tasks. Only a handler that blocks its thread can make it wait so long.
const JOIN: Duration = Duration::from_secs(2);

impl Messenger {
    /// Leaves in order: takes no new messages, drains (still redialling), says goodbye to each peer and waits for its
    /// confirmation; lets handlers finish what was accepted; then closes. What is not done within `deadline` ends as
    /// [`Messenger::close`] says. Cancelled, it has begun to leave; call it again, or `close`.
    pub async fn leave(&self, deadline: Duration) {
        self.note_closed("left");
        let shared = &self.inner.shared;
        shared.driver.leave();
        let leaving = async {
            shared.driver.empty().await;
            // Nothing is delivered any more, so the handlers' tasks come to an end.
            shared.lanes.close();
            shared.lanes.wait().await;
        };
        if tokio::time::timeout(deadline, leaving).await.is_err() {
            tracing::warn!("not everything was acknowledged and handled within {deadline:?}");
        }
        self.close().await;
    }

    /// Closes at once: what was written and not acknowledged is indeterminate, the rest not sent; handlers that run are
    /// stopped at their next await. Returns within some 2 s also with a hung peer or handler.
    pub async fn close(&self) {
        self.note_closed("closed");
        let driver = &self.inner.shared.driver;
        driver.end();
        if tokio::time::timeout(JOIN, driver.joined()).await.is_err() {
            tracing::warn!("some tasks still run after {JOIN:?}: a handler blocks its thread");
        }
    }

    fn note_closed(&self, by: &'static str) {
        // The first cause stays: it is what later calls are told.
        let _already = self.inner.closed.set(by);
    }
}
