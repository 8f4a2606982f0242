//! How a request ends without a reply.

use crate::member::MemberId;
use crate::messenger::EncodeError;
use crate::session::{Cause, Lost};

/// Why a request has no reply. [`RequestError::may_have_been_handled`] says whether it is safe to ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no session with that member. Not handled.
    #[error("no session with {0}")]
    Absent(MemberId),
    /// Its queue has no room, or too many requests to it are under way (16,384). Not handled.
    #[error("the queue to {0} is full, or too many requests are under way")]
    Full(MemberId),
    /// The request cannot be encoded. Not handled.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It is larger than any message this messenger sends. Not handled.
    #[error("a `{kind}` of {bytes} bytes; at most {most} are sent (`Limits::message_bytes`)")]
    TooLarge {
        /// The type's name.
        kind: &'static str,
        /// Bytes of its body.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// Request handlers have called request handlers more than so many deep. Not handled.
    #[error("requests inside request handlers are {most} deep at most")]
    TooDeep {
        /// The bound.
        most: u8,
    },
    /// The messenger was closed, and by what. Not handled.
    #[error("the messenger is closed: {0}")]
    Closed(&'static str),
    /// It was never handed to a write, and why. Not handled.
    #[error("not sent: {0}")]
    NotSent(Cause),
    /// The session ended before the reply came; told at once. It may have been handled.
    #[error("indeterminate: {0}")]
    Indeterminate(Cause),
    /// The time was over. It may have been handled, unless it was not even taken in time.
    #[error("no reply in time")]
    Timeout,
    /// The member has no handler for it, or not for this version of it. Not handled.
    #[error("the member does not understand this request")]
    NotUnderstood,
    /// Too many requests wait for the member's handlers. Not handled.
    #[error("too many requests wait for the member's handlers")]
    Busy,
    /// The member cannot decode it. Not handled.
    #[error("the member cannot decode the request: {0}")]
    Undecodable(String),
    /// The handler ended with an error, and this is its text (cut after 512 bytes).
    #[error("{0}")]
    Handler(String),
    /// The handler panicked.
    #[error("the handler panicked")]
    Panicked,
    /// It was handled, but there is no reply that could be read: too large, not encodable there, not decodable here.
    #[error("handled, but the reply is lost: {0}")]
    ReplyUnusable(String),
}

impl RequestError {
    /// Whether the handler may have seen the request, as a whole or in part. If not, asking again asks once.
    #[must_use]
    pub const fn may_have_been_handled(&self) -> bool {
        match self {
            Self::Absent(_)
            | Self::Full(_)
            | Self::Encode(_)
            | Self::TooLarge { .. }
            | Self::TooDeep { .. }
            | Self::Closed(_)
            | Self::NotSent(_)
            | Self::NotUnderstood
            | Self::Busy
            | Self::Undecodable(_) => false,
            Self::Indeterminate(_)
            | Self::Timeout
            | Self::Handler(_)
            | Self::Panicked
            | Self::ReplyUnusable(_) => true,
        }
    }
}

impl From<Lost> for RequestError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::NotSent(Cause::NotUnderstood) => Self::NotUnderstood,
            Lost::NotSent(cause) => Self::NotSent(cause),
            Lost::Indeterminate(cause) => Self::Indeterminate(cause),
        }
    }
}
