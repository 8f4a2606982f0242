//! What can go wrong, and the plan that says what does. No sockets and no clock here.

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;

/// Live and silent connections a proxy holds unless its plan says otherwise: two sockets each, so 2,048
/// descriptors at most.
const CONNECTIONS_MAX: usize = 1024;
/// Events a slow listener may lag behind unless the plan says otherwise.
const EVENTS_LEN: usize = 1024;

/// One direction of a connection, named as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

impl Direction {
    /// The other direction.
    pub fn reverse(self) -> Direction {
        match self {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }
}

/// How a cut closes both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// An end of file: all bytes up to the cut arrive first.
    Fin,
    /// A reset, when the kernel has sent all bytes up to the cut; or after 2 s, if the receiver does not read
    /// them, and then they are lost with it.
    Rst,
}

/// A rate limit, for each connection and each direction on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bytes a second; 0 counts as 1.
    pub bytes_per_second: u64,
    /// Bytes held in the proxy beside those that a delay keeps on their way, and asked for as `SO_RCVBUF` and
    /// `SO_SNDBUF` of its sockets, before they listen or connect (the kernel doubles that and has a floor of some
    /// 2 to 5 KiB).
    pub buffer_bytes: u32,
}

impl Rate {
    /// With the values as they are used.
    pub(super) fn normal(self) -> Rate {
        Rate { bytes_per_second: self.bytes_per_second.max(1), ..self }
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// Both sides get a reset (`SO_LINGER` 0).
    Reset,
    /// The connection closes when exactly `after_bytes` more bytes were forwarded in `direction`.
    Cut {
        /// The direction whose bytes are counted.
        direction: Direction,
        /// Bytes still forwarded, counted from when the fault is armed; the start for a scheduled cut.
        after_bytes: u64,
        /// End of file or reset, for both sides.
        ending: Ending,
    },
    /// One bit of one forwarded byte is inverted; the connection goes on.
    Flip {
        /// The direction the byte travels in.
        direction: Direction,
        /// Bytes forwarded untouched before it, counted from when the fault is armed; in an event, from the
        /// start of the connection.
        after_bytes: u64,
        /// Which bit, 0 (lowest) to 7; taken modulo 8.
        bit: u8,
    },
    /// A black hole: nothing is forwarded any more in either direction, and nothing closes, not even when one
    /// side does, until the proxy stops.
    Silence {
        /// Read and drop what arrives, instead of leaving it in the kernel until its buffers are full.
        drain: bool,
    },
    /// One direction falls silent for ever; the other goes on.
    OneWay {
        /// The direction that falls silent.
        silent: Direction,
        /// As in [`Fault::Silence`], for the silent direction.
        drain: bool,
    },
    /// Every byte arrives that much later, in order. 128 KiB a direction are held, so that the throughput
    /// falls to 128 KiB a delay; at most one hour. 0 lifts it.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// A rate limit and small buffers, as [`Rate`].
    Rate {
        /// Bytes a second; 0 counts as 1.
        bytes_per_second: u64,
        /// As [`Rate::buffer_bytes`].
        buffer_bytes: u32,
    },
    /// New connections are accepted and reset at once; those that exist are left alone.
    Refuse {
        /// Milliseconds from now; 0 ends a refusal.
        ms: u64,
    },
}

/// A fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// Milliseconds since the proxy started.
    pub at_ms: u64,
    /// What goes wrong then.
    pub fault: Fault,
    /// How long a [`Fault::Delay`] or [`Fault::Rate`] holds; for ever without. No meaning for the others.
    #[serde(default)]
    pub lasts_ms: Option<u64>,
}

/// Which connections a timed fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hits {
    /// All that are not silent already.
    #[default]
    All,
    /// One of them, drawn from the seed.
    One,
}

/// What happens to the connections of one proxy.
///
/// The same plan draws the same episodes at the same times, and the same cuts and flips for the connection of
/// the same number; only what the kernel and the peers make of it differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Every draw comes from it.
    pub seed: u64,
    /// What happens again and again.
    pub schedule: Schedule,
    /// What happens once, at a given time, in any order.
    pub episodes: Vec<Episode>,
    /// Which connections the timed faults hit.
    pub hits: Hits,
    /// Whether scheduled silences and one-ways read and drop what arrives.
    pub drain: bool,
    /// Milliseconds of delay from the start on.
    pub delay_ms: Option<u64>,
    /// Rate limit from the start on.
    pub rate: Option<Rate>,
    /// Live and silent connections together. Beyond it the oldest silent one is dropped, or if none is silent
    /// the new one reset.
    pub connections_max: usize,
    /// Events kept for a slow listener before the oldest are dropped.
    pub events_len: usize,
}

impl Plan {
    /// A plan that follows a schedule.
    pub fn new(seed: u64, schedule: Schedule) -> Plan {
        Plan { seed, schedule, ..Plan::default() }
    }
}

impl Default for Plan {
    /// Nothing goes wrong.
    fn default() -> Plan {
        Plan {
            seed: 0,
            schedule: Schedule::default(),
            episodes: Vec::new(),
            hits: Hits::All,
            drain: false,
            delay_ms: None,
            rate: None,
            connections_max: CONNECTIONS_MAX,
            events_len: EVENTS_LEN,
        }
    }
}

/// A generator for one use of the plan's seed, so that no two uses disturb each other.
///
/// The mix is splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(super) fn draws(seed: u64, stream: u64, index: u64) -> fastrand::Rng {
    let mixed = [stream, index].iter().fold(seed, |state, word| splitmix(state ^ splitmix(*word)));
    fastrand::Rng::with_seed(mixed)
}

fn splitmix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
