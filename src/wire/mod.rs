//! The wire: first bytes, frames and records, as docs/PROTOCOL.md specifies them. Bytes in, offsets and small
//! structs out; bodies are never copied here.
//!
//! Nothing in this room keeps state. Everything a peer can send is parsed through [`Reader`](field::Reader), which cannot panic.

mod code;
pub(crate) mod control;
mod field;
pub(crate) mod first;
pub(crate) mod frame;
pub(crate) mod record;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub(crate) use control::{StreamAck, TypeEntry};
pub(crate) use first::{FirstBytes, Hello, Reject, StreamResume};
pub(crate) use frame::{BodyCheck, Frame};

use std::fmt;

/// The position of a record in its stream, from 1; 0 is "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seq(pub(crate) u64);

impl Seq {
    pub(crate) const NONE: Self = Self(0);

    /// The one after.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one before; `NONE` stays.
    pub(crate) const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The number of a session in its process: strictly increasing, 0 is "unknown".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub(crate) u64);

impl Epoch {
    pub(crate) const UNKNOWN: Self = Self(0);
}

/// Strict priority between streams of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Overtakes everything queued in the other classes.
    Urgent,
    /// What is sent without saying more.
    #[default]
    Normal,
    /// Gives way to the others; a bound keeps it from starving.
    Bulk,
}

/// An independent ordered sequence in a session: protocol (12 bits), whether it is open to anyone (bit 3), class
/// (bits 0 and 1). Types open to anyone have streams of their own, so that admission never holds them up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u16);

impl StreamId {
    const OPEN: u16 = 0b1000;

    pub(crate) const fn new(protocol: Protocol, class: Class, open: bool) -> Self {
        let open = if open { Self::OPEN } else { 0 };
        Self((protocol.0 << 4) | open | class as u16)
    }

    /// Refuses class bits that no class has.
    pub(crate) fn from_wire(raw: u16) -> Result<Self, DecodeError> {
        if raw & 0b11 > Class::Bulk as u16 || raw & 0b100 != 0 {
            return Err(DecodeError::Stream { raw });
        }
        Ok(Self(raw))
    }

    pub(crate) const fn to_wire(self) -> u16 {
        self.0
    }

    pub(crate) const fn protocol(self) -> Protocol {
        Protocol(self.0 >> 4)
    }

    pub(crate) const fn class(self) -> Class {
        match self.0 & 0b11 {
            0 => Class::Urgent,
            1 => Class::Normal,
            _ => Class::Bulk,
        }
    }

    pub(crate) const fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.is_open() { "/open" } else { "" };
        write!(f, "{}/{:?}{open}", self.protocol().0, self.class())
    }
}

/// Which module a stream belongs to: 12 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Protocol(pub(crate) u16);

impl Protocol {
    /// The application's own messages.
    pub(crate) const APPLICATION: Self = Self(0);
    /// Byte streams.
    pub(crate) const BYTES: Self = Self(1);
    /// Requests, and what calls them off.
    pub(crate) const REQUESTS: Self = Self(6);
    /// Replies: streams of their own, so that they never wait behind requests.
    pub(crate) const REPLIES: Self = Self(7);
}

/// The versions this build speaks.
pub(crate) const VERSIONS: Versions = Versions { lowest: 1, highest: 1 };

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest that is understood.
    pub lowest: u16,
    /// The highest that is understood.
    pub highest: u16,
}

impl Versions {
    /// The version two sides speak: the lower of the maxima, if it is not below either minimum.
    pub(crate) fn agree(self, other: Self) -> Option<u16> {
        let version = self.highest.min(other.highest);
        (version >= self.lowest && version >= other.lowest).then_some(version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lowest, self.highest)
    }
}

/// CRC32C (Castagnoli; RFC 3720, appendix B.4).
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Bytes that are no karere. Each of these ends the connection they came from, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Not our protocol at all.
    #[error("not karere: the first bytes are {found:02x?}{}", looks_like(found))]
    Magic { found: [u8; 4] },
    /// No version that both speak.
    #[error("speaks versions {found}, this side {VERSIONS}")]
    Version { found: Versions },
    /// A length that no sender of ours writes.
    #[error("{what} of {bytes} bytes, at most {most} are allowed")]
    TooLong { what: &'static str, bytes: u64, most: u64 },
    /// The bytes end before the value does.
    #[error("{what} is cut short")]
    Short { what: &'static str },
    /// A checksum does not fit: bytes changed on the way.
    #[error("checksum of the {what} does not fit: {found:#010x}, computed {computed:#010x}")]
    Crc { what: &'static str, found: u32, computed: u32 },
    /// A value outside of its range.
    #[error("{what} has the impossible value {value}")]
    Value { what: &'static str, value: u64 },
    /// A field or flag that says it must be understood, and is not.
    #[error("{what} {value:#x} must be understood, and is not known here")]
    Critical { what: &'static str, value: u64 },
    /// A stream id with impossible bits.
    #[error("stream {raw:#06x} does not exist")]
    Stream { raw: u16 },
    /// A field that must be there is not.
    #[error("{what} is missing")]
    Missing { what: &'static str },
    /// Text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    Text { what: &'static str },
}

impl DecodeError {
    /// Whether what came looks like TLS: a handshake record.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Magic { found: [0x16, 0x03, ..] })
    }
}

fn looks_like(found: &[u8; 4]) -> &'static str {
    match found {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"CONN" | b"PRI " => " (an HTTP client?)",
        [0x16, 0x03, ..] => " (a TLS client? This process speaks without TLS)",
        [0x15, 0x03, ..] => " (a TLS server? This process speaks without TLS)",
        b"SSH-" => " (an SSH client?)",
        _ => "",
    }
}
