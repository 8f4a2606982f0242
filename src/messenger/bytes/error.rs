//! What ends a byte stream early, and why one is not opened.

use std::io;

use super::state::Fault;
use crate::session::Cause;

/// Why a byte stream ended early.
///
/// It is the inner error of every [`std::io::Error`] that a [`ByteStream`](super::ByteStream) returns:
/// `error.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>())`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer aborted it, dropped it unfinished, or refused it. Both directions are over; the session goes on.
    /// [`io::ErrorKind::ConnectionAborted`].
    #[error("the peer aborted the byte stream: {reason}")]
    Aborted {
        /// The peer's text, at most 512 bytes.
        reason: String,
    },
    /// The session it belonged to is over. How much of what was written has arrived is not known.
    /// [`io::ErrorKind::ConnectionReset`].
    #[error("the byte stream's session is over: {0}")]
    SessionLost(Cause),
    /// The peer broke the rules of the protocol: the stream was aborted on this side, the peer is told, the session
    /// goes on. [`io::ErrorKind::InvalidData`].
    #[error("the byte stream was aborted, the peer misbehaved: {reason}")]
    Misbehaved {
        /// What it did.
        reason: String,
    },
    /// Written after `shutdown`. Nothing changes. [`io::ErrorKind::BrokenPipe`].
    #[error("written to a byte stream after its shutdown")]
    Ended,
}

impl StreamError {
    const fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Aborted { .. } => io::ErrorKind::ConnectionAborted,
            Self::SessionLost(_) => io::ErrorKind::ConnectionReset,
            Self::Misbehaved { .. } => io::ErrorKind::InvalidData,
            Self::Ended => io::ErrorKind::BrokenPipe,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<&Fault> for StreamError {
    fn from(fault: &Fault) -> Self {
        Self::Misbehaved { reason: fault.to_string() }
    }
}

/// Why a byte stream was not opened. The peer knows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no session with the member.
    #[error("no session with that member; make a contact first")]
    Absent,
    /// The session has as many byte streams as it may have: drop one first.
    #[error("{most} byte streams are open already, with this peer")]
    TooMany {
        /// What one session allows.
        most: usize,
    },
    /// The name is too long.
    #[error("a byte stream's name of {bytes} bytes, at most {most} are allowed")]
    NameTooLong {
        /// Length of the name given.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// The queue to the peer is full: try again later.
    #[error("the queue to the peer is full")]
    Full,
    /// There is no session, and none will come.
    #[error("not opened: {0}")]
    Closed(Cause),
}
