//! What the log holds: commands, each some operations that take effect together, and what their proposer is told.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::leases::LeaseOp;
use crate::router::Route;
use crate::{Member, MemberId, ViewId};

/// The first byte of a command. Raised when what follows changes; an older server refuses what it does not know.
const VERSION: u8 = 1;

/// Which cluster of servers decided something: drawn when it was founded. Another one has another history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ClusterId(pub(crate) u128);

/// One thing to be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// History begins. Ignored where it has begun.
    Found { cluster: ClusterId },
    /// Somebody knows of a history that is not in this log, up to this view: nothing is decided about members until an operator
    /// says [`Op::Recover`].
    Suspend { seen: ViewId },
    /// The history begins anew in a generation above all that were seen: members and routes stay.
    Recover { above: u64 },
    /// A process becomes a member. One that is gone, or was a member under this id before, cannot; while a recovery gathers the members
    /// of before, it can keep what it was (`keep`).
    Join { member: Member, keep: bool },
    /// A member is one no more.
    Leave { member: MemberId, why: Why },
    /// Routes of a member, from the change with this number (0: none, whatever was there is forgotten) to that one.
    Routes { member: MemberId, from: u64, to: u64, add: Vec<Route>, remove: Vec<Route> },
    /// A named lease.
    Lease { member: MemberId, op: LeaseOp },
}

/// Why a member is one no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Why {
    /// It said goodbye.
    Left,
    /// It did not answer, and nobody else reached it.
    Silent,
    /// Another run of its process joined.
    Replaced,
    /// An operator took it out.
    Removed,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Left => "it left",
            Self::Silent => "it was silent",
            Self::Replaced => "another run of it joined",
            Self::Removed => "an operator removed it",
        })
    }
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    /// Nothing had to be done: it was so already.
    Already,
    /// Nothing has changed, because of this.
    Refused(Refused),
}

/// Why an operation changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refused {
    /// There is no history yet.
    #[error("the cluster has not begun its history")]
    NotFounded,
    /// See `Op::Suspend`.
    #[error(
        "members know view {0}, of which this cluster's disks know nothing; look for its disks, or let it go on without them: karere rendezvous recover"
    )]
    NeedsRecovery(ViewId),
    /// The member was one, and is not any more: it can come again only as another one.
    #[error("it is a member no more, and can come again only under a new id")]
    Gone,
    /// It is not a member.
    #[error("it is not a member")]
    NotMember,
    /// Route changes before this one are missing: all routes must be said again.
    #[error("its routes are known up to change {0}")]
    RoutesBehind(u64),
    /// A bound was reached.
    #[error("{0}")]
    Full(String),
    /// What it says is no member, route or name.
    #[error("{0}")]
    Unsound(String),
    /// Somebody else holds the lease.
    #[error("the lease is held by {0}")]
    Held(MemberId),
    /// The command cannot be read.
    #[error("the command cannot be read: {0}")]
    Unreadable(String),
}

/// Operations that take effect together, as the log has them.
pub(crate) fn encode(ops: &[Op]) -> Bytes {
    with_version(VERSION, ops)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Op>, String> {
    read_version(VERSION, "command", bytes)
}

pub(crate) fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    with_version(VERSION, outcomes)
}

pub(crate) fn decode_outcomes(bytes: &[u8]) -> Result<Vec<Outcome>, String> {
    read_version(VERSION, "outcome", bytes)
}

/// A version byte, and the value after it.
pub(super) fn with_version<T: Serialize + ?Sized>(version: u8, value: &T) -> Bytes {
    // What is encoded here is plain data, which cannot fail; if it ever did, what is read is refused.
    postcard::to_extend(value, vec![version]).map(Bytes::from).unwrap_or_default()
}

pub(super) fn read_version<T: for<'de> Deserialize<'de>>(
    version: u8,
    what: &str,
    bytes: &[u8],
) -> Result<T, String> {
    match bytes.split_first() {
        Some((first, rest)) if *first == version => {
            let (value, rest) =
                postcard::take_from_bytes(rest).map_err(|error| format!("{what}: {error}"))?;
            if rest.is_empty() { Ok(value) } else { Err(format!("{what}: {} bytes too many", rest.len())) }
        }
        Some((other, _)) => Err(format!("{what} of version {other}, this server knows {version}")),
        None => Err(format!("an empty {what}")),
    }
}
