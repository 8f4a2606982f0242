//! Wakes a task once, however often it is rung before it looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Doorbell {
    /// Wakes the task, unless it is awake or woken already.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.lock().take()
        {
            waker.wake();
        }
    }

    /// To be called by the task before it looks at what the bell stands for. What comes later rings again.
    pub(crate) fn answer(&self, waker: &Waker) {
        let mut held = self.waker.lock();
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
        self.rung.store(false, Ordering::Release);
    }
}
