//! The node's side: follows the leader of the servers, keeps a copy of what the log decided, and drives the messenger by it.
//!
//! `core/` decides, without sockets, tasks or clocks; `shell` carries it out; `join` puts a whole node together.

mod api;
mod core;
mod join;
mod lease;
mod servers;
mod setup;
mod shell;
mod standing;

#[cfg(all(feature = "rendezvous", any(test, feature = "testing")))]
pub(super) use self::core::door;
pub use api::{NotRegistered, Rendezvous};
pub use join::{JoinBuilder, JoinError, Joined};
pub use lease::{Lease, LeaseError};
pub use servers::{PORT, ServerList};
pub use setup::{OnFrozen, RendezvousBuilder, SetupError};
pub use standing::Standing;
