//! Ids of 128 bits in one piece: as numbers of variable length they would take up to 19 bytes, one at a time.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::key::KeyId;

/// 16 bytes, borrowed from where they came.
struct Wide;

impl Visitor<'_> for Wide {
    type Value = [u8; 16];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<[u8; 16], E> {
        bytes.try_into().map_err(|_other| E::invalid_length(bytes.len(), &self))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0.to_be_bytes())
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(Wide).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

pub(super) mod member {
    use super::{Deserializer, Serializer, Wide};
    use crate::MemberId;

    pub(in super::super) fn serialize<S: Serializer>(id: &MemberId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&id.to_bytes())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MemberId, D::Error> {
        from.deserialize_bytes(Wide).map(MemberId::from_bytes)
    }
}
