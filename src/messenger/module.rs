//! What a protocol module needs beside messages: tasks that end with the messenger, its clock, and to know of views.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use super::Messenger;
use crate::driver::clock;
use crate::member::{View, ViewId};

impl Messenger {
    /// Runs a task until it ends or the messenger does, whichever comes first: then it is dropped where it waits. The
    /// messenger's end waits for it. A task that holds a clone of the messenger keeps it open.
    ///
    /// After the end of the messenger nothing is run.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let driver = &self.inner.shared.driver;
        let stop = driver.stop.clone();
        driver.spawn(async move {
            let _stopped = stop.run_until_cancelled(task).await;
        });
    }

    /// Now, by the clock that this messenger goes by: the runtime's, which tests may stop.
    #[must_use]
    pub fn now(&self) -> Instant {
        clock::now()
    }

    /// Waits until the installed view is another than the one with this id, and gives it; `None` if there is none any
    /// more ([`Messenger::reincarnate`]). Of views that follow each other quickly only the last may be seen. Never ends
    /// once the messenger is closed. The future does not keep the messenger open. Cancel safe.
    pub fn view_other_than(
        &self,
        id: Option<ViewId>,
    ) -> impl Future<Output = Option<Arc<View>>> + Send + use<> {
        let driver = Arc::clone(&self.inner.shared.driver);
        async move { driver.view_other_than(id).await }
    }
}
