//! What kind of world of a rendezvous a seed makes.

use std::time::Duration;

use crate::testing::net::Weather;

/// How long things go wrong.
pub(super) const CHAOS: Duration = Duration::from_secs(60);
/// After the last fault all must agree within this: the longest partition is found out (liveness), a leader is elected, nodes come to it, the
/// dead are judged (settle, eviction, probes), dials come at their longest waits.
pub(super) const CALM: Duration = Duration::from_secs(90);

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) servers: usize,
    pub(super) nodes: usize,
    pub(super) weather: Weather,
    /// How often something is done, on average.
    pub(super) pause: Duration,
    /// Of a hundred things that are done, so many are faults.
    pub(super) faults: u32,
    /// Nothing fails but servers, and roads to a node that others reach: then nobody is evicted.
    pub(super) spares_nodes: bool,
    /// The disks of all servers are lost once.
    pub(super) loses_disks: bool,
}

impl Plan {
    pub(super) fn of(chance: &mut fastrand::Rng) -> Self {
        let millis = Duration::from_millis;
        let delays = [1, 5, 20];
        let jitters = [0, 5, 30];
        let rates = [20_000_000, 200_000_000];
        let pick = |chance: &mut fastrand::Rng| chance.usize(..3);
        Self {
            servers: [1, 3, 3, 3, 3, 5][chance.usize(..6)],
            nodes: chance.usize(2..=6),
            weather: Weather {
                delay_max: millis(delays[pick(chance)]),
                jitter_max: millis(jitters[pick(chance)]),
                bytes_per_second: rates[chance.usize(..2)],
                window_bytes: 64 * 1024,
            },
            pause: millis(chance.u64(60..=200)),
            faults: chance.u32(3..=12),
            spares_nodes: chance.u8(..4) == 0,
            loses_disks: chance.u8(..8) == 0,
        }
    }
}
