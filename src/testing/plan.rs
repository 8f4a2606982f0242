//! What kind of world a seed makes.

use std::time::Duration;

use super::net::Weather;
use crate::{Limits, Timeouts, Views};

/// Messages that are sent at least while things go wrong; if need be, that lasts longer.
pub(super) const MESSAGES_MIN: usize = 1_000;
/// How long things go wrong.
pub(super) const CHAOS: Duration = Duration::from_secs(42);
/// After the last fault all must be at rest within this: a silent link is found out, dials come at their longest waits,
/// quarantines and leases are over.
pub(super) const CALM: Duration = Duration::from_secs(60);
/// A world lasts at least so long.
pub(super) const LEAST: Duration = Duration::from_secs(60);

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) members: usize,
    pub(super) views: Views,
    pub(super) weather: Weather,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
    /// How often something is done.
    pub(super) pause: Duration,
    /// Of a hundred things that are done, so many are faults.
    pub(super) faults: u32,
    /// How far apart members hear of views, at most.
    pub(super) stagger: Duration,
    /// Each process runs a router.
    pub(super) routers: bool,
}

impl Plan {
    pub(super) fn of(chance: &mut fastrand::Rng) -> Self {
        let millis = Duration::from_millis;
        let views = match chance.u32(..10) {
            0..6 => Views::Agreed,
            6..8 => Views::Local,
            _ => Views::None,
        };
        let quick = chance.bool();
        let timeouts = Timeouts {
            ping: if quick { millis(600) } else { millis(1500) },
            liveness: if quick { millis(2000) } else { millis(5000) },
            hello: if quick { millis(1500) } else { millis(3000) },
            connect: if quick { millis(1500) } else { millis(3000) },
            redial_max: if quick { millis(1000) } else { millis(5000) },
            resume_lease: millis(chance.u64(5_000..20_000)),
            quarantine: millis(chance.u64(2_000..10_000)),
            idle: if chance.u8(..4) == 0 { millis(chance.u64(2_000..10_000)) } else { millis(300_000) },
            ..Timeouts::default()
        };
        let limits = Limits {
            process_bytes: 1024 * 1024 * chance.usize(4..=24),
            queue_bytes: 256 * 1024 * chance.usize(1..=8),
            credit_bytes: 128 * 1024 * chance.u64(1..=4),
            message_bytes: 2 * 1024 * 1024,
            reassembly_bytes: 1024 * 1024 * chance.usize(2..=6),
            links: if chance.u8(..8) == 0 { 4 } else { 1024 },
            ..Limits::default()
        };
        let delays = [1, 10, 40];
        let jitters = [0, 5, 60];
        let rates = [2_000_000, 20_000_000, 200_000_000];
        let windows = [16 * 1024, 64 * 1024, 256 * 1024];
        let pick = |chance: &mut fastrand::Rng| chance.usize(..3);
        Self {
            members: chance.usize(5..=7),
            views,
            weather: Weather {
                delay_max: millis(delays[pick(chance)]),
                jitter_max: millis(jitters[pick(chance)]),
                bytes_per_second: rates[pick(chance)],
                window_bytes: windows[pick(chance)],
            },
            timeouts,
            limits,
            pause: millis(chance.u64(30..=60)),
            faults: chance.u32(4..=14),
            stagger: millis([200, 1500, 4000][pick(chance)]),
            routers: false,
        }
    }
}
