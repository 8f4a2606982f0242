//! Messages with terms: how long a message is worth sending, and which newer one takes its place. A batch keeps a mark
//! for each, so that it can be dropped as long as it has no number.

use std::time::Instant;

use smallvec::SmallVec;

use super::{Batch, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, Ticket};
use crate::limits::{MARK_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES};
use crate::wire::record;

/// What a message is sent under. Neither: it waits until it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// From then on it is not sent any more.
    pub(crate) expires: Option<Instant>,
    /// Of those that wait on one stream under one key only the newest stays.
    pub(crate) key: Option<u64>,
}

/// A message with terms in its batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Given by the intake, in the order taken.
    pub(crate) id: u64,
    pub(crate) terms: Terms,
    /// Which record it is.
    at: u32,
    /// Bytes of its body; of a message in batches of its own they are not needed.
    bytes: u16,
    /// Dropped; its bytes go with the next sweep.
    dead: bool,
}

// A vector may hold twice what it needs; a map of keys takes up to 40 bytes an entry.
const _: () = assert!(size_of::<Mark>() * 2 + 40 <= MARK_OVERHEAD_BYTES);
const _: () = assert!(crate::limits::OWN_FRAME_BYTES <= u16::MAX as usize, "a small body's length fits");

impl Mark {
    /// What its record costs, if it is a small one.
    const fn charge(&self) -> usize {
        self.record_charge() + MARK_OVERHEAD_BYTES
    }

    const fn record_charge(&self) -> usize {
        RECORD_HEADER_BYTES + self.bytes as usize + RECORD_OVERHEAD_BYTES
    }
}

/// The marks of one batch, by id and so by record.
#[derive(Debug, Default)]
pub(super) struct Marks {
    list: Vec<Mark>,
    dead: usize,
    /// What the dead records were charged, marks not counted.
    dead_charge: usize,
    /// When the first may expire, and which; may be earlier than that of any left.
    earliest: Option<(Instant, u64)>,
}

impl Marks {
    fn add(&mut self, mark: Mark) {
        debug_assert!(self.list.last().is_none_or(|last| last.id < mark.id && last.at < mark.at));
        self.note(&mark);
        self.list.push(mark);
    }

    fn note(&mut self, mark: &Mark) {
        if let Some(expires) = mark.terms.expires
            && self.earliest.is_none_or(|(earliest, _)| expires < earliest)
        {
            self.earliest = Some((expires, mark.id));
        }
    }

    fn kill(&mut self, at: usize) -> Option<Mark> {
        let mark = self.list.get_mut(at).filter(|mark| !mark.dead)?;
        mark.dead = true;
        self.dead += 1;
        self.dead_charge += mark.record_charge();
        Some(*mark)
    }

    /// What marks add to the charge of the records, and what the dead take off it.
    pub(super) fn adjust(&self, charge: usize) -> usize {
        charge + (self.list.len() - self.dead) * MARK_OVERHEAD_BYTES - self.dead_charge
    }

    /// Those left, in order, for batches made of this one.
    pub(super) fn into_live(self) -> impl Iterator<Item = Mark> {
        debug_assert_eq!(self.dead, 0, "swept before");
        self.list.into_iter()
    }
}

impl Mark {
    pub(super) const fn is_at(&self, at: u32) -> bool {
        self.at == at
    }
}

impl Batch {
    /// Its place among the batches of a stream: at most the id of any of its marks, greater than any of those before.
    pub(crate) const fn numbered(mut self, serial: u64) -> Self {
        self.serial = serial;
        self
    }

    pub(crate) const fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether it holds messages that may be dropped.
    #[inline]
    pub(crate) const fn is_marked(&self) -> bool {
        self.marks.is_some()
    }

    /// Marks the last record, or the message that begins here.
    pub(crate) fn mark(&mut self, id: u64, terms: Terms, body_bytes: usize) {
        self.serial = self.serial.min(id);
        let bytes = u16::try_from(body_bytes).unwrap_or(u16::MAX);
        let mark = Mark { id, terms, at: self.count - 1, bytes, dead: false };
        self.marks.get_or_insert_default().add(mark);
    }

    /// The last record takes over a mark from another batch.
    pub(super) fn mark_again(&mut self, mark: Mark) {
        let mark = Mark { at: self.count - 1, ..mark };
        self.marks.get_or_insert_default().add(mark);
    }

    /// When the first of its messages may expire, and a name for the batch.
    pub(crate) fn earliest(&self) -> Option<(Instant, u64)> {
        self.marks.as_ref()?.earliest
    }

    /// A message in a batch of its own, or in several: only as a whole it can be dropped.
    pub(crate) const fn is_alone(&self) -> bool {
        self.shared.is_some()
    }

    /// Its messages with terms.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &Mark> {
        let list = self.marks.as_ref().map_or(&[][..], |marks| &marks.list);
        list.iter().filter(|mark| !mark.dead)
    }

    pub(crate) fn find(&self, id: u64) -> Option<&Mark> {
        let list = &self.marks.as_ref()?.list;
        let at = list.binary_search_by_key(&id, |mark| mark.id).ok()?;
        list.get(at).filter(|mark| !mark.dead)
    }

    /// What a small message costs.
    pub(crate) fn charge_of(&self, id: u64) -> Option<usize> {
        self.find(id).map(Mark::charge)
    }

    /// Drops a small message: what it cost, and its ticket.
    pub(crate) fn drop_one(&mut self, id: u64) -> Option<(Mark, Option<Ticket>)> {
        let marks = self.marks.as_mut()?;
        let at = marks.list.binary_search_by_key(&id, |mark| mark.id).ok()?;
        let mark = marks.kill(at)?;
        self.messages -= 1;
        let ticket = self.tickets.binary_search_by_key(&mark.at, |(at, _)| *at);
        let ticket = ticket.ok().map(|at| self.tickets.remove(at).1);
        self.sweep_if_mostly_dead();
        Some((mark, ticket))
    }

    /// Drops the small messages whose time is over, and finds out when the next one's is.
    pub(crate) fn drop_due(&mut self, now: Instant, mut each: impl FnMut(Mark, Option<Ticket>)) {
        let Some(marks) = &mut self.marks else { return };
        marks.earliest = None;
        let tickets = std::mem::take(&mut self.tickets);
        let mut tickets = tickets.into_iter().peekable();
        for at in 0..marks.list.len() {
            let Some(mark) = marks.list.get(at).filter(|mark| !mark.dead).copied() else { continue };
            if mark.terms.expires.is_none_or(|expires| expires > now) {
                marks.note(&mark);
                continue;
            }
            marks.kill(at);
            self.messages -= 1;
            while let Some(before) = tickets.next_if(|(at, _)| *at < mark.at) {
                self.tickets.push(before);
            }
            each(mark, tickets.next_if(|(at, _)| *at == mark.at).map(|(_, ticket)| ticket));
        }
        self.tickets.extend(tickets);
        self.sweep_if_mostly_dead();
    }

    /// What is dropped holds memory without being charged: at most as much as the rest.
    fn sweep_if_mostly_dead(&mut self) {
        let Some(marks) = &self.marks else { return };
        let all = self.record_bytes() as usize + self.count as usize * RECORD_OVERHEAD_BYTES;
        if self.messages > 0 && marks.dead_charge * 2 > all {
            self.sweep();
        }
    }

    /// Takes out the records that were dropped. Before a batch leaves the intake.
    pub(crate) fn sweep(&mut self) {
        let Some(marks) = self.marks.as_mut().filter(|marks| marks.dead > 0) else { return };
        let dead: SmallVec<[u32; 16]> =
            marks.list.iter().filter(|mark| mark.dead).map(|mark| mark.at).collect();
        marks.list.retain(|mark| !mark.dead);
        marks.list.shrink_to(marks.list.len() * 2);
        (marks.dead, marks.dead_charge) = (0, 0);
        let before = |at: u32| dead.partition_point(|dead| *dead < at) as u32;
        marks.list.iter_mut().for_each(|mark| mark.at -= before(mark.at));
        self.tickets.iter_mut().for_each(|(at, _)| *at -= before(*at));
        self.take_out_records(&dead);
    }

    fn take_out_records(&mut self, dead: &[u32]) {
        self.types.clear();
        self.mixed = false;
        let mut dead = dead.iter().copied().peekable();
        let (mut from, mut to) = (FRAME_HEADER_BYTES, FRAME_HEADER_BYTES);
        for at in 0..self.count {
            let Ok(header) = record::peek(self.bytes.get(from..).unwrap_or_default()) else { break };
            let end = from + header.wire_bytes() as usize;
            if dead.next_if_eq(&at).is_some() {
                self.count -= 1;
            } else {
                self.bytes.copy_within(from..end, to);
                to += end - from;
                self.note_type(header.hash, header.version);
            }
            from = end;
        }
        self.bytes.truncate(to);
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let marks = self.marks.as_ref().map_or(0, |marks| marks.list.capacity() * size_of::<Mark>());
        self.record_bytes() as usize + self.count as usize * RECORD_OVERHEAD_BYTES + marks
    }

    /// Its buffer, if it is a large one, to be used again.
    pub(crate) fn into_buffer(self) -> Option<bytes::BytesMut> {
        (self.bytes.capacity() >= crate::limits::BATCH_BYTES).then_some(self.bytes)
    }
}
