//! Two `Streams` and the queues between them. No test sleeps; most poll by hand.

mod endings;
mod ports;
mod random;
mod transfer;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};

use super::pattern::pattern;
use super::wire::{Content, Head, decode, encode};
use super::{ByteStream, Port, PushError, StreamError, Streams};
use crate::member::MemberId;
use crate::session::Cause;
use crate::wire::Class;

/// A queue of so many messages.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<(Class, Bytes)>,
    capacity: usize,
    closed: Option<Cause>,
    wakers: Vec<Waker>,
}

impl Port for Lane {
    fn push(&self, class: Class, body: Bytes, waker: Option<&Waker>) -> Result<(), PushError> {
        let mut queue = self.queue.lock();
        if let Some(cause) = queue.closed {
            return Err(PushError::Closed(cause));
        }
        if queue.messages.len() >= queue.capacity {
            queue.wakers.extend(waker.cloned());
            return Err(PushError::Full);
        }
        queue.messages.push_back((class, body));
        self.arrived.notify_one();
        Ok(())
    }
}

impl Lane {
    fn new(capacity: usize) -> Arc<Self> {
        let queue = Queue { messages: VecDeque::new(), capacity, closed: None, wakers: Vec::new() };
        Arc::new(Self { queue: Mutex::new(queue), arrived: Notify::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().messages.len()
    }

    pub(super) fn set_capacity(&self, capacity: usize) {
        self.queue.lock().capacity = capacity;
    }

    pub(super) fn close(&self, cause: Cause) {
        self.queue.lock().closed = Some(cause);
    }

    /// What waits, decoded.
    pub(super) fn contents(&self) -> Vec<(Head, Content)> {
        self.queue.lock().messages.iter().map(|(_, body)| decode(body.clone()).unwrap()).collect()
    }
}

pub(super) fn member(n: u64) -> MemberId {
    MemberId::from_parts(n, 0)
}

/// Two sides and the lane out of each; with oneself, the same side twice.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) sides: [Arc<Streams>; 2],
    pub(super) lanes: [Arc<Lane>; 2],
    pub(super) epoch: u64,
}

impl Pair {
    pub(super) fn new(capacity: usize) -> Self {
        let lanes = [Lane::new(capacity), Lane::new(capacity)];
        let side = |n: usize| Streams::new(member(2 - n as u64), Arc::clone(&lanes[n]) as Arc<dyn Port>);
        Self { sides: [side(0), side(1)], lanes, epoch: 1 }
    }

    pub(super) fn with_oneself(capacity: usize) -> Self {
        let lane = Lane::new(capacity);
        let side = Streams::new(member(1), Arc::clone(&lane) as Arc<dyn Port>);
        Self { sides: [Arc::clone(&side), side], lanes: [Arc::clone(&lane), lane], epoch: 1 }
    }

    /// One message out of a side's lane; then, as the messenger would, a retry and the wakers.
    pub(super) fn deliver(&self, from: usize) -> Option<Option<ByteStream>> {
        let ((class, body), wakers) = {
            let mut queue = self.lanes[from].queue.lock();
            (queue.messages.pop_front()?, std::mem::take(&mut queue.wakers))
        };
        let opened = self.sides[1 - from].handle_message(self.epoch, class, body);
        if self.sides[from].needs_retry() {
            self.sides[from].retry();
        }
        wakers.into_iter().for_each(Waker::wake);
        Some(opened)
    }

    /// Until nothing moves; returns what was opened, with the side that accepted it.
    pub(super) fn settle(&self) -> Vec<(usize, ByteStream)> {
        let mut accepted = Vec::new();
        loop {
            let mut moved = false;
            for from in [0, 1] {
                while let Some(opened) = self.deliver(from) {
                    moved = true;
                    accepted.extend(opened.map(|stream| (1 - from, stream)));
                }
            }
            if !moved {
                return accepted;
            }
        }
    }

    /// A stream from side 0 to side 1, both ends.
    pub(super) fn connect(&self, name: &str) -> (ByteStream, ByteStream) {
        let ours = self.sides[0].open(name, Class::Normal).unwrap();
        let (_, theirs) = self.settle().pop().unwrap();
        (ours, theirs)
    }

    /// Tasks that deliver in both directions; what is opened comes out of the channel. Dropping the set ends them.
    pub(super) fn run(&self) -> (tokio::task::JoinSet<()>, mpsc::Receiver<ByteStream>) {
        let (accepted, accept) = mpsc::channel(4096);
        let mut tasks = tokio::task::JoinSet::new();
        // One task a lane: two of them on the lane to oneself would change the order of its messages.
        let lanes = if Arc::ptr_eq(&self.lanes[0], &self.lanes[1]) { 1 } else { 2 };
        for from in 0..lanes {
            let (pair, accepted) = (self.clone(), accepted.clone());
            tasks.spawn(async move {
                loop {
                    pair.lanes[from].arrived.notified().await;
                    while let Some(opened) = pair.deliver(from) {
                        if let Some(stream) = opened {
                            accepted.try_send(stream).unwrap();
                        }
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        (tasks, accept)
    }

    /// The first session is over.
    pub(super) fn session_over(&self, cause: Cause, next: Option<u64>) {
        self.sides.iter().for_each(|side| side.session_over(cause, 1, next));
    }
}

/// A task that only knows whether it was woken.
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

pub(super) fn write_with(stream: &mut ByteStream, waker: &Waker, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(&mut Context::from_waker(waker), bytes)
}

pub(super) fn write(stream: &mut ByteStream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    write_with(stream, Waker::noop(), bytes)
}

pub(super) fn read_with(stream: &mut ByteStream, waker: &Waker, most: usize) -> Poll<io::Result<Vec<u8>>> {
    let mut bytes = vec![0; most];
    let mut buf = ReadBuf::new(&mut bytes);
    Pin::new(stream).poll_read(&mut Context::from_waker(waker), &mut buf).map_ok(|()| buf.filled().to_vec())
}

pub(super) fn read(stream: &mut ByteStream, most: usize) -> Poll<io::Result<Vec<u8>>> {
    read_with(stream, Waker::noop(), most)
}

pub(super) fn shutdown_with(stream: &mut ByteStream, waker: &Waker) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_shutdown(&mut Context::from_waker(waker))
}

pub(super) fn shutdown(stream: &mut ByteStream) -> Poll<io::Result<()>> {
    shutdown_with(stream, Waker::noop())
}

/// What a ready poll said; fails if it was not ready.
#[track_caller]
pub(super) fn ready<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("pending"),
    }
}

/// The kind, and the typed error inside.
#[track_caller]
pub(super) fn failure<T: std::fmt::Debug>(poll: Poll<io::Result<T>>) -> (io::ErrorKind, StreamError) {
    let error = ready(poll).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>());
    (error.kind(), inner.expect("a StreamError inside").clone())
}

pub(super) fn aborted(reason: &str) -> (io::ErrorKind, StreamError) {
    (io::ErrorKind::ConnectionAborted, StreamError::Aborted { reason: reason.to_owned() })
}

pub(super) fn lost(cause: Cause) -> (io::ErrorKind, StreamError) {
    (io::ErrorKind::ConnectionReset, StreamError::SessionLost(cause))
}

pub(super) fn message(id: u64, from_opener: bool, content: &Content) -> Bytes {
    encode(Head { id, from_opener }, content)
}
