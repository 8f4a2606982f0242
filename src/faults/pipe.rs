//! The bytes of one direction on their way through the proxy: a bounded buffer with due times.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes held a direction, so 256 KiB a connection. Pages that were never used cost nothing.
pub(super) const PIPE_BYTES: usize = 128 * 1024;
/// Less room than this at the end of the buffer, and what is in it moves to the front.
const ROOM_BYTES_MIN: usize = 32 * 1024;
/// Due times held; no more is read until the first of them is past.
const MARKS_MAX: usize = 1024;
/// Bytes read within this time share a due time: the grain of the runtime's timers.
const GRAIN: Duration = Duration::from_millis(1);

/// All bytes up to `end` (counted from the start of the connection) may leave at `due`.
#[derive(Debug)]
struct Mark {
    end: u64,
    due: Instant,
}

#[derive(Debug)]
pub(super) struct Pipe {
    bytes: Box<[u8]>,
    head: usize,
    tail: usize,
    /// Bytes that ever left.
    taken: u64,
    /// Empty while nothing is delayed.
    marks: VecDeque<Mark>,
}

impl Pipe {
    pub(super) fn new() -> Pipe {
        Pipe { bytes: vec![0; PIPE_BYTES].into(), head: 0, tail: 0, taken: 0, marks: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Room to read into, so that at most `limit` bytes are held; empty if there is none.
    pub(super) fn room(&mut self, limit: usize) -> &mut [u8] {
        if self.is_empty() {
            (self.head, self.tail) = (0, 0);
        } else if self.bytes.len() - self.tail < ROOM_BYTES_MIN && self.head > 0 {
            self.bytes.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        let held = self.tail - self.head;
        if self.marks.len() >= MARKS_MAX || held >= limit {
            return &mut [];
        }
        let end = self.bytes.len().min(self.tail + (limit - held));
        &mut self.bytes[self.tail..end]
    }

    /// The first `len` bytes of the room were filled; they may leave at `due`.
    pub(super) fn filled(&mut self, len: usize, due: Option<Instant>) {
        self.tail += len;
        debug_assert!(self.tail <= self.bytes.len());
        let end = self.taken + (self.tail - self.head) as u64;
        match (self.marks.back_mut(), due) {
            // Nothing before it is delayed, and it is not either.
            (None, None) => {}
            (None, Some(due)) => self.marks.push_back(Mark { end, due }),
            (Some(last), due) if due.is_none_or(|due| due < last.due + GRAIN) => last.end = end,
            (Some(_), Some(due)) => self.marks.push_back(Mark { end, due }),
            (Some(last), None) => last.end = end,
        }
    }

    /// How many bytes may leave now.
    pub(super) fn due(&self, now: impl FnOnce() -> Instant) -> usize {
        if self.marks.is_empty() {
            return self.tail - self.head;
        }
        let now = now();
        let end =
            self.marks.iter().take_while(|mark| mark.due <= now).last().map_or(self.taken, |mark| mark.end);
        // At most the bytes held.
        (end - self.taken) as usize
    }

    /// When the first byte may leave, if it is delayed.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.marks.front().map(|mark| mark.due)
    }

    /// The next `len` bytes to leave.
    pub(super) fn front(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.head..self.head + len]
    }

    /// So many bytes left.
    pub(super) fn take(&mut self, len: usize) {
        debug_assert!(self.head + len <= self.tail);
        self.head += len;
        self.taken += len as u64;
        while self.marks.front().is_some_and(|mark| mark.end <= self.taken) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts bytes of a running count in; returns how many fitted.
    fn put(pipe: &mut Pipe, count: &mut u8, len: usize, due: Option<Instant>) -> usize {
        let room = pipe.room(PIPE_BYTES);
        let len = len.min(room.len());
        for byte in &mut room[..len] {
            *byte = *count;
            *count = count.wrapping_add(1);
        }
        pipe.filled(len, due);
        len
    }

    #[test]
    fn keeps_order_over_changing_delays_and_is_bounded() {
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut pipe, mut put_count, mut took) = (Pipe::new(), 0, 0_u8);
        for step in 0..20_000 {
            let now = start + Duration::from_millis(step);
            let due = (rng.u8(..) < 128).then(|| now + Duration::from_millis(rng.u64(0..300)));
            let len = rng.usize(1..2000);
            put(&mut pipe, &mut put_count, len, due);
            let len = pipe.due(|| now).min(rng.usize(0..4000));
            for byte in pipe.front(len) {
                assert_eq!(*byte, took);
                took = took.wrapping_add(1);
            }
            pipe.take(len);
            assert!(pipe.marks.len() <= MARKS_MAX && pipe.tail - pipe.head <= PIPE_BYTES);
        }
        assert!(pipe.taken() > 1_000_000);
    }

    #[test]
    fn nothing_leaves_before_it_is_due() {
        let start = Instant::now();
        let (mut pipe, mut count) = (Pipe::new(), 0);
        put(&mut pipe, &mut count, 10, Some(start + Duration::from_millis(20)));
        put(&mut pipe, &mut count, 10, Some(start + Duration::from_millis(40)));
        assert_eq!(pipe.due(|| start), 0);
        assert_eq!(pipe.due_at(), Some(start + Duration::from_millis(20)));
        assert_eq!(pipe.due(|| start + Duration::from_millis(30)), 10);
        // No longer delayed, but not past those that are.
        put(&mut pipe, &mut count, 10, None);
        assert_eq!(pipe.due(|| start + Duration::from_millis(30)), 10);
        assert_eq!(pipe.due(|| start + Duration::from_millis(40)), 30);
    }

    #[test]
    fn a_limit_below_what_is_held_leaves_no_room() {
        let (mut pipe, mut count) = (Pipe::new(), 0);
        put(&mut pipe, &mut count, 100, None);
        assert!(pipe.room(100).is_empty());
        assert_eq!(pipe.room(130).len(), 30);
    }
}
