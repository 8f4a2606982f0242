//! Links come and go: what a hello says of a session, and where the next link goes on.

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::{ProtocolError, Session};
use crate::wire::{Seq, StreamResume};

impl Session {
    /// For a hello: what was received, and how far the peer may go on.
    pub(crate) fn resume_points(&self) -> Vec<StreamResume> {
        self.inboxes.iter().map(Inbox::resume_point).collect()
    }

    /// The largest message that is taken here, for a hello.
    pub(crate) const fn message_bytes(&self) -> u64 {
        self.config.inbox.message_bytes_max as u64
    }

    /// The largest message that the peer takes: a larger one is not sent, and its sender is told.
    pub(crate) fn set_peer_message_bytes(&mut self, most: u64) {
        self.peer_message_bytes = most;
    }

    /// The largest message that the peer takes, as it said.
    pub(crate) const fn peer_message_bytes(&self) -> u64 {
        self.peer_message_bytes
    }

    /// Credit for streams that the hello does not list.
    pub(crate) const fn default_credit(&self) -> u64 {
        self.config.inbox.credit_bytes
    }

    /// Whether what a hello claims to have received can be, before anything is given up for it.
    pub(crate) fn check_resume(&self, resume: &[StreamResume]) -> Result<(), ProtocolError> {
        for point in resume {
            let accepted = point.next_expected.previous();
            let found = self.outboxes.iter().find(|outbox| outbox.stream == point.stream);
            let sent = found.map_or(Seq::NONE, Outbox::last);
            if accepted > sent {
                return Err(ProtocolError::AckBeyondSent { acked: accepted, sent });
            }
        }
        Ok(())
    }

    /// A link is adopted. What the peer has not received goes again.
    pub(crate) fn handle_link_up(
        &mut self,
        resume: &[StreamResume],
        credit: u64,
    ) -> Result<(), ProtocolError> {
        self.peer_credit = credit;
        self.types = None;
        for point in resume {
            if let Some(at) = self.outbox(point.stream, point.next_expected.previous())? {
                let freed = at.resume(point.next_expected, point.credit)?;
                self.progress |= freed.charge > 0;
                self.ended(freed, |accounts| &mut accounts.acked);
            }
        }
        let unlisted = |outbox: &&mut Outbox| resume.iter().all(|point| point.stream != outbox.stream);
        for outbox in self.outboxes.iter_mut().filter(unlisted) {
            outbox.resume(Seq(1), credit)?;
        }
        // The hello says neither what is handled, nor what changed after it was written.
        self.inboxes.iter_mut().for_each(Inbox::link_up);
        self.link_up = true;
        self.intake.lock().set_link_up(true);
        Ok(())
    }

    /// The link is gone. Nothing is lost by that.
    pub(crate) fn handle_link_down(&mut self) {
        self.link_up = false;
        self.ack_deadline = None;
        self.ack_overdue = false;
        self.asked = false;
        self.outboxes.iter_mut().for_each(Outbox::link_down);
        self.drop_quarantined();
        self.intake.lock().set_link_up(false);
    }
}
