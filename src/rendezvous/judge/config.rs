//! The times of the judgement, and how they hold together.

use std::time::Duration;

/// Times of the judgement. What is impossible is refused where one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JudgeConfig {
    ping: Duration,
    eviction: Duration,
    probe: Duration,
    settle: Duration,
}

/// Why times are refused. Nothing was made of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeConfigError {
    /// The leader would do nothing but ping.
    #[error("a ping every {0:?} is too often: at least {PING_MIN:?} apart")]
    PingTooOften(Duration),
    /// One pong that is late would be half of a conviction.
    #[error("eviction after {eviction:?} is too early: at least {PINGS_MISSED_MIN} pings of {ping:?}")]
    EvictionTooEarly {
        /// As it was asked for.
        eviction: Duration,
        /// How far pings are apart.
        ping: Duration,
    },
    /// Nothing would ever be decided.
    #[error("{0:?} is too long: at most {TIME_MAX:?}")]
    TooLong(Duration),
    /// No witness could find anything out.
    #[error("{0:?} for a probe is too short: at least {PROBE_MIN:?}")]
    ProbeTooShort(Duration),
}

/// Pings of a thousand members every 10 ms are 100,000 messages a second: nobody means that.
const PING_MIN: Duration = Duration::from_millis(10);
/// Suspected after half of this, so at least two pings were missed then.
const PINGS_MISSED_MIN: u32 = 4;
/// The witness tries for half of it: a dial and its answer on a path of 10 ms.
const PROBE_MIN: Duration = Duration::from_millis(20);
/// Far beyond what anybody wants, and sums of it stay within what the clock can say.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl JudgeConfig {
    /// `ping`: how far pings are apart. `eviction`: a member unheard for this is silent, and its case begins. `probe`: the answer of
    /// a witness must be here within it. `settle`: what clients need to find a new leader; everybody is given it once more.
    ///
    /// # Errors
    ///
    /// They do not hold together.
    pub(crate) fn new(
        ping: Duration,
        eviction: Duration,
        probe: Duration,
        settle: Duration,
    ) -> Result<Self, JudgeConfigError> {
        if ping < PING_MIN {
            return Err(JudgeConfigError::PingTooOften(ping));
        }
        if eviction < ping.saturating_mul(PINGS_MISSED_MIN) {
            return Err(JudgeConfigError::EvictionTooEarly { eviction, ping });
        }
        if probe < PROBE_MIN {
            return Err(JudgeConfigError::ProbeTooShort(probe));
        }
        if let Some(long) = [ping, eviction, probe, settle].into_iter().find(|time| *time > TIME_MAX) {
            return Err(JudgeConfigError::TooLong(long));
        }
        Ok(Self { ping, eviction, probe, settle })
    }

    /// How far pings are apart.
    pub(crate) const fn ping(&self) -> Duration {
        self.ping
    }

    /// A member unheard for this is silent.
    pub(crate) const fn eviction(&self) -> Duration {
        self.eviction
    }

    /// A member unheard for this is suspected, and no witness any more.
    pub(super) fn suspicion(&self) -> Duration {
        self.eviction / 2
    }

    /// The answer of a witness must be here within this.
    pub(crate) const fn probe(&self) -> Duration {
        self.probe
    }

    /// How long a witness tries: half, the rest is the way of question and answer.
    pub(super) fn probe_within(&self) -> Duration {
        self.probe / 2
    }

    /// What clients need to find a new leader.
    pub(crate) const fn settle(&self) -> Duration {
        self.settle
    }

    /// How long the first eviction waits when too many are missing: twice the eviction time, so that a break of the leader's own
    /// network as long as what evicts one member evicts nobody.
    pub(super) const fn slow(&self) -> Duration {
        self.eviction.saturating_mul(2)
    }
}

impl Default for JudgeConfig {
    fn default() -> Self {
        let (ping, eviction, probe, settle) =
            (Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(2), Duration::from_secs(5));
        Self { ping, eviction, probe, settle }
    }
}
