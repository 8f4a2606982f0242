//! What a server is to its cluster, as the rest of the house sees it.

use super::types::ServerId;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The cluster is not founded yet: it waits for these, each with what is wrong with it.
    Founding {
        /// `10.0.0.2:7500: not met`.
        missing: Vec<String>,
    },
    /// Another leads, or nobody.
    Follower {
        /// The newest it knows.
        term: u64,
        /// Who leads, and where.
        leader: Option<(ServerId, String)>,
    },
    /// It leads, and has applied all that was decided in earlier terms: what its machine says is what holds. Whether it may speak,
    /// [`Log::lease`](super::Log::lease) says.
    Leader {
        /// No other server ever leads in it.
        term: u64,
    },
    /// The cluster does not hold this server: it waits to be added.
    NotMember,
    /// For good, until the process starts again.
    Stopped {
        /// The disk's error, or that it was closed.
        why: String,
    },
}
