//! Worlds of a rendezvous: servers on disks that lose what was not synced, nodes with routers, all over the simulated network, and what
//! must hold of them whatever goes wrong: one leader speaks at a time, views only grow and are the same for all, what was
//! acknowledged is not lost, nobody who is well is evicted, and when nothing fails any more all agree.

mod acts;
#[cfg(test)]
mod failover;
mod fault;
mod node;
mod plan;
mod scale;
mod server;
mod watch;
mod world;

pub(super) use scale::measure;
pub use scale::{Cost, Scale};
pub use watch::Figures;
pub(super) use world::run;
