//! What really happened, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::plan::{Direction, Fault};
use super::schedule::{Pace, Schedule};

/// Faults that took effect and bytes that were forwarded, since the proxy started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultCounts {
    /// Connections joined to the target.
    pub connections: u64,
    /// Connections that exist now and are not silent.
    pub live: u64,
    /// Silent connections that are held now.
    pub held: u64,
    /// Connections reset by [`Fault::Reset`]; cuts by reset not included.
    pub resets: u64,
    /// Connections cut at an offset.
    pub cuts: u64,
    /// Bits flipped in bytes that were forwarded.
    pub flips: u64,
    /// Connections that fell silent.
    pub silences: u64,
    /// Connections that fell silent in one direction.
    pub one_ways: u64,
    /// Connections a delay was set for; once each time.
    pub delays: u64,
    /// Connections a rate limit was set for; once each time.
    pub rates: u64,
    /// New connections reset while the proxy refused.
    pub refused: u64,
    /// New connections reset because the proxy was full of live ones.
    pub turned_away: u64,
    /// New connections reset because the target could not be reached.
    pub unreachable: u64,
    /// Silent connections dropped to make room.
    pub evicted: u64,
    /// Bytes forwarded to the target.
    pub bytes_up: u64,
    /// Bytes forwarded to the client.
    pub bytes_down: u64,
}

/// The counters behind [`FaultCounts`]. Each stands alone, so relaxed order will do.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    resets: AtomicU64,
    cuts: AtomicU64,
    flips: AtomicU64,
    silences: AtomicU64,
    one_ways: AtomicU64,
    delays: AtomicU64,
    rates: AtomicU64,
    refused: AtomicU64,
    pub(super) turned_away: AtomicU64,
    pub(super) unreachable: AtomicU64,
    pub(super) evicted: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl Counters {
    pub(super) fn fault(&self, fault: &Fault) {
        add(self.of(fault), 1);
    }

    pub(super) fn bytes(&self, direction: Direction, count: usize) {
        let counter = match direction {
            Direction::Up => &self.bytes_up,
            Direction::Down => &self.bytes_down,
        };
        add(counter, count as u64);
    }

    /// All but the two gauges.
    pub(super) fn read(&self) -> FaultCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultCounts {
            connections: value(&self.connections),
            live: 0,
            held: 0,
            resets: value(&self.resets),
            cuts: value(&self.cuts),
            flips: value(&self.flips),
            silences: value(&self.silences),
            one_ways: value(&self.one_ways),
            delays: value(&self.delays),
            rates: value(&self.rates),
            refused: value(&self.refused),
            turned_away: value(&self.turned_away),
            unreachable: value(&self.unreachable),
            evicted: value(&self.evicted),
            bytes_up: value(&self.bytes_up),
            bytes_down: value(&self.bytes_down),
        }
    }

    fn of(&self, fault: &Fault) -> &AtomicU64 {
        match fault {
            Fault::Reset => &self.resets,
            Fault::Cut { .. } => &self.cuts,
            Fault::Flip { .. } => &self.flips,
            Fault::Silence { .. } => &self.silences,
            Fault::OneWay { .. } => &self.one_ways,
            Fault::Delay { .. } => &self.delays,
            Fault::Rate { .. } => &self.rates,
            Fault::Refuse { .. } => &self.refused,
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// How many of each scheduled fault may still take effect.
#[derive(Debug)]
pub(super) struct Budgets {
    resets: Budget,
    cuts: Budget,
    flips: Budget,
    silences: Budget,
    one_ways: Budget,
}

impl Budgets {
    pub(super) fn new(schedule: &Schedule) -> Budgets {
        let budget = |pace: Option<Pace>| Budget(pace.and_then(|pace| pace.at_most).map(AtomicU64::new));
        Budgets {
            resets: budget(schedule.reset_every_ms),
            cuts: budget(schedule.cut_after_bytes),
            flips: budget(schedule.flip_every_bytes),
            silences: budget(schedule.silence_every_ms),
            one_ways: budget(schedule.one_way_every_ms),
        }
    }

    /// Takes one; false if there is none left. Faults without a budget always have one left.
    pub(super) fn take(&self, fault: &Fault) -> bool {
        self.of(fault).is_none_or(Budget::take)
    }

    /// Gives one back that did not take effect after all.
    pub(super) fn give_back(&self, fault: &Fault) {
        if let Some(Budget(Some(left))) = self.of(fault) {
            add(left, 1);
        }
    }

    fn of(&self, fault: &Fault) -> Option<&Budget> {
        match fault {
            Fault::Reset => Some(&self.resets),
            Fault::Cut { .. } => Some(&self.cuts),
            Fault::Flip { .. } => Some(&self.flips),
            Fault::Silence { .. } => Some(&self.silences),
            Fault::OneWay { .. } => Some(&self.one_ways),
            Fault::Delay { .. } | Fault::Rate { .. } | Fault::Refuse { .. } => None,
        }
    }
}

/// Without a number, no end.
#[derive(Debug)]
struct Budget(Option<AtomicU64>);

impl Budget {
    fn take(&self) -> bool {
        let Some(left) = &self.0 else { return true };
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
