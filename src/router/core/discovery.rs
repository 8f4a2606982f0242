//! Messages for which nobody is known: the network is asked, and they wait for a grace.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::key::KeyId;

/// How long nobody asks again for the same key.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);
/// Messages of all keys that wait.
pub(crate) const WAITING_MAX: usize = 4096;
/// Keys whose last question is remembered.
const ASKED_MAX: usize = 4096;

/// See the module's text. `F` is what waits.
#[derive(Debug)]
pub(crate) struct Discovery<F> {
    /// Until when, and what; the first of a key waits least.
    waiting: BTreeMap<KeyId, VecDeque<(Instant, F)>>,
    count: usize,
    asked: BTreeMap<KeyId, Instant>,
}

impl<F> Default for Discovery<F> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), count: 0, asked: BTreeMap::new() }
    }
}

impl<F> Discovery<F> {
    /// Waits. Tells whether the network is to be asked; gives it back if there is no room.
    pub(crate) fn wait(&mut self, now: Instant, id: KeyId, until: Instant, flow: F) -> Result<bool, F> {
        if self.count >= WAITING_MAX {
            return Err(flow);
        }
        self.count += 1;
        self.waiting.entry(id).or_default().push_back((until, flow));
        let lately = self.asked.get(&id).is_some_and(|at| now < *at + PERIOD);
        if !lately {
            if self.asked.len() >= ASKED_MAX {
                self.asked.retain(|_, at| now < *at + PERIOD);
            }
            if self.asked.len() < ASKED_MAX {
                self.asked.insert(id, now);
            }
        }
        Ok(!lately)
    }

    /// Somebody holds it now: what waited.
    pub(crate) fn found(&mut self, id: KeyId) -> Vec<F> {
        let found = self.waiting.remove(&id).unwrap_or_default();
        self.count -= found.len();
        found.into_iter().map(|(_, flow)| flow).collect()
    }

    /// What has waited long enough.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<F> {
        let mut out = Vec::new();
        self.waiting.retain(|_, flows| {
            let (over, stay) = flows.drain(..).partition(|(until, _)| *until <= now);
            *flows = stay;
            let over: VecDeque<(Instant, F)> = over;
            out.extend(over.into_iter().map(|(_, flow)| flow));
            !flows.is_empty()
        });
        self.count -= out.len();
        out
    }

    /// When something has waited long enough.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().flatten().map(|(until, _)| *until).min()
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }
}
