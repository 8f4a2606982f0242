//! How a value lies on the disk: a version byte, a CRC32C of what follows it, the body (postcard).
//!
//! redb verifies its pages when it opens a file, not when it reads one later; the checksum is for the years between.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Wrong;

/// Of each value. Another number is a newer release's.
const VERSION: u8 = 1;
/// Version and checksum.
const HEAD_BYTES: usize = 5;

pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
    record.push(VERSION);
    record.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

/// The body of what [`seal`] made.
pub(super) fn open<'a>(what: &str, record: &'a [u8]) -> Result<&'a [u8], Wrong> {
    let (head, body) = record
        .split_first_chunk::<HEAD_BYTES>()
        .ok_or_else(|| Wrong::bytes(format!("{what} is of {} bytes only", record.len())))?;
    let [version, checksum @ ..] = head;
    if *version != VERSION {
        return Err(Wrong::bytes(format!("{what} is of version {version}, this release reads {VERSION}")));
    }
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(body) {
        return Err(Wrong::bytes(format!("{what} does not match its checksum")));
    }
    Ok(body)
}

pub(super) fn encode<T: Serialize>(what: &str, value: &T) -> Result<Vec<u8>, Wrong> {
    let body = postcard::to_stdvec(value).map_err(|error| Wrong::bytes(format!("{what}: {error}")))?;
    Ok(seal(&body))
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, record: &[u8]) -> Result<T, Wrong> {
    let body = open(what, record)?;
    let (value, rest) = postcard::take_from_bytes(body)
        .map_err(|error| Wrong::bytes(format!("{what} cannot be read: {error}")))?;
    if rest.is_empty() { Ok(value) } else { Err(Wrong::bytes(format!("{what} has bytes behind its end"))) }
}
