//! Messages with terms while they wait: a time to live, and a key of which only the newest stays. What is dropped was
//! never given a number, so there are no gaps.
//!
//! Dropping a message of several batches moves the batches behind or before it, whichever are fewer. Dropped records of
//! shared batches are swept out when they are more than half of theirs, and before the session gets them.

use std::collections::BTreeSet;
use std::time::Instant;

use smallvec::SmallVec;

use super::{Intake, Lane, Outgoing, Refused, charge_of};
use crate::limits::{CHUNK_BYTES, MARK_OVERHEAD_BYTES, OWN_FRAME_BYTES};
use crate::session::batch::{Batch, Mark, Terms};
use crate::session::receipt::{Cause, Lost, Ticket};
use crate::wire::StreamId;

/// What the intake knows of messages with terms, of all streams.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// The id of the next message with terms, and the serial of the next batch.
    pub(super) next: u64,
    /// When to look at which batch: one entry for each batch in which something expires, with its lane. The name of
    /// the batch is the id of one of its messages.
    timers: BTreeSet<(Instant, usize, u64)>,
    /// Messages that ended here: neither waiting nor ever sent.
    dropped: u64,
}

/// Messages that ended while they waited; to be told so once no lock is held.
#[must_use = "who holds a receipt is to be told"]
#[derive(Debug, Default)]
pub(crate) struct Ended(SmallVec<[(Ticket, Cause); 1]>);

impl Ended {
    fn add(&mut self, ticket: Option<Ticket>, cause: Cause) {
        self.0.extend(ticket.map(|ticket| (ticket, cause)));
    }

    /// Resolves their receipts: none was sent.
    pub(crate) fn tell(self) {
        self.0.into_iter().for_each(|(ticket, cause)| ticket.lost(Lost::NotSent(cause)));
    }
}

/// What became of a message with terms that was taken.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// The session must be woken: nothing was waiting before, or something expires earlier than all that was.
    pub(crate) wake: bool,
    pub(crate) ended: Ended,
}

impl Lane {
    /// Where the batch of a message with terms is.
    fn position(&self, id: u64) -> Option<usize> {
        // All chunks of a message but the first have greater serials.
        self.queue.partition_point(|batch| batch.serial() <= id).checked_sub(1)
    }

    /// The batches of the message that begins at `start`.
    fn message(&self, start: usize) -> std::ops::Range<usize> {
        let rest = self.queue.range(start + 1..);
        start..start + 1 + rest.take_while(|batch| !batch.starts_message()).count()
    }

    fn forget_key(&mut self, mark: &Mark) {
        if let Some(key) = mark.terms.key
            && self.keys.get(&key) == Some(&mark.id)
        {
            self.keys.remove(&key);
        }
    }
}

impl Register {
    fn watch(&mut self, lane: usize, batch: &Batch) {
        self.timers.extend(batch.earliest().map(|(at, id)| (at, lane, id)));
    }

    fn unwatch(&mut self, lane: usize, batch: &Batch) {
        if let Some((at, id)) = batch.earliest() {
            self.timers.remove(&(at, lane, id));
        }
    }
}

impl Intake {
    /// Takes a message with terms. One whose time is over is taken and ends at once. An older one that waits under the
    /// same key ends, whether the newer is sent in the end or not; unless the newer finds no room.
    pub(crate) fn push_under(
        &mut self,
        now: Instant,
        terms: Terms,
        out: Outgoing<'_>,
        ticket: Option<Ticket>,
    ) -> Result<Pushed, Refused> {
        if let Some(cause) = self.closed {
            return Err(Refused::Closed(cause));
        }
        let lane = self.lane(out.stream);
        let older = terms.key.and_then(|key| self.lanes.get(lane)?.keys.get(&key).copied());
        let mut ended = Ended::default();
        if terms.expires.is_some_and(|expires| expires <= now) {
            let freed = older.map_or(0, |older| self.supersede(lane, older, &mut ended));
            self.give_back_some(freed);
            ended.add(ticket, Cause::Expired);
            self.queued += 1;
            self.register.dropped += 1;
            return Ok(Pushed { wake: false, ended });
        }
        let given = older.map_or(0, |older| self.charge_of_marked(lane, older));
        let charge = charge_of(out.body.as_slice().len()) + MARK_OVERHEAD_BYTES;
        self.charge_in_place_of(given, charge, &out)?;
        let (was_empty, due) = (self.is_lane_empty(lane), self.next_expiry());
        self.queued += 1;
        self.append(lane, terms, out, ticket);
        if let Some(older) = older {
            let freed = self.supersede(lane, older, &mut ended);
            debug_assert_eq!(freed, given, "was given back before");
        }
        if given > charge {
            self.refused = false;
            self.wake();
        }
        let earlier = terms.expires.is_some_and(|expires| due.is_none_or(|due| expires < due));
        Ok(Pushed { wake: was_empty || earlier, ended })
    }

    /// Charges a message, with what one will give back whose place it takes. Refused, the older is charged as before.
    fn charge_in_place_of(&mut self, given: usize, charge: usize, out: &Outgoing<'_>) -> Result<(), Refused> {
        if given == 0 {
            return self.charge(charge, out.reply);
        }
        self.account.give_back(given);
        let charged = self.charge(charge, out.reply);
        if charged.is_err() && self.account.take(given, self.link_up).is_err() {
            // Somebody else was quicker, or the link went: it waits all the same.
            self.account.take_extra(given);
        }
        charged
    }

    /// Adds a message and marks it.
    fn append(&mut self, lane: usize, terms: Terms, out: Outgoing<'_>, ticket: Option<Ticket>) {
        let id = self.register.next;
        self.register.next += 1;
        let bytes = out.body.as_slice().len();
        if bytes < OWN_FRAME_BYTES {
            self.push_small(out, ticket);
        } else {
            self.push_shared(out, ticket);
        }
        let Some(Lane { queue, keys, .. }) = self.lanes.get_mut(lane) else { return };
        let back = bytes.div_ceil(CHUNK_BYTES).max(1);
        let Some(batch) = queue.len().checked_sub(back).and_then(|at| queue.get_mut(at)) else { return };
        let before = batch.earliest();
        batch.mark(id, terms, bytes);
        if batch.earliest() != before {
            if let Some((at, id)) = before {
                self.register.timers.remove(&(at, lane, id));
            }
            self.register.watch(lane, batch);
        }
        if let Some(key) = terms.key {
            keys.insert(key, id);
        }
    }

    fn charge_of_marked(&self, lane: usize, id: u64) -> usize {
        let Some(lane) = self.lanes.get(lane) else { return 0 };
        let Some(at) = lane.position(id) else { return 0 };
        match lane.queue.get(at) {
            Some(batch) if batch.is_alone() => lane.queue.range(lane.message(at)).map(Batch::charge).sum(),
            Some(batch) => batch.charge_of(id).unwrap_or(0),
            None => 0,
        }
    }

    /// Drops a message because a newer one has its key, and tells what is to be given back.
    fn supersede(&mut self, lane: usize, id: u64, ended: &mut Ended) -> usize {
        let Some((charge, ticket)) = self.take_out(lane, id) else { return 0 };
        self.register.dropped += 1;
        ended.add(ticket, Cause::Superseded);
        charge
    }

    /// Takes a message out of the queue: what it cost, and its ticket.
    fn take_out(&mut self, at: usize, id: u64) -> Option<(usize, Option<Ticket>)> {
        let lane = self.lanes.get_mut(at)?;
        let position = lane.position(id)?;
        let batch = lane.queue.get_mut(position)?;
        if !batch.is_alone() {
            let charge = batch.charge_of(id)?;
            let (mark, ticket) = batch.drop_one(id)?;
            lane.forget_key(&mark);
            self.remove_if_dead(at, position);
            return Some((charge, ticket));
        }
        let mark = *batch.find(id)?;
        self.register.unwatch(at, batch);
        lane.forget_key(&mark);
        let (mut charge, mut ticket) = (0, None);
        for batch in lane.queue.drain(lane.message(position)) {
            charge += batch.charge();
            ticket = batch.into_tickets().next();
        }
        Some((charge, ticket))
    }

    /// A batch all of whose records were dropped goes.
    fn remove_if_dead(&mut self, at: usize, position: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        if lane.queue.get(position).is_some_and(|batch| batch.messages() == 0)
            && let Some(batch) = lane.queue.remove(position)
        {
            self.register.unwatch(at, &batch);
            if let Some(buffer) = batch.into_buffer() {
                self.buffers.give(buffer);
            }
        }
    }

    /// When something expires; nothing may have to when the time has come.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.register.timers.first().map(|(at, ..)| *at)
    }

    /// Drops what has waited too long, and wakes whoever waits for room.
    pub(crate) fn expire(&mut self, now: Instant) -> Ended {
        let mut ended = Ended::default();
        let mut freed = 0;
        while self.next_expiry().is_some_and(|at| at <= now)
            && let Some((_, lane, id)) = self.register.timers.pop_first()
        {
            freed += self.expire_in(now, lane, id, &mut ended);
        }
        self.give_back_some(freed);
        ended
    }

    /// Drops what has waited too long in one batch.
    fn expire_in(&mut self, now: Instant, at: usize, id: u64, ended: &mut Ended) -> usize {
        let Some(lane) = self.lanes.get_mut(at) else { return 0 };
        let Some(position) = lane.position(id) else { return 0 };
        let Some(batch) = lane.queue.get_mut(position) else { return 0 };
        if batch.is_alone() {
            let Some((charge, ticket)) = self.take_out(at, id) else { return 0 };
            self.register.dropped += 1;
            ended.add(ticket, Cause::Expired);
            return charge;
        }
        let before = batch.charge();
        let mut dropped: SmallVec<[Mark; 16]> = SmallVec::new();
        batch.drop_due(now, |mark, ticket| {
            dropped.push(mark);
            ended.add(ticket, Cause::Expired);
        });
        let freed = before - batch.charge();
        self.register.dropped += dropped.len() as u64;
        self.register.watch(at, batch);
        dropped.iter().for_each(|mark| lane.forget_key(mark));
        self.remove_if_dead(at, position);
        freed
    }

    fn give_back_some(&mut self, bytes: usize) {
        if bytes > 0 {
            self.give_back(bytes);
        }
    }

    /// A batch leaves for the session: nothing in it is dropped any more, unless it is handed back.
    pub(super) fn release(register: &mut Register, at: usize, lane: &mut Lane, batch: &Batch) {
        register.unwatch(at, batch);
        batch.marks().for_each(|mark| lane.forget_key(mark));
    }

    /// Takes back a batch that was not written after all. What a newer message has taken the place of meanwhile ends.
    pub(crate) fn hand_back(&mut self, stream: StreamId, batch: Batch) -> Ended {
        let at = self.lane(stream);
        let mut ended = Ended::default();
        let Some(lane) = self.lanes.get_mut(at) else { return ended };
        self.register.watch(at, &batch);
        let mut superseded: SmallVec<[u64; 4]> = SmallVec::new();
        for mark in batch.marks() {
            let Some(key) = mark.terms.key else { continue };
            match lane.keys.entry(key) {
                std::collections::btree_map::Entry::Occupied(_) => superseded.push(mark.id),
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(mark.id);
                }
            }
        }
        lane.queue.push_front(batch);
        let freed = superseded.into_iter().map(|id| self.supersede(at, id, &mut ended)).sum();
        self.give_back_some(freed);
        ended
    }

    /// A stream's messages were dropped.
    pub(super) fn forget_terms(&mut self, which: impl Fn(StreamId) -> bool) {
        let lanes = &mut self.lanes;
        self.register.timers.retain(|(_, at, _)| lanes.get(*at).is_some_and(|lane| !which(lane.stream)));
        lanes.iter_mut().filter(|lane| which(lane.stream)).for_each(|lane| lane.keys.clear());
    }

    /// What is charged for what waits here; checks that keys and timers say what the batches do.
    #[cfg(test)]
    pub(crate) fn check_terms(&self) -> usize {
        let mut timers = BTreeSet::new();
        for (at, lane) in self.lanes.iter().enumerate() {
            let mut keys = std::collections::BTreeMap::new();
            assert!(lane.queue.iter().is_sorted_by_key(Batch::serial));
            for (position, batch) in lane.queue.iter().enumerate() {
                assert!(batch.messages() > 0 || batch.is_alone(), "no batch is empty");
                timers.extend(batch.earliest().map(|(when, id)| (when, at, id)));
                for mark in batch.marks() {
                    assert_eq!(lane.position(mark.id), Some(position));
                    let doubled = mark.terms.key.and_then(|key| keys.insert(key, mark.id));
                    assert_eq!(doubled, None, "one message waits under a key");
                    let watched = batch.earliest().map(|(when, _)| when);
                    assert!(mark.terms.expires.is_none_or(|when| watched.is_some_and(|first| first <= when)));
                }
            }
            assert_eq!(lane.keys, keys);
        }
        assert_eq!(self.register.timers, timers);
        self.lanes.iter().flat_map(|lane| &lane.queue).map(Batch::charge).sum()
    }

    /// What is held in memory for what waits, buffers not counted that are shared with others.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let batches = self.lanes.iter().flat_map(|lane| &lane.queue).map(Batch::held_bytes);
        let keys = self.lanes.iter().map(|lane| lane.keys.len() * 40);
        batches.chain(keys).sum::<usize>() + self.register.timers.len() * size_of::<(Instant, usize, u64)>()
    }

    /// Messages that ended here: they were never sent.
    pub(crate) const fn dropped(&self) -> u64 {
        self.register.dropped
    }
}
