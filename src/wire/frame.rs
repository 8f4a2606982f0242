//! Frames: what a connection carries after the first bytes.
//!
//! ```text
//! length u32 · kind u8 · flags u8 · stream u16 · first sequence u64 · count u32 · CRC32C u32 of the header
//! body (length bytes) · CRC32C u32 of the body (absent when the body is empty, and under TLS)
//! ```

use bytes::Bytes;

use super::control::{self, StreamAck, TypeEntry};
use super::field::Reader;
use super::first::Code;
use super::record::{self, RecordHeader};
use super::{DecodeError, Seq, StreamId, crc};
use crate::limits::{BATCH_RECORDS_MAX, CLOSE_TEXT_BYTES_MAX, DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX};
use crate::member::ViewId;

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 24;
/// Bytes of the checksum behind a body.
pub(crate) const BODY_CRC_BYTES: usize = 4;
/// Of the header, what its checksum covers.
const CHECKED_BYTES: usize = 20;
/// A kind with this bit must be understood; others that are unknown are passed over.
const CRITICAL: u8 = 0x80;

/// Whether bodies carry a checksum of ours. A process is all TLS or all plain, so this is the same on all its links, and a
/// batch that was sealed for one fits the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BodyCheck {
    /// CRC32C behind each body.
    #[default]
    Crc,
    /// None: TLS checks every byte already, and better.
    Absent,
}

impl BodyCheck {
    /// Bytes of the checksum behind a body that is not empty.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Crc => BODY_CRC_BYTES,
            Self::Absent => 0,
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Batch = 0x81,
    Datagram = 0x02,
    Ack = 0x83,
    Ping = 0x04,
    Pong = 0x05,
    Types = 0x86,
    Joined = 0x07,
    Goodbye = 0x88,
    Close = 0x89,
}

impl FrameKind {
    fn from_wire(raw: u8) -> Option<Self> {
        use FrameKind::{Ack, Batch, Close, Datagram, Goodbye, Joined, Ping, Pong, Types};
        [Batch, Datagram, Ack, Ping, Pong, Types, Joined, Goodbye, Close]
            .into_iter()
            .find(|kind| *kind as u8 == raw)
    }
}

/// The goodbye answers a goodbye.
pub(crate) const FLAG_CONFIRMED: u8 = 1;

/// A frame's header, decoded and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the body, checksum not counted.
    pub(crate) length: u32,
    /// `None`: unknown here, and allowed to be.
    pub(crate) kind: Option<FrameKind>,
    pub(crate) flags: u8,
    pub(crate) stream: u16,
    pub(crate) first: Seq,
    pub(crate) count: u32,
}

impl FrameHeader {
    pub(crate) const fn new(kind: FrameKind, length: u32) -> Self {
        Self { length, kind: Some(kind), flags: 0, stream: 0, first: Seq::NONE, count: 0 }
    }

    /// Body and checksum.
    pub(crate) const fn rest_bytes(&self, check: BodyCheck) -> usize {
        if self.length == 0 { 0 } else { self.length as usize + check.bytes() }
    }

    /// Checks the checksum before anything else is believed.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "frame header");
        let checked = reader.bytes(CHECKED_BYTES)?;
        let (found, computed) = (reader.u32()?, crc(checked));
        if found != computed {
            return Err(DecodeError::Crc { what: "frame header", found, computed });
        }
        let mut reader = Reader::new(checked, "frame header");
        let length = reader.u32()?;
        let raw = reader.u8()?;
        let header = Self {
            length,
            kind: FrameKind::from_wire(raw),
            flags: reader.u8()?,
            stream: reader.u16()?,
            first: Seq(reader.u64()?),
            count: reader.u32()?,
        };
        if length as usize > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLong {
                what: "frame",
                bytes: length.into(),
                most: FRAME_BYTES_MAX as u64,
            });
        }
        if header.kind.is_none() && raw & CRITICAL != 0 {
            return Err(DecodeError::Critical { what: "frame kind", value: raw.into() });
        }
        Ok(header)
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [s0, s1] = self.stream.to_le_bytes();
        let [f0, f1, f2, f3, f4, f5, f6, f7] = self.first.0.to_le_bytes();
        let [c0, c1, c2, c3] = self.count.to_le_bytes();
        let kind = self.kind.map_or(0, |kind| kind as u8);
        let checked: [u8; CHECKED_BYTES] =
            [l0, l1, l2, l3, kind, self.flags, s0, s1, f0, f1, f2, f3, f4, f5, f6, f7, c0, c1, c2, c3];
        let (head, tail) = out.split_at_mut(CHECKED_BYTES);
        head.copy_from_slice(&checked);
        tail.copy_from_slice(&crc(&checked).to_le_bytes());
        out
    }
}

/// Records of one stream, as they came in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) stream: StreamId,
    pub(crate) first: Seq,
    pub(crate) count: u32,
    pub(crate) records: Bytes,
}

/// One record that travels by itself, without a number: whether it is a whole message is the receiver's to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) stream: StreamId,
    pub(crate) record: Bytes,
}

/// A frame, decoded. Bodies of batches are slices of the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Batch(Batch),
    Datagram(Datagram),
    Ack(Vec<StreamAck>),
    /// The nonce, and how many milliseconds ago the sender last heard the receiver.
    Ping {
        nonce: u64,
        heard_millis: u32,
    },
    Pong {
        nonce: u64,
        heard_millis: u32,
    },
    Types(Vec<TypeEntry>),
    Joined(ViewId),
    Goodbye {
        last: Vec<(StreamId, Seq)>,
        confirmed: bool,
    },
    Close {
        code: Code,
        text: String,
    },
    /// A kind that this version does not know and need not.
    Unknown,
}

impl Frame {
    /// The frame of a header and its body, `rest` being the body and its checksum.
    pub(crate) fn decode(header: &FrameHeader, rest: Bytes, check: BodyCheck) -> Result<Self, DecodeError> {
        let body = checked_body(header, rest, check)?;
        let Some(kind) = header.kind else { return Ok(Self::Unknown) };
        let mut reader = Reader::new(&body, "frame body");
        let frame = match kind {
            FrameKind::Batch => {
                if header.count == 0 || header.count > BATCH_RECORDS_MAX {
                    return Err(DecodeError::Value {
                        what: "records in a batch",
                        value: header.count.into(),
                    });
                }
                if header.first == Seq::NONE {
                    return Err(DecodeError::Value { what: "first sequence", value: 0 });
                }
                let stream = StreamId::from_wire(header.stream)?;
                return Ok(Self::Batch(Batch {
                    stream,
                    first: header.first,
                    count: header.count,
                    records: body,
                }));
            }
            FrameKind::Datagram if body.len() > DATAGRAM_BYTES_MAX => {
                let (bytes, most) = (body.len() as u64, DATAGRAM_BYTES_MAX as u64);
                return Err(DecodeError::TooLong { what: "datagram", bytes, most });
            }
            FrameKind::Datagram => {
                let stream = StreamId::from_wire(header.stream)?;
                return Ok(Self::Datagram(Datagram { stream, record: body }));
            }
            FrameKind::Ack => Self::Ack(control::decode_acks(&mut reader)?),
            FrameKind::Ping => Self::Ping { nonce: reader.u64()?, heard_millis: reader.u32()? },
            FrameKind::Pong => Self::Pong { nonce: reader.u64()?, heard_millis: reader.u32()? },
            FrameKind::Types => Self::Types(control::decode_types(&mut reader)?),
            FrameKind::Joined => Self::Joined(ViewId { generation: reader.u64()?, number: reader.u64()? }),
            FrameKind::Goodbye => Self::Goodbye {
                last: control::decode_goodbye(&mut reader)?,
                confirmed: header.flags & FLAG_CONFIRMED != 0,
            },
            FrameKind::Close => {
                let code = Code::from_wire(reader.u16()?);
                let text = reader.text()?;
                let text = text.get(..text.floor_char_boundary(CLOSE_TEXT_BYTES_MAX)).unwrap_or(text);
                Self::Close { code, text: text.to_owned() }
            }
        };
        Ok(frame)
    }
}

fn checked_body(header: &FrameHeader, mut rest: Bytes, check: BodyCheck) -> Result<Bytes, DecodeError> {
    if header.length == 0 {
        return Ok(Bytes::new());
    }
    let length = header.length as usize;
    let short = DecodeError::Short { what: "frame body" };
    if rest.len() != header.rest_bytes(check) {
        return Err(short);
    }
    if check == BodyCheck::Absent {
        return Ok(rest);
    }
    let mut tail = Reader::new(rest.get(length..).ok_or(short)?, "frame body");
    let found = tail.u32()?;
    rest.truncate(length);
    let computed = crc(&rest);
    if found == computed { Ok(rest) } else { Err(DecodeError::Crc { what: "frame body", found, computed }) }
}

/// A whole frame with a checksum behind its body.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn encode_control(frame: &Frame) -> Bytes {
    encode(frame, BodyCheck::Crc)
}

/// A whole frame, ready to be written. Batches of the way out are sealed where they are.
pub(crate) fn encode(frame: &Frame, check: BodyCheck) -> Bytes {
    let mut body = Vec::new();
    let mut header = match frame {
        Frame::Ack(acks) => {
            control::encode_acks(&mut body, acks);
            FrameHeader { count: acks.len() as u32, ..FrameHeader::new(FrameKind::Ack, 0) }
        }
        Frame::Ping { nonce, heard_millis } | Frame::Pong { nonce, heard_millis } => {
            body.extend_from_slice(&nonce.to_le_bytes());
            body.extend_from_slice(&heard_millis.to_le_bytes());
            let ping = matches!(frame, Frame::Ping { .. });
            FrameHeader::new(if ping { FrameKind::Ping } else { FrameKind::Pong }, 0)
        }
        Frame::Types(types) => {
            control::encode_types(&mut body, types);
            FrameHeader { count: types.len() as u32, ..FrameHeader::new(FrameKind::Types, 0) }
        }
        Frame::Joined(view) => {
            body.extend_from_slice(&view.generation.to_le_bytes());
            body.extend_from_slice(&view.number.to_le_bytes());
            FrameHeader::new(FrameKind::Joined, 0)
        }
        Frame::Goodbye { last, confirmed } => {
            control::encode_goodbye(&mut body, last);
            let flags = if *confirmed { FLAG_CONFIRMED } else { 0 };
            FrameHeader { flags, count: last.len() as u32, ..FrameHeader::new(FrameKind::Goodbye, 0) }
        }
        Frame::Close { code, text } => {
            body.extend_from_slice(&code.to_wire().to_le_bytes());
            body.extend_from_slice(text.as_bytes());
            FrameHeader::new(FrameKind::Close, 0)
        }
        Frame::Datagram(Datagram { stream, record }) => {
            body.extend_from_slice(record);
            FrameHeader { stream: stream.to_wire(), ..FrameHeader::new(FrameKind::Datagram, 0) }
        }
        Frame::Batch(batch) => {
            body.extend_from_slice(&batch.records);
            FrameHeader {
                stream: batch.stream.to_wire(),
                first: batch.first,
                count: batch.count,
                ..FrameHeader::new(FrameKind::Batch, 0)
            }
        }
        Frame::Unknown => FrameHeader { kind: None, ..FrameHeader::new(FrameKind::Ping, 0) },
    };
    header.length = body.len() as u32;
    let mut out = Vec::with_capacity(HEADER_BYTES + header.rest_bytes(check));
    out.extend_from_slice(&header.encode());
    if !body.is_empty() {
        out.extend_from_slice(&body);
        if check == BodyCheck::Crc {
            out.extend_from_slice(&crc(&body).to_le_bytes());
        }
    }
    out.into()
}

/// The whole frame of a datagram: the same bytes for every recipient. `body` with its record header must not exceed
/// [`DATAGRAM_BYTES_MAX`].
pub(crate) fn encode_datagram(
    stream: StreamId,
    hash: u32,
    version: u16,
    body: &[u8],
    check: BodyCheck,
) -> Bytes {
    let record = RecordHeader { length: body.len() as u32, flags: record::WHOLE, version, hash };
    let length = record::HEADER_BYTES + body.len();
    debug_assert!(length <= DATAGRAM_BYTES_MAX);
    let header =
        FrameHeader { stream: stream.to_wire(), ..FrameHeader::new(FrameKind::Datagram, length as u32) };
    let mut out = Vec::with_capacity(HEADER_BYTES + header.rest_bytes(check));
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&record.encode());
    out.extend_from_slice(body);
    if check == BodyCheck::Crc {
        let sum = crc(out.get(HEADER_BYTES..).unwrap_or_default());
        out.extend_from_slice(&sum.to_le_bytes());
    }
    out.into()
}
