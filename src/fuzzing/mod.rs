//! Doors for the fuzzer into the sans-IO rooms, and into what messages carry. Any bytes may be given to any of them; what
//! does not hold panics.
//!
//! Not a part of the API: no stability is promised. The targets are in `fuzz/`; `cargo test` runs the doors over the
//! seeds there and over bytes of chance.

mod exchange;
pub mod model;
mod peer;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub use crate::messenger::doors::{byte_streams, requests};
pub use exchange::exchange;
pub use peer::peer_pair;
pub use session::session_ops;
pub use wire::{frames, hello, records};

/// Cores of routers that talk to each other in their real bytes, and strangers who say anything.
pub fn router(input: &[u8]) {
    crate::router::door::router(std::time::Instant::now(), input);
}

/// What nodes, servers and tools of a rendezvous say to each other, and what lies on servers' disks.
#[cfg(feature = "rendezvous")]
pub fn rendezvous_words(input: &[u8]) {
    crate::rendezvous::door::words(input);
}

/// What the log of a rendezvous decides, by any commands.
#[cfg(feature = "rendezvous")]
pub fn rendezvous_state(input: &[u8]) {
    crate::rendezvous::door::decided(input);
}

/// A node of a rendezvous whose servers say anything.
#[cfg(feature = "rendezvous")]
pub fn rendezvous_client(input: &[u8]) {
    crate::rendezvous::door::follower(std::time::Instant::now(), input);
}

/// A leader of a rendezvous whose nodes say anything.
#[cfg(feature = "rendezvous")]
pub fn rendezvous_desk(input: &[u8]) {
    crate::rendezvous::door::leader(std::time::Instant::now(), input);
}

/// Takes small decisions out of the fuzzer's bytes; zeros when they are over.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Small numbers mostly, because only they come near what is expected; now and then the extremes.
    fn number(&mut self) -> u64 {
        match self.u8() {
            near @ 0..=0xf0 => near.into(),
            0xf1..=0xfa => self.u16().into(),
            0xfb..=0xfd => u64::from(self.u16()) << 32,
            _ => u64::MAX - u64::from(self.u8()),
        }
    }

    /// At most so many of the bytes that are left.
    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
