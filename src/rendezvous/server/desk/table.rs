//! The table of health, and its last changes.

use std::collections::{BTreeMap, VecDeque};

use super::config::HEALTH_KEPT_MAX;
use crate::MemberId;
use crate::rendezvous::words::Health;

/// Who is not healthy, and what changed of late.
#[derive(Debug, Default)]
pub(super) struct Table {
    unwell: BTreeMap<MemberId, Health>,
    /// Number of the newest change.
    newest: u64,
    changes: VecDeque<(u64, MemberId, Health)>,
}

/// What somebody is to be told of health.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) all: bool,
    pub(super) changed: Vec<(MemberId, Health)>,
}

impl Table {
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn of(&self, member: MemberId) -> Health {
        self.unwell.get(&member).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, member: MemberId, health: Health) {
        let before = match health {
            Health::Healthy => self.unwell.remove(&member).unwrap_or_default(),
            unwell => self.unwell.insert(member, unwell).unwrap_or_default(),
        };
        if before == health {
            return;
        }
        self.newest += 1;
        self.changes.push_back((self.newest, member, health));
        if self.changes.len() > HEALTH_KEPT_MAX {
            self.changes.pop_front();
        }
    }

    /// A member is gone; everybody hears that by the view.
    pub(super) fn forget(&mut self, member: MemberId) {
        self.unwell.remove(&member);
    }

    /// What who was told up to `seen` is to be told now.
    pub(super) fn since(&self, seen: Option<u64>) -> Option<Told> {
        let kept_from = self.newest - self.changes.len() as u64;
        match seen {
            Some(seen) if seen == self.newest => None,
            Some(seen) if seen >= kept_from => {
                let newer = self.changes.iter().filter(|(number, _, _)| *number > seen);
                // The last word on each.
                let last: BTreeMap<MemberId, Health> =
                    newer.map(|(_, member, health)| (*member, *health)).collect();
                Some(Told { all: false, changed: last.into_iter().collect() })
            }
            Some(_) | None => {
                let changed = self.unwell.iter().map(|(member, health)| (*member, *health)).collect();
                Some(Told { all: true, changed })
            }
        }
    }
}
