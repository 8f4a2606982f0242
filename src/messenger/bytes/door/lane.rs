//! The queue of one destination, and a task that only knows whether it was woken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::messenger::bytes::{Port, PushError};
use crate::wire::Class;

/// A queue of so many messages.
#[derive(Debug)]
pub(super) struct Lane(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    messages: VecDeque<(Class, Bytes)>,
    capacity: usize,
    wakers: Vec<Waker>,
}

impl Port for Lane {
    fn push(&self, class: Class, body: Bytes, waker: Option<&Waker>) -> Result<(), PushError> {
        let mut queue = self.0.lock();
        if queue.messages.len() >= queue.capacity {
            queue.wakers.extend(waker.cloned());
            return Err(PushError::Full);
        }
        queue.messages.push_back((class, body));
        Ok(())
    }
}

impl Lane {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let queue = Queue { messages: VecDeque::new(), capacity, wakers: Vec::new() };
        Arc::new(Self(Mutex::new(queue)))
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().messages.len()
    }

    pub(super) fn set_capacity(&self, capacity: usize) {
        self.0.lock().capacity = capacity;
    }

    pub(super) fn clear(&self) {
        self.0.lock().messages.clear();
    }

    pub(super) fn pop(&self) -> Option<(Class, Bytes)> {
        self.0.lock().messages.pop_front()
    }

    /// Who waits for room.
    pub(super) fn take_wakers(&self) -> Vec<Waker> {
        std::mem::take(&mut self.0.lock().wakers)
    }
}

/// Whether it was woken.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    pub(super) fn woken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
