//! Bodies of the control frames that are lists: acknowledgements, types, goodbyes.

use super::field::Reader;
use super::{DecodeError, Protocol, Seq, StreamId};
use crate::limits::{STREAMS_MAX, TYPE_NAME_BYTES_MAX, TYPES_MAX};

/// The two cumulative cursors of a stream and how far its sender may go on. Absolute: repeats are harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamAck {
    pub(crate) stream: StreamId,
    /// In the receiver's memory.
    pub(crate) accepted: Seq,
    /// Its handler is done with it.
    pub(crate) handled: Seq,
    /// Absolute offset in record bytes.
    pub(crate) credit: u64,
}

/// A message type that a member understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeEntry {
    pub(crate) protocol: Protocol,
    /// Hash of the name; see [`Kind`](crate::Kind).
    pub(crate) hash: u32,
    /// The highest version that is understood.
    pub(crate) version: u16,
    /// Taken from anyone, member of a view or not.
    pub(crate) open: bool,
    /// Stands for every type of its protocol: there is a fallback handler.
    pub(crate) any: bool,
    pub(crate) name: String,
}

const OPEN: u8 = 1;
const ANY: u8 = 2;

pub(super) fn encode_acks(out: &mut Vec<u8>, acks: &[StreamAck]) {
    for ack in acks {
        out.extend_from_slice(&ack.stream.to_wire().to_le_bytes());
        out.extend_from_slice(&ack.accepted.0.to_le_bytes());
        out.extend_from_slice(&ack.handled.0.to_le_bytes());
        out.extend_from_slice(&ack.credit.to_le_bytes());
    }
}

pub(super) fn decode_acks(reader: &mut Reader<'_>) -> Result<Vec<StreamAck>, DecodeError> {
    let mut acks = Vec::new();
    while !reader.is_empty() {
        let stream = StreamId::from_wire(reader.u16()?)?;
        let (accepted, handled) = (Seq(reader.u64()?), Seq(reader.u64()?));
        if handled > accepted {
            return Err(DecodeError::Value { what: "handled cursor", value: handled.0 });
        }
        acks.push(StreamAck { stream, accepted, handled, credit: reader.u64()? });
        bound("acknowledged streams", acks.len(), STREAMS_MAX)?;
    }
    Ok(acks)
}

pub(super) fn encode_types(out: &mut Vec<u8>, types: &[TypeEntry]) {
    for entry in types.iter().take(TYPES_MAX) {
        let name = entry.name.as_bytes();
        let name = name.get(..TYPE_NAME_BYTES_MAX).unwrap_or(name);
        let flags = if entry.open { OPEN } else { 0 } | if entry.any { ANY } else { 0 };
        out.extend_from_slice(&entry.protocol.0.to_le_bytes());
        out.extend_from_slice(&entry.hash.to_le_bytes());
        out.extend_from_slice(&entry.version.to_le_bytes());
        out.push(flags);
        out.push(name.len() as u8);
        out.extend_from_slice(name);
    }
}

pub(super) fn decode_types(reader: &mut Reader<'_>) -> Result<Vec<TypeEntry>, DecodeError> {
    let mut types = Vec::new();
    while !reader.is_empty() {
        let protocol = Protocol(reader.u16()?);
        let (hash, version, flags) = (reader.u32()?, reader.u16()?, reader.u8()?);
        let name_bytes = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.bytes(name_bytes)?)
            .map_err(|_| DecodeError::Text { what: "type name" })?
            .to_owned();
        types.push(TypeEntry {
            protocol,
            hash,
            version,
            open: flags & OPEN != 0,
            any: flags & ANY != 0,
            name,
        });
        bound("types", types.len(), TYPES_MAX)?;
    }
    Ok(types)
}

pub(super) fn encode_goodbye(out: &mut Vec<u8>, last: &[(StreamId, Seq)]) {
    for (stream, seq) in last {
        out.extend_from_slice(&stream.to_wire().to_le_bytes());
        out.extend_from_slice(&seq.0.to_le_bytes());
    }
}

pub(super) fn decode_goodbye(reader: &mut Reader<'_>) -> Result<Vec<(StreamId, Seq)>, DecodeError> {
    let mut last = Vec::new();
    while !reader.is_empty() {
        last.push((StreamId::from_wire(reader.u16()?)?, Seq(reader.u64()?)));
        bound("streams of a goodbye", last.len(), STREAMS_MAX)?;
    }
    Ok(last)
}

fn bound(what: &'static str, count: usize, most: usize) -> Result<(), DecodeError> {
    if count <= most {
        Ok(())
    } else {
        Err(DecodeError::TooLong { what, bytes: count as u64, most: most as u64 })
    }
}
