//! What is seen of a session from outside: whether it is drained, its books, its streams.

use std::time::Instant;

use super::inbox::Inbox;
use super::outbox::{Outbox, StreamFigures};
use super::{Accounts, Session};
use crate::wire::{Seq, StreamId};

impl Session {
    /// Nothing waits, everything is acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.outboxes.iter().all(Outbox::is_drained) && self.intake.lock().is_empty()
    }

    /// Nothing is under way in either direction, not even a report: this side neither waits nor owes.
    pub(crate) fn is_settled(&self) -> bool {
        let reported = self.outboxes.iter().all(Outbox::is_handled);
        let owes = self.inboxes.iter().any(Inbox::is_ack_wanted);
        reported && !owes && self.is_handled() && self.is_drained()
    }

    /// Everything that came was handled.
    pub(crate) fn is_handled(&self) -> bool {
        self.inboxes.iter().all(|inbox| inbox.unhandled_bytes() == 0)
    }

    /// The last number given on each stream, for a goodbye.
    pub(crate) fn last_sent(&self) -> Vec<(StreamId, Seq)> {
        self.outboxes.iter().map(|outbox| (outbox.stream, outbox.last())).collect()
    }

    /// The number that the last record of each stream gets, or got, if all that waits is written in this session.
    pub(crate) fn marks(&self) -> Vec<(StreamId, Seq)> {
        let intake = self.intake.lock();
        let mut marks: Vec<_> =
            self.outboxes.iter().map(|outbox| (outbox.stream, outbox.last_queued())).collect();
        for (stream, records) in intake.waiting_records() {
            match marks.iter_mut().find(|(of, _)| *of == stream) {
                Some((_, mark)) => mark.0 += records,
                None => marks.push((stream, Seq(records))),
            }
        }
        marks
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn accounts(&self) -> Accounts {
        self.books().2
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn queued_and_pending(&self) -> (u64, u64) {
        let (queued, pending, _) = self.books();
        (queued, pending)
    }

    /// Messages queued ever; those that are neither acknowledged nor ended, counted where they wait; and how the others
    /// ended. All of one moment: producers queue, and drop what is superseded, meanwhile.
    pub(crate) fn books(&self) -> (u64, u64, Accounts) {
        let intake = self.intake.lock();
        let written: u64 = self.outboxes.iter().map(Outbox::pending_messages).sum();
        let not_sent = self.accounts.not_sent + intake.dropped();
        (intake.queued(), written + intake.waiting_messages(), Accounts { not_sent, ..self.accounts })
    }

    /// What is held is what was charged, and the intake agrees with itself.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let written: usize = self.outboxes.iter().map(Outbox::check_charge).sum();
        let intake = self.intake.lock();
        assert_eq!(intake.bytes(), written + intake.check_terms(), "what is held is what was charged");
    }

    /// What is seen of each stream's way out.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamFigures> {
        self.outboxes.iter().map(Outbox::figures)
    }

    /// Since when something waits for credit and nothing of its stream was written; the longest of all streams.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.outboxes.iter().filter_map(Outbox::waits_since).min()
    }

    /// When the oldest record that is not acknowledged was written first.
    pub(crate) fn oldest_unacked(&self) -> Option<Instant> {
        self.outboxes.iter().filter_map(Outbox::oldest_unacked).min()
    }

    /// Record bytes that wait for their handler.
    pub(crate) fn unhandled_bytes(&self) -> u64 {
        self.inboxes.iter().map(Inbox::unhandled_bytes).sum()
    }
}
