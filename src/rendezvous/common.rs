//! What servers and nodes both speak of: decisions, as members are told them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::router::Route;
use crate::{Member, MemberId, ViewId};

/// Members of one network. A view is installed whole on each of them at each change.
pub(crate) const MEMBERS_MAX: usize = 4096;
/// Routes of all members: some 300 MB of tables on each server at most.
pub(crate) const ROUTES_MAX: usize = 2_097_152;

/// A node waits no longer than this for a server that does not lead to say who does, or before it asks the next.
pub(crate) const SEEK_MAX: Duration = Duration::from_secs(1);
/// Who was refused asks again, another server perhaps, at the earliest after this.
pub(crate) const REFUSED_WAIT: Duration = Duration::from_millis(500);
/// A dial, a TLS handshake, a hello, and the same again at the leader that is named.
#[cfg(feature = "rendezvous")]
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// A node that lives, and was refused or found nobody, is at the leader again within this, though one more server that it asks is not
/// there.
#[cfg(feature = "rendezvous")]
pub(crate) const COMES_BACK: Duration = SEEK_MAX.saturating_mul(2).saturating_add(ON_THE_WAY);
const _: () =
    assert!(REFUSED_WAIT.as_nanos() <= SEEK_MAX.as_nanos(), "the wait of who was refused is among them");

/// Which cluster of servers decided something: drawn when it was founded. Another one has another history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ClusterId(pub(crate) u128);

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

/// What one command changed for the members. Applied in order of `index`, each to the state that has applied all up to `after`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Its place in the log.
    pub(crate) index: u64,
    /// The place of the change before it; places between them changed nothing for members.
    pub(crate) after: u64,
    /// The new view, if members came or went.
    pub(crate) view: Option<ViewId>,
    pub(crate) joined: Vec<Member>,
    pub(crate) left: Vec<(MemberId, Why)>,
    pub(crate) routes: Vec<RoutesChange>,
    pub(crate) leases: Vec<LeaseChange>,
}

/// How a member's routes changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoutesChange {
    pub(crate) member: MemberId,
    /// Whatever was there is forgotten first.
    pub(crate) anew: bool,
    pub(crate) add: Vec<Route>,
    pub(crate) remove: Vec<Route>,
}

/// A number that grows with every grant of any lease, over restarts and recoveries too: who guards a resource refuses a lower
/// one than it has seen (Kleppmann, "How to do distributed locking", 2016: fencing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub(super) u64);

impl Token {
    /// As a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What is wanted of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaseOp {
    /// To hold it; if somebody else does, to be the next but those who wait already.
    Acquire { name: String, wait: bool },
    /// Not to hold it, or wait for it, any more.
    Release { name: String },
}

/// Who holds a lease now; everybody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseChange {
    pub(crate) name: String,
    pub(crate) holder: Option<(MemberId, Token)>,
}
