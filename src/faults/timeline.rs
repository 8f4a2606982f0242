//! The timed part of a plan as one sequence of episodes. No sockets and no clock here.

use super::plan::{Direction, Episode, Fault, Plan, draws};
use super::schedule::{DelaySpells, RateSpells, RefuseSpells, Span};

/// The episodes of a plan in the order of their times; without end if the plan's schedule has a timed fault.
///
/// ```
/// use karere::faults::{Plan, Schedule, Timeline};
///
/// let schedule = Schedule { reset_every_ms: Some((150..=600).into()), ..Schedule::default() };
/// let plan = Plan::new(7, schedule);
/// let first: Vec<_> = Timeline::new(&plan).take(9).collect();
/// assert_eq!(first, Timeline::new(&plan).take(9).collect::<Vec<_>>());
/// ```
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Explicit episodes, the next one last.
    given: Vec<Episode>,
    /// At most one a kind.
    tracks: Vec<Track>,
}

#[derive(Debug, Clone)]
struct Track {
    rng: fastrand::Rng,
    kind: Kind,
    next: Episode,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Reset(Span),
    Silence(Span, bool),
    OneWay(Span, bool),
    Delay(DelaySpells),
    Rate(RateSpells),
    Refuse(RefuseSpells),
}

impl Timeline {
    /// The timeline of a plan, from its start.
    pub fn new(plan: &Plan) -> Timeline {
        let mut given = plan.episodes.clone();
        given.sort_by_key(|episode| std::cmp::Reverse(episode.at_ms));
        let schedule = &plan.schedule;
        let kinds = [
            schedule.reset_every_ms.map(|pace| Kind::Reset(pace.every)),
            schedule.silence_every_ms.map(|pace| Kind::Silence(pace.every, plan.drain)),
            schedule.one_way_every_ms.map(|pace| Kind::OneWay(pace.every, plan.drain)),
            schedule.delays.map(Kind::Delay),
            schedule.rates.map(Kind::Rate),
            schedule.refusals.map(Kind::Refuse),
        ];
        let tracks = kinds
            .into_iter()
            .zip(1..)
            .filter_map(|(kind, index)| {
                let mut rng = draws(plan.seed, STREAM, index);
                kind.map(|kind| Track { next: kind.draw(&mut rng, 0), rng, kind })
            })
            .collect();
        Timeline { given, tracks }
    }
}

/// Keeps the timeline's draws apart from those of the connections.
const STREAM: u64 = u64::from_be_bytes(*b"timeline");

impl Iterator for Timeline {
    type Item = Episode;

    fn next(&mut self) -> Option<Episode> {
        let track = self.tracks.iter_mut().min_by_key(|track| track.next.at_ms);
        match (track, self.given.last()) {
            (Some(track), given) if given.is_none_or(|given| track.next.at_ms < given.at_ms) => {
                Some(track.advance())
            }
            _ => self.given.pop(),
        }
    }
}

impl Track {
    fn advance(&mut self) -> Episode {
        let after = match self.next.fault {
            Fault::Refuse { ms } => ms,
            _ => self.next.lasts_ms.unwrap_or(0),
        };
        let next = self.kind.draw(&mut self.rng, self.next.at_ms.saturating_add(after));
        std::mem::replace(&mut self.next, next)
    }
}

impl Kind {
    fn draw(self, rng: &mut fastrand::Rng, from_ms: u64) -> Episode {
        let at_ms = from_ms.saturating_add(self.every().draw(rng).max(1));
        let (fault, lasts_ms) = match self {
            Kind::Reset(_) => (Fault::Reset, None),
            Kind::Silence(_, drain) => (Fault::Silence { drain }, None),
            Kind::OneWay(_, drain) => {
                let silent = if rng.bool() { Direction::Up } else { Direction::Down };
                (Fault::OneWay { silent, drain }, None)
            }
            Kind::Delay(spell) => {
                let lasts_ms = spell.lasts_ms.draw(rng);
                (Fault::Delay { ms: spell.delay_ms.draw(rng) }, Some(lasts_ms))
            }
            Kind::Rate(spell) => {
                let lasts_ms = spell.lasts_ms.draw(rng);
                let bytes_per_second = spell.bytes_per_second.draw(rng);
                (Fault::Rate { bytes_per_second, buffer_bytes: spell.buffer_bytes }, Some(lasts_ms))
            }
            Kind::Refuse(spell) => (Fault::Refuse { ms: spell.lasts_ms.draw(rng) }, None),
        };
        Episode { at_ms, fault, lasts_ms }
    }

    fn every(self) -> Span {
        match self {
            Kind::Reset(every) | Kind::Silence(every, _) | Kind::OneWay(every, _) => every,
            Kind::Delay(spell) => spell.every_ms,
            Kind::Rate(spell) => spell.every_ms,
            Kind::Refuse(spell) => spell.every_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Pace, Schedule};

    fn everything(seed: u64) -> Plan {
        let spell = |range: std::ops::RangeInclusive<u64>| Span::from(range);
        let schedule = Schedule {
            reset_every_ms: Some((150..=600).into()),
            silence_every_ms: Some(Pace::from(1000..=3000).at_most(4)),
            one_way_every_ms: Some((900..=1000).into()),
            cut_after_bytes: Some((1..=9000).into()),
            flip_every_bytes: Some((1..=9000).into()),
            delays: Some(DelaySpells {
                every_ms: spell(1..=9),
                lasts_ms: spell(5..=9),
                delay_ms: spell(1..=50),
            }),
            rates: Some(RateSpells {
                every_ms: spell(50..=90),
                lasts_ms: spell(5..=9),
                bytes_per_second: spell(1000..=50_000),
                buffer_bytes: 4096,
            }),
            refusals: Some(RefuseSpells { every_ms: spell(100..=200), lasts_ms: spell(10..=20) }),
        };
        let given = Episode { at_ms: 333, fault: Fault::Reset, lasts_ms: None };
        Plan { episodes: vec![given], ..Plan::new(seed, schedule) }
    }

    #[test]
    fn same_seed_same_episodes_other_seed_others() {
        let draw = |seed| Timeline::new(&everything(seed)).take(500).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn episodes_come_in_order_and_within_their_spans() {
        let episodes: Vec<_> = Timeline::new(&everything(3)).take(2000).collect();
        assert!(episodes.is_sorted_by_key(|episode| episode.at_ms));
        let given = Episode { at_ms: 333, fault: Fault::Reset, lasts_ms: None };
        assert!(episodes.contains(&given));
        let resets: Vec<_> = episodes.iter().filter(|e| e.fault == Fault::Reset && **e != given).collect();
        assert!(resets.len() > 3);
        for pair in resets.windows(2) {
            assert!((150..=600).contains(&(pair[1].at_ms - pair[0].at_ms)));
        }
    }

    #[test]
    fn a_zero_interval_still_advances_and_a_huge_one_does_not_overflow() {
        let schedule = Schedule { reset_every_ms: Some((0..=0).into()), ..Schedule::default() };
        assert_eq!(Timeline::new(&Plan::new(1, schedule)).nth(9).map(|episode| episode.at_ms), Some(10));
        let schedule = Schedule { reset_every_ms: Some((u64::MAX..=u64::MAX).into()), ..Schedule::default() };
        assert_eq!(
            Timeline::new(&Plan::new(1, schedule)).nth(2).map(|episode| episode.at_ms),
            Some(u64::MAX)
        );
    }

    #[test]
    fn a_quiet_plan_has_no_episodes() {
        assert_eq!(Timeline::new(&Plan::default()).next(), None);
    }
}
