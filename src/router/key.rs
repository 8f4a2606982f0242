//! What a message is called in a network of actors: identity, version and partition. All three must match.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Kind, Message};

/// The longest partition, in bytes.
pub(crate) const PARTITION_BYTES_MAX: usize = 255;

/// Identity, version and partition of a message: what actors declare and messages are routed by.
///
/// Identity and version are those of the type's [`Kind`]; the partition tells actors apart that take the same type, and is
/// empty unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageKey {
    identity: Cow<'static, str>,
    version: u16,
    partition: Cow<'static, [u8]>,
}

impl MessageKey {
    /// The key of a type, in the empty partition.
    #[must_use]
    pub const fn of<M: Message>() -> Self {
        Self::of_kind(M::KIND)
    }

    /// The same for a kind.
    #[must_use]
    pub const fn of_kind(kind: Kind) -> Self {
        Self { identity: Cow::Borrowed(kind.name()), version: kind.version(), partition: Cow::Borrowed(&[]) }
    }

    /// The same in another partition, of at most 255 bytes: what is longer is cut.
    #[must_use]
    pub fn in_partition(mut self, partition: impl Into<Cow<'static, [u8]>>) -> Self {
        let partition = partition.into();
        self.partition = match partition.get(..PARTITION_BYTES_MAX) {
            Some(head) if partition.len() > PARTITION_BYTES_MAX => Cow::Owned(head.to_vec()),
            _ => partition,
        };
        self
    }

    /// The type's name.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The version of the body.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// Empty unless it was given.
    #[must_use]
    pub fn partition(&self) -> &[u8] {
        &self.partition
    }

    /// What stands for it on the wire and in tables.
    pub(crate) fn id(&self) -> KeyId {
        id(&self.identity, self.version, &self.partition)
    }

    /// What comes from another node and names nothing, or too much.
    pub(crate) fn is_sound(&self) -> bool {
        (1..=255).contains(&self.identity.len()) && self.partition.len() <= PARTITION_BYTES_MAX
    }
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.identity, self.version)?;
        if self.partition.is_empty() { Ok(()) } else { write!(f, "@{}", self.partition.escape_ascii()) }
    }
}

/// FNV-1a with 128 bits of a [`MessageKey`]: two keys that meet by chance are one in 2^64 tries; nodes refuse the second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(pub(crate) u128);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

const fn id(identity: &str, version: u16, partition: &[u8]) -> KeyId {
    // The length, so that an identity does not run into what follows.
    let start = fnv1a(OFFSET, &[identity.len() as u8]);
    let hash = fnv1a(start, identity.as_bytes());
    KeyId(fnv1a(fnv1a(hash, &version.to_le_bytes()), partition))
}

/// The id of a type in the empty partition, made by the compiler.
pub(crate) const fn id_of<M: Message>() -> KeyId {
    struct Of<M>(std::marker::PhantomData<M>);
    impl<M: Message> Of<M> {
        const ID: KeyId = id(M::KIND.name(), M::KIND.version(), &[]);
    }
    Of::<M>::ID
}

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

/// Fowler, Noll, Vo (draft-eastlake-fnv).
const fn fnv1a(mut hash: u128, bytes: &[u8]) -> u128 {
    let mut at = 0;
    while at < bytes.len() {
        // In bounds by the loop's condition; iterators are not const.
        hash = (hash ^ bytes[at] as u128).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_parts_tell_keys_apart_and_none_runs_into_the_next() {
        let key = |identity: &'static str, version, partition: &'static [u8]| {
            MessageKey::of_kind(Kind::new(identity, version)).in_partition(partition)
        };
        let all = [
            key("a", 1, b""),
            key("a", 2, b""),
            key("a", 1, b"p"),
            key("a\x01", 0, b""),
            key("a\x01\0", 1, b""),
            key("ab", 1, b""),
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                assert_ne!(one.id(), other.id(), "{one} and {other}");
            }
        }
        assert_eq!(key("a", 1, b"p").id(), key("a", 1, b"p").id());
        assert_eq!(key("orders.place", 3, b"\x01x").to_string(), "orders.place/3@\\x01x");
    }

    #[test]
    fn the_hash_is_fnv1a() {
        // The vector of the draft for 128 bits.
        assert_eq!(fnv1a(OFFSET, b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a(fnv1a(OFFSET, b"foo"), b"bar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
