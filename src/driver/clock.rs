//! The only clock of the library, and the only source of chance.

use std::time::{Duration, Instant, SystemTime};

/// Now. The runtime's clock, so that tests may stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since the Unix epoch, for ids only: nothing is ever decided by it.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Time since the Unix epoch, to look whether the own certificate has expired.
#[cfg(feature = "tls")]
pub(crate) fn since_unix() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// Chance, for ids and seeds.
pub(crate) fn random() -> u128 {
    fastrand::u128(..)
}

/// A seed for a state machine.
pub(crate) fn seed() -> u64 {
    fastrand::u64(..)
}
