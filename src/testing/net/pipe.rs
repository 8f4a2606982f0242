//! One direction of a connection: what was written, when it arrives, and what is wrong with it.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

/// How fast bytes go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Road {
    pub(super) delay: Duration,
    pub(super) bytes_per_second: u64,
    /// What the kernels of both sides hold together.
    pub(super) window_bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pipe {
    road: Road,
    segments: VecDeque<(Instant, Bytes)>,
    /// Written and not read.
    held: usize,
    /// Written ever.
    pub(super) carried: u64,
    /// When the wire is free for more.
    free_at: Option<Instant>,
    /// The writer has ended its half.
    pub(super) ended: bool,
    /// Nothing that is written arrives any more.
    pub(super) lost: bool,
    /// What is read is not known to the writer: its window fills.
    pub(super) unheard: bool,
    /// What is written waits for the road to be free again.
    pub(super) blocked: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(road: Road) -> Self {
        Self {
            road,
            segments: VecDeque::new(),
            held: 0,
            carried: 0,
            free_at: None,
            ended: false,
            lost: false,
            unheard: false,
            blocked: false,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn room(&self) -> usize {
        self.road.window_bytes.saturating_sub(self.held)
    }

    /// Puts bytes on their way; there is room for them.
    pub(super) fn put(&mut self, now: Instant, bytes: &[u8], jitter: Duration) {
        self.carried += bytes.len() as u64;
        self.held += bytes.len();
        if self.lost || bytes.is_empty() {
            return;
        }
        let from = self.free_at.map_or(now, |free| free.max(now));
        let takes = bytes.len() as u64 * 1_000_000 / self.road.bytes_per_second.max(1);
        let through = from + Duration::from_micros(takes);
        self.free_at = Some(through);
        let at = through + self.road.delay + jitter;
        let at = self.segments.back().map_or(at, |(last, _)| at.max(*last));
        self.segments.push_back((at, Bytes::copy_from_slice(bytes)));
    }

    pub(super) fn slow_down(&mut self, bytes_per_second: u64) {
        self.road.bytes_per_second = bytes_per_second;
    }

    /// When there is something to be read next.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.blocked { None } else { self.segments.front().map(|(at, _)| *at) }
    }

    /// All that was written was read, and the end is behind it.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && self.segments.is_empty() && !self.lost && !self.blocked
    }

    /// Takes what has arrived, at most so much.
    pub(super) fn take(&mut self, now: Instant, most: usize, mut to: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < most && !self.blocked {
            let Some((at, bytes)) = self.segments.front_mut() else { break };
            if *at > now {
                break;
            }
            let count = bytes.len().min(most - taken);
            to(bytes.get(..count).unwrap_or_default());
            bytes.advance(count);
            taken += count;
            if bytes.is_empty() {
                self.segments.pop_front();
            }
        }
        if !self.unheard {
            self.held -= taken;
        }
        taken
    }

    /// The road is free again: what waited comes after another try of TCP's.
    pub(super) fn free(&mut self, now: Instant, after: Duration) {
        self.blocked = false;
        let earliest = now + after;
        self.segments.iter_mut().for_each(|(at, _)| *at = (*at).max(earliest));
    }

    /// What is on its way never arrives, nor anything later.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.segments.clear();
    }

    /// Bends bits of a segment that is on its way; `None`: there is none.
    pub(super) fn bend(&mut self, bits: &[u32]) -> Option<()> {
        let (_, bytes) = self.segments.back_mut().filter(|(_, bytes)| !bytes.is_empty())?;
        let mut bent = BytesMut::from(&bytes[..]);
        for bit in bits {
            let at = *bit as usize % (bent.len() * 8);
            if let Some(byte) = bent.get_mut(at / 8) {
                *byte ^= 1 << (at % 8);
            }
        }
        *bytes = bent.freeze();
        Some(())
    }

    pub(super) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}
