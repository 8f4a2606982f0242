//! When to dial again: at once, then ever later, with jitter so that many do not come together.

use std::time::Duration;

/// Times of redialling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackoffConfig {
    /// The first redial comes within this.
    pub(crate) min: Duration,
    /// Redials are at most this far apart.
    pub(crate) max: Duration,
}

/// Exponential back-off with full jitter below the first step and half jitter above (Brooker, "Exponential backoff
/// and jitter", AWS Architecture Blog, 2015).
#[derive(Debug)]
pub(crate) struct Backoff {
    config: BackoffConfig,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(config: BackoffConfig, seed: u64) -> Self {
        Self { config, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// How long to wait before the next dial.
    pub(crate) fn next(&mut self) -> Duration {
        let step = self.config.min.saturating_mul(1 << self.failures.min(20)).min(self.config.max);
        let least = if self.failures == 0 { Duration::ZERO } else { step / 2 };
        self.failures += 1;
        least + (step - least).mul_f64(self.random.f64())
    }

    /// A wait of at least `least` and at most one and a half of it.
    pub(crate) fn jittered(&mut self, least: Duration) -> Duration {
        least + least.mul_f64(self.random.f64() / 2.0)
    }

    /// The longest wait, for a peer that keeps misbehaving.
    pub(crate) fn exhaust(&mut self) {
        self.failures = 20;
    }

    /// Something was achieved: start again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_limit_and_start_again_after_progress() {
        let config = BackoffConfig { min: Duration::from_millis(50), max: Duration::from_secs(5) };
        let mut backoff = Backoff::new(config, 1);
        assert!(backoff.next() <= config.min);
        for doubled in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next();
            let step = Duration::from_millis(doubled);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= config.min);
    }
}
