//! The runtime that openraft is given. It spawns by a function without a receiver, so what it needs is in a task-local: tasks go to
//! the messenger, whose end is theirs and whose gate stops them in the simulation; chance comes from a seed. Time is tokio's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waking, Poll};
use std::time::Duration;

use openraft::async_runtime::{AsyncRuntime, TokioOneShotSender};
use openraft::{OptionalSend, TokioInstant};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::Spawner;

tokio::task_local! {
    static CONTEXT: Context;
}

/// Where tasks of one log run, when they end, and what is chance to them.
#[derive(Clone, Debug)]
pub(super) struct Context {
    spawner: Spawner,
    stop: CancellationToken,
    chance: Arc<Mutex<fastrand::Rng>>,
}

impl Context {
    pub(super) fn new(spawner: Spawner, seed: u64) -> Self {
        let chance = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { spawner, stop: CancellationToken::new(), chance }
    }

    /// Runs a future here: what it spawns through [`Tasks`] belongs to this context.
    pub(super) fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CONTEXT.scope(self.clone(), future)
    }

    /// Runs a task until it ends, or the log does, or the messenger.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawner.spawn(self.scope(async move {
            let _stopped = stop.run_until_cancelled(task).await;
        }));
    }

    /// Ends every task where it waits.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn chance<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.chance.lock())
    }
}

/// See the module's text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tasks;

/// A task did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", if *panicked { "it panicked" } else { "it was stopped" })]
pub(super) struct Ended {
    panicked: bool,
}

/// The end of a task. Dropped, the task goes on.
#[derive(Debug)]
pub(super) struct Joined<T>(oneshot::Receiver<Result<T, Ended>>);

impl<T> Future for Joined<T> {
    type Output = Result<T, Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or(Err(Ended { panicked: false })))
    }
}

/// Tells how a task ended, also when it is dropped half way.
struct Teller<T>(Option<oneshot::Sender<Result<T, Ended>>>);

impl<T> Teller<T> {
    fn tell(&mut self, how: Result<T, Ended>) {
        if let Some(told) = self.0.take() {
            let _nobody_waits = told.send(how);
        }
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        self.tell(Err(Ended { panicked: std::thread::panicking() }));
    }
}

impl AsyncRuntime for Tasks {
    type JoinError = Ended;
    type JoinHandle<T: OptionalSend + 'static> = Joined<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: OptionalSend> = TokioOneShotSender<T>;
    type OneshotReceiver<T: OptionalSend> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (told, joined) = oneshot::channel();
        let mut teller = Teller(Some(told));
        let task = async move {
            let output = future.await;
            teller.tell(Ok(output));
        };
        if CONTEXT.try_with(|context| context.spawn(task)).is_err() {
            // Nobody owns it: it is not run, and whoever joins it is told.
            tracing::error!("a task of the log was spawned outside of it");
        }
        Joined(joined)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(ended: &Self::JoinError) -> bool {
        ended.panicked
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        let outside = || Arc::new(Mutex::new(fastrand::Rng::with_seed(0)));
        Chance(CONTEXT.try_with(|context| Arc::clone(&context.chance)).unwrap_or_else(|_| outside()))
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        let (told, answer) = oneshot::channel();
        (TokioOneShotSender(told), answer)
    }
}

/// The chance of a log, as openraft asks for it.
#[derive(Debug)]
pub(super) struct Chance(Arc<Mutex<fastrand::Rng>>);

impl rand::RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        self.0.lock().u32(..)
    }

    fn next_u64(&mut self) -> u64 {
        self.0.lock().u64(..)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.lock().fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}
