//! How a node stands with its rendezvous, for its user.

use std::time::Instant;

use crate::ViewId;

/// How a node stands with the servers of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is no member yet, and looks for the leader; for as long as it takes.
    #[default]
    Seeking,
    /// It is a member, and this view is installed.
    Joined {
        /// The last one.
        view: ViewId,
    },
    /// It is a member, and has heard no leader since then: no view can come. Traffic goes on with the last view and the last
    /// routes; others may have decided that it is gone.
    Frozen {
        /// When a leader was heard last.
        since: Instant,
    },
    /// It was a member, and is one no more. It comes again by itself, as another member.
    Evicted,
    /// The servers do not let it in, and why; it goes on asking. If it was a member, it goes on as one that is frozen.
    Refused(String),
    /// It has left.
    Left,
}

impl Standing {
    /// Whether it is a member that hears its leader.
    #[must_use]
    pub const fn is_joined(&self) -> bool {
        matches!(self, Self::Joined { .. })
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seeking => f.write_str("seeking"),
            Self::Joined { view } => write!(f, "joined, view {view}"),
            Self::Frozen { .. } => f.write_str("frozen: no leader is heard"),
            Self::Evicted => f.write_str("evicted"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Left => f.write_str("left"),
        }
    }
}
