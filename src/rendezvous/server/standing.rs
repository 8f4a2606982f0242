//! How a server stands, for its user.

use crate::rendezvous::raft::Standing;

/// How a server stands in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerStanding {
    /// The cluster does not exist yet: it waits for these servers, each with what is wrong with it.
    Founding {
        /// `10.0.0.2:7500: not met`.
        missing: Vec<String>,
    },
    /// Another server leads, or nobody at the moment.
    Follows {
        /// The newest term it knows.
        term: u64,
        /// Where the leader is, if that is known.
        leader: Option<String>,
    },
    /// It was elected, and may not speak: too few servers stand behind it, not yet or not any more. Another one may lead already.
    Elected {
        /// No other server ever leads in it.
        term: u64,
    },
    /// It leads, and a majority stands behind it: it lets nodes in, pings and tells.
    Leads {
        /// No other server ever leads in it.
        term: u64,
    },
    /// The cluster does not hold this server: it waits to be added (`karere rendezvous add`).
    NotMember,
    /// For good, until the process starts it again.
    Stopped {
        /// The disk's error and what to do about it, or that it was closed.
        why: String,
    },
}

impl ServerStanding {
    /// With the term in which it may speak, if it may.
    pub(super) fn of(standing: &Standing, speaks_in: Option<u64>) -> Self {
        match standing {
            Standing::Founding { missing } => Self::Founding { missing: missing.clone() },
            Standing::Follower { term, leader } => {
                Self::Follows { term: *term, leader: leader.clone().map(|(_, address)| address) }
            }
            Standing::Leader { term } if speaks_in == Some(*term) => Self::Leads { term: *term },
            Standing::Leader { term } => Self::Elected { term: *term },
            Standing::NotMember => Self::NotMember,
            Standing::Stopped { why } => Self::Stopped { why: why.clone() },
        }
    }

    /// Whether it leads, and may speak.
    #[must_use]
    pub const fn leads(&self) -> bool {
        matches!(self, Self::Leads { .. })
    }
}

impl std::fmt::Display for ServerStanding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Founding { missing } if missing.is_empty() => f.write_str("founding its cluster"),
            Self::Founding { missing } => write!(f, "founding its cluster; waits for {}", missing.join(", ")),
            Self::Follows { term, leader: Some(leader) } => write!(f, "follows {leader} in term {term}"),
            Self::Follows { term, leader: None } => write!(f, "knows no leader in term {term}"),
            Self::Elected { term } => {
                write!(f, "was elected in term {term}, and may not speak: too few servers answer it")
            }
            Self::Leads { term } => write!(f, "leads in term {term}"),
            Self::NotMember => f.write_str("waits to be added to a cluster"),
            Self::Stopped { why } => write!(f, "stopped: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_elected_leads_only_while_it_may_speak_in_that_term() {
        let elected = Standing::Leader { term: 4 };
        assert_eq!(ServerStanding::of(&elected, Some(4)), ServerStanding::Leads { term: 4 });
        for no in [None, Some(3)] {
            let standing = ServerStanding::of(&elected, no);
            assert!(!standing.leads() && standing.to_string().contains("may not speak"), "{standing}");
        }
    }
}
