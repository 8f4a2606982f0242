//! What the router is told of one peer, in order and one after the other. Knows nothing of messengers.
//!
//! Whoever has the *turn* may call the router about this peer. Giving it back says what has become due meanwhile, so
//! nobody waits for a router that hangs, and nothing due is forgotten.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{DownCause, PeerChange};
use crate::MemberId;

/// What the router knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
    Down,
}

/// What whoever has the turn does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Tell(PeerChange),
    /// It came and went, and the router never heard of it.
    Nothing,
}

#[derive(Debug)]
struct State {
    told: Told,
    /// Somebody has the turn.
    busy: bool,
    /// It is gone, and why. What was accepted may still be handled.
    gone: Option<DownCause>,
    /// No more turns: `Down` is due.
    over: bool,
    replaced_by: Option<MemberId>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: MemberId,
    state: Mutex<State>,
    freed: Notify,
    cut: CancellationToken,
}

impl Peer {
    pub(super) fn new(id: MemberId) -> Self {
        let state = State { told: Told::Nothing, busy: false, gone: None, over: false, replaced_by: None };
        Self { id, state: Mutex::new(state), freed: Notify::new(), cut: CancellationToken::new() }
    }

    /// Evidence of who came in its place; it counts when the peer goes.
    pub(super) fn note_replaced(&self, by: MemberId) {
        self.state.lock().replaced_by = Some(by);
    }

    /// It is gone. False if that is known already.
    pub(super) fn note_gone(&self, cause: DownCause) -> bool {
        let mut state = self.state.lock();
        if state.gone.is_some() {
            return false;
        }
        let replaced = state.replaced_by.map(|by| DownCause::Replaced { by });
        let by_itself = matches!(cause, DownCause::Removed | DownCause::Left);
        state.gone = Some(replaced.filter(|_| by_itself).unwrap_or(cause));
        true
    }

    /// It is up, as far as the router knows, and not gone.
    pub(super) fn is_up(&self) -> bool {
        let state = self.state.lock();
        state.told == Told::Up && state.gone.is_none()
    }

    /// No message more, but the one that is being handled; then `Down`.
    pub(super) fn end(&self) {
        self.state.lock().over = true;
    }

    /// Whoever handles a message stops where it waits.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Until then a message may be handled.
    pub(super) async fn until_cut(&self) {
        self.cut.cancelled().await;
    }

    /// The turn, if nobody has it.
    pub(super) fn try_take_turn(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().busy, true)
    }

    /// Waits for the turn to handle a message; false: `Down` has been told, it is another peer's now. Cancel safe.
    pub(super) async fn take_turn(&self) -> bool {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before the look, so that nothing is missed.
            freed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.told == Told::Down && !state.busy {
                    return false;
                }
                if !state.busy && !state.over {
                    state.busy = true;
                    return true;
                }
            }
            freed.await;
        }
    }

    /// With the turn: what is due next. When there is nothing the turn is given back.
    pub(super) fn next_due(&self) -> Option<Due> {
        {
            let mut state = self.state.lock();
            let cause = state.gone.unwrap_or(DownCause::Left);
            let (told, due) = match (state.told, state.over) {
                (Told::Nothing, false) => (Told::Up, Due::Tell(PeerChange::Up)),
                (Told::Nothing, true) => (Told::Down, Due::Nothing),
                (Told::Up, true) => (Told::Down, Due::Tell(PeerChange::Down { cause })),
                (told @ Told::Up, false) | (told @ Told::Down, _) => {
                    state.busy = false;
                    (told, Due::Nothing)
                }
            };
            state.told = told;
            if state.busy {
                return Some(due);
            }
        }
        self.freed.notify_waiters();
        None
    }

    /// With the turn, before a message: whether `Up` is due first.
    pub(super) fn is_new(&self) -> bool {
        let mut state = self.state.lock();
        let is_new = state.told == Told::Nothing;
        if is_new {
            state.told = Told::Up;
        }
        is_new
    }

    /// Whether it is over and done with.
    pub(super) fn is_down(&self) -> bool {
        let state = self.state.lock();
        state.told == Told::Down && !state.busy
    }

    /// Waits until it is. Cancel safe.
    pub(super) async fn until_down(&self) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.is_down() {
                return;
            }
            freed.await;
        }
    }
}
