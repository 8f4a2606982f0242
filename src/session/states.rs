//! What a session is in the midst of, as the simulation counts what its faults hit.

use super::Session;

/// Several hold at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doing {
    pub(crate) unacked: bool,
    pub(crate) resuming: bool,
    pub(crate) chunks_out: bool,
    pub(crate) chunks_in: bool,
    pub(crate) awaits_credit: bool,
    pub(crate) unhandled: bool,
    /// Messages that were not written yet.
    pub(crate) waiting: bool,
    pub(crate) quarantined: bool,
}

impl Session {
    pub(crate) fn doing(&self) -> Doing {
        Doing {
            unacked: self.outboxes.iter().any(|outbox| outbox.figures().unacked_bytes > 0),
            resuming: self.outboxes.iter().any(|outbox| outbox.is_resuming()),
            chunks_out: self.outboxes.iter().any(|outbox| outbox.is_in_message()),
            chunks_in: self.inboxes.iter().any(|inbox| inbox.is_in_message()),
            awaits_credit: self.waits_since().is_some(),
            unhandled: self.unhandled_bytes() > 0,
            waiting: self.intake.lock().waiting_messages() > 0,
            quarantined: self.quarantined_until().is_some(),
        }
    }
}
