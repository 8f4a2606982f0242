//! What goes out next: acknowledgements first, then batches by class, in turns within a class.

use std::time::Instant;

use super::batch::Batch;
use super::inbox::Inbox;
use super::intake::Ended;
use super::outbox::{Freed, Outbox, Wrote};
use super::{Gate, Session, SharedIntake, Transmit};
use crate::limits::{BATCH_BYTES, STARVATION_BYTES, STREAMS_MAX};
use crate::wire::Frame;

impl Session {
    /// Adds what is to be written now: acknowledgements first, then batches by class. Call while there is room and
    /// the link is up.
    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) {
        if !self.link_up {
            return;
        }
        let ack_at = out.acks_at();
        out.begin_batches();
        while out.has_room() && self.write_batch(now, out) {}
        self.hand_back();
        self.outboxes.iter_mut().for_each(|outbox| outbox.note_blocked(now));
        self.handle_timeout(now);
        let due = self.ack_overdue || !out.is_empty() || self.inboxes.iter().any(Inbox::is_ack_due);
        if due {
            // Ack first: a full window must not starve acks.
            self.write_acks(out, ack_at);
        }
    }

    /// Whether a producer was refused while all that is here is written and unacknowledged: an acknowledgement that
    /// the peer holds back is what the producer waits for. Says so once until something is acknowledged.
    pub(crate) fn take_starved(&mut self) -> bool {
        let in_flight = self.link_up
            && self.outboxes.iter().any(|outbox| outbox.unacked_bytes() > 0)
            && !self.outboxes.iter().any(|outbox| outbox.is_ready() || outbox.is_blocked());
        let starved = in_flight && !self.asked && self.intake.lock().has_refused();
        self.asked |= starved;
        starved
    }

    /// Acknowledges now whatever is not acknowledged yet: nothing more will be read after what is written next.
    pub(crate) fn flush_acks(&mut self, out: &mut Transmit) {
        self.write_acks(out, out.parts.len());
    }

    fn write_acks(&mut self, out: &mut Transmit, at: usize) {
        self.ack_deadline = None;
        self.ack_overdue = false;
        let wanted = self.inboxes.iter_mut().filter(|inbox| inbox.is_ack_wanted());
        let acks: Vec<_> = wanted.map(Inbox::say_ack).collect();
        if !acks.is_empty() {
            out.insert(at, out.encode(&Frame::Ack(acks)));
        }
    }

    fn write_batch(&mut self, now: Instant, out: &mut Transmit) -> bool {
        let Some(types) = &self.types else { return false };
        Self::fetch(now, &self.intake, &mut self.outboxes, self.peer_credit).tell();
        let admitted = self.gate == Gate::Open;
        let mut refused = Freed::default();
        for outbox in &mut self.outboxes {
            let stream = outbox.stream;
            let judge = |hash, version| types.judge(stream, hash, version, admitted);
            let freed = outbox.refuse(judge, self.peer_message_bytes);
            refused.messages += freed.messages;
            refused.charge += freed.charge;
        }
        if refused.charge > 0 {
            self.ended(refused, |accounts| &mut accounts.not_sent);
            return true;
        }
        let Some(at) = self.choose() else { return false };
        let Some(outbox) = self.outboxes.get_mut(at) else { return false };
        self.turn += 1;
        outbox.served = self.turn;
        match outbox.poll_transmit(now, out) {
            Some(Wrote::New { bytes }) => self.accounts.bytes_written += bytes as u64,
            Some(Wrote::Again { bytes, records }) => {
                self.accounts.bytes_written += bytes as u64;
                self.accounts.resent += u64::from(records);
            }
            None => return false,
        }
        true
    }

    /// One batch of each stream that has none waiting here; the rest may still grow in the intake.
    fn fetch(now: Instant, intake: &SharedIntake, outboxes: &mut Vec<Outbox>, credit: u64) -> Ended {
        outboxes.iter_mut().for_each(Outbox::forget_held);
        let mut intake = intake.lock();
        if intake.is_empty() {
            return Ended::default();
        }
        let ended = intake.expire(now);
        for stream in intake.streams() {
            if outboxes.iter().all(|outbox| outbox.stream != stream) && outboxes.len() < STREAMS_MAX {
                outboxes.push(Outbox::new(stream, credit));
            }
        }
        let mut fetched: smallvec::SmallVec<[_; 4]> = smallvec::SmallVec::new();
        let wants = |stream, batch: &Batch| {
            outboxes.iter_mut().any(|outbox| outbox.stream == stream && outbox.wants(batch))
        };
        intake.take(wants, |stream, batch| fetched.push((stream, batch)));
        drop(intake);
        for (stream, batch) in fetched {
            if let Some(outbox) = outboxes.iter_mut().find(|outbox| outbox.stream == stream) {
                outbox.enqueue(batch);
            }
        }
        ended
    }

    /// What was not written and may still be dropped waits in the intake, where it is.
    fn hand_back(&mut self) {
        for outbox in &mut self.outboxes {
            if let Some(batch) = outbox.take_marked() {
                let ended = self.intake.lock().hand_back(outbox.stream, batch);
                ended.tell();
            }
        }
    }

    /// The stream to be served: the highest class, in turns; a lower one when it was overtaken for long enough.
    fn choose(&mut self) -> Option<usize> {
        let ready = || self.outboxes.iter().enumerate().filter(|(_, outbox)| outbox.is_ready());
        let key = |outbox: &Outbox| (outbox.stream.class(), outbox.served);
        let (best, first) = ready().min_by_key(|(_, outbox)| key(outbox))?;
        let overtaken = ready().filter(|(_, outbox)| outbox.stream.class() > first.stream.class());
        // Whoever waits longest, else the lowest class would take every turn from the middle one.
        let Some((last, _)) = overtaken.min_by_key(|(_, outbox)| outbox.served) else {
            self.overtaken = 0;
            return Some(best);
        };
        if self.overtaken >= STARVATION_BYTES {
            self.overtaken = 0;
            return Some(last);
        }
        self.overtaken += BATCH_BYTES;
        Some(best)
    }
}
