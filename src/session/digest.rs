//! What a session is, for a model checker that must know two equal states when it sees them. Left out is only what decides
//! nothing: configuration, counters for people, and times, of which a checker with frozen clocks needs only whether they
//! are set. Each struct is taken apart by name, so a new field does not compile until somebody has decided.

use std::hash::{Hash, Hasher};

use super::{Gate, Session};
use crate::wire::record;

/// The types of records.
pub(crate) fn types_of(mut records: &[u8], note: &mut impl FnMut(u32)) {
    while let Ok(header) = record::peek(records) {
        note(header.hash);
        records = records.get(header.wire_bytes() as usize..).unwrap_or_default();
    }
}

impl Session {
    pub(crate) fn digest(&self, into: &mut impl Hasher) {
        let Self {
            config: _,
            epoch,
            peer_epoch,
            intake,
            outboxes,
            inboxes,
            peer_credit,
            peer_message_bytes,
            types,
            gate,
            quarantine,
            link_up,
            ack_deadline,
            ack_overdue,
            asked,
            turn: _,
            overtaken,
            events,
            accounts: _,
            progress,
        } = self;
        debug_assert!(events.is_empty(), "polled before");
        (epoch, peer_epoch, peer_credit, peer_message_bytes, types.is_some()).hash(into);
        (matches!(gate, Gate::Open), matches!(gate, Gate::Hold), link_up, overtaken, progress).hash(into);
        (ack_deadline.is_some(), ack_overdue, asked).hash(into);
        intake.lock().digest(into);
        outboxes.len().hash(into);
        for outbox in outboxes {
            outbox.digest(into);
            // Taking turns: only the order counts.
            outboxes.iter().filter(|other| other.served < outbox.served).count().hash(into);
        }
        inboxes.len().hash(into);
        inboxes.iter().for_each(|inbox| inbox.digest(into));
        quarantine.digest(into);
    }

    /// The types of all records that are kept here, and may so be written or let in some time.
    pub(crate) fn types_kept(&self, note: &mut impl FnMut(u32)) {
        self.intake.lock().types_kept(note);
        self.outboxes.iter().for_each(|outbox| outbox.types_kept(note));
        self.quarantine.types_kept(note);
    }
}
