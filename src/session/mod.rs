//! The session: the exactly-once, ordered state between two members. It survives every link.
//!
//! Sans-IO: inputs are `handle_*`, outputs are `poll_*`, time is an argument. After any input, poll in this order:
//! [`Session::poll_event`] until empty, [`Session::poll_transmit`] while there is room, [`Session::poll_timeout`].

mod accounts;
mod batch;
mod budget;
#[cfg(any(test, feature = "testing"))]
mod digest;
mod ending;
mod error;
mod figures;
mod inbox;
mod intake;
mod outbox;
mod quarantine;
mod receipt;
mod resume;
#[cfg(any(test, feature = "testing"))]
mod states;
#[cfg(test)]
pub(crate) mod tests;
mod transmit;
mod types;
mod writing;

pub(crate) use accounts::{Accounts, Handled};
pub(crate) use batch::Terms;
pub(crate) use budget::{Account, Budget, BudgetLimits, NoRoom};
#[cfg(any(test, feature = "testing"))]
pub(crate) use digest::types_of;
pub(crate) use error::ProtocolError;
pub(crate) use inbox::{Content, Delivery, InboxLimits, Reservation};
pub(crate) use intake::{Body, Buffers, Intake, Outgoing, Refused, SharedIntake};
pub(crate) use quarantine::{Gate, QuarantineRoom};
pub(crate) use receipt::Ticket;
pub use receipt::{Cause, Lost, Receipt};
pub(crate) use transmit::Transmit;
pub(crate) use types::PeerTypes;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use inbox::Inbox;
use outbox::{Freed, Outbox};
use quarantine::Quarantine;

use crate::limits::STREAMS_MAX;
use crate::wire::frame::Batch as WireBatch;
use crate::wire::{Epoch, Seq, StreamAck, StreamId};

/// What a session must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionConfig {
    pub(crate) inbox: InboxLimits,
    pub(crate) ack_delay: Duration,
    /// How long records are held for a peer that has joined and is in no view here.
    pub(crate) quarantine: Duration,
}

/// What a session tells its peer room.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// For a handler; `handle_handled` answers, with the same epoch.
    Deliver { epoch: Epoch, delivery: Delivery },
    /// A message larger than the ordinary credit has begun; `handle_reserved` answers, with the same epoch.
    Reserve { epoch: Epoch, stream: StreamId, bytes: u64 },
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Session {
    config: SessionConfig,
    epoch: Epoch,
    peer_epoch: Option<Epoch>,
    intake: SharedIntake,
    outboxes: Vec<Outbox>,
    inboxes: Vec<Inbox>,
    /// Credit for streams that the peer's hello did not list.
    peer_credit: u64,
    /// The largest message that the peer takes.
    peer_message_bytes: u64,
    types: Option<PeerTypes>,
    /// What passes on streams that are for members only.
    gate: Gate,
    quarantine: Quarantine,
    link_up: bool,
    ack_deadline: Option<Instant>,
    ack_overdue: bool,
    /// The peer was asked for an acknowledgement.
    asked: bool,
    turn: u64,
    /// Bytes of higher classes since a lower one that waits was served.
    overtaken: usize,
    events: VecDeque<SessionEvent>,
    accounts: Accounts,
    progress: bool,
}

impl Session {
    pub(crate) fn new(config: SessionConfig, epoch: Epoch, intake: SharedIntake) -> Self {
        intake.lock().set_epoch(epoch);
        Self {
            quarantine: Quarantine::new(config.quarantine, QuarantineRoom::default()),
            config,
            epoch,
            peer_epoch: None,
            intake,
            outboxes: Vec::new(),
            inboxes: Vec::new(),
            peer_credit: 0,
            peer_message_bytes: u64::MAX,
            types: None,
            gate: Gate::Shut,
            link_up: false,
            ack_deadline: None,
            ack_overdue: false,
            asked: false,
            turn: 0,
            overtaken: 0,
            events: VecDeque::new(),
            accounts: Accounts::default(),
            progress: false,
        }
    }

    /// What is held in quarantine counts into what the process may hold.
    pub(crate) fn with_quarantine_room(mut self, room: QuarantineRoom) -> Self {
        self.quarantine = Quarantine::new(self.config.quarantine, room);
        self
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) const fn peer_epoch(&self) -> Option<Epoch> {
        self.peer_epoch
    }

    pub(crate) fn bind(&mut self, peer_epoch: Epoch) {
        debug_assert!(self.peer_epoch.is_none_or(|bound| bound == peer_epoch));
        self.peer_epoch = Some(peer_epoch);
    }

    /// What the peer understands. Until it has said so on this link nothing is written but acknowledgements.
    pub(crate) fn handle_types(&mut self, types: PeerTypes) {
        self.types = Some(types);
    }

    /// A type is sent under this name: if the peer knows it by another, nothing of it goes there.
    pub(crate) fn note_sent(&mut self, hash: u32, name: &str) {
        if let Some(types) = &mut self.types {
            types.note_sent(hash, name);
        }
    }

    /// Whether the peer takes such a message; `None`: it has not said yet what it takes.
    pub(crate) fn peer_takes(
        &self,
        stream: StreamId,
        hash: u32,
        version: u16,
        body_bytes: usize,
    ) -> Option<bool> {
        let types = self.types.as_ref()?;
        let fits = body_bytes as u64 <= self.peer_message_bytes;
        Some(fits && types.judge(stream, hash, version, self.is_admitted()).is_ok())
    }

    pub(crate) fn handle_batch(&mut self, now: Instant, batch: &WireBatch) -> Result<(), ProtocolError> {
        let stream = batch.stream;
        match self.gate {
            Gate::Shut if !stream.is_open() => Err(ProtocolError::NotAdmitted { stream }),
            Gate::Hold if !stream.is_open() => {
                let inbox = self.inboxes.iter().find(|inbox| inbox.stream() == stream);
                self.quarantine.hold(now, batch, inbox.map_or(Seq::NONE, Inbox::accepted))
            }
            Gate::Open | Gate::Hold | Gate::Shut => self.accept(now, batch),
        }
    }

    fn accept(&mut self, now: Instant, batch: &WireBatch) -> Result<(), ProtocolError> {
        let limits = self.config.inbox;
        let inbox = match self.inboxes.iter().position(|inbox| inbox.stream() == batch.stream) {
            Some(at) => &mut self.inboxes[at],
            None if self.inboxes.len() < STREAMS_MAX => {
                self.inboxes.push_mut(Inbox::new(batch.stream, limits))
            }
            None => return Err(ProtocolError::TooManyStreams { most: STREAMS_MAX }),
        };
        let before = inbox.accepted();
        let accepted = inbox.handle_batch(batch)?;
        self.progress |= inbox.accepted() > before;
        self.accounts.duplicates += accepted.duplicates;
        if let Some(bytes) = accepted.reserve {
            self.events.push_back(SessionEvent::Reserve { epoch: self.epoch, stream: batch.stream, bytes });
        }
        self.accounts.bytes_accepted += accepted.bytes;
        let epoch = self.epoch;
        let deliver = |delivery| SessionEvent::Deliver { epoch, delivery };
        self.events.extend(accepted.deliveries.into_iter().map(deliver));
        self.want_ack(now);
        Ok(())
    }

    pub(crate) fn handle_acks(&mut self, acks: &[StreamAck]) -> Result<(), ProtocolError> {
        for ack in acks {
            let Some(outbox) = self.outbox(ack.stream, ack.accepted)? else { continue };
            let freed = outbox.handle_ack(ack)?;
            self.progress |= freed.charge > 0;
            self.ended(freed, |accounts| &mut accounts.acked);
        }
        Ok(())
    }

    /// Handlers are done with so many records of a stream, in order. What an earlier session delivered is counted
    /// and gives no credit.
    pub(crate) fn handle_handled(&mut self, now: Instant, handled: Handled) {
        self.accounts.handled += handled.records;
        if handled.epoch == self.epoch
            && let Some(inbox) = self.inboxes.iter_mut().find(|inbox| inbox.stream() == handled.stream)
        {
            inbox.handle_handled(handled.records, handled.bytes);
            self.want_ack(now);
        }
    }

    /// Memory for the large message under way on this stream is there.
    pub(crate) fn handle_reserved(
        &mut self,
        now: Instant,
        epoch: Epoch,
        stream: StreamId,
        reservation: Reservation,
    ) {
        if epoch == self.epoch
            && let Some(inbox) = self.inboxes.iter_mut().find(|inbox| inbox.stream() == stream)
        {
            inbox.handle_reserved(reservation);
            self.want_ack(now);
        }
    }

    fn want_ack(&mut self, now: Instant) {
        let waits = self.ack_deadline.is_some() || self.ack_overdue;
        if self.link_up && !waits && self.inboxes.iter().any(Inbox::is_ack_wanted) {
            self.ack_deadline = Some(now + self.config.ack_delay);
        }
    }

    /// A stream's way out, as the peer's word about it needs it. `None`: nothing was ever sent there, and the peer does
    /// not claim that there was.
    fn outbox(&mut self, stream: StreamId, accepted: Seq) -> Result<Option<&mut Outbox>, ProtocolError> {
        let found = self.outboxes.iter_mut().find(|outbox| outbox.stream == stream);
        if found.is_none() && accepted > Seq::NONE {
            return Err(ProtocolError::AckBeyondSent { acked: accepted, sent: Seq::NONE });
        }
        Ok(found)
    }

    fn ended(&mut self, freed: Freed, account: impl Fn(&mut Accounts) -> &mut u64) {
        *account(&mut self.accounts) += freed.messages;
        if freed.charge > 0 {
            self.asked = false;
            let mut intake = self.intake.lock();
            intake.give_back(freed.charge);
            for sent in freed.batches {
                if let Some(buffer) = sent.into_buffer() {
                    intake.recycle(buffer);
                }
            }
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.ack_deadline.take_if(|deadline| *deadline <= now).is_some() {
            self.ack_overdue = true;
        }
        let ended = self.intake.lock().expire(now);
        ended.tell();
    }

    /// When to call `handle_timeout`, and `poll_transmit` after it, though nothing happened.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.intake.lock().next_expiry();
        [self.ack_deadline, expiry].into_iter().flatten().min()
    }

    /// Whether something is to be written now that a link would take.
    pub(crate) fn wants_link(&self) -> bool {
        !self.is_drained()
    }

    /// Something was acknowledged or accepted since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Whether everything up to a goodbye came.
    pub(crate) fn check_goodbye(&self, last: &[(StreamId, Seq)]) -> Result<(), ProtocolError> {
        for (stream, last) in last {
            let inbox = self.inboxes.iter().find(|inbox| inbox.stream() == *stream);
            let accepted = inbox.map_or(Seq::NONE, Inbox::accepted);
            if accepted < *last {
                return Err(ProtocolError::EarlyGoodbye { stream: *stream, last: *last, accepted });
            }
        }
        Ok(())
    }

    pub(crate) const fn intake(&self) -> &SharedIntake {
        &self.intake
    }
}
