//! How the handlers of a host run: in its own tasks, or, as long as they are quick, where their messages arrive.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::content::Content;
use super::core::Work;
use super::envelope::Envelope;
use super::host::{Context, Handle, Handling, Outcome};
use super::key::KeyId;
use super::node::Inner;

tokio::task_local! {
    static WITHIN: ();
}

/// Whether a handler of an actor runs here: then nothing waits for room, because it could wait for itself.
pub(crate) fn is_within_actor() -> bool {
    WITHIN.try_with(|()| ()).is_ok()
}

type Handlers = HashMap<KeyId, Arc<dyn Handle>, foldhash::fast::RandomState>;

/// What the tasks of a host share.
pub(crate) struct Shared {
    handlers: Handlers,
    pub(crate) bell: Notify,
    pub(crate) stopped: AtomicBool,
    /// More than one task takes its work.
    several: bool,
    /// The last handler kept its thread for long.
    slow: AtomicBool,
    /// Handlers that were quick, one after the other, up to the last.
    quick: AtomicU32,
}

/// So many handlers that were quick, one after the other, and the next one runs where its message arrives: a wake-up and a turn of
/// another task cost several times what a quick handler takes. One that is slow all the same, or waits, holds up what arrived
/// behind it by no more than its first step, and not again for as many messages.
const QUICK_IN_A_ROW: u32 = if cfg!(any(test, feature = "testing")) { 4 } else { 64 };

impl Shared {
    /// `several`: more than one task will take its work.
    pub(super) fn new(handlers: Handlers, several: bool) -> Self {
        Self {
            handlers,
            bell: Notify::new(),
            stopped: AtomicBool::new(false),
            several,
            slow: AtomicBool::new(false),
            quick: AtomicU32::new(0),
        }
    }

    /// Its handlers may run where their messages arrive.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= QUICK_IN_A_ROW && !self.stopped.load(Ordering::Acquire)
    }

    /// A handler was, or was not, done at once and in a short time.
    fn note_quick(&self, quick: bool) {
        let before = self.quick.load(Ordering::Relaxed);
        let now = if quick { before.saturating_add(1).min(QUICK_IN_A_ROW) } else { 0 };
        if now != before {
            self.quick.store(now, Ordering::Relaxed);
        }
    }
}

/// A handler that keeps its thread for longer is worth another thread. Below that waking one costs more than it gains.
const SLOW: Duration = Duration::from_micros(50);

/// One handler at a time, until the host stops.
pub(super) async fn work(inner: Weak<Inner>, shared: Arc<Shared>, host: u32) {
    loop {
        if shared.stopped.load(Ordering::Acquire) {
            return shared.bell.notify_one();
        }
        let Some(node) = inner.upgrade() else { return };
        let Some(work) = node.next_work(host) else {
            drop(node);
            shared.bell.notified().await;
            continue;
        };
        if shared.several && shared.slow.load(Ordering::Relaxed) {
            // There may be more: for another of the host's tasks.
            shared.bell.notify_one();
        }
        let from = node.messenger.now();
        let Work { job, envelope, body, expires } = work;
        let context = Context::new(&node, &envelope, host, expires);
        drop(node);
        let handling = WITHIN.sync_scope((), || shared.begin(&envelope, body, context));
        let (outcome, waited) = WITHIN.scope((), shared.run(handling)).await;
        let Some(node) = inner.upgrade() else { return };
        let now = node.messenger.now();
        let slow = now.saturating_duration_since(from) > SLOW;
        shared.note_quick(!slow && !waited);
        if shared.several && slow != shared.slow.load(Ordering::Relaxed) {
            shared.slow.store(slow, Ordering::Relaxed);
        }
        node.act_at(now, |core, now| core.handle_handled(now, job, &envelope, expires, outcome));
        drop(node);
        tokio::task::coop::consume_budget().await;
    }
}

/// Handles a message in the task in which it arrived. If the handler has to wait, it goes on in a task of its own.
pub(crate) async fn handle_at_once(
    node: &Arc<Inner>,
    shared: &Arc<Shared>,
    host: u32,
    work: Work<Content>,
    from: Instant,
) {
    let Work { job, envelope, body, expires } = work;
    let context = Context::new(node, &envelope, host, expires);
    // The waker only: the first step is taken here, whatever comes of it.
    let waker = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let first = within_actor(node, || {
        let mut handling = shared.begin(&envelope, body, context);
        match step(&mut handling, &mut TaskContext::from_waker(&waker)) {
            Poll::Ready(outcome) => Ok(outcome),
            Poll::Pending => Err(handling),
        }
    });
    let now = node.messenger.now();
    let slow = now.saturating_duration_since(from) > SLOW;
    shared.note_quick(!slow && first.is_ok());
    match first {
        Ok(outcome) => {
            node.act_at(now, |core, now| core.handle_handled(now, job, &envelope, expires, outcome));
        }
        Err(handling) => {
            let (inner, shared) = (Arc::downgrade(node), Arc::clone(shared));
            node.messenger.spawn(async move {
                let (outcome, _) = WITHIN.scope((), shared.run(handling)).await;
                let Some(node) = inner.upgrade() else { return };
                node.act(|core, now| core.handle_handled(now, job, &envelope, expires, outcome));
            });
        }
    }
    // What else this thread has to do gets its turn after some of them.
    tokio::task::coop::consume_budget().await;
}

/// It is a handler of an actor that runs, and none of the messenger's.
fn within_actor<T>(node: &Inner, work: impl FnOnce() -> T) -> T {
    node.messenger.outside_handler(|| WITHIN.sync_scope((), work))
}

/// One step of a handler. A panic is a failure.
fn step(handling: &mut Handling, cx: &mut TaskContext<'_>) -> Poll<Outcome> {
    catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(cx)))
        .unwrap_or_else(|panic| Poll::Ready(Err(text_of(&*panic))))
}

impl Shared {
    /// Calls the handler of a message. A panic of the call is a failure.
    fn begin(&self, envelope: &Envelope, body: Content, context: Context) -> Handling {
        let Some(handler) = self.handlers.get(&envelope.key) else {
            return Box::pin(std::future::ready(Err("no handler".to_owned())));
        };
        catch_unwind(AssertUnwindSafe(|| handler.call(body, context)))
            .unwrap_or_else(|panic| Box::pin(std::future::ready(Err(text_of(&*panic)))))
    }

    /// Runs a handler to its end, and tells whether it had to wait.
    async fn run(&self, mut handling: Handling) -> (Outcome, bool) {
        let mut waited = false;
        let outcome = std::future::poll_fn(|cx| {
            let polled = step(&mut handling, cx);
            if polled.is_pending() && !std::mem::replace(&mut waited, true) && self.several {
                // What comes next is for another of the host's tasks.
                self.bell.notify_one();
            }
            polled
        });
        let outcome = outcome.await;
        (outcome, waited)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(panic = text, "a handler of an actor panicked");
    format!("the handler panicked: {text}")
}
