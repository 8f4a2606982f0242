//! What a peer is in the midst of, as the simulation counts what its faults hit.

use super::roster::Standing;
use super::{Dialling, Peer, State};

/// One thing that a peer may be in the midst of. Several hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum Doing {
    /// No link, and none is being made.
    Unlinked,
    /// A connection is being made.
    Connecting,
    /// Our hello was given to a write.
    HelloSent,
    /// Between two dials.
    BackingOff,
    /// A link is up, and the other side's types have not come.
    Answered,
    /// A link is up, nothing is under way.
    Quiet,
    /// Something was written on this link and is not acknowledged.
    Unacked,
    /// Some of what an earlier link carried was not written again yet.
    Resuming,
    /// Some chunks of a message were written, and not its last.
    ChunksOut,
    /// Some chunks of a message came, and not its last.
    ChunksIn,
    /// Something waits for the receiver's credit.
    AwaitsCredit,
    /// What came waits for its handlers.
    Unhandled,
    /// Messages wait, and there is no link.
    QueuedUnlinked,
    /// It leaves, and something is not acknowledged yet.
    Draining,
    /// Kept for the lease of a peer that dialled and is gone.
    Leased,
    /// Records of it are held until a view includes it.
    Quarantining,
    /// It has joined, and no view here says so.
    Unknown,
    /// It has never joined.
    Stranger,
    /// It was removed.
    Removed,
}

impl Doing {
    pub(crate) const ALL: [Self; 19] = [
        Self::Unlinked,
        Self::Connecting,
        Self::HelloSent,
        Self::BackingOff,
        Self::Answered,
        Self::Quiet,
        Self::Unacked,
        Self::Resuming,
        Self::ChunksOut,
        Self::ChunksIn,
        Self::AwaitsCredit,
        Self::Unhandled,
        Self::QueuedUnlinked,
        Self::Draining,
        Self::Leased,
        Self::Quarantining,
        Self::Unknown,
        Self::Stranger,
        Self::Removed,
    ];
}

impl Peer {
    /// All that it is in the midst of.
    pub(crate) fn doing(&self) -> impl Iterator<Item = Doing> + use<> {
        let session = self.session.doing();
        let linked = self.live.is_some();
        let types_heard = self.live.as_ref().is_some_and(|live| live.types_heard);
        let (mut connecting, mut greeted, mut waiting) = (false, false, false);
        match &self.dialling {
            Dialling::Pending(dial) => (connecting, greeted) = (!dial.greeted, dial.greeted),
            Dialling::Waiting(_) => waiting = !linked && self.reasons.may_dial(),
            Dialling::Idle => {}
        }
        let under_way = session.unacked || session.resuming || session.waiting || session.unhandled;
        let standing = self.standing();
        let holds = move |doing: &Doing| match doing {
            Doing::Unlinked => !linked && !connecting && !greeted && !waiting,
            Doing::Connecting => connecting,
            Doing::HelloSent => greeted,
            Doing::BackingOff => waiting,
            Doing::Answered => linked && !types_heard,
            Doing::Quiet => linked && types_heard && !under_way,
            Doing::Unacked => linked && session.unacked,
            Doing::Resuming => linked && session.resuming,
            Doing::ChunksOut => session.chunks_out,
            Doing::ChunksIn => session.chunks_in,
            Doing::AwaitsCredit => linked && session.awaits_credit,
            Doing::Unhandled => session.unhandled,
            Doing::QueuedUnlinked => !linked && session.waiting,
            _ => false,
        };
        let states = [
            (Doing::Draining, matches!(self.state, State::Leaving { .. } | State::Left) && under_way),
            (Doing::Leased, !linked && self.reasons.is_passive()),
            (Doing::Quarantining, session.quarantined),
            (Doing::Unknown, standing == Standing::Unknown),
            (Doing::Stranger, standing == Standing::Stranger),
            (Doing::Removed, standing == Standing::Removed),
        ];
        let holds =
            move |doing: &Doing| holds(doing) || states.iter().any(|(other, holds)| other == doing && *holds);
        Doing::ALL.into_iter().filter(holds)
    }
}
