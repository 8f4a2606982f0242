//! What comes with time.

use std::time::{Duration, Instant};

use super::way::Phase;
use super::{Client, OnFrozen, Output};

/// A change that a ping says there is, and that does not come within this time, is asked for.
const BEHIND: Duration = Duration::from_secs(1);
/// A change of this node's routes that is not decided within this time is said again.
const UNDECIDED: Duration = Duration::from_secs(5);

impl Client {
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.broken_at().is_some_and(|at| at <= now) {
            // A leader is looked for at once; one that breaks off before it has let anybody in, not.
            if self.is_following() {
                self.pass(now);
            } else {
                self.seek.note_dead();
                self.fail(now, Duration::ZERO);
            }
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.attempts += 1;
                let (attempt, address) = (self.attempts, self.seek.next());
                self.phase = Phase::Seeking { attempt, until: now + self.config.silence };
                self.outputs.push_back(Output::Seek { attempt, address });
            }
            Phase::Seeking { until, .. } if until <= now => {
                self.seek.note_dead();
                self.fail(now, Duration::ZERO);
            }
            Phase::Asking { until, .. } if until <= now => self.fail(now, Duration::ZERO),
            Phase::Staying { until, .. } if until <= now => {
                self.seek.forget_dead();
                self.go_on(now);
            }
            Phase::Asking { server, again: Some(at), .. } if at <= now => self.say_hello(now, server),
            // Much later than it was due: this process stood still, which says nothing of the server. Others may name it.
            Phase::Following { .. } if self.word_at + self.config.silence * 2 <= now => self.go_on(now),
            Phase::Following { .. } if self.word_at + self.config.silence <= now => self.pass(now),
            Phase::Following { server, .. } if self.overdue().is_some_and(|at| at <= now) => {
                tracing::debug!("a change or an answer does not come: asking for it");
                self.hello_again(now, server);
            }
            Phase::Waiting { .. }
            | Phase::Seeking { .. }
            | Phase::Asking { .. }
            | Phase::Staying { .. }
            | Phase::Following { .. }
            | Phase::Reborn { .. }
            | Phase::Left => {}
        }
        if self.stops_at().is_some_and(|at| at <= now) {
            tracing::error!("no leader was heard for too long: this node stops, as it was told to");
            self.left(true);
        }
    }

    /// When what is to come is late.
    fn overdue(&self) -> Option<Instant> {
        let behind = self.behind.map(|(_, since)| since + BEHIND);
        let undecided = self.undecided.map(|(_, since)| since + UNDECIDED);
        behind.into_iter().chain(undecided).min()
    }

    fn stops_at(&self) -> Option<Instant> {
        match self.config.on_frozen {
            OnFrozen::Stop(after) if self.told.is_some() && self.phase != Phase::Left => {
                Some(self.heard + after)
            }
            OnFrozen::Stop(_) | OnFrozen::GoOn => None,
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Waiting { until } | Phase::Seeking { until, .. } | Phase::Staying { until, .. } => {
                Some(until)
            }
            Phase::Asking { until, again, .. } => Some(again.map_or(until, |again| again.min(until))),
            Phase::Following { .. } => {
                let silent = self.word_at + self.config.silence;
                Some(self.overdue().map_or(silent, |overdue| overdue.min(silent)))
            }
            Phase::Reborn { .. } | Phase::Left => None,
        };
        let frozen =
            Some(self.heard + self.config.frozen_after).filter(|at| self.told.is_some() && *at > now);
        // Before, nothing is reported, whatever is due.
        let report = self.reports.poll_timeout(now).filter(|_| self.is_settled());
        [phase, self.broken_at(), frozen, self.stops_at(), report].into_iter().flatten().min()
    }
}
