//! The client against servers of a simulated cluster, in virtual time.

mod claims;
mod hostile;
mod leaderless;
mod leases;
mod random;
mod routes;
mod world;
