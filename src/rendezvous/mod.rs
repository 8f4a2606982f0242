//! Rendezvous: the one address a network needs (after kino). One ordered log decides who is in, what they handle and which view is
//! valid; the messengers of the network are driven by it; the network lives on without it.

#[cfg(feature = "rendezvous")]
#[allow(dead_code, unused_imports, reason = "the leader's desk, which calls it, is under way")]
mod judge;
#[cfg(feature = "rendezvous")]
mod raft;
#[cfg(feature = "rendezvous")]
mod server;
mod state;
mod words;

pub use state::{Token, Why};
pub use words::Health;
