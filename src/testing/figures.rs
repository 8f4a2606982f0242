//! What became of the flows of worlds with routers.

use std::collections::BTreeMap;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Routers {
    /// Worlds with routers.
    pub worlds: u64,
    /// Flows that were begun.
    pub flows: u64,
    /// How they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Flows whose process ended before them.
    pub crashed: u64,
    /// Flows that did not end.
    pub hung: u64,
    /// Answers that came to another flow.
    pub misdelivered: u64,
    /// Messages that handlers were given.
    pub handled: u64,
    /// Messages that went to other nodes, and came back.
    pub forwarded: u64,
    /// See [`RouterCounts`](crate::router::RouterCounts).
    pub returned: u64,
    /// The same.
    pub rerouted: u64,
    /// The same.
    pub dead: u64,
    /// The same.
    pub late: u64,
    /// The same.
    pub discoveries: u64,
}

impl Routers {
    pub(super) fn add(&mut self, other: &Self) {
        for (name, count) in &other.outcomes {
            *self.outcomes.entry(name.clone()).or_default() += count;
        }
        self.worlds += other.worlds;
        self.flows += other.flows;
        self.crashed += other.crashed;
        self.hung += other.hung;
        self.misdelivered += other.misdelivered;
        self.handled += other.handled;
        self.forwarded += other.forwarded;
        self.returned += other.returned;
        self.rerouted += other.rerouted;
        self.dead += other.dead;
        self.late += other.late;
        self.discoveries += other.discoveries;
    }
}
