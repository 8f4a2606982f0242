//! Rendezvous: the one address a network needs (after kino). One ordered log decides who is in, what they handle and which view is
//! valid; the messengers of the network are driven by it; the network lives on without it.

mod admin;
mod client;
mod common;
mod damp;
#[cfg(all(feature = "rendezvous", any(test, feature = "testing")))]
pub(crate) mod door;
#[cfg(feature = "rendezvous")]
mod judge;
#[cfg(feature = "rendezvous")]
mod raft;
#[cfg(feature = "rendezvous")]
mod server;
#[cfg(any(test, feature = "rendezvous"))]
mod state;
mod words;

pub use admin::{Admin, AdminError, Members, Routing, ServerSeen, Servers};
pub use client::{
    JoinBuilder, JoinError, Joined, Lease, LeaseError, NotRegistered, OnFrozen, PORT, Rendezvous,
    RendezvousBuilder, ServerList, SetupError, Standing,
};
pub use common::{Token, Why};
#[cfg(feature = "rendezvous")]
pub use server::{OnlyServer, Server, ServerBuilder, ServerError, ServerStanding, ServerTimes, TimesError};
pub use words::Health;

/// What the simulation sees beside what users do.
#[cfg(all(feature = "rendezvous", feature = "testing"))]
pub(crate) mod doors {
    pub(crate) use super::raft::Disk;
    pub(crate) use super::state::{Change, ClusterId, State};
    pub(crate) use super::words::{Ask, Told};
}
