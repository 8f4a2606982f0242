//! Two processes in virtual time: peers, links and connections that break. A claim a test; then lists of operations
//! at random.

mod cuts;
mod driver;
mod errors;
mod handshake;
mod leave;
mod links;
mod net;
mod pair;
mod random;
mod sessions;
mod side;
mod solo;
