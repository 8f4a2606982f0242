//! Receivers: messages in a channel of the user's threads, bounded, with the sender's credit behind it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::Messenger;
use crate::limits::ROOM_RECHECK;
use crate::member::MemberId;
use crate::messenger::{
    Handler, HandlerError, Kind, Message, Raw, Run, Take, TakeRaw, TakeTyped, TakeUnmatched, Unmatched,
};

/// A message that came. To be dropped, or taken apart, when it is done with; whoever keeps many of them makes the rest of
/// a full channel come some 20 ms late.
#[must_use = "this is the message; the channel does not give it again"]
pub struct Received<M> {
    /// Who sent it.
    pub from: MemberId,
    /// What was sent.
    pub message: M,
    /// Every so many messages one tells that the reader has come so far.
    mark: Option<Mark>,
}

impl<M: fmt::Debug> fmt::Debug for Received<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, message) = (&self.from, &self.message);
        f.debug_struct("Received").field("from", from).field("message", message).finish_non_exhaustive()
    }
}

impl Messenger {
    /// Messages of type `M`, in a channel that holds at most `capacity` of them (at least 1; the memory for so many is taken
    /// at once). In order for each sender and class. When it is full, what comes withholds its sender's credit, and so makes
    /// the sender wait, until somebody takes from it.
    ///
    /// A message counts as handled when it is in the channel. Several threads may take from clones of the receiver. When all
    /// of them are dropped, what is in the channel goes with them, and what comes later is refused and counted
    /// ([`Stats::refused_records`](crate::Stats)).
    ///
    /// # Errors
    ///
    /// [`HandlerError`], as if it were a handler; nothing has changed.
    pub fn receiver<M: Message>(&self, capacity: usize) -> Result<Receiver<Received<M>>, HandlerError> {
        self.receive(TakeTyped::<M>::new(), capacity)
    }

    /// As [`Messenger::receiver`], for raw messages of one kind, without decoding or copying them.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed.
    pub fn raw_receiver(&self, kind: Kind, capacity: usize) -> Result<Receiver<Received<Raw>>, HandlerError> {
        self.receive(TakeRaw(kind), capacity)
    }

    /// As [`Messenger::receiver`], for whatever no other receiver or handler takes.
    ///
    /// # Errors
    ///
    /// [`HandlerError::SecondFallback`].
    pub fn fallback_receiver(&self, capacity: usize) -> Result<Receiver<Received<Unmatched>>, HandlerError> {
        self.receive(TakeUnmatched, capacity)
    }

    fn receive<T: Take>(
        &self,
        take: T,
        capacity: usize,
    ) -> Result<Receiver<Received<T::Message>>, HandlerError> {
        let capacity = capacity.max(1);
        let (sender, receiver) = bounded(capacity);
        let queue = Arc::new(Queue {
            kind: take.kind(),
            take,
            channel: Mutex::new(Some(Channel { sender, unmarked: 0 })),
            marked_each: (capacity / 4).max(1),
            room: Arc::default(),
        });
        let registered: Arc<dyn Handler> = Arc::<Queue<T>>::clone(&queue);
        self.core.messenger.register_taker(queue.kind, registered)?;
        self.core.messenger.when_stopped(move || drop(queue.channel.lock().take()));
        Ok(receiver)
    }
}

/// Wakes those who wait for room when the reader has come to it. In a full channel there is always one at the latest
/// after a quarter: so they are woken once for many messages, and not for each.
struct Mark(Arc<Room>);

impl Drop for Mark {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.0.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Those who wait for room: at most one a stream of a peer.
#[derive(Default)]
struct Room {
    waiting: Mutex<Vec<Waker>>,
}

impl Room {
    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

struct Channel<M> {
    sender: Sender<Received<M>>,
    /// Messages since the last mark.
    unmarked: usize,
}

struct Queue<T: Take> {
    kind: Option<Kind>,
    take: T,
    /// `None`: the messenger has stopped.
    channel: Mutex<Option<Channel<T::Message>>>,
    marked_each: usize,
    room: Arc<Room>,
}

/// What the channel said.
enum Offered<M> {
    Taken,
    Full(Received<M>),
    Gone,
}

impl<T: Take> Queue<T> {
    /// What it does not take comes back, and is dropped by the caller: with no lock held.
    fn offer(&self, mut received: Received<T::Message>) -> Offered<T::Message> {
        let mut held = self.channel.lock();
        let Some(channel) = &mut *held else { return Offered::Gone };
        let marked = channel.unmarked + 1 >= self.marked_each;
        if marked && received.mark.is_none() {
            received.mark = Some(Mark(Arc::clone(&self.room)));
        }
        match channel.sender.try_send(received) {
            Ok(()) => {
                channel.unmarked = if marked { 0 } else { channel.unmarked + 1 };
                Offered::Taken
            }
            Err(TrySendError::Full(received)) => Offered::Full(received),
            Err(TrySendError::Disconnected(received)) => {
                drop(held);
                drop(received);
                Offered::Gone
            }
        }
    }

    /// Waits for room. Says whether it was taken.
    async fn offer_until_taken(&self, received: Received<T::Message>) -> bool {
        let mut waiting = Some(received);
        loop {
            let offering = std::future::poll_fn(|cx| {
                // Before it tries, so that no room is missed.
                self.room.wait(cx.waker());
                let Some(received) = waiting.take() else { return Poll::Ready(false) };
                match self.offer(received) {
                    Offered::Taken => Poll::Ready(true),
                    Offered::Gone => Poll::Ready(false),
                    Offered::Full(received) => {
                        waiting = Some(received);
                        Poll::Pending
                    }
                }
            });
            if let Ok(taken) = tokio::time::timeout(ROOM_RECHECK, offering).await {
                return taken;
            }
        }
    }

    fn is_next(&self, run: &Run<'_>) -> bool {
        match self.kind {
            Some(kind) => run.is_next(kind),
            None => run.next_type().is_some(),
        }
    }

    /// The next message, if it can be made; else it is counted.
    fn taken(&self, run: &Run<'_>) -> Option<T::Message> {
        let caught: Result<_, Box<dyn Any + Send>> =
            catch_unwind(AssertUnwindSafe(|| self.take.take(&run.piece())));
        match caught {
            Ok(Ok(message)) => return Some(message),
            Ok(Err(error)) => {
                run.counts().note_undecodable(run.from, self.kind.map_or("*", |kind| kind.name()), &error);
            }
            Err(panic) => run.counts().note_panic(run.from, &*panic),
        }
        None
    }
}

impl<T: Take> Handler for Queue<T> {
    fn run<'a>(&'a self, run: &'a mut Run<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            while self.is_next(run) {
                let Some(message) = self.taken(run) else {
                    run.finish();
                    continue;
                };
                let received = Received { from: run.from, message, mark: None };
                let taken = match self.offer(received) {
                    Offered::Taken => true,
                    Offered::Gone => false,
                    Offered::Full(received) => {
                        run.flush();
                        self.offer_until_taken(received).await
                    }
                };
                if taken {
                    run.finish();
                } else {
                    run.refuse();
                }
                if self.kind.is_none() {
                    return;
                }
            }
        })
    }
}
