//! A runtime for those who have none: one thread drives it, others run the user's code. And waiting for a future on
//! any thread.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio_util::sync::CancellationToken;

use crate::limits::THREADS_JOIN;

/// See the module's text. Dropped, it ends its thread, and waits for it and the others within bounds.
pub(crate) struct Own {
    runtime: tokio::runtime::Handle,
    driving: ThreadId,
    stop: CancellationToken,
    threads: Arc<Threads>,
}

impl Own {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let (threads, until) = (Arc::<Threads>::default(), stop.clone());
        let driving = threads.spawn("karere", move || {
            runtime.block_on(until.cancelled());
            // A look-up of a name may hang for long; nobody waits for it any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, driving, stop, threads })
    }

    /// Whether this is the thread that drives the runtime: waiting here would be waiting for itself.
    pub(crate) fn is_here(&self) -> bool {
        thread::current().id() == self.driving
    }

    /// Waits on this thread; the runtime's thread drives sockets and timers meanwhile.
    ///
    /// # Panics
    ///
    /// On the runtime's own thread, which would wait for itself.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        assert!(
            !self.is_here(),
            "a blocking call on the messenger's own thread, where messages are decoded, would wait for itself"
        );
        let _runtime = self.runtime.enter();
        wait(future)
    }

    /// Runs a task on the runtime's thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // It ends with the runtime.
        drop(self.runtime.spawn(task));
    }

    /// Runs something on a thread of its own, which must come to an end by itself when the messenger stops.
    pub(crate) fn spawn_thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.spawn(name, work).map(drop)
    }

    /// Waits until the threads of handlers have ended, but for the one this is called on. Says whether they have.
    pub(crate) fn join_handlers(&self) -> bool {
        let here = thread::current().id();
        self.threads.join(|thread| thread == here || thread == self.driving)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop.cancel();
        let here = thread::current().id();
        if !self.is_here() && !self.threads.join(|thread| thread == here) {
            tracing::warn!("a thread still runs after {THREADS_JOIN:?}: a handler does not return");
        }
    }
}

/// The threads that run, by id.
#[derive(Default)]
struct Threads {
    alive: Mutex<Vec<ThreadId>>,
    ended: Condvar,
}

impl Threads {
    fn spawn(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<ThreadId> {
        let ending = Ending(Arc::clone(self));
        // Locked until it is noted: it may end at once.
        let mut alive = self.alive.lock();
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ending = ending;
            work();
        })?;
        alive.push(started.thread().id());
        Ok(started.thread().id())
    }

    /// Waits, for at most [`THREADS_JOIN`], until none but those that `spared` names are alive.
    fn join(&self, spared: impl Fn(ThreadId) -> bool) -> bool {
        let until = Instant::now() + THREADS_JOIN;
        let mut alive = self.alive.lock();
        while !alive.iter().all(|thread| spared(*thread)) {
            if self.ended.wait_until(&mut alive, until).timed_out() {
                return false;
            }
        }
        true
    }
}

/// Held by a thread for as long as it runs.
struct Ending(Arc<Threads>);

impl Drop for Ending {
    fn drop(&mut self) {
        let here = thread::current().id();
        self.0.alive.lock().retain(|thread| *thread != here);
        self.0.ended.notify_all();
    }
}

/// Wakes a thread that waits for a future. The flag is what counts: others may use the thread's parking as well.
struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    /// One a thread, used again: queues know whom they have noted already. Taken while in use, so that waiting inside
    /// of a poll finds another.
    static UNPARK: Cell<Option<Arc<Unpark>>> = const { Cell::new(None) };
}

/// Waits for a future on this thread, however long that takes. It must not need a runtime's timers, unless in one.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Some(value) = wait_until(future.as_mut(), None) {
            return value;
        }
    }
}

/// Waits for a future on this thread, for at most this long; polls it at least once.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>, timeout: Duration) -> Option<T> {
    // A time that the clock cannot tell never comes.
    wait_until(pin!(future), Instant::now().checked_add(timeout))
}

fn wait_until<T>(mut future: impl Future<Output = T> + Unpin, until: Option<Instant>) -> Option<T> {
    let fresh = || Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let unpark = UNPARK.take().unwrap_or_else(fresh);
    let waker = Waker::from(Arc::clone(&unpark));
    let value = loop {
        unpark.woken.swap(false, Ordering::AcqRel);
        if let Poll::Ready(value) = pin!(&mut future).poll(&mut Context::from_waker(&waker)) {
            break Some(value);
        }
        if !park(&unpark.woken, until) {
            break None;
        }
    };
    UNPARK.set(Some(unpark));
    value
}

/// Sleeps until woken; says no when the time is over.
fn park(woken: &AtomicBool, until: Option<Instant>) -> bool {
    while !woken.load(Ordering::Acquire) {
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return false,
            Some(left) => thread::park_timeout(left),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_sees_what_another_thread_does_and_ends_in_time() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let teller = thread::spawn(move || tell.send(7));
        assert_eq!(wait(told), Ok(7));
        teller.join().unwrap().unwrap();
        let start = Instant::now();
        assert_eq!(wait_for(std::future::pending::<()>(), Duration::from_millis(20)), None);
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(wait_for(std::future::ready(7), Duration::ZERO), Some(7), "polled at least once");
        assert_eq!(wait_for(std::future::ready(7), Duration::MAX), Some(7));
    }

    #[test]
    fn a_wait_inside_a_poll_takes_no_wake_up_from_the_wait_around_it() {
        let mut polls = 0;
        let outer = std::future::poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            assert_eq!(wait_for(std::future::pending::<()>(), Duration::from_millis(1)), None);
            if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
        });
        assert_eq!(wait_for(outer, Duration::from_secs(10)), Some(3));
    }

    #[test]
    fn threads_are_counted_until_they_end() {
        let own = Own::start().unwrap();
        let (tell, told) = std::sync::mpsc::sync_channel::<()>(1);
        own.spawn_thread("test", move || assert!(told.recv().is_err())).unwrap();
        assert_eq!(own.threads.alive.lock().len(), 2);
        drop(tell);
        assert!(own.join_handlers());
        let threads = Arc::clone(&own.threads);
        drop(own);
        assert!(threads.alive.lock().is_empty());
    }
}
