//! How fast members are evicted when too many are missing at once.

use std::time::{Duration, Instant};

/// A third: above it the leader's own network is the likely cause.
const CROWD: usize = 3;

/// As long as few are missing, all who are convicted are evicted at once. Above a third they go one at a time: the first after a
/// wait as long as the leader's own trouble may last, each next after half of the wait before, down to a least. So a short break
/// costs nobody, a longer one few, and the many dead of a real disaster still go.
#[derive(Debug)]
pub(super) struct Pace {
    /// The first wait.
    slow: Duration,
    /// The least.
    least: Duration,
    crowd: Option<Crowd>,
}

#[derive(Debug)]
struct Crowd {
    turn: Turn,
    /// The wait before the next turn.
    wait: Duration,
    /// Since when it is none any more. It counts as the same one if it comes back soon: a number that goes up and down around a
    /// third must not begin the first wait over and over.
    over: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next may go then.
    At(Instant),
    /// The next may go.
    Due,
}

impl Pace {
    pub(super) const fn new(slow: Duration, least: Duration) -> Self {
        Self { slow, least, crowd: None }
    }

    /// So many of all are missing.
    ///
    /// One alone is no crowd, however few there are: of two members one may be dead, and the other is its witness.
    pub(super) fn handle_missing(&mut self, now: Instant, missing: usize, all: usize) {
        let is_crowd = missing >= 2 && missing * CROWD > all;
        match &mut self.crowd {
            Some(crowd) if is_crowd => match crowd.over.take() {
                Some(over) if over + self.slow <= now => self.crowd = Some(Crowd::new(now, self.slow)),
                Some(_) | None => {}
            },
            Some(crowd) => crowd.over = crowd.over.or(Some(now)),
            None if is_crowd => self.crowd = Some(Crowd::new(now, self.slow)),
            None => {}
        }
        self.handle_timeout(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(crowd) = &mut self.crowd
            && matches!(crowd.turn, Turn::At(at) if at <= now)
        {
            crowd.turn = Turn::Due;
        }
    }

    /// One at a time, if at all.
    pub(super) fn is_slow(&self) -> bool {
        self.crowd.as_ref().is_some_and(|crowd| crowd.over.is_none())
    }

    /// Whether one may go.
    pub(super) fn is_open(&self) -> bool {
        !self.is_slow() || self.crowd.as_ref().is_some_and(|crowd| crowd.turn == Turn::Due)
    }

    /// One goes.
    pub(super) fn handle_evicted(&mut self, now: Instant) {
        if let Some(crowd) = self.crowd.as_mut().filter(|crowd| crowd.over.is_none()) {
            crowd.wait = (crowd.wait / 2).max(self.least);
            crowd.turn = Turn::At(now + crowd.wait);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.crowd.as_ref()?.turn {
            Turn::At(at) => Some(at),
            Turn::Due => None,
        }
    }
}

impl Crowd {
    fn new(now: Instant, slow: Duration) -> Self {
        Self { turn: Turn::At(now + slow), wait: slow, over: None }
    }
}
