//! The intake of a destination: where producers encode, and from where its session takes.
//!
//! A locked type that is open or closed. Teardown closes it under the lock, so that a late producer gets its message
//! back. Nothing is awaited under the lock, and no code of the user runs under it.

#[cfg(any(test, feature = "testing"))]
mod digest;
mod terms;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::batch::Batch;
use super::budget::{Account, NoRoom};
use super::receipt::{Cause, Lost, Ticket};
use crate::limits::{
    BATCH_BYTES, CHUNK_BYTES, OWN_FRAME_BYTES, POOL_BUFFERS, RECORD_OVERHEAD_BYTES, REPLY_RESERVE_BYTES,
};
use crate::wire::record::{self, HEADER_BYTES, RecordHeader, TOTAL_EXTENSION_BYTES};
use crate::wire::{Epoch, StreamId};

pub(crate) use terms::Ended;
use terms::Register;

/// Buffers of [`BATCH_BYTES`] that are used again, shared by all destinations of a process.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<BytesMut>>);

impl Buffers {
    fn take(&self) -> BytesMut {
        let spare = self.0.lock().pop();
        spare.unwrap_or_else(|| BytesMut::with_capacity(BATCH_BYTES + HEADER_BYTES + 64))
    }

    pub(crate) fn give(&self, buffer: BytesMut) {
        let mut spare = self.0.lock();
        if spare.len() < POOL_BUFFERS {
            spare.push(buffer);
        }
    }
}

/// What a producer hands over.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) stream: StreamId,
    pub(crate) hash: u32,
    pub(crate) version: u16,
    pub(crate) body: Body<'a>,
    /// Asked when there is no room: whether this is the one reply of a handler to the sender of what it handles, which
    /// may draw on the reserve for replies. A yes is given once.
    pub(crate) reply: &'a dyn Fn() -> bool,
}

/// A body, encoded once for all recipients.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    /// Copied whatever its size; for bodies that live in a scratch buffer.
    Slice(&'a [u8]),
    /// Shared from [`OWN_FRAME_BYTES`] on, copied below.
    Shared(&'a Bytes),
}

impl Body<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Why the intake did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full(NoRoom),
    Closed(Cause),
}

#[derive(Debug)]
struct Lane {
    stream: StreamId,
    queue: VecDeque<Batch>,
    /// Of messages that wait here, the newest under each key.
    keys: BTreeMap<u64, u64>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Intake {
    closed: Option<Cause>,
    link_up: bool,
    /// The session that takes from here; what belongs to one session alone asks for it.
    epoch: Epoch,
    account: Account,
    buffers: Arc<Buffers>,
    lanes: Vec<Lane>,
    /// The lane that took the last small message.
    last: usize,
    /// Messages ever taken.
    queued: u64,
    waiting: Vec<Waker>,
    /// Somebody found no room since the last time that some was given back.
    refused: bool,
    register: Register,
}

/// The intake as producers and session share it.
pub(crate) type SharedIntake = Arc<Mutex<Intake>>;

impl Intake {
    pub(crate) fn new(account: Account, buffers: Arc<Buffers>) -> Self {
        Self {
            closed: None,
            link_up: false,
            epoch: Epoch::UNKNOWN,
            account,
            buffers,
            lanes: Vec::new(),
            last: 0,
            queued: 0,
            waiting: Vec::new(),
            refused: false,
            register: Register::default(),
        }
    }

    /// Takes a message. `Ok(true)`: nothing was waiting in its stream before, so the session must be woken. What waits in
    /// another one may wait for credit, and wakes nobody.
    #[inline(always)]
    pub(crate) fn push(&mut self, out: Outgoing<'_>, ticket: Option<Ticket>) -> Result<bool, Refused> {
        if let Some(cause) = self.closed {
            return Err(Refused::Closed(cause));
        }
        let body = out.body.as_slice();
        self.charge(charge_of(body.len()), out.reply)?;
        self.queued += 1;
        if let Some(lane) = self.lanes.get_mut(self.last)
            && lane.stream == out.stream
            && let Some(open) = lane.queue.back_mut()
            && open.takes(body.len())
        {
            // The way of nearly all small messages.
            open.push(out.hash, out.version, body, ticket);
            return Ok(false);
        }
        let at = self.lane(out.stream);
        let was_empty = self.is_lane_empty(at);
        if body.len() < OWN_FRAME_BYTES {
            self.push_small(out, ticket);
        } else {
            self.push_shared(out, ticket);
        }
        Ok(was_empty)
    }

    #[inline]
    fn charge(&mut self, bytes: usize, reply: &dyn Fn() -> bool) -> Result<(), Refused> {
        match self.account.take(bytes, self.link_up) {
            Ok(()) => Ok(()),
            Err(_) if self.account.has_extra(bytes, REPLY_RESERVE_BYTES) && reply() => {
                self.account.take_extra(bytes);
                Ok(())
            }
            Err(no_room) => {
                self.refused = true;
                Err(Refused::Full(no_room))
            }
        }
    }

    /// The place of a stream's lane, made if need be.
    fn lane(&mut self, stream: StreamId) -> usize {
        self.lanes.iter().position(|lane| lane.stream == stream).unwrap_or_else(|| {
            self.lanes.push(Lane { stream, queue: VecDeque::new(), keys: BTreeMap::new() });
            self.lanes.len() - 1
        })
    }

    fn is_lane_empty(&self, at: usize) -> bool {
        self.lanes.get(at).is_none_or(|lane| lane.queue.is_empty())
    }

    fn push_small(&mut self, out: Outgoing<'_>, ticket: Option<Ticket>) {
        let body = out.body.as_slice();
        self.last = self.lane(out.stream);
        let serial = self.register.next;
        let (lanes, buffers) = (&mut self.lanes, &self.buffers);
        let Some(Lane { queue, .. }) = lanes.get_mut(self.last) else { return };
        let open = match queue.back_mut() {
            Some(batch) if batch.has_room(body.len()) => batch,
            Some(_) => queue.push_back_mut(Batch::in_buffer(buffers.take()).numbered(serial)),
            None => queue.push_back_mut(Batch::new().numbered(serial)),
        };
        if open.would_grow(body.len()) {
            open.move_to(buffers.take());
        }
        open.push(out.hash, out.version, body, ticket);
    }

    fn push_shared(&mut self, out: Outgoing<'_>, mut ticket: Option<Ticket>) {
        let body = match out.body {
            Body::Slice(slice) => Bytes::copy_from_slice(slice),
            Body::Shared(bytes) => bytes.clone(),
        };
        let at = self.lane(out.stream);
        let serial = self.register.next;
        let Some(Lane { queue, .. }) = self.lanes.get_mut(at) else { return };
        let header = |length, flags| RecordHeader { length, flags, version: out.version, hash: out.hash };
        if body.len() <= CHUNK_BYTES {
            let header = header(body.len() as u32, record::WHOLE);
            queue.push_back(Batch::of_shared(header, &[], body, ticket).numbered(serial));
            return;
        }
        let total = body.len();
        let extension = record::total_extension(total as u64);
        for start in (0..total).step_by(CHUNK_BYTES) {
            let end = (start + CHUNK_BYTES).min(total);
            let (first, last) = (start == 0, end == total);
            let extension: &[u8] = if first { &extension } else { &[] };
            let flags = if first { record::FIRST | record::EXTENDED } else { 0 }
                | if last { record::LAST } else { 0 };
            let header = header((end - start + extension.len()) as u32, flags);
            let ticket = if last { ticket.take() } else { None };
            let chunk = Batch::of_shared(header, extension, body.slice(start..end), ticket).numbered(serial);
            queue.push_back(if first { chunk.begins_large(total as u64) } else { chunk });
        }
    }

    /// Nothing waits to be taken by the session.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty())
    }

    /// Hands over one batch of each stream that is wanted.
    pub(crate) fn take(
        &mut self,
        mut wanted: impl FnMut(StreamId, &Batch) -> bool,
        mut to: impl FnMut(StreamId, Batch),
    ) {
        let register = &mut self.register;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let Some(front) = lane.queue.front_mut() else { continue };
            front.sweep();
            if wanted(lane.stream, front)
                && let Some(batch) = lane.queue.pop_front()
            {
                if batch.is_marked() {
                    Self::release(register, at, lane, &batch);
                }
                to(lane.stream, batch);
            }
        }
    }

    /// Bytes of messages that ended; wakes whoever waits for room.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.account.give_back(bytes);
        self.refused = false;
        self.wake();
    }

    /// Whether somebody found no room since the last time that some was given back, and nothing waits here.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused && self.is_empty()
    }

    /// Takes a buffer back for the next batches.
    pub(crate) fn recycle(&self, buffer: BytesMut) {
        self.buffers.give(buffer);
    }

    /// Woken when there may be room, and at the close. Register first, then try again.
    pub(crate) fn wake_at_room(&mut self, waker: &Waker, no_room: NoRoom) {
        if !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        if no_room == NoRoom::Process {
            self.account.wake_at_room(waker);
        }
    }

    fn wake(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }

    /// A larger share is there only while the link is up.
    pub(crate) const fn is_link_up(&self) -> bool {
        self.link_up
    }

    pub(crate) fn set_link_up(&mut self, up: bool) {
        self.link_up = up;
        self.wake();
    }

    /// Another session takes from here.
    pub(super) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes nothing from now on; the first cause stays.
    pub(crate) fn close(&mut self, cause: Cause) {
        self.closed.get_or_insert(cause);
        self.wake();
    }

    /// Drops what waits: of one protocol's streams, or all. Each message ends as `lost` says.
    pub(crate) fn purge(&mut self, lost: Lost, which: impl Fn(StreamId) -> bool) -> u64 {
        self.purge_behind(lost, which, |_| false)
    }

    /// As [`Intake::purge`], but where `begun` says so the rest of a message whose head was written stays.
    pub(crate) fn purge_behind(
        &mut self,
        lost: Lost,
        which: impl Fn(StreamId) -> bool,
        begun: impl Fn(StreamId) -> bool,
    ) -> u64 {
        let mut messages = 0;
        self.forget_terms(&which);
        for lane in self.lanes.iter_mut().filter(|lane| which(lane.stream)) {
            let rest = lane.queue.iter().take_while(|batch| !batch.starts_message()).count();
            let stays = if begun(lane.stream) { rest } else { 0 };
            for batch in lane.queue.drain(stays..) {
                self.account.give_back(batch.charge());
                messages += u64::from(batch.messages());
                batch.into_tickets().for_each(|ticket| ticket.lost(lost));
            }
        }
        self.wake();
        messages
    }

    /// Drops the rest of a message whose head was written; its end comes with `lost`.
    pub(crate) fn purge_tail(&mut self, stream: StreamId, lost: Lost) -> u64 {
        let mut messages = 0;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.stream == stream) else { return 0 };
        while let Some(batch) = lane.queue.pop_front_if(|batch| !batch.starts_message()) {
            self.account.give_back(batch.charge());
            messages += u64::from(batch.messages());
            batch.into_tickets().for_each(|ticket| ticket.lost(lost));
        }
        self.wake();
        messages
    }

    /// Messages ever taken.
    pub(crate) const fn queued(&self) -> u64 {
        self.queued
    }

    /// Messages that the session has not taken yet.
    pub(crate) fn waiting_messages(&self) -> u64 {
        self.lanes.iter().flat_map(|lane| &lane.queue).map(|batch| u64::from(batch.messages())).sum()
    }

    /// Records of each stream that the session has not taken yet.
    pub(crate) fn waiting_records(&self) -> impl Iterator<Item = (StreamId, u64)> {
        let records = |lane: &Lane| lane.queue.iter().map(|batch| u64::from(batch.records())).sum();
        self.lanes.iter().map(move |lane| (lane.stream, records(lane)))
    }

    /// What this destination costs, unacknowledged ones included.
    pub(crate) const fn bytes(&self) -> usize {
        self.account.taken()
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.lanes.iter().map(|lane| lane.stream)
    }
}

/// What a message of `body_bytes` will cost; the sum of what its batches are charged.
pub(crate) fn charge_of(body_bytes: usize) -> usize {
    let one = HEADER_BYTES + RECORD_OVERHEAD_BYTES;
    if body_bytes <= CHUNK_BYTES {
        body_bytes + one
    } else {
        body_bytes + body_bytes.div_ceil(CHUNK_BYTES) * one + TOTAL_EXTENSION_BYTES
    }
}
