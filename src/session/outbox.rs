//! One stream's way out: what waits for credit, what was written and is not acknowledged, and where this link stands.

#[cfg(any(test, feature = "testing"))]
mod digest;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::batch::{Batch, Sent};
use super::error::ProtocolError;
use super::receipt::{Cause, Lost, Ticket};
use super::transmit::Transmit;
use crate::wire::{Seq, StreamAck, StreamId};

/// What an acknowledgement or an end set free.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    pub(crate) messages: u64,
    /// What the destination is given back.
    pub(crate) charge: usize,
    pub(crate) batches: SmallVec<[Sent; 4]>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Numbers were given.
    New { bytes: usize },
    /// A batch was written again.
    Again { bytes: usize, records: u32 },
}

/// See the module's text. Invariant: window, then queue, in the order sent; `window[..cursor]` is on this link.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) stream: StreamId,
    /// Not written yet.
    queue: VecDeque<Batch>,
    /// Written and not acknowledged, with the time of the first write.
    window: VecDeque<(Sent, Instant)>,
    /// How many batches of the window are on the present link.
    cursor: usize,
    /// The number the next record gets.
    next: Seq,
    /// Record bytes written.
    offset: u64,
    acked: Seq,
    handled: Seq,
    credit: u64,
    /// Record bytes in the window.
    window_bytes: u64,
    /// The last record that got a number is a chunk of a message whose end did not get one yet.
    in_message: bool,
    /// What is next waits for credit in the intake, where it may still be dropped.
    held: bool,
    /// Why the head of the last message that was dropped was.
    head_refused: Cause,
    /// Since when something waits for credit.
    blocked_since: Option<Instant>,
    /// Since when the same thing waits for it.
    waits_since: Option<Instant>,
    /// For how long in all something has waited for credit before.
    blocked: Duration,
    unacked: VecDeque<(Seq, Ticket)>,
    unhandled: VecDeque<(Seq, Ticket)>,
    /// When the streams of a class were served last, for taking turns.
    pub(crate) served: u64,
}

impl Outbox {
    pub(crate) fn new(stream: StreamId, credit: u64) -> Self {
        Self {
            stream,
            queue: VecDeque::new(),
            window: VecDeque::new(),
            cursor: 0,
            next: Seq(1),
            offset: 0,
            acked: Seq::NONE,
            handled: Seq::NONE,
            credit,
            window_bytes: 0,
            in_message: false,
            held: false,
            head_refused: Cause::NotUnderstood,
            blocked_since: None,
            waits_since: None,
            blocked: Duration::ZERO,
            unacked: VecDeque::new(),
            unhandled: VecDeque::new(),
            served: 0,
        }
    }

    /// Whether a batch from the intake is wanted: one waits here at most, so that the rest can still grow; and none of
    /// whose messages some may be dropped, unless it is to be written next.
    pub(crate) fn wants(&mut self, batch: &Batch) -> bool {
        if !batch.is_marked() || !self.queue.is_empty() {
            return self.queue.is_empty();
        }
        self.held = !self.fits(batch);
        !self.held && self.cursor == self.window.len()
    }

    /// To be told anew by [`Outbox::wants`].
    pub(crate) const fn forget_held(&mut self) {
        self.held = false;
    }

    /// A batch that was not written after all, and of whose messages some may be dropped.
    pub(crate) fn take_marked(&mut self) -> Option<Batch> {
        self.queue.pop_front_if(|batch| batch.is_marked())
    }

    pub(crate) fn enqueue(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// What was written and is not acknowledged goes again, from `next_expected` on, which acknowledges all before.
    pub(crate) fn resume(&mut self, next_expected: Seq, credit: u64) -> Result<Freed, ProtocolError> {
        let accepted = next_expected.previous();
        if accepted >= self.next {
            return Err(ProtocolError::AckBeyondSent { acked: accepted, sent: self.next.previous() });
        }
        let freed = self.advance(accepted);
        // A low `next expected` never proves lost state: what is acknowledged stays acknowledged.
        self.cursor = 0;
        self.credit = self.credit.max(credit);
        Ok(freed)
    }

    /// No link, so nothing is on it.
    pub(crate) fn link_down(&mut self) {
        self.cursor = 0;
        self.held = false;
    }

    pub(crate) fn handle_ack(&mut self, ack: &StreamAck) -> Result<Freed, ProtocolError> {
        let sent = self.next.previous();
        if ack.accepted > sent {
            return Err(ProtocolError::AckBeyondSent { acked: ack.accepted, sent });
        }
        let freed = self.advance(ack.accepted);
        self.credit = self.credit.max(ack.credit);
        if ack.handled > self.handled {
            self.handled = ack.handled;
            while let Some((_, ticket)) = self.unhandled.pop_front_if(|(seq, _)| *seq <= ack.handled) {
                ticket.handled();
            }
        }
        Ok(freed)
    }

    fn advance(&mut self, accepted: Seq) -> Freed {
        let mut freed = Freed::default();
        if accepted <= self.acked {
            return freed;
        }
        self.acked = accepted;
        while let Some((sent, _)) = self.window.pop_front_if(|(sent, _)| sent.last() <= accepted) {
            self.cursor = self.cursor.saturating_sub(1);
            self.window_bytes -= sent.record_bytes;
            freed.messages += u64::from(sent.messages);
            freed.charge += sent.charge;
            freed.batches.push(sent);
        }
        while let Some((seq, ticket)) = self.unacked.pop_front_if(|(seq, _)| *seq <= accepted) {
            ticket.acked();
            self.unhandled.push_back((seq, ticket));
        }
        freed
    }

    /// Whether something can be written now.
    pub(crate) fn is_ready(&self) -> bool {
        self.cursor < self.window.len() || self.queue.front().is_some_and(|batch| self.fits(batch))
    }

    fn fits(&self, batch: &Batch) -> bool {
        self.offset + batch.first_record_bytes() <= self.credit
    }

    /// Keeps the time for which something waits for credit.
    pub(crate) fn note_blocked(&mut self, now: Instant) {
        match (self.is_blocked(), self.blocked_since) {
            (true, None) => {
                self.blocked_since = Some(now);
                self.waits_since = Some(now);
            }
            (true, Some(_)) => {
                self.waits_since.get_or_insert(now);
            }
            (false, Some(since)) => {
                self.blocked += now.saturating_duration_since(since);
                self.blocked_since = None;
                self.waits_since = None;
            }
            (false, None) => {}
        }
    }

    /// Something waits for credit.
    pub(crate) fn is_blocked(&self) -> bool {
        self.held || self.queue.front().is_some_and(|batch| !self.fits(batch))
    }

    /// Writes one batch: one of the window that this link has not seen, else the next of the queue.
    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> Option<Wrote> {
        if let Some((sent, _)) = self.window.get(self.cursor) {
            self.cursor += 1;
            sent.parts.iter().for_each(|part| out.push(part.clone()));
            return Some(Wrote::Again { bytes: sent.frame_bytes(), records: sent.count });
        }
        let batch = self.queue.pop_front()?;
        let (fits, rest) = batch.split_to_fit(self.credit.saturating_sub(self.offset));
        if let Some(rest) = rest {
            self.queue.push_front(rest);
        }
        self.waits_since = None;
        let sent = fits?.stamp(self.stream, self.next, out.check(), &mut self.unacked);
        sent.parts.iter().for_each(|part| out.push(part.clone()));
        self.next = sent.last().next();
        self.offset += sent.record_bytes;
        self.window_bytes += sent.record_bytes;
        self.in_message = !sent.ends_message;
        let bytes = sent.frame_bytes();
        self.window.push_back((sent, now));
        self.cursor = self.window.len();
        Some(Wrote::New { bytes })
    }

    /// Drops, before they get a number, the records that the peer does not take: of a type that it does not know, or
    /// of a message of more than `most` bytes. The rest of a message whose head got a number is not judged again, and
    /// the rest of one whose head was dropped goes with it: neither may come without the other.
    pub(crate) fn refuse(&mut self, judge: impl Fn(u32, u16) -> Result<(), Cause>, most: u64) -> Freed {
        let mut freed = Freed::default();
        let passes = |hash, version| judge(hash, version).is_ok();
        let headless = match self.queue.front() {
            None => return freed,
            Some(batch) if !batch.starts_message() => {
                if self.in_message {
                    return freed;
                }
                Some(self.head_refused)
            }
            Some(batch) if batch.large_bytes() > most => Some(Cause::TooLarge),
            Some(batch) if batch.all_types(passes) => return freed,
            Some(_) => None,
        };
        let Some(batch) = self.queue.pop_front() else { return freed };
        let (kept, refused) =
            if headless.is_some() { (None, vec![batch]) } else { batch.split_by_type(passes) };
        if let Some(kept) = kept {
            self.queue.push_front(kept);
        }
        for batch in refused {
            let judged = |(hash, version)| judge(hash, version).err().unwrap_or(Cause::NotUnderstood);
            let cause = headless.or_else(|| batch.first_type().map(judged)).unwrap_or(Cause::NotUnderstood);
            self.head_refused = cause;
            freed.messages += u64::from(batch.messages());
            freed.charge += batch.charge();
            batch.into_tickets().for_each(|ticket| ticket.lost(Lost::NotSent(cause)));
        }
        freed
    }

    /// The session ended. What was written is indeterminate, also a message of which only the head was written;
    /// the rest stays and starts at 1 again. Tells whether the tail of such a message may still be in the intake.
    pub(crate) fn restart(&mut self, cause: Cause, credit: u64) -> (Freed, bool) {
        let lost = Lost::Indeterminate(cause);
        let mut freed = Freed::default();
        let cut = self.in_message;
        for (sent, _) in self.window.drain(..) {
            freed.messages += u64::from(sent.messages);
            freed.charge += sent.charge;
            freed.batches.push(sent);
        }
        self.unacked.drain(..).for_each(|(_, ticket)| ticket.lost(lost));
        self.unhandled.drain(..).for_each(|(_, ticket)| ticket.orphaned(cause));
        while let Some(batch) = self.queue.pop_front_if(|batch| !batch.starts_message()) {
            freed.messages += u64::from(batch.messages());
            freed.charge += batch.charge();
            batch.into_tickets().for_each(|ticket| ticket.lost(lost));
        }
        let tail_in_intake = cut && self.queue.is_empty();
        let queue = std::mem::take(&mut self.queue);
        let (served, blocked) = (self.served, self.blocked);
        *self = Self { queue, served, blocked, ..Self::new(self.stream, credit) };
        (freed, tail_in_intake)
    }

    /// Drops what was never written.
    pub(crate) fn purge(&mut self, lost: Lost) -> Freed {
        let mut freed = Freed::default();
        for batch in self.queue.drain(..) {
            freed.messages += u64::from(batch.messages());
            freed.charge += batch.charge();
            batch.into_tickets().for_each(|ticket| ticket.lost(lost));
        }
        freed
    }

    /// Drops what was never written, but for the rest of a message whose head was. Tells whether that may be in the intake still.
    pub(crate) fn purge_unbegun(&mut self, lost: Lost) -> (Freed, bool) {
        let rest = self.queue.iter().take_while(|batch| !batch.starts_message()).count();
        let begun = if self.in_message { rest } else { 0 };
        let rest_in_intake = self.in_message && begun == self.queue.len();
        let mut later = self.queue.split_off(begun);
        std::mem::swap(&mut later, &mut self.queue);
        let freed = self.purge(lost);
        self.queue = later;
        (freed, rest_in_intake)
    }

    /// What is charged for what is here; nothing that may be dropped is, but while it is being written.
    #[cfg(test)]
    pub(crate) fn check_charge(&self) -> usize {
        assert!(!self.queue.iter().any(Batch::is_marked), "handed back");
        let window = self.window.iter().map(|(sent, _)| sent.charge);
        window.chain(self.queue.iter().map(Batch::charge)).sum()
    }

    /// The last number given.
    pub(crate) fn last(&self) -> Seq {
        self.next.previous()
    }

    /// The number that the last record here will have.
    pub(crate) fn last_queued(&self) -> Seq {
        Seq(self.last().0 + self.queue.iter().map(|batch| u64::from(batch.records())).sum::<u64>())
    }

    /// Messages that are neither acknowledged nor ended.
    pub(crate) fn pending_messages(&self) -> u64 {
        let queue = self.queue.iter().map(|batch| u64::from(batch.messages()));
        queue.chain(self.window.iter().map(|(sent, _)| u64::from(sent.messages))).sum()
    }

    /// Nothing waits and everything is acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.window.is_empty()
    }

    /// Handlers of the peer are done with all that was written, and it said so.
    pub(crate) fn is_handled(&self) -> bool {
        self.handled == self.last()
    }

    /// Record bytes written and not acknowledged.
    pub(crate) const fn unacked_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// Since when the same thing waits for credit: a sender that is blocked again and again need not be.
    pub(crate) const fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    /// When the oldest record that is not acknowledged was written first.
    pub(crate) fn oldest_unacked(&self) -> Option<Instant> {
        self.window.front().map(|(_, written)| *written)
    }

    /// Some of what was written before is to be written again on this link.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_resuming(&self) -> bool {
        self.cursor < self.window.len()
    }

    /// The head of a message was written, and not its last chunk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn is_in_message(&self) -> bool {
        self.in_message
    }

    pub(crate) fn figures(&self) -> StreamFigures {
        StreamFigures {
            stream: self.stream,
            unacked_bytes: self.window_bytes,
            oldest_unacked: self.oldest_unacked(),
            credit_bytes: self.credit.saturating_sub(self.offset),
            blocked_since: self.blocked_since,
            blocked: self.blocked,
        }
    }
}

/// What is seen of a stream's way out from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamFigures {
    pub(crate) stream: StreamId,
    /// Record bytes written and not acknowledged.
    pub(crate) unacked_bytes: u64,
    /// When the oldest of them was written first.
    pub(crate) oldest_unacked: Option<Instant>,
    /// Record bytes that may still be written.
    pub(crate) credit_bytes: u64,
    /// Since when something waits for credit.
    pub(crate) blocked_since: Option<Instant>,
    /// For how long something waited for credit before that.
    pub(crate) blocked: Duration,
}
