//! Records: one message or one chunk of a message, inside a batch.
//!
//! ```text
//! length u32 of what follows the header · flags u16 · version u16 · type u32
//! [extension length u16 · fields]   only with the flag EXTENDED
//! body
//! ```
//!
//! The layout does not depend on the negotiated version: records are encoded before the first hello.

use std::ops::Range;

use bytes::Bytes;

use super::DecodeError;
use super::field::{Reader, put_field};

/// Bytes of a record's header.
pub(crate) const HEADER_BYTES: usize = 12;

/// The first chunk of a message, or all of it.
pub(crate) const FIRST: u16 = 1;
/// The last chunk of a message, or all of it.
pub(crate) const LAST: u16 = 1 << 1;
/// Extension fields stand before the body.
pub(crate) const EXTENDED: u16 = 1 << 2;
/// The number was given, the content is gone (purged): nothing is delivered.
pub(crate) const VOID: u16 = 1 << 4;
/// A whole message in one record.
pub(crate) const WHOLE: u16 = FIRST | LAST;
/// Flags that must be understood by whoever reads them.
const CRITICAL: u16 = 0xff00;

/// Field: total bytes of a chunked message, on its first chunk.
const FIELD_TOTAL: u16 = 1;
/// A field whose type has this bit must be understood.
const FIELD_CRITICAL: u16 = 0x8000;
/// The extension of a first chunk: its own length, one field of eight bytes.
pub(crate) const TOTAL_EXTENSION_BYTES: usize = 2 + 4 + 8;

/// A record's header as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Bytes that follow the header.
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) version: u16,
    /// Hash of the type's name.
    pub(crate) hash: u32,
}

impl RecordHeader {
    #[inline]
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [f0, f1] = self.flags.to_le_bytes();
        let [v0, v1] = self.version.to_le_bytes();
        let [h0, h1, h2, h3] = self.hash.to_le_bytes();
        [l0, l1, l2, l3, f0, f1, v0, v1, h0, h1, h2, h3]
    }

    #[inline]
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let [l0, l1, l2, l3, f0, f1, v0, v1, h0, h1, h2, h3] = *bytes;
        let flags = u16::from_le_bytes([f0, f1]);
        if flags & CRITICAL != 0 {
            return Err(DecodeError::Critical { what: "record flags", value: flags.into() });
        }
        Ok(Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            flags,
            version: u16::from_le_bytes([v0, v1]),
            hash: u32::from_le_bytes([h0, h1, h2, h3]),
        })
    }

    pub(crate) const fn is(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }

    /// Header and what follows it: what credit counts.
    pub(crate) const fn wire_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.length as u64
    }
}

/// The extension of a first chunk.
pub(crate) fn total_extension(total: u64) -> [u8; TOTAL_EXTENSION_BYTES] {
    let mut fields = Vec::with_capacity(TOTAL_EXTENSION_BYTES);
    fields.extend_from_slice(&((TOTAL_EXTENSION_BYTES - 2) as u16).to_le_bytes());
    put_field(&mut fields, FIELD_TOTAL, &total.to_le_bytes());
    let mut out = [0; TOTAL_EXTENSION_BYTES];
    for (to, from) in out.iter_mut().zip(fields) {
        *to = from;
    }
    out
}

/// A record inside a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) header: RecordHeader,
    /// Total bytes of the message, on a first chunk.
    pub(crate) total: Option<u64>,
    /// The body, extension taken off.
    pub(crate) body: Bytes,
}

/// The header of the record at the start of `bytes`, after checking that all of it is there.
#[inline]
pub(crate) fn peek(bytes: &[u8]) -> Result<RecordHeader, DecodeError> {
    let short = || DecodeError::Short { what: "record" };
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    let header = RecordHeader::decode(header)?;
    if rest.len() < header.length as usize { Err(short()) } else { Ok(header) }
}

/// As [`peek`], and the extension fields as well: [`take`] will take it.
#[inline]
pub(crate) fn check(bytes: &[u8]) -> Result<RecordHeader, DecodeError> {
    let header = peek(bytes)?;
    if header.is(EXTENDED) {
        let end = HEADER_BYTES + header.length as usize;
        extension(bytes.get(HEADER_BYTES..end).unwrap_or_default())?;
    }
    Ok(header)
}

/// The record at the start of `bytes`: its header, and where its body is.
#[inline]
pub(crate) fn locate(bytes: &[u8]) -> Result<(RecordHeader, Range<usize>), DecodeError> {
    let header = peek(bytes)?;
    let end = HEADER_BYTES + header.length as usize;
    let mut start = HEADER_BYTES;
    if header.is(EXTENDED) {
        start += extension(bytes.get(HEADER_BYTES..end).unwrap_or_default())?.0;
    }
    Ok((header, start..end))
}

/// Takes the next record off a batch.
#[inline]
pub(crate) fn take(records: &mut Bytes) -> Result<Record, DecodeError> {
    let header = peek(records)?;
    let end = HEADER_BYTES + header.length as usize;
    let mut start = HEADER_BYTES;
    let mut total = None;
    if header.is(EXTENDED) {
        let (skip, found) = extension(records.get(HEADER_BYTES..end).unwrap_or_default())?;
        start += skip;
        total = found;
    }
    let body = records.slice(start..end);
    bytes::Buf::advance(records, end);
    Ok(Record { header, total, body })
}

/// Bytes of the extension, and the total it states.
fn extension(bytes: &[u8]) -> Result<(usize, Option<u64>), DecodeError> {
    let mut reader = Reader::new(bytes, "record extension");
    let length = usize::from(reader.u16()?);
    let mut fields = Reader::new(reader.bytes(length)?, "record extension");
    let mut total = None;
    while !fields.is_empty() {
        let (kind, value) = fields.field()?;
        let mut value = Reader::new(value, "record extension");
        if kind == FIELD_TOTAL {
            total = Some(value.u64()?);
            value.end()?;
        } else if kind & FIELD_CRITICAL != 0 {
            return Err(DecodeError::Critical { what: "record field", value: kind.into() });
        }
    }
    Ok((2 + length, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flags: u16, rest: &[u8]) -> Vec<u8> {
        let header = RecordHeader { length: rest.len() as u32, flags, version: 3, hash: 0xdead_beef };
        [&header.encode()[..], rest].concat()
    }

    #[test]
    fn the_total_of_a_first_chunk_comes_back() {
        let mut rest = total_extension(1 << 33).to_vec();
        rest.extend_from_slice(b"body");
        let mut batch = Bytes::from(record(FIRST | EXTENDED, &rest));
        let record = take(&mut batch).unwrap();
        assert_eq!((record.total, &record.body[..]), (Some(1 << 33), &b"body"[..]));
        assert!(batch.is_empty());
    }

    #[test]
    fn a_body_is_located_among_others() {
        let (plain, mut extended) = (record(WHOLE, b"body"), total_extension(9).to_vec());
        extended.extend_from_slice(b"tail");
        let extended = record(FIRST | EXTENDED, &extended);
        for (bytes, body) in [(&plain, b"body"), (&extended, b"tail")] {
            let (_, range) = locate(&[&bytes[..], &plain[..], &plain[..]].concat()).unwrap();
            assert_eq!((&bytes[range.clone()], range.end), (&body[..], bytes.len()));
        }
    }

    #[test]
    fn a_record_longer_than_its_batch_is_refused() {
        let mut bytes = record(WHOLE, b"body");
        bytes.pop();
        assert_eq!(take(&mut bytes.into()), Err(DecodeError::Short { what: "record" }));
    }

    #[test]
    fn an_unknown_flag_is_refused_only_when_it_must_be_understood() {
        assert!(take(&mut record(WHOLE | 1 << 6, b"").into()).is_ok());
        assert!(matches!(take(&mut record(WHOLE | 1 << 9, b"").into()), Err(DecodeError::Critical { .. })));
    }

    #[test]
    fn an_unknown_field_is_passed_over_and_a_critical_one_refused() {
        let with = |kind: u16| {
            let mut rest = 6u16.to_le_bytes().to_vec();
            put_field(&mut rest, kind, &[1, 2]);
            rest.extend_from_slice(b"tail");
            take(&mut record(WHOLE | EXTENDED, &rest).into())
        };
        assert_eq!(&with(7).unwrap().body[..], b"tail");
        assert!(matches!(with(0x8007), Err(DecodeError::Critical { .. })));
    }
}
