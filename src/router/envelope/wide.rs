//! Ids of 128 bits in one piece: as numbers of variable length they would take up to 19 bytes, one at a time. And what is shared or
//! lies in place here, and travels as if it did not.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
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

pub(super) mod keys {
    use super::{Deserializer, InPlace, KeyId, Serialize, Serializer};
    use crate::router::envelope::Keys;

    pub(in super::super) fn serialize<S: Serializer>(keys: &Keys, to: S) -> Result<S::Ok, S::Error> {
        <[KeyId] as Serialize>::serialize(keys, to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Keys, D::Error> {
        from.deserialize_seq(InPlace)
    }
}

/// Keys, as many as came: each takes bytes of the message.
struct InPlace;

impl<'de> Visitor<'de> for InPlace {
    type Value = super::Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<super::Keys, A::Error> {
        let mut keys = super::Keys::new();
        while let Some(key) = seq.next_element()? {
            keys.push(key);
        }
        Ok(keys)
    }
}

pub(super) mod envelope {
    use std::sync::Arc;

    use super::{Deserialize, Deserializer, Serialize, Serializer};
    use crate::router::envelope::Envelope;

    pub(in super::super) fn serialize<S: Serializer>(
        envelope: &Arc<Envelope>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        Envelope::serialize(envelope, to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<Envelope>, D::Error> {
        Envelope::deserialize(from).map(Arc::new)
    }
}
