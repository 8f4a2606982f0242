//! Probes that are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::ProbeId;
use crate::MemberId;

/// Most probes under way. Ten cases at a time have three witnesses each and replacements; the others wait some seconds, which
/// is what a leader that misses so many should do anyway.
pub(super) const PROBES_MAX: usize = 48;

/// A witness was asked of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) witness: MemberId,
    pub(super) suspect: MemberId,
    deadline: Instant,
}

/// Probes under way, in the order in which they were asked; all have the same time, so that is the order of their ends as well.
#[derive(Debug)]
pub(super) struct Probes {
    open: BTreeMap<ProbeId, Probe>,
    /// Those that are to be sent.
    unsent: BTreeSet<ProbeId>,
    next: u64,
}

impl Probes {
    /// Begins anywhere, so that answers to a former leader of the same server fit nothing.
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        Self { open: BTreeMap::new(), unsent: BTreeSet::new(), next: random.u64(..u64::MAX / 2) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= PROBES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn has(&self, witness: MemberId, suspect: MemberId) -> bool {
        self.open.values().any(|probe| probe.witness == witness && probe.suspect == suspect)
    }

    pub(super) fn ask(&mut self, witness: MemberId, suspect: MemberId, deadline: Instant) {
        debug_assert!(!self.is_full());
        let id = ProbeId(self.next);
        self.next += 1;
        self.open.insert(id, Probe { witness, suspect, deadline });
        self.unsent.insert(id);
    }

    /// The answer of `witness` to this probe: what it was about. `None`: it is not under way, or somebody else's.
    pub(super) fn answer(&mut self, id: ProbeId, witness: MemberId) -> Option<Probe> {
        self.open.get(&id).filter(|probe| probe.witness == witness)?;
        self.close(id)
    }

    /// The next whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Probe> {
        let (id, _) = self.open.first_key_value().filter(|(_, probe)| probe.deadline <= now)?;
        self.close(*id)
    }

    fn close(&mut self, id: ProbeId) -> Option<Probe> {
        self.unsent.remove(&id);
        self.open.remove(&id)
    }

    /// Nobody wants to know of this suspect any more.
    pub(super) fn cancel(&mut self, suspect: MemberId) {
        self.open.retain(|_, probe| probe.suspect != suspect);
        self.unsent.retain(|id| self.open.contains_key(id));
    }

    /// This witness is gone: what it was asked.
    pub(super) fn abandon(&mut self, witness: MemberId) -> Vec<Probe> {
        let ids: Vec<_> =
            self.open.iter().filter(|(_, probe)| probe.witness == witness).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.close(id)).collect()
    }

    pub(super) fn poll_send(&mut self) -> Option<(ProbeId, Probe)> {
        let id = self.unsent.pop_first()?;
        self.open.get(&id).map(|probe| (id, *probe))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.first_key_value().map(|(_, probe)| probe.deadline)
    }

    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        self.open.len() <= PROBES_MAX && self.unsent.len() <= self.open.len()
    }
}
