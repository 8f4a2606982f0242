//! Each fault does what it says, on real sockets: waits for conditions, with deadlines.

mod breaks;
mod harness;
mod limits;
mod plans;
mod slows;
