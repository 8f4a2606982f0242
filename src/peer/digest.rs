//! What a peer is, for a model checker: see [`Session::digest`]. A checker steps it with clocks that stand still but for
//! the one deadline that passes, and without jitter, so of times only whether they are set is looked at.
//!
//! Ranks are only compared, and attempts counted up; so they may be told by their order alone ([`Peer::ranks`]), and two
//! states are the same that differ in how often somebody dialled in vain.
//!
//! [`Session::digest`]: crate::session::Session

use std::hash::{Hash, Hasher};

use super::{Dial, Dialling, Live, Peer, Rank, State};

/// What a peer waits for, if only time can bring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The next dial.
    Dial,
    /// The end of the lease that alone holds the session.
    Lease,
    /// The end of the quarantine.
    Quarantine,
}

impl Peer {
    /// What alone time can bring about, if the link that is there stays. One at most: a dial or a lease is waited for
    /// without a link, a quarantine with one, and who holds a lease alone does not dial.
    pub(crate) fn wait(&self) -> Option<Wait> {
        if self.state == State::Ended {
            None
        } else if self.live.is_some() {
            self.session.quarantined_until().map(|_| Wait::Quarantine)
        } else if matches!(self.dialling, Dialling::Waiting(_)) && self.reasons.may_dial() {
            Some(Wait::Dial)
        } else {
            self.reasons.lease().map(|_| Wait::Lease)
        }
    }

    /// Whether this side may dial at all.
    pub(crate) fn may_dial(&self) -> bool {
        self.reasons.may_dial()
    }

    /// All ranks that are kept here, and as one more how often this side has dialled.
    pub(crate) fn ranks(&self) -> impl Iterator<Item = Rank> {
        let live = self.live.as_ref().map(|live| live.rank);
        let dial = if let Dialling::Pending(dial) = &self.dialling { Some(dial.rank) } else { None };
        live.into_iter().chain(dial).chain([self.dials()])
    }

    /// The rank before the next dial's.
    pub(crate) fn dials(&self) -> Rank {
        let generation = self.established.saturating_add(1);
        Rank { generation, dialler: self.with.me.member.id, attempt: self.attempts }
    }

    /// `place` tells a rank by what counts of it.
    pub(crate) fn digest<P: Hash>(&self, place: impl Fn(Rank) -> P, into: &mut impl Hasher) {
        let Self {
            with: _,
            id,
            session,
            live,
            dialling,
            reasons,
            seat,
            joined,
            gone,
            removed,
            // Without jitter, and with all waits alike, nothing depends on it.
            backoff: _,
            // Both are in `dials`.
            established: _,
            attempts: _,
            state,
            types: _,
            control,
            outputs,
            errors_in_row,
            // Tells, and decides nothing.
            health: _,
            links: _,
            datagrams: _,
            probes: _,
            name,
        } = self;
        debug_assert!(outputs.is_empty(), "polled before");
        (id, joined, gone.map(|gone| gone as u8), removed, control, errors_in_row, name).hash(into);
        match state {
            State::Open => 0,
            State::Leaving { said } => 1 + u8::from(*said),
            State::Left => 3,
            State::Ended => 4,
        }
        .hash(into);
        (seat.view, seat.member.is_some(), seat.gone.map(|gone| gone as u8)).hash(into);
        match live {
            Some(Live { link, rank, types_heard, usage, parting }) => {
                (1, place(*rank), types_heard, usage.is_kept(), parting).hash(into);
                link.digest(into);
            }
            None => 0.hash(into),
        }
        match dialling {
            Dialling::Idle => 0.hash(into),
            Dialling::Waiting(_) => 1.hash(into),
            Dialling::Pending(Dial { link: _, rank, place: _, deadline: _, greeted }) => {
                (2, place(*rank), greeted).hash(into);
            }
        }
        place(self.dials()).hash(into);
        reasons.digest(into);
        session.digest(into);
    }
}
