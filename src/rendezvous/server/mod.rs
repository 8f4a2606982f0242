//! The rendezvous server: one of the 1, 3 or 5 that keep the log. Every one of them answers; what the leader does is decided in `desk/`,
//! sans-IO, and carried out by [`run`].

mod admins;
mod askers;
mod builder;
mod data;
mod desk;
mod handle;
mod listen;
mod machine;
mod office;
mod offline;
mod run;
mod standing;
#[cfg(test)]
mod tests;
mod times;
mod tools;

#[cfg(any(test, feature = "testing"))]
pub(super) use self::desk::door;
pub use builder::{ServerBuilder, ServerError};
pub use handle::Server;
pub use offline::OnlyServer;
pub use standing::ServerStanding;
pub use times::{ServerTimes, TimesError};
