//! Doors for the fuzzer into what messages carry: sans-IO parts of this room, which no other room sees. See `fuzzing`.

pub use super::bytes::door::byte_streams;
pub use super::request::door::requests;
