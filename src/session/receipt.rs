//! Receipts: what became of one message, told exactly once.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use smallvec::SmallVec;

/// Why a message was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The peer left, or a view removed it.
    #[error("the peer departed")]
    Departed,
    /// This messenger, or the contact it was sent to, was closed.
    #[error("closed on this side")]
    Closed,
    /// The peer lost the session's state, or another process has taken its place.
    #[error("the session was lost")]
    SessionLost,
    /// Its time to live was over.
    #[error("its time to live was over")]
    Expired,
    /// A newer message under the same key took its place.
    #[error("a newer message took its place")]
    Superseded,
    /// The peer has no handler for this type, or not for this version of it.
    #[error("the peer does not understand this type")]
    NotUnderstood,
    /// It is larger than any message the peer takes.
    #[error("larger than any message the peer takes")]
    TooLarge,
    /// The type is for members of a view, and the two share none.
    #[error("the type is for members of a view only")]
    NotAdmitted,
}

/// The end of a message that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// It was never handed to a write: safe to send again.
    #[error("not sent: {0}")]
    NotSent(Cause),
    /// It may have arrived. Sending it again may deliver it twice.
    #[error("indeterminate: {0}")]
    Indeterminate(Cause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Acked,
    /// Acknowledged, and its handler is done.
    Handled,
    /// Acknowledged, but nobody will ever know whether it was handled.
    Orphaned(Cause),
    Lost(Lost),
}

#[derive(Debug)]
struct Cell {
    state: State,
    wakers: SmallVec<[Waker; 1]>,
}

/// The messenger's half of a receipt. Dropped without a word it resolves as closed, so that nobody waits for ever.
pub(crate) struct Ticket(Arc<Mutex<Cell>>);

impl Ticket {
    pub(crate) fn new() -> (Self, Receipt) {
        let cell = Arc::new(Mutex::new(Cell { state: State::Pending, wakers: SmallVec::new() }));
        (Self(Arc::clone(&cell)), Receipt(cell))
    }

    fn resolve(&self, expected: &[State], state: State) {
        let wakers = {
            let mut cell = self.0.lock();
            let fits = expected.contains(&cell.state);
            debug_assert!(fits, "receipt resolved twice: {:?}, then {state:?}", cell.state);
            if !fits {
                return;
            }
            cell.state = state;
            std::mem::take(&mut cell.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn acked(&self) {
        self.resolve(&[State::Pending], State::Acked);
    }

    pub(crate) fn handled(self) {
        self.resolve(&[State::Acked], State::Handled);
    }

    /// After `acked`: the session ended before `handled`.
    pub(crate) fn orphaned(self, cause: Cause) {
        self.resolve(&[State::Acked], State::Orphaned(cause));
    }

    pub(crate) fn lost(self, lost: Lost) {
        self.resolve(&[State::Pending], State::Lost(lost));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = self.0.lock().state;
        match state {
            State::Pending => {
                self.resolve(&[State::Pending], State::Lost(Lost::Indeterminate(Cause::Closed)));
            }
            State::Acked => self.resolve(&[State::Acked], State::Orphaned(Cause::Closed)),
            State::Handled | State::Orphaned(_) | State::Lost(_) => {}
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.0.lock().state)
    }
}

/// What became of one message. May be waited for from several places; cheap to drop.
#[derive(Clone)]
#[must_use = "a receipt that nobody looks at costs memory and tells nothing"]
pub struct Receipt(Arc<Mutex<Cell>>);

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({:?})", self.0.lock().state)
    }
}

impl Receipt {
    /// Waits until the message is in the receiver's memory.
    ///
    /// Every message ends: acknowledged, or [`Lost`]. Cancel safe: nothing is lost by dropping the future.
    ///
    /// # Errors
    ///
    /// [`Lost`] says whether it is safe to send it again.
    pub async fn acked(&self) -> Result<(), Lost> {
        std::future::poll_fn(|cx| {
            self.poll(cx, |state| match state {
                State::Pending => None,
                State::Acked | State::Handled | State::Orphaned(_) => Some(Ok(())),
                State::Lost(lost) => Some(Err(lost)),
            })
        })
        .await
    }

    /// Waits until the receiver's handler is done with the message (returned or panicked).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Lost`]: as for [`Receipt::acked`]; `Indeterminate` also when the session ended after the message was
    /// acknowledged and before its handler was done.
    pub async fn handled(&self) -> Result<(), Lost> {
        std::future::poll_fn(|cx| {
            self.poll(cx, |state| match state {
                State::Pending | State::Acked => None,
                State::Handled => Some(Ok(())),
                State::Orphaned(cause) => Some(Err(Lost::Indeterminate(cause))),
                State::Lost(lost) => Some(Err(lost)),
            })
        })
        .await
    }

    /// What is known now: `None` while the message is pending.
    #[must_use]
    pub fn now(&self) -> Option<Result<(), Lost>> {
        match self.0.lock().state {
            State::Pending => None,
            State::Acked | State::Handled | State::Orphaned(_) => Some(Ok(())),
            State::Lost(lost) => Some(Err(lost)),
        }
    }

    fn poll<T>(&self, cx: &Context<'_>, decide: impl Fn(State) -> Option<T>) -> Poll<T> {
        let mut cell = self.0.lock();
        match decide(cell.state) {
            Some(value) => Poll::Ready(value),
            None => {
                if !cell.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    cell.wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_dropped_without_a_word_is_indeterminate() {
        let (ticket, receipt) = Ticket::new();
        assert_eq!(receipt.now(), None);
        drop(ticket);
        assert_eq!(receipt.now(), Some(Err(Lost::Indeterminate(Cause::Closed))));
    }

    #[test]
    #[should_panic(expected = "resolved twice")]
    fn resolving_twice_is_a_bug() {
        let (ticket, _receipt) = Ticket::new();
        ticket.acked();
        ticket.lost(Lost::NotSent(Cause::Closed));
    }
}
