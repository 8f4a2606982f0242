//! Handlers that are plain closures, each on a thread of its own. Whole batches go there, so that a message costs no round
//! trip between threads.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::Messenger;
use crate::limits::{ACK_DELAY, JOBS_MAX};
use crate::member::MemberId;
use crate::messenger::{
    Handler, HandlerCounts, HandlerError, Kind, Message, Pieces, Raw, Run, Take, TakeRaw, TakeTyped,
    TakeUnmatched, Unmatched, as_handler,
};

impl Messenger {
    /// Handles messages of type `M` on a thread of its own: one after the other, in order for each sender and class. It may
    /// block; that withholds the senders' credit, and holds up nothing else. Until the closure returns, its message is not
    /// handled. A panic costs that one message and is counted.
    ///
    /// Inside it `send` works, and one reply a message draws on a reserve; [`Messenger::send_wait`] is refused, because it
    /// could wait for this very handler.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed.
    pub fn add_handler<M, F>(&self, handler: F) -> Result<(), HandlerError>
    where
        M: Message,
        F: FnMut(MemberId, M) + Send + 'static,
    {
        self.handle(TakeTyped::<M>::new(), handler)
    }

    /// As [`Messenger::add_handler`], for raw messages of one kind, without decoding or copying them.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed.
    pub fn add_raw_handler<F>(&self, kind: Kind, handler: F) -> Result<(), HandlerError>
    where
        F: FnMut(MemberId, Raw) + Send + 'static,
    {
        self.handle(TakeRaw(kind), handler)
    }

    /// As [`Messenger::add_handler`], for whatever no other handler or receiver takes.
    ///
    /// # Errors
    ///
    /// [`HandlerError::SecondFallback`].
    pub fn set_fallback_handler<F>(&self, handler: F) -> Result<(), HandlerError>
    where
        F: FnMut(MemberId, Unmatched) + Send + 'static,
    {
        self.handle(TakeUnmatched, handler)
    }

    fn handle<T, F>(&self, take: T, handler: F) -> Result<(), HandlerError>
    where
        T: Take,
        F: FnMut(MemberId, T::Message) + Send + 'static,
    {
        let kind = take.kind();
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let worker = Arc::new(Worker { kind, jobs: Mutex::new(Some(jobs)) });
        let counts = self.core.messenger.handler_counts();
        let mut work = Work { take, handler, counts };
        let failed = |error: std::io::Error| HandlerError::Thread { why: error.to_string() };
        // If the type is taken, it ends at once.
        self.core.own.spawn_thread("karere-handler", move || work.run(waiting)).map_err(failed)?;
        let registered: Arc<dyn Handler> = Arc::<Worker>::clone(&worker);
        self.core.messenger.register_taker(kind, registered)?;
        self.core.messenger.when_stopped(move || drop(worker.jobs.lock().take()));
        Ok(())
    }
}

/// Messages of one delivery, on their way to the handler's thread.
struct Job {
    from: MemberId,
    pieces: Pieces,
    progress: Arc<Progress>,
    /// Dropped when it is done with.
    _done: oneshot::Sender<()>,
}

#[derive(Default)]
struct Progress {
    handled: AtomicUsize,
    /// Nobody waits for the rest: the messenger has stopped.
    cancelled: AtomicBool,
}

/// Held by whoever waits for a job.
struct Waiting(Arc<Progress>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Release);
    }
}

/// The messenger's half: sends one job of each stream at a time, and reports what is handled.
struct Worker {
    kind: Option<Kind>,
    /// `None`: the messenger has stopped.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Worker {
    /// Gives the messages at the head to the thread, and waits until it is done with them.
    async fn hand_over(&self, run: &mut Run<'_>) {
        let pieces = run.ahead(if self.kind.is_some() { usize::MAX } else { 1 });
        let count = pieces.len();
        run.flush();
        let progress = Arc::<Progress>::default();
        let _waiting = Waiting(Arc::clone(&progress));
        let (done, mut is_done) = oneshot::channel();
        let job = Job { from: run.from, pieces, progress: Arc::clone(&progress), _done: done };
        let jobs = self.jobs.lock().clone();
        let is_sent = match jobs {
            Some(jobs) => jobs.send(job).await.is_ok(),
            None => false,
        };
        let mut noted = 0;
        if is_sent {
            // Credit and receipts of what is handled do not wait for the rest.
            while tokio::time::timeout(ACK_DELAY, &mut is_done).await.is_err() {
                let handled = progress.handled.load(Ordering::Acquire);
                (noted..handled).for_each(|_| run.finish());
                noted = handled;
                run.flush();
            }
            (noted..count).for_each(|_| run.finish());
        } else {
            (noted..count).for_each(|_| run.refuse());
        }
    }
}

impl Handler for Worker {
    fn run<'a>(&'a self, run: &'a mut Run<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.hand_over(run))
    }
}

/// The thread's half.
struct Work<T, F> {
    take: T,
    handler: F,
    counts: Arc<HandlerCounts>,
}

impl<T: Take, F: FnMut(MemberId, T::Message)> Work<T, F> {
    fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let Job { from, pieces, progress, .. } = &job;
            as_handler(*from, |message| {
                for piece in pieces.iter() {
                    if progress.cancelled.load(Ordering::Acquire) {
                        return;
                    }
                    let work = || match self.take.take(&piece) {
                        Ok(message) => (self.handler)(*from, message),
                        Err(error) => {
                            let kind = self.take.kind();
                            self.counts.note_undecodable(*from, kind.map_or("*", |kind| kind.name()), &error);
                        }
                    };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                        self.counts.note_panic(*from, &*panic);
                    }
                    progress.handled.fetch_add(1, Ordering::Release);
                    message.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
}
