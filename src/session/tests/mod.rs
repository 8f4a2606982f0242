//! Two sessions face to face in virtual time: claims by example, and lists of operations at random.

mod acks;
mod classes;
mod conflation;
mod expiry;
mod flow;
mod order;
mod pair;
mod parts;
mod random;
mod refusals;
mod restart;
mod resume;
mod rooms;
pub(crate) mod side;
