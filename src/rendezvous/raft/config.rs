//! Times and places of a log, and how they hold together.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::SERVERS_MAX;

/// Between two signs of life of a leader.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);
/// A follower that hears nothing of its leader lets its lease of [`ELECTION_MAX`] pass, waits for a time between these two, and
/// stands for election. Several heartbeats may be lost, and a leader is replaced within some three quarters of a second.
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(160);
/// See [`ELECTION_MIN`].
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(260);
/// Parts of [`ELECTION_MAX`] by which the leader's lease is shorter than that of its followers: by so much clocks may differ.
const CLOCKS_DIFFER_BY: u32 = 10;
/// After this a proposer is told that nobody knows.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Commands between two snapshots, and how many of those that a snapshot holds are kept for servers that lag.
const SNAPSHOT_EVERY: u64 = 5_000;
const KEEP: u64 = 1_000;
/// The largest whole snapshot must get through in this, at 10 MB/s.
pub(super) const SNAPSHOT_TIME: Duration = Duration::from_secs(60);
/// An address, as it is kept in the log and told to others.
pub(super) const ADDRESS_BYTES_MAX: usize = 255 + 6;

const _: () = assert!(HEARTBEAT.as_millis() * 3 <= ELECTION_MIN.as_millis(), "two signs of life may be lost");
const _: () = assert!(
    ELECTION_MIN.as_millis() < ELECTION_MAX.as_millis(),
    "or two stand for election at once, for ever"
);
const _: () = assert!(KEEP < SNAPSHOT_EVERY);

/// How a server takes part.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// Where the others reach it.
    pub(crate) address: String,
    /// Where the others are; its own may be among them. Empty: it is alone.
    pub(crate) peers: Vec<String>,
    /// With an empty store it waits to be added, and founds nothing.
    pub(crate) join: bool,
    /// See [`HEARTBEAT`]. The way there and back and a write to disk fit into it.
    pub(crate) heartbeat: Duration,
    /// See [`ELECTION_MIN`].
    pub(crate) election_min: Duration,
    /// See [`ELECTION_MAX`]. The same on all servers: the leader's lease rests on it.
    pub(crate) election_max: Duration,
    /// See [`PATIENCE`].
    pub(crate) patience: Duration,
    /// Commands between two snapshots.
    pub(crate) snapshot_every: u64,
    /// Commands that a snapshot holds and are kept all the same.
    pub(crate) keep: u64,
}

impl LogConfig {
    /// With the default times.
    pub(crate) fn new(
        address: impl Into<String>,
        peers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            address: address.into(),
            peers: peers.into_iter().map(Into::into).collect(),
            join: false,
            heartbeat: HEARTBEAT,
            election_min: ELECTION_MIN,
            election_max: ELECTION_MAX,
            patience: PATIENCE,
            snapshot_every: SNAPSHOT_EVERY,
            keep: KEEP,
        }
    }

    /// For how long a majority's answers let a leader speak.
    pub(super) fn lease(&self) -> Duration {
        self.election_max - self.election_max / CLOCKS_DIFFER_BY
    }

    /// The others, each once.
    pub(super) fn others(&self) -> Vec<String> {
        let mut others: Vec<String> =
            self.peers.iter().filter(|peer| **peer != self.address).cloned().collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// What contradicts itself.
    pub(super) fn check(&self) -> Result<(), ConfigFault> {
        let long = |address: &&String| address.len() > ADDRESS_BYTES_MAX || address.is_empty();
        if let Some(address) = self.peers.iter().chain([&self.address]).find(long) {
            return Err(ConfigFault::Address { address: address.chars().take(64).collect() });
        }
        let servers = self.others().len() + 1;
        if servers > SERVERS_MAX {
            return Err(ConfigFault::Servers { servers });
        }
        if self.heartbeat.as_millis() == 0 || self.heartbeat * 3 > self.election_min {
            return Err(ConfigFault::Heartbeat {
                heartbeat: self.heartbeat,
                election_min: self.election_min,
            });
        }
        if self.election_min.as_millis() >= self.election_max.as_millis() {
            return Err(ConfigFault::Election { min: self.election_min, max: self.election_max });
        }
        if self.patience < self.election_max * 2 {
            return Err(ConfigFault::Patience { patience: self.patience, election_max: self.election_max });
        }
        Ok(())
    }

    /// For openraft, which counts in milliseconds. It elects nobody by itself: [`elections`](super::elections) does.
    pub(super) fn for_openraft(&self, name: String) -> Result<Config, String> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Config {
            cluster_name: name,
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: millis(SNAPSHOT_TIME),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep,
            replication_lag_threshold: self.snapshot_every.saturating_add(self.keep),
            enable_elect: false,
            ..Config::default()
        }
        .validate()
        .map_err(|why| why.to_string())
    }
}

/// What contradicts itself in a [`LogConfig`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigFault {
    /// Empty, or longer than a name with its port.
    #[error("`{address}` is no address of a server")]
    Address {
        /// Its beginning.
        address: String,
    },
    /// Too many.
    #[error("{servers} servers; at most {SERVERS_MAX}, and 3 or 5 are enough")]
    Servers {
        /// So many.
        servers: usize,
    },
    /// Two signs of life that are lost would cost the leader its place.
    #[error(
        "heartbeat of {heartbeat:?}: at least a millisecond, at most a third of the shortest election timeout, {election_min:?}"
    )]
    Heartbeat {
        /// What was given.
        heartbeat: Duration,
        /// What it is measured by.
        election_min: Duration,
    },
    /// Chance has no room.
    #[error("election timeouts from {min:?} to {max:?}: the second must be longer")]
    Election {
        /// From.
        min: Duration,
        /// To.
        max: Duration,
    },
    /// Proposers would be sent away while a leader is being elected.
    #[error("patience of {patience:?}: at least twice the longest election timeout, {election_max:?}")]
    Patience {
        /// What was given.
        patience: Duration,
        /// What it is measured by.
        election_max: Duration,
    },
}
