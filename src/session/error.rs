//! What a peer may do wrong on a link.

use crate::wire::{DecodeError, Seq, StreamId};

/// The peer misbehaved, or bytes changed on the way. The link closes with a code; the session survives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// Acknowledged what was never written.
    #[error("acknowledged record {} of {} written", acked.0, sent.0)]
    AckBeyondSent { acked: Seq, sent: Seq },
    /// A record is missing: on one link that cannot be.
    #[error("record {} of stream {stream:?} came, {} was expected", found.0, expected.0)]
    Gap { stream: StreamId, found: Seq, expected: Seq },
    /// More was sent than was granted.
    #[error("stream {stream:?}: {offset} record bytes, {credit} were granted")]
    BeyondCredit { stream: StreamId, offset: u64, credit: u64 },
    /// A batch does not hold what its header says.
    #[error("stream {stream:?}: a batch of {count} records does not hold them")]
    Count { stream: StreamId, count: u32 },
    /// Chunks that do not make a message.
    #[error("stream {stream:?}: {what}")]
    Chunks { stream: StreamId, what: &'static str },
    /// A message larger than this side takes.
    #[error("stream {stream:?}: a message of {bytes} bytes, at most {most} are taken")]
    MessageTooLarge { stream: StreamId, bytes: u64, most: u64 },
    /// More streams or protocols than this side keeps.
    #[error("more than {most} streams in one session")]
    TooManyStreams { most: usize },
    /// A goodbye that comes before what it closes.
    #[error("goodbye at record {} of stream {stream:?}, {} came", last.0, accepted.0)]
    EarlyGoodbye { stream: StreamId, last: Seq, accepted: Seq },
    /// A batch came before the frame that says what its sender understands.
    #[error("a batch came before the types")]
    BatchBeforeTypes,
    /// A type for members only, from one who has never joined.
    #[error("stream {stream:?} is for members of a view, and its sender has joined none")]
    NotAdmitted { stream: StreamId },
    /// More was sent before a view includes the sender than is held of one peer, or of all.
    #[error("too much came before a view includes its sender")]
    QuarantineFull,
    /// The bytes are no frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl ProtocolError {
    /// Whether the network, not the peer, is the likely cause.
    pub(crate) const fn is_corruption(&self) -> bool {
        matches!(self, Self::Decode(DecodeError::Crc { .. }))
    }
}
