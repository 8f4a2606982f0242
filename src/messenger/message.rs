//! What is sent: typed messages and raw bytes, under a name and a version that are stable on the wire.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::session::Body;
use crate::wire::{Class, Protocol, StreamId};

/// The name and version of a message type. On the wire the name is a 32-bit hash (FNV-1a); the names themselves are
/// exchanged when a link comes up, so that a collision is found and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    name: &'static str,
    hash: u32,
    version: u16,
    open: bool,
    protocol: Protocol,
}

impl Kind {
    /// A type for members of a view. `name` has 1 to 255 bytes; a wrong length fails at compile time in a `const`.
    #[must_use]
    pub const fn new(name: &'static str, version: u16) -> Self {
        assert!(!name.is_empty() && name.len() <= crate::limits::TYPE_NAME_BYTES_MAX, "1 to 255 bytes");
        Self { name, hash: fnv1a(name.as_bytes()), version, open: false, protocol: Protocol::APPLICATION }
    }

    /// Taken from anyone, member of a view or not: join requests, contacts, servers.
    #[must_use]
    pub const fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Of a protocol of its own: its messages travel in streams of their own, with an order, a credit and handlers apart
    /// from those of the application, so that neither ever waits for the other. Both ends must agree. 64 to 4095 are
    /// users'; 2 to 5 are those of karere's own modules. Another number fails at compile time in a `const`.
    ///
    /// A type's name is unique in a process over all protocols. Byte streams and [`Request`](crate::Request)s have
    /// protocols of their own already: for them this says nothing.
    #[must_use]
    pub const fn of_protocol(mut self, number: u16) -> Self {
        let known = number >= 2 && number <= 5 || number >= 64 && number < 4096;
        assert!(known, "64 to 4095, or that of a module");
        self.protocol = Protocol(number);
        self
    }

    /// The stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The version of the body.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// Whether it is taken from anyone.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// The number of its protocol; 0 is the application's. See [`Kind::of_protocol`].
    #[must_use]
    pub const fn protocol_number(&self) -> u16 {
        self.protocol.0
    }

    pub(crate) const fn stream(&self, class: Class) -> StreamId {
        StreamId::new(self.protocol, class, self.open)
    }

    pub(crate) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) const fn hash(&self) -> u32 {
        self.hash
    }
}

/// FNV-1a, 32 bits (Fowler, Noll, Vo; draft-eastlake-fnv).
const fn fnv1a(bytes: &[u8]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < bytes.len() {
        // In bounds by the loop's condition; iterators are not const.
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

/// A typed message. The body is encoded by serde in the postcard format; it does not evolve by itself, versions do.
///
/// ```
/// use karere::{Kind, Message};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct PlaceOrder { id: u64 }
/// impl Message for PlaceOrder {
///     const KIND: Kind = Kind::new("orders.place", 1);
/// }
/// ```
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// Name and version, stable on the wire.
    const KIND: Kind;
}

/// Bytes as they are, under a [`Kind`]. From 4 KiB on they are shared with every destination, never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    kind: Kind,
    bytes: Bytes,
}

impl Raw {
    /// A message of these bytes.
    #[must_use]
    pub const fn new(kind: Kind, bytes: Bytes) -> Self {
        Self { kind, bytes }
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its body.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its body.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// A message that cannot be encoded. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode a `{kind}`: {cause}")]
pub struct EncodeError {
    /// The type's name.
    pub kind: &'static str,
    /// What the encoder says.
    pub cause: String,
}

/// As [`Raw`], borrowed: for bytes that lie in a buffer which is used again. What is shorter than 4 KiB is copied once, to where it
/// waits, and nothing is allocated for it; what is longer costs a copy that [`Raw`] does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRef<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

impl<'a> RawRef<'a> {
    /// A message of these bytes.
    #[must_use]
    pub const fn new(kind: Kind, bytes: &'a [u8]) -> Self {
        Self { kind, bytes }
    }
}

/// What can be sent: every [`Message`], [`Raw`] and [`RawRef`].
pub trait Outgoing: sealed::Sealed {
    #[doc(hidden)]
    fn outgoing_kind(&self) -> Kind;

    #[doc(hidden)]
    fn encode_with<T>(&self, give: impl FnOnce(Encoded<'_>) -> T) -> Result<T, EncodeError>;
}

/// An encoded body, for as long as it is being sent.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Encoded<'a>(pub(crate) Body<'a>);

mod sealed {
    pub trait Sealed {}
    impl<M: super::Message> Sealed for M {}
    impl Sealed for super::Raw {}
    impl Sealed for super::RawRef<'_> {}
}

thread_local! {
    /// Bodies are encoded here before any lock is taken: no code of the user runs under a lock.
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is given back.
const SCRATCH_BYTES_MAX: usize = 1024 * 1024;

impl<M: Message> Outgoing for M {
    fn outgoing_kind(&self) -> Kind {
        M::KIND
    }

    #[inline(always)]
    fn encode_with<T>(&self, give: impl FnOnce(Encoded<'_>) -> T) -> Result<T, EncodeError> {
        // Taken out, so that a `Serialize` that sends something itself finds another one.
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let encoded = postcard::to_extend(self, scratch);
        let scratch =
            encoded.map_err(|error| EncodeError { kind: M::KIND.name, cause: error.to_string() })?;
        let given = give(Encoded(Body::Slice(&scratch)));
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(scratch);
        }
        Ok(given)
    }
}

impl Outgoing for Raw {
    fn outgoing_kind(&self) -> Kind {
        self.kind
    }

    #[inline(always)]
    fn encode_with<T>(&self, give: impl FnOnce(Encoded<'_>) -> T) -> Result<T, EncodeError> {
        Ok(give(Encoded(Body::Shared(&self.bytes))))
    }
}

impl Outgoing for RawRef<'_> {
    fn outgoing_kind(&self) -> Kind {
        self.kind
    }

    #[inline(always)]
    fn encode_with<T>(&self, give: impl FnOnce(Encoded<'_>) -> T) -> Result<T, EncodeError> {
        Ok(give(Encoded(Body::Slice(self.bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        // The vectors of the draft.
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
