//! Two processes in virtual time: peers, links and connections that break. A claim a test; then lists of operations
//! at random.

mod cuts;
mod datagrams;
mod driver;
mod errors;
mod handshake;
mod health;
mod idle;
mod leave;
mod links;
mod names;
mod net;
mod pair;
mod parts;
mod probes;
mod random;
mod random_views;
mod sessions;
mod side;
mod solo;
mod views;

/// What the tests need beyond the room's own imports.
mod prelude {
    pub(super) use crate::link::LinkEnd;
    pub(super) use crate::member::Endpoint;
    pub(super) use crate::session::{Handled, Reservation};
    pub(super) use crate::wire::first::Code;
    pub(super) use crate::wire::{FirstBytes, Frame, Hello, Reject};
}
