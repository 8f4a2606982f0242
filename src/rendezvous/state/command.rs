//! What the log holds: commands, each some operations that take effect together, and what their proposer is told.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::rendezvous::common::{ClusterId, LeaseOp, Refused, Why};
use crate::router::Route;
use crate::{Member, MemberId, ViewId};

/// The first byte of a command. Raised when what follows changes; an older server refuses what it does not know.
const VERSION: u8 = 1;

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

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    /// Nothing had to be done: it was so already.
    Already,
    /// Nothing has changed, because of this.
    Refused(Refused),
}

/// Operations that take effect together, as the log has them.
pub(crate) fn encode(ops: &[Op]) -> Bytes {
    with_version(VERSION, ops)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Op>, String> {
    read_version(VERSION, "command", bytes)
}

#[cfg(feature = "rendezvous")]
pub(crate) fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    with_version(VERSION, outcomes)
}

#[cfg(feature = "rendezvous")]
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
