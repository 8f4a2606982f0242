//! One ordered log, kept by 1, 3 or 5 servers: openraft over the messenger, its votes and entries in redb. openraft is known in
//! this room and nowhere else; the rest of the house sees [`Log`] and [`Machine`].

mod machine;
mod store;
mod types;

pub(crate) use machine::{At, Machine};
