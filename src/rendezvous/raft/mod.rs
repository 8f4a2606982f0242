//! One ordered log, kept by 1, 3 or 5 servers: openraft over the messenger, its votes and entries in redb. openraft is known in
//! this room and nowhere else; the rest of the house sees [`Log`] and [`Machine`].
//!
//! Rooms: [`log`] what the house holds, [`open`] how it begins, [`change`] servers come and go. [`founding`] the first of all, decided
//! without IO; [`lease`] when a leader may speak, without IO; [`elections`] when a follower stands for election; [`watch`] what
//! openraft tells, as a [`Standing`]. [`wire`] what servers say to each other, and what is believed of it; [`house`] what the tasks of
//! a log share; [`peers`] who is at the others' addresses; [`asking`] questions under way; [`network`] openraft's way out;
//! [`serving`] the way in; [`ship`] snapshots as byte streams. [`tasks`] the runtime openraft is given. [`store`] the disk.
//!
//! openraft is told to have one leader a term (`single-term-leader`): without it two leaders, one after the other, may share a term,
//! and a term would fence nobody.

mod asking;
mod change;
mod config;
#[cfg(any(test, feature = "testing"))]
pub(super) mod door;
mod elections;
mod founding;
mod house;
mod lease;
mod log;
mod machine;
mod network;
mod open;
mod peers;
mod serving;
mod ship;
mod standing;
mod store;
mod tasks;
#[cfg(test)]
mod tests;
mod types;
mod watch;
mod wire;

pub(crate) use change::ChangeError;
pub(crate) use config::LogConfig;
pub(crate) use log::{Log, ProposeError};
pub(crate) use machine::{At, Machine};
pub(crate) use open::OpenError;
pub(crate) use standing::Standing;
pub(crate) use store::{
    Alone, Disk, Identity, Names, SnapshotFile, Store, StoreError, copy, recover, restore, survey,
};
pub(crate) use types::Server as Place;

/// Servers of one cluster, learners counted: more than five only make a majority slower.
const SERVERS_MAX: usize = 15;
