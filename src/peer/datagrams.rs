//! Datagrams of one peer: best effort. No number, no second attempt, no account in the books; what becomes of each is
//! counted. (The idea: RFC 9221, unreliable datagrams beside reliable streams of one connection.)

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Peer, PeerOutput};
use crate::limits::{DATAGRAM_QUEUE_BYTES, DATAGRAM_QUEUE_MAX};
use crate::session::{Session, Transmit};
use crate::wire::StreamId;
use crate::wire::frame::Datagram;
use crate::wire::record;

/// What became of datagrams. They are not in the [`Books`](crate::Books). At every moment what was given for a peer is
/// `sent + no_link + full + expired + not_taken + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramStats {
    /// In the queue now.
    pub waiting: u64,
    /// Handed to a write. Whether they arrived nobody knows.
    pub sent: u64,
    /// Dropped: there was no link, or it went while they waited.
    pub no_link: u64,
    /// Dropped: the queue had no room.
    pub full: u64,
    /// Dropped: their time was over before they could be written.
    pub expired: u64,
    /// Dropped: of a type that the peer does not handle, or not from a stranger, or larger than it takes.
    pub not_taken: u64,
    /// Came from the peer. What follows is of these.
    pub received: u64,
    /// Dropped: of a type that nobody here handles.
    pub no_handler: u64,
    /// Dropped: their handler was too far behind.
    pub overrun: u64,
    /// Dropped: of a type for members of a view, from somebody who shares none.
    pub not_admitted: u64,
    /// Dropped: not one whole record that this version understands.
    pub malformed: u64,
}

impl DatagramStats {
    /// How many were given for the peer, one for each recipient.
    #[must_use]
    pub const fn given(&self) -> u64 {
        self.sent + self.no_link + self.full + self.expired + self.not_taken + self.waiting
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.waiting += other.waiting;
        self.sent += other.sent;
        self.no_link += other.no_link;
        self.full += other.full;
        self.expired += other.expired;
        self.not_taken += other.not_taken;
        self.received += other.received;
        self.no_handler += other.no_handler;
        self.overrun += other.overrun;
        self.not_admitted += other.not_admitted;
        self.malformed += other.malformed;
    }
}

/// One datagram on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    /// The whole frame: the same bytes for every recipient.
    pub(crate) frame: Bytes,
    pub(crate) stream: StreamId,
    pub(crate) hash: u32,
    pub(crate) version: u16,
    pub(crate) body_bytes: usize,
    /// Worth nothing from then on. `None`: never.
    pub(crate) expires: Option<Instant>,
}

impl Outbound {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    NoLink,
    Full,
    /// The peer has ended. Not counted here, because it may be forgotten already.
    Ended,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Door {
    Open,
    #[default]
    NoLink,
    Ended,
}

#[derive(Debug, Default)]
struct Queue {
    door: Door,
    waiting: VecDeque<Outbound>,
    /// Frame bytes of them.
    bytes: usize,
    /// Of what is sent only.
    counts: DatagramStats,
}

/// Shared by producers, the peer, and whoever hands to handlers. The lock is held while one is added, or for one write.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    queue: Mutex<Queue>,
    /// Looked at before each write, without the lock.
    is_waiting: AtomicBool,
    received: AtomicU64,
    no_handler: AtomicU64,
    overrun: AtomicU64,
    not_admitted: AtomicU64,
    malformed: AtomicU64,
}

impl Datagrams {
    /// Takes a datagram for the next write. `Ok(true)`: it is the first that waits, so the peer must be woken.
    pub(crate) fn push(&self, now: Instant, datagram: Outbound) -> Result<bool, Dropped> {
        let mut queue = self.queue.lock();
        match queue.door {
            Door::Open => {}
            Door::Ended => return Err(Dropped::Ended),
            Door::NoLink => {
                queue.counts.no_link += 1;
                return Err(Dropped::NoLink);
            }
        }
        if !queue.has_room(&datagram) {
            queue.purge(now);
            if !queue.has_room(&datagram) {
                queue.counts.full += 1;
                return Err(Dropped::Full);
            }
        }
        queue.bytes += datagram.frame.len();
        queue.waiting.push_back(datagram);
        self.is_waiting.store(true, Ordering::Release);
        Ok(queue.waiting.len() == 1)
    }

    /// Adds all that the peer takes to a write. `takes`: `None` if it has not said so yet, then they go on waiting.
    fn write(&self, now: Instant, takes: impl Fn(&Outbound) -> Option<bool>, out: &mut Transmit) {
        let mut queue = self.queue.lock();
        while let Some(first) = queue.waiting.front() {
            let expired = first.is_expired(now);
            let Some(taken) = (if expired { Some(false) } else { takes(first) }) else { return };
            let Some(first) = queue.pop() else { return };
            if taken {
                queue.counts.sent += 1;
                out.push(first.frame);
            } else if expired {
                queue.counts.expired += 1;
            } else {
                queue.counts.not_taken += 1;
            }
        }
        self.is_waiting.store(false, Ordering::Release);
    }

    /// Takes datagrams from now on.
    pub(super) fn link_up(&self) {
        self.queue.lock().door = Door::Open;
    }

    /// Nothing that waits is kept for the next link: it would be old news there.
    pub(super) fn link_down(&self) {
        let mut queue = self.queue.lock();
        queue.door = Door::NoLink;
        queue.counts.no_link += queue.waiting.len() as u64;
        queue.waiting = VecDeque::new();
        queue.bytes = 0;
        self.is_waiting.store(false, Ordering::Release);
    }

    /// The peer is being left: what waits may still go.
    pub(super) fn take_no_more(&self) {
        self.queue.lock().door = Door::NoLink;
    }

    /// Nothing is taken any more, nor counted.
    pub(super) fn end(&self) {
        self.link_down();
        self.queue.lock().door = Door::Ended;
    }

    /// A datagram came whose type nobody here handles.
    pub(crate) fn note_no_handler(&self) {
        self.no_handler.fetch_add(1, Ordering::Relaxed);
    }

    /// A datagram came whose handler is too far behind.
    pub(crate) fn note_overrun(&self) {
        self.overrun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> DatagramStats {
        let queue = self.queue.lock();
        DatagramStats {
            waiting: queue.waiting.len() as u64,
            received: self.received.load(Ordering::Relaxed),
            no_handler: self.no_handler.load(Ordering::Relaxed),
            overrun: self.overrun.load(Ordering::Relaxed),
            not_admitted: self.not_admitted.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            ..queue.counts
        }
    }
}

impl Queue {
    fn has_room(&self, datagram: &Outbound) -> bool {
        self.waiting.len() < DATAGRAM_QUEUE_MAX && self.bytes + datagram.frame.len() <= DATAGRAM_QUEUE_BYTES
    }

    fn pop(&mut self) -> Option<Outbound> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.frame.len();
        Some(first)
    }

    /// What is worth nothing any more makes room.
    fn purge(&mut self, now: Instant) {
        let before = self.waiting.len();
        self.waiting.retain(|datagram| !datagram.is_expired(now));
        self.bytes = self.waiting.iter().map(|datagram| datagram.frame.len()).sum();
        self.counts.expired += (before - self.waiting.len()) as u64;
    }
}

impl Peer {
    pub(crate) const fn datagrams(&self) -> &std::sync::Arc<Datagrams> {
        &self.datagrams
    }

    /// Before batches, so that they pass bulk; the queue is a fraction of one write, so that batches pass as well.
    pub(super) fn write_datagrams(
        now: Instant,
        datagrams: &Datagrams,
        session: &Session,
        out: &mut Transmit,
    ) {
        if datagrams.is_waiting.load(Ordering::Acquire) {
            let takes = |datagram: &Outbound| {
                session.peer_takes(datagram.stream, datagram.hash, datagram.version, datagram.body_bytes)
            };
            datagrams.write(now, takes, out);
        }
    }

    /// Passes on what is one whole message. Whatever else it may be costs nothing but itself.
    pub(super) fn handle_datagram(&mut self, datagram: Datagram) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        count(&self.datagrams.received);
        if !is_whole(&datagram.record) {
            count(&self.datagrams.malformed);
        } else if !datagram.stream.is_open() && !self.session.is_admitted() {
            count(&self.datagrams.not_admitted);
        } else {
            self.outputs.push_back(PeerOutput::Datagram(datagram));
        }
    }

    /// The link is gone, and with it what was to go through it at once or never.
    pub(super) fn forget_best_effort(&mut self) {
        self.datagrams.link_down();
        self.probes.link_down();
    }
}

/// Whether this is one record, that record is one message, and this version understands it.
fn is_whole(bytes: &[u8]) -> bool {
    let whole = |header: record::RecordHeader| {
        header.is(record::WHOLE) && !header.is(record::VOID) && header.wire_bytes() == bytes.len() as u64
    };
    record::check(bytes).is_ok_and(whole)
}
