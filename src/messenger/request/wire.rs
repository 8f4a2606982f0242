//! The messages of protocols 6 (requests) and 7 (replies).
//!
//! ```text
//! kind u8 · depth u8 · version u16 · type u32 · id u64 · content
//! Request 1, on 6    timeout u32 (ms from its arrival; 0xffff_ffff: no shorter than that), body (the rest)
//! Cancel 2, on 6     nothing
//! Reply 3, on 7      body (the rest)
//! Failure 4, on 7    code u16, text (the rest: UTF-8, at most 512 bytes)
//! ```
//!
//! All integers are little-endian. The id is the requester's, and never used twice by one member. What a kind does not
//! use of the head is 0. Depth: 0 outside of request handlers, one more inside each.

use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::limits::CLOSE_TEXT_BYTES_MAX;

const HEAD_BYTES: usize = 16;

const REQUEST: u8 = 1;
const CANCEL: u8 = 2;
const REPLY: u8 = 3;
const FAILURE: u8 = 4;

/// Bytes of a request's head: what it costs beside its body.
pub(super) const REQUEST_BYTES: usize = HEAD_BYTES + 4;

/// The name and version of a body's type, as they travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) hash: u32,
    pub(super) version: u16,
}

/// A message of one of the two protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Request { id: u64, depth: u8, of: Type, timeout: Duration, body: Bytes },
    Cancel { id: u64, depth: u8 },
    Reply { id: u64, of: Type, body: Bytes },
    Failure { id: u64, code: u16, text: String },
}

/// Why there is no reply. Codes that are not known here are read as [`Code::Handler`]: handled, perhaps, and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Code {
    /// No handler for the type, or not for this version of it. Not handled.
    NotUnderstood = 1,
    /// The handler said so, and what.
    Handler = 2,
    /// The handler panicked.
    Panicked = 3,
    /// The request's body does not decode. Not handled.
    Undecodable = 4,
    /// Too much waits for handlers already. Not handled.
    Busy = 5,
    /// Handled, but the reply cannot be encoded or is larger than either side allows.
    NoReply = 6,
}

impl Code {
    pub(super) const fn from_wire(raw: u16) -> Self {
        match raw {
            1 => Self::NotUnderstood,
            3 => Self::Panicked,
            4 => Self::Undecodable,
            5 => Self::Busy,
            6 => Self::NoReply,
            _ => Self::Handler,
        }
    }
}

/// Bytes that are no message of these protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a message of requests is cut short")]
    Short,
    #[error("a message of requests has the unknown kind {kind}")]
    Kind { kind: u8 },
}

/// The head of a request; its encoded body is to be appended.
pub(super) fn begin_request(id: u64, depth: u8, of: Type, timeout: Duration) -> Vec<u8> {
    let mut out = head(REQUEST, depth, of, id);
    // Rounded up, so that the other side never gives up first.
    let ms =
        timeout.as_millis().saturating_add(u128::from(!timeout.subsec_nanos().is_multiple_of(1_000_000)));
    out.extend_from_slice(&u32::try_from(ms).unwrap_or(u32::MAX).to_le_bytes());
    out
}

/// The head of a reply; its encoded body is to be appended.
pub(super) fn begin_reply(id: u64, of: Type) -> Vec<u8> {
    head(REPLY, 0, of, id)
}

pub(super) fn cancel(id: u64, depth: u8) -> Vec<u8> {
    head(CANCEL, depth, Type { hash: 0, version: 0 }, id)
}

/// `text` is cut to what a failure may say.
pub(super) fn failure(id: u64, code: Code, text: &str) -> Vec<u8> {
    let mut out = head(FAILURE, 0, Type { hash: 0, version: 0 }, id);
    out.extend_from_slice(&(code as u16).to_le_bytes());
    let end = text.floor_char_boundary(CLOSE_TEXT_BYTES_MAX);
    out.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
    out
}

fn head(kind: u8, depth: u8, of: Type, id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&[kind, depth]);
    out.extend_from_slice(&of.version.to_le_bytes());
    out.extend_from_slice(&of.hash.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    out
}

pub(super) fn decode(mut bytes: Bytes) -> Result<Message, MessageError> {
    let short = |_| MessageError::Short;
    let kind = bytes.try_get_u8().map_err(short)?;
    let depth = bytes.try_get_u8().map_err(short)?;
    let version = bytes.try_get_u16_le().map_err(short)?;
    let hash = bytes.try_get_u32_le().map_err(short)?;
    let id = bytes.try_get_u64_le().map_err(short)?;
    let of = Type { hash, version };
    Ok(match kind {
        REQUEST => {
            let ms = bytes.try_get_u32_le().map_err(short)?;
            let timeout = Duration::from_millis(ms.into());
            Message::Request { id, depth, of, timeout, body: bytes }
        }
        CANCEL => Message::Cancel { id, depth },
        REPLY => Message::Reply { id, of, body: bytes },
        FAILURE => {
            let code = bytes.try_get_u16_le().map_err(short)?;
            let text = bytes.get(..bytes.len().min(CLOSE_TEXT_BYTES_MAX)).unwrap_or_default();
            Message::Failure { id, code, text: String::from_utf8_lossy(text).into_owned() }
        }
        kind => return Err(MessageError::Kind { kind }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Type = Type { hash: 0xe40c_292c, version: 3 };

    fn bytes(encoded: Vec<u8>, body: &[u8]) -> Bytes {
        let mut encoded = encoded;
        encoded.extend_from_slice(body);
        encoded.into()
    }

    /// The bytes that docs/PROTOCOL.md shows.
    fn golden() -> Vec<(Bytes, &'static str, Message)> {
        let timeout = Duration::from_millis(1500);
        let body = Bytes::from_static(b"ab");
        vec![
            (
                bytes(begin_request(7, 1, OF, timeout), b"ab"),
                "01 01 0300 2c290ce4 0700000000000000 dc050000 6162",
                Message::Request { id: 7, depth: 1, of: OF, timeout, body: body.clone() },
            ),
            (
                cancel(7, 1).into(),
                "02 01 0000 00000000 0700000000000000",
                Message::Cancel { id: 7, depth: 1 },
            ),
            (
                bytes(begin_reply(7, OF), b"ab"),
                "03 00 0300 2c290ce4 0700000000000000 6162",
                Message::Reply { id: 7, of: OF, body },
            ),
            (
                failure(7, Code::Handler, "no").into(),
                "04 00 0000 00000000 0700000000000000 0200 6e6f",
                Message::Failure { id: 7, code: 2, text: "no".to_owned() },
            ),
        ]
    }

    #[test]
    fn the_messages_have_their_golden_bytes_and_come_back() {
        for (encoded, hex, message) in golden() {
            let expected: String = hex.split_whitespace().collect();
            let found: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected, "{message:?}");
            assert_eq!(decode(encoded), Ok(message));
        }
    }

    #[test]
    fn every_cut_of_a_head_is_refused_and_nothing_panics() {
        for (encoded, _, message) in golden() {
            let fixed = match message {
                Message::Request { .. } => REQUEST_BYTES,
                Message::Cancel { .. } | Message::Reply { .. } => HEAD_BYTES,
                Message::Failure { .. } => HEAD_BYTES + 2,
            };
            for end in 0..encoded.len() {
                assert_eq!(decode(encoded.slice(..end)).is_err(), end < fixed, "{end} of {message:?}");
            }
        }
        assert_eq!(decode(Bytes::from_static(&[9; 30])), Err(MessageError::Kind { kind: 9 }));
    }

    #[test]
    fn a_timeout_is_rounded_up_and_saturates() {
        let timeout = |timeout| match decode(begin_request(1, 0, OF, timeout).into()) {
            Ok(Message::Request { timeout, .. }) => timeout,
            other => panic!("{other:?}"),
        };
        assert_eq!(timeout(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(timeout(Duration::from_millis(2)), Duration::from_millis(2));
        assert_eq!(timeout(Duration::MAX), Duration::from_millis(u32::MAX.into()));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "ā".repeat(CLOSE_TEXT_BYTES_MAX);
        let Ok(Message::Failure { text, code, .. }) = decode(failure(1, Code::Panicked, &text).into()) else {
            panic!("a failure");
        };
        assert_eq!((text, code), ("ā".repeat(CLOSE_TEXT_BYTES_MAX / 2), 3));
    }
}
