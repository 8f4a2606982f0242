//! The core alone, and several of them, in virtual time.

mod behaviours;
mod found;
mod hostile;
mod lanes;
mod net;
mod tables;
mod worlds;
