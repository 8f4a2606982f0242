//! What a protocol module needs beside messages: tasks that end with the messenger, its clock, and to know of views.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Kind, Messenger};
use crate::driver::{Driver, PeerHandle, clock};
use crate::member::{MemberId, View, ViewId};

/// Runs tasks of a messenger, for those who must not keep it open: a library below that spawns tasks of its own, say.
#[derive(Clone, Debug)]
pub struct Spawner {
    driver: Arc<Driver>,
}

impl Spawner {
    /// As [`Messenger::spawn`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.driver.stop.clone();
        self.driver.spawn(async move {
            let _stopped = stop.run_until_cancelled(task).await;
        });
    }
}

impl Messenger {
    /// Runs a task until it ends or the messenger does, whichever comes first: then it is dropped where it waits. The
    /// messenger's end waits for it. A task that holds a clone of the messenger keeps it open.
    ///
    /// After the end of the messenger nothing is run.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawner().spawn(task);
    }

    /// What runs tasks as [`Messenger::spawn`] does, without keeping the messenger open.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner { driver: Arc::clone(&self.inner.shared.driver) }
    }

    /// Runs something in a handler as if it ran outside: for what a module polls there that is not its own and goes on elsewhere if it
    /// has to wait. It may then wait for what a handler may not wait for, and draws on no reserve.
    pub fn outside_handler<T>(&self, work: impl FnOnce() -> T) -> T {
        super::dispatch::outside(work)
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

    /// Whether there is a session with a member, or the view says that there would be one: whether it can be sent to,
    /// but for room. False for good once a view removed it, or it said goodbye, or it said that we were removed.
    #[must_use]
    pub fn knows(&self, member: MemberId) -> bool {
        self.inner.shared.driver.knows(member)
    }

    /// The name that a peer gave with its first link; under TLS its certificate covers it, so it is proven. `None`: there is no session
    /// with it, or there was no link yet.
    #[must_use]
    pub fn name_of(&self, member: MemberId) -> Option<String> {
        let name = |handle: &PeerHandle| handle.peer.lock().name().map(str::to_owned);
        self.inner.shared.driver.with_peer(member, name).flatten()
    }

    /// Whether a link with a member is up at this moment: what is sent to it now does not wait for one.
    #[must_use]
    pub fn is_linked(&self, member: MemberId) -> bool {
        let linked = |handle: &PeerHandle| handle.intake.lock().is_link_up();
        self.inner.shared.driver.with_peer(member, linked).unwrap_or(false)
    }

    /// Waits until nothing more comes from the sessions with a member that are over, and all that was accepted in them,
    /// in the protocol of this kind, is handled: after that nothing is heard any more of a member that is gone. Says
    /// whether it came to that within the time. A session that lives is not waited for. Not to be called inside a
    /// handler: it would wait for itself. Cancel safe.
    pub async fn wait_handled_from(&self, member: MemberId, kind: Kind, timeout: Duration) -> bool {
        let shared = &self.inner.shared;
        let over = shared.ledger.over(member, shared.driver.knows(member));
        let handled = || over.iter().all(|one| one.is_over(kind.protocol())).then_some(());
        tokio::time::timeout(timeout, shared.ledger.bell.until(handled)).await.is_ok()
    }
}
