//! The messages of protocol 1.
//!
//! ```text
//! tag u8       the kind; bit 7: from the side that opened the stream
//! id u64       counted by the side that opened it
//! Open 1       window u64 (absolute limit of what the opener takes), name (the rest: UTF-8, at most 255 bytes)
//! Data 2       the bytes (the rest)
//! Window 3     limit u64 (absolute: bytes from the first one on; a lower one than before says nothing)
//! End 4        total u64 (bytes sent in this direction)
//! Abort 5      code u16, text (the rest: UTF-8, at most 512 bytes)
//! ```
//!
//! All integers are little-endian. The side that accepts a stream takes `BYTES_WINDOW` bytes before it has said
//! anything; that number is therefore a part of the protocol.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::CLOSE_TEXT_BYTES_MAX;

/// Bytes of a stream's name.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Bytes of an abort's text.
pub(super) const TEXT_BYTES_MAX: usize = CLOSE_TEXT_BYTES_MAX;

const HEAD_BYTES: usize = 1 + 8;
const FROM_OPENER: u8 = 0x80;

const OPEN: u8 = 1;
const DATA: u8 = 2;
const WINDOW: u8 = 3;
const END: u8 = 4;
const ABORT: u8 = 5;

/// Which stream, and from which of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) from_opener: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Open { window: u64, name: String },
    Data(Bytes),
    Window { limit: u64 },
    End { total: u64 },
    Abort { code: u16, text: String },
}

/// Why a stream is aborted, for programs; the text is for people. Unknown codes are read as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum AbortCode {
    /// Its end was dropped before it was finished.
    Dropped = 1,
    /// The application asked for it.
    Requested = 2,
    /// More streams than a session may have.
    TooMany = 3,
    /// The other side broke the rules.
    Fault = 4,
}

/// Bytes that are no message of this protocol. The stream they name, if any, is aborted; the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a message of byte streams is cut short")]
    Short,
    #[error("a message of byte streams has the unknown tag {tag}")]
    Tag { tag: u8 },
    #[error("a message of byte streams has {bytes} bytes too many")]
    Trailing { bytes: usize },
    #[error("the name of a byte stream has {bytes} bytes, at most {NAME_BYTES_MAX} are allowed")]
    NameTooLong { bytes: usize },
    #[error("the reason of an abort has {bytes} bytes, at most {TEXT_BYTES_MAX} are allowed")]
    TextTooLong { bytes: usize },
    #[error("the name of a byte stream, or the reason of its abort, is not UTF-8")]
    NotUtf8,
    #[error("a byte stream opened by the side that is to accept it")]
    NotOpener,
}

/// What could be told of bytes that do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) error: MessageError,
    /// The stream meant, if that much was there.
    pub(super) head: Option<Head>,
    /// It was to open a stream, so its sender waits for an answer.
    pub(super) opens: bool,
}

pub(super) fn encode(head: Head, content: &Content) -> Bytes {
    match content {
        Content::Open { window, name } => {
            let mut out = begin(OPEN, head, 8 + name.len());
            out.put_u64_le(*window);
            out.put_slice(cut(name, NAME_BYTES_MAX).as_bytes());
            out.freeze()
        }
        Content::Data(bytes) => encode_data(head, bytes),
        Content::Window { limit } => with_u64(WINDOW, head, *limit),
        Content::End { total } => with_u64(END, head, *total),
        Content::Abort { code, text } => {
            let mut out = begin(ABORT, head, 2 + text.len());
            out.put_u16_le(*code);
            out.put_slice(cut(text, TEXT_BYTES_MAX).as_bytes());
            out.freeze()
        }
    }
}

/// A data message straight from a writer's buffer.
pub(super) fn encode_data(head: Head, bytes: &[u8]) -> Bytes {
    let mut out = begin(DATA, head, bytes.len());
    out.put_slice(bytes);
    out.freeze()
}

fn begin(tag: u8, head: Head, content_bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + content_bytes);
    out.put_u8(if head.from_opener { tag | FROM_OPENER } else { tag });
    out.put_u64_le(head.id);
    out
}

fn with_u64(tag: u8, head: Head, value: u64) -> Bytes {
    let mut out = begin(tag, head, 8);
    out.put_u64_le(value);
    out.freeze()
}

/// The longest beginning of a text that fits, not cut inside a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Data shares the message's memory.
pub(super) fn decode(mut body: Bytes) -> Result<(Head, Content), Malformed> {
    let Some((&[tag, i0, i1, i2, i3, i4, i5, i6, i7], _)) = body.split_first_chunk::<HEAD_BYTES>() else {
        return Err(Malformed { error: MessageError::Short, head: None, opens: false });
    };
    body.advance(HEAD_BYTES);
    let id = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
    let head = Head { id, from_opener: tag & FROM_OPENER != 0 };
    let tag = tag & !FROM_OPENER;
    let opens = tag == OPEN && head.from_opener;
    let content = match decode_content(tag, body) {
        // Its id would be one of the other side's own, and the stream in the place of one that is opened there.
        Ok(Content::Open { .. }) if !opens => Err(MessageError::NotOpener),
        content => content,
    };
    content.map(|content| (head, content)).map_err(|error| Malformed { error, head: Some(head), opens })
}

fn decode_content(tag: u8, body: Bytes) -> Result<Content, MessageError> {
    match tag {
        OPEN => {
            let (window, name) = body.split_first_chunk::<8>().ok_or(MessageError::Short)?;
            if name.len() > NAME_BYTES_MAX {
                return Err(MessageError::NameTooLong { bytes: name.len() });
            }
            Ok(Content::Open { window: u64::from_le_bytes(*window), name: text(name)? })
        }
        DATA => Ok(Content::Data(body)),
        WINDOW => Ok(Content::Window { limit: only_u64(&body)? }),
        END => Ok(Content::End { total: only_u64(&body)? }),
        ABORT => {
            let (code, reason) = body.split_first_chunk::<2>().ok_or(MessageError::Short)?;
            if reason.len() > TEXT_BYTES_MAX {
                return Err(MessageError::TextTooLong { bytes: reason.len() });
            }
            Ok(Content::Abort { code: u16::from_le_bytes(*code), text: text(reason)? })
        }
        tag => Err(MessageError::Tag { tag }),
    }
}

fn only_u64(body: &[u8]) -> Result<u64, MessageError> {
    match body.split_first_chunk::<8>() {
        Some((value, [])) => Ok(u64::from_le_bytes(*value)),
        Some((_, rest)) => Err(MessageError::Trailing { bytes: rest.len() }),
        None => Err(MessageError::Short),
    }
}

fn text(bytes: &[u8]) -> Result<String, MessageError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| MessageError::NotUtf8)
}
