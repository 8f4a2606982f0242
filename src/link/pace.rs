//! How much is put together for one write: what a link takes within some milliseconds.
//!
//! An urgent message cannot overtake what is already put together. A fast link gets much at once, because system calls cost; a
//! slow one gets one batch, because that alone takes it long.

use std::time::{Duration, Instant};

use crate::limits::{WRITE_BYTES, WRITE_TIME};

/// It is judged anew after so many bytes, or after [`WRITE_TIME`] of waiting.
const SAMPLE_BYTES: usize = 4 * WRITE_BYTES;

/// See the module's text. Time in which nothing waits to be written says nothing, and does not count.
#[derive(Debug)]
pub(crate) struct Pace {
    room_bytes: usize,
    /// Since when something waits, as far as it is not in `waited`.
    waits_since: Option<Instant>,
    waited: Duration,
    bytes: usize,
}

impl Default for Pace {
    /// Fast, until it is known.
    fn default() -> Self {
        Self { room_bytes: WRITE_BYTES, waits_since: None, waited: Duration::ZERO, bytes: 0 }
    }
}

impl Pace {
    /// A write that has so many bytes gets no more batches.
    pub(crate) const fn room_bytes(&self) -> usize {
        self.room_bytes
    }

    /// How writing went: how many bytes were taken, and whether some are left.
    pub(crate) fn handle_written(&mut self, now: Instant, bytes: usize, left: bool) {
        if let Some(since) = self.waits_since {
            self.waited += now.saturating_duration_since(since);
        }
        self.waits_since = left.then_some(now);
        self.bytes += bytes;
        if self.waited >= WRITE_TIME || self.bytes >= SAMPLE_BYTES {
            let rate = self.bytes as f64 / self.waited.as_secs_f64();
            // At once is infinitely fast, and saturates; no link is too slow for one batch.
            self.room_bytes = ((rate * WRITE_TIME.as_secs_f64()) as usize).clamp(1, WRITE_BYTES);
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes that fill the room, for so long, through a kernel that holds so much and lets so much out a second.
    fn run(pace: &mut Pace, from: Instant, time: Duration, bytes_a_second: usize, held_most: usize) {
        let step = Duration::from_millis(1);
        let (mut held, mut left, mut now) = (0, 0, from);
        while now < from + time {
            now += step;
            held = usize::saturating_sub(held, bytes_a_second / 1000);
            loop {
                if left == 0 {
                    left = pace.room_bytes();
                }
                let taken = left.min(held_most - held);
                (held, left) = (held + taken, left - taken);
                pace.handle_written(now, taken, left > 0);
                if left > 0 || held == held_most {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_slow_link_gets_little_at_once_and_a_fast_one_much() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert_eq!(pace.room_bytes(), WRITE_BYTES, "until it is known");
        // 10 Mbit/s: some 12 KiB in 10 ms, whatever the kernel takes at once.
        run(&mut pace, start, second, 1_250_000, 128 * 1024);
        assert!(pace.room_bytes() <= 16 * 1024, "{}", pace.room_bytes());
        // And fast again.
        run(&mut pace, start + second, second, 10_000_000_000, 128 * 1024 * 1024);
        assert_eq!(pace.room_bytes(), WRITE_BYTES);
        // 100 Mbit/s: between.
        run(&mut pace, start + second * 2, second, 12_500_000, 128 * 1024);
        assert!((100_000..=160_000).contains(&pace.room_bytes()), "{}", pace.room_bytes());
    }

    #[test]
    fn what_is_not_written_because_nothing_is_there_does_not_slow_a_link() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for second in 0..1000 {
            pace.handle_written(start + Duration::from_secs(second), 100, false);
        }
        assert_eq!(pace.room_bytes(), WRITE_BYTES);
    }

    #[test]
    fn a_link_is_judged_after_ten_milliseconds_of_waiting_and_not_before() {
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.handle_written(start, 100, true);
        pace.handle_written(start + WRITE_TIME / 2, 400, true);
        assert_eq!(pace.room_bytes(), WRITE_BYTES, "too little is known");
        pace.handle_written(start + WRITE_TIME, 500, true);
        assert_eq!(pace.room_bytes(), 1000, "what it took in that time");
    }

    #[test]
    fn a_link_that_takes_nothing_still_gets_one_batch() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for second in 0..10 {
            pace.handle_written(start + Duration::from_secs(second), 0, true);
        }
        assert_eq!(pace.room_bytes(), 1);
    }
}
