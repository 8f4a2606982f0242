//! A rate limit by virtual time (GCRA, ATM Forum Traffic Management 4.0, without the burst). No clock here.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::Rate;

/// Bytes leave in pieces of what the rate allows in this time, so that the limit is smooth.
const PIECES_A_SECOND: u64 = 50;
/// A late wake-up is made up for, up to this much.
const CREDIT: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pacer {
    rate: Rate,
    free_at: Instant,
}

impl Pacer {
    pub(super) fn new(rate: Rate, now: Instant) -> Pacer {
        Pacer { rate: rate.normal(), free_at: now }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// The most bytes to leave at once, or when to come back.
    pub(super) fn piece(&self, now: Instant) -> Result<usize, Instant> {
        if self.free_at > now {
            return Err(self.free_at);
        }
        Ok(usize::try_from((self.rate.bytes_per_second / PIECES_A_SECOND).max(1)).unwrap_or(usize::MAX))
    }

    /// So many bytes left.
    pub(super) fn left(&mut self, now: Instant, len: usize) {
        let cost = Duration::from_secs_f64(len as f64 / self.rate.bytes_per_second as f64);
        let floor = now.checked_sub(CREDIT).unwrap_or(now);
        self.free_at = self.free_at.max(floor) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_rate_with_late_wakeups() {
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pacer = Pacer::new(Rate { bytes_per_second: 100_000, buffer_bytes: 4096 }, start);
        let (mut now, mut total) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match pacer.piece(now) {
                Ok(len) => {
                    pacer.left(now, len);
                    total += len;
                }
                Err(at) => now = at + Duration::from_micros(rng.u64(0..3000)),
            }
        }
        assert!((990_000..=1_010_000).contains(&total), "{total}");
    }
}
