//! How flows fail.

use super::core::Refused;
use super::envelope::Failure;
use super::key::MessageKey;
use crate::{EncodeError, MemberId};

/// Why a message, or its answer, did not come. Each says what is known of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// Nobody in the network handles it, or not the one it was sent to: it was not handled.
    #[error("nobody handles {0}")]
    Unroutable(String),
    /// The node that had it is no more: it may have been handled, or not.
    #[error("{0} departed with it")]
    Departed(MemberId),
    /// No answer within the time: anything may have happened.
    #[error("no answer in time")]
    Deadline,
    /// A handler of the flow failed, and says this.
    #[error("a handler failed: {0}")]
    Handler(String),
    /// The flow went through more nodes or handlers than it may: it ended there.
    #[error("the flow went too far")]
    TooFar,
    /// Too much waits already: it was not sent.
    #[error("too much waits already")]
    Full,
    /// The node was closed.
    #[error("the node is closed")]
    Closed,
    /// It cannot be encoded: it was not sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The answer came and cannot be read as what was asked for.
    #[error("the answer cannot be read: {0}")]
    Decode(String),
}

impl FlowError {
    pub(crate) fn of(failure: Failure, name: impl FnOnce(super::key::KeyId) -> Option<String>) -> Self {
        match failure {
            Failure::Unroutable(key) => Self::Unroutable(name(key).unwrap_or_else(|| format!("{key:?}"))),
            Failure::Departed(node) => Self::Departed(node),
            Failure::Handler(text) => Self::Handler(text),
            Failure::Limit => Self::TooFar,
            Failure::Expired => Self::Deadline,
            Failure::Full => Self::Full,
        }
    }
}

/// Why a host was not started, or a route not added. Nothing was registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The host has a handler for this already.
    #[error("{0} has a handler in this host already")]
    Duplicate(MessageKey),
    /// Two keys have the same hash: rename one of them.
    #[error("{0} and {1} have the same hash; rename one of them")]
    Collision(MessageKey, MessageKey),
    /// More routes than a node may have.
    #[error("too many routes")]
    TooMany,
    /// The node was closed.
    #[error("the node is closed")]
    Closed,
}

impl From<Refused> for RouteError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Duplicate(key) => Self::Duplicate(key),
            Refused::Collision(key, other) => Self::Collision(key, other),
            Refused::TooMany => Self::TooMany,
        }
    }
}
