//! Requests to one member that wait for their replies.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::wire::{Code, Type};
use crate::limits::REQUESTS_PENDING_MAX;
use crate::session::{Cause, Lost, Receipt};

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Reply { of: Type, body: Bytes },
    Failed { code: Code, text: String },
    Lost(Lost),
}

#[derive(Debug)]
struct Waiting {
    /// What became of the request itself.
    receipt: Receipt,
    asker: oneshot::Sender<Outcome>,
}

/// See the module's text. Askers are woken after the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<HashMap<u64, Waiting>>);

impl Pending {
    /// A request is about to be queued. `None`: too many wait already.
    pub(super) fn begin(&self, id: u64, receipt: Receipt) -> Option<oneshot::Receiver<Outcome>> {
        let mut waiting = self.0.lock();
        if waiting.len() >= REQUESTS_PENDING_MAX {
            return None;
        }
        let (asker, outcome) = oneshot::channel();
        let before = waiting.insert(id, Waiting { receipt, asker });
        debug_assert!(before.is_none(), "an id is used once");
        Some(outcome)
    }

    /// Nobody waits for it any more. `false`: it had ended already.
    pub(super) fn forget(&self, id: u64) -> bool {
        self.0.lock().remove(&id).is_some()
    }

    /// `false`: nobody waits for it.
    pub(super) fn resolve(&self, id: u64, outcome: Outcome) -> bool {
        let waiting = self.0.lock().remove(&id);
        // The asker may have gone this very moment.
        waiting.is_some_and(|waiting| waiting.asker.send(outcome).is_ok())
    }

    /// The session is over: no reply will come to what it had written. What it had not goes on in the next one.
    pub(super) fn session_over(&self, cause: Cause) {
        let ended: Vec<(Waiting, Lost)> = {
            let mut waiting = self.0.lock();
            let over = waiting.extract_if(|_, waiting| waiting.receipt.now().is_some());
            let lost = |waiting: &Waiting| match waiting.receipt.now() {
                Some(Err(lost)) => lost,
                Some(Ok(())) | None => Lost::Indeterminate(cause),
            };
            over.map(|(_, waiting)| {
                let lost = lost(&waiting);
                (waiting, lost)
            })
            .collect()
        };
        for (waiting, lost) in ended {
            let _gone = waiting.asker.send(Outcome::Lost(lost));
        }
    }

    /// How many wait.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ticket;

    fn lost(outcome: &mut oneshot::Receiver<Outcome>) -> Option<Lost> {
        match outcome.try_recv() {
            Ok(Outcome::Lost(lost)) => Some(lost),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    #[test]
    fn the_end_of_a_session_ends_what_it_had_taken_and_nothing_else() {
        let pending = Pending::default();
        let begin = |id| {
            let (ticket, receipt) = Ticket::new();
            (ticket, pending.begin(id, receipt).unwrap())
        };
        let (unwritten, mut waits) = begin(1);
        let (written, mut indeterminate) = begin(2);
        let (refused, mut not_sent) = begin(3);
        let (acked, mut orphan) = begin(4);
        written.lost(Lost::Indeterminate(Cause::SessionLost));
        refused.lost(Lost::NotSent(Cause::NotAdmitted));
        acked.acked();
        pending.session_over(Cause::Departed);
        assert_eq!(lost(&mut waits), None);
        assert_eq!(lost(&mut indeterminate), Some(Lost::Indeterminate(Cause::SessionLost)));
        assert_eq!(lost(&mut not_sent), Some(Lost::NotSent(Cause::NotAdmitted)));
        assert_eq!(lost(&mut orphan), Some(Lost::Indeterminate(Cause::Departed)));
        assert_eq!(pending.len(), 1);
        drop(unwritten);
    }

    #[test]
    fn a_reply_comes_once_and_only_to_who_waits() {
        let pending = Pending::default();
        let (_ticket, receipt) = Ticket::new();
        let mut outcome = pending.begin(1, receipt).unwrap();
        let reply = || Outcome::Failed { code: Code::Busy, text: String::new() };
        assert!(!pending.resolve(2, reply()));
        assert!(pending.resolve(1, reply()));
        assert!(!pending.resolve(1, reply()), "late");
        assert!(matches!(outcome.try_recv(), Ok(Outcome::Failed { code: Code::Busy, .. })));
        let (_ticket, receipt) = Ticket::new();
        let dropped = pending.begin(3, receipt).unwrap();
        drop(dropped);
        assert!(!pending.resolve(3, reply()));
        assert!(!pending.forget(3));
    }

    #[test]
    fn the_number_that_waits_is_bounded() {
        let pending = Pending::default();
        let (_ticket, receipt) = Ticket::new();
        let held: Vec<_> =
            (0..REQUESTS_PENDING_MAX as u64).map(|id| pending.begin(id, receipt.clone()).unwrap()).collect();
        assert!(pending.begin(u64::MAX, receipt.clone()).is_none());
        assert!(pending.forget(0));
        assert!(pending.begin(u64::MAX, receipt).is_some());
        drop(held);
    }
}
