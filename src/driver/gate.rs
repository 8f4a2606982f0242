//! What stops all tasks of one process without a word to them: a simulation's SIGSTOP and SIGKILL.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use super::clock;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Open,
    Shut,
    Dead,
}

#[derive(Debug, Default)]
struct State {
    way: Way,
    /// Of tasks that were woken while it was shut, one each.
    waiting: Vec<Waker>,
    /// How often tasks were polled at the same moment.
    polls: (Option<Instant>, u64),
}

/// Polled so often without a moment's passing a task never comes to rest, and stops a clock that waits for it.
const POLLS_MAX: u64 = 1_000_000;

impl State {
    /// Counts; tells whether this is a storm.
    fn storms(&mut self, now: Instant) -> bool {
        let polls = if self.polls.0 == Some(now) { self.polls.1 + 1 } else { 0 };
        self.polls = (Some(now), polls);
        polls > POLLS_MAX
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<State>);

impl Gate {
    /// From now on no task goes on; timers that fire and bytes that come wait for them.
    pub(crate) fn shut(&self) {
        self.turn(Way::Shut);
    }

    /// They go on, at what time it may be by now.
    pub(crate) fn open(&self) {
        self.turn(Way::Open);
    }

    /// Each ends where it stands, for good.
    pub(crate) fn kill(&self) {
        self.turn(Way::Dead);
    }

    fn turn(&self, way: Way) {
        let mut state = self.0.lock();
        if state.way == Way::Dead {
            return;
        }
        state.way = way;
        if way == Way::Shut {
            // Whoever waits goes on waiting, if it was shut before.
            return;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A task of this process.
    pub(crate) fn hold<F: Future<Output = ()>>(self: &Arc<Self>, task: F) -> Held<F> {
        Held { gate: Arc::clone(self), task: Some(Box::pin(task)) }
    }
}

/// A task behind a gate.
pub(crate) struct Held<F> {
    gate: Arc<Gate>,
    task: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = ()>> Future for Held<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.gate.0.lock();
        let way = state.way;
        if way == Way::Open && state.storms(clock::now()) {
            state.way = Way::Dead;
            drop(state);
            panic!("a storm: {POLLS_MAX} polls, and no time passes");
        }
        if way == Way::Shut {
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        drop(state);
        match &mut self.task {
            Some(task) if way == Way::Open => task.as_mut().poll(cx),
            task => {
                *task = None;
                Poll::Ready(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_on_where_it_was_when_the_gate_opens_and_never_after_it_was_killed() {
        let gate = Arc::new(Gate::default());
        let turns = Arc::new(Mutex::new(0));
        let count = Arc::clone(&turns);
        let mut held = Box::pin(gate.hold(std::future::poll_fn(move |cx| {
            *count.lock() += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(held.as_mut().poll(&mut cx).is_pending());
        gate.shut();
        assert!(held.as_mut().poll(&mut cx).is_pending());
        assert_eq!(*turns.lock(), 1, "it stands still");
        gate.shut();
        assert_eq!(gate.0.lock().waiting.len(), 1, "who waits is not forgotten when it is shut again");
        gate.open();
        assert!(held.as_mut().poll(&mut cx).is_pending());
        assert_eq!(*turns.lock(), 2);
        gate.kill();
        gate.open();
        assert!(held.as_mut().poll(&mut cx).is_ready());
        assert_eq!(*turns.lock(), 2, "it never came to another turn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_comes_to_rest_is_a_storm() {
        let gate = Arc::new(Gate::default());
        let storm = gate.hold(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        assert!(tokio::spawn(storm).await.is_err(), "told, and at an end");
    }
}
