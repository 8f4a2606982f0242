//! What the judge says: how members are, and what is to be done.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::WITNESSES;
use crate::MemberId;

/// How a member is, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Heard lately.
    Healthy,
    /// Unheard for half of the eviction time.
    Suspected,
    /// Unheard for the eviction time or longer: witnesses are asked.
    Silent {
        /// When it was heard last.
        since: Instant,
    },
    /// Silent to the leader, but another member reaches it: not evicted, asked about again.
    Vouched {
        /// When the leader heard it last.
        since: Instant,
    },
}

/// What a member's own traffic with another says. Each is told when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It broke off.
    Lost,
    /// It works, or works again.
    Heard,
}

/// Names a probe, so that a late answer is not taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProbeId(pub(crate) u64);

/// On what an eviction rests, beside the missed pings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// These do not reach it either, and nobody who was asked does.
    Witnesses(SmallVec<[MemberId; WITNESSES]>),
    /// Nobody is there who could be asked.
    NoWitness,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// All members are to be pinged.
    Ping,
    /// A member is to be asked whether it reaches another. Its answer goes to [`super::Judge::handle_probed`].
    Probe {
        /// Comes back with the answer.
        probe: ProbeId,
        /// Who is asked.
        witness: MemberId,
        /// Of whom.
        suspect: MemberId,
        /// For how long the witness tries.
        within: Duration,
    },
    /// A member is to be removed by the next view. Said again if it is neither heard nor gone after the eviction time.
    Evict {
        /// Who.
        member: MemberId,
        /// When it was heard last.
        since: Instant,
        /// On what grounds.
        why: Evidence,
    },
    /// The health table has changed.
    Health {
        /// Of whom.
        member: MemberId,
        /// What it is now.
        health: Health,
    },
}
