//! The end of a session, and the beginning of the next one of the pair: what becomes of each message.

use super::Session;
use super::receipt::{Cause, Lost};
use crate::wire::{Epoch, Protocol, StreamId};

impl Session {
    /// The session ended and another begins, in `epoch`: what was written is indeterminate; what was not starts at 1
    /// again, but for byte streams, whose tail is never sent without its head.
    pub(crate) fn restart(&mut self, cause: Cause, epoch: Epoch) {
        debug_assert!(epoch > self.epoch, "epochs of a pair strictly increase");
        self.handle_link_down();
        // Before anything is dropped: what belongs to the session that ended does not slip into the next.
        self.intake.lock().set_epoch(epoch);
        self.drop_written(cause);
        let bytes = |stream: StreamId| stream.protocol() == Protocol::BYTES;
        self.drop_unwritten(Lost::NotSent(cause), bytes);
        self.inboxes.clear();
        self.epoch = epoch;
        self.peer_epoch = None;
        self.peer_credit = 0;
        self.types = None;
    }

    /// The session ended and none follows: nothing is taken any more.
    pub(crate) fn end(&mut self, cause: Cause) {
        self.intake.lock().close(cause);
        self.handle_link_down();
        self.drop_written(cause);
        self.drop_unwritten(Lost::NotSent(cause), |_| true);
        debug_assert!(self.is_drained());
    }

    /// The peer takes no more than what is on its way to it: nothing is taken here any more, and what was not written ends. The
    /// rest of a message whose head was written goes on.
    pub(crate) fn wind_down(&mut self, cause: Cause) {
        self.intake.lock().close(cause);
        let lost = Lost::NotSent(cause);
        let mut begun = Vec::new();
        for at in 0..self.outboxes.len() {
            let Some(outbox) = self.outboxes.get_mut(at) else { continue };
            let stream = outbox.stream;
            let (freed, rest_in_intake) = outbox.purge_unbegun(lost);
            self.ended(freed, |accounts| &mut accounts.not_sent);
            begun.extend(rest_in_intake.then_some(stream));
        }
        let dropped = self.intake.lock().purge_behind(lost, |_| true, |stream| begun.contains(&stream));
        self.accounts.not_sent += dropped;
    }

    fn drop_written(&mut self, cause: Cause) {
        for at in 0..self.outboxes.len() {
            let Some(outbox) = self.outboxes.get_mut(at) else { continue };
            let stream = outbox.stream;
            let (freed, tail_in_intake) = outbox.restart(cause, 0);
            self.ended(freed, |accounts| &mut accounts.indeterminate);
            if tail_in_intake {
                let lost = Lost::Indeterminate(cause);
                self.accounts.indeterminate += self.intake.lock().purge_tail(stream, lost);
            }
        }
    }

    fn drop_unwritten(&mut self, lost: Lost, which: impl Fn(StreamId) -> bool) {
        for at in 0..self.outboxes.len() {
            if let Some(outbox) = self.outboxes.get_mut(at).filter(|outbox| which(outbox.stream)) {
                let freed = outbox.purge(lost);
                self.ended(freed, |accounts| &mut accounts.not_sent);
            }
        }
        self.accounts.not_sent += self.intake.lock().purge(lost, which);
    }
}
