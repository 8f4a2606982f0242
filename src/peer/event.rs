//! What a membership system wants to know of a peer.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use crate::member::MemberId;

/// Something happened to a peer or its link. Events are for judging members, not for counting messages.
///
/// `Slow`, `Stuck`, `Unreachable`, `OneWaySilence` and `Misbehaving` are conditions: each is told when it begins, and
/// [`PeerEvent::Recovered`] once, when a link is up and none of them is left. While this member leaves or closes none
/// of these is told, nor that a link is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A link is up.
    Connected {
        /// Whose.
        peer: MemberId,
    },
    /// The link is gone; the session lives as long as it has a reason, and redials.
    Disconnected {
        /// Whose.
        peer: MemberId,
        /// What was seen.
        reason: Disconnect,
    },
    /// Something has waited for the peer's credit for [`Timeouts::slow`](crate::Timeouts::slow) while its link is up:
    /// its handlers are behind.
    Slow {
        /// Whose.
        peer: MemberId,
        /// For how long nothing of one stream could be written.
        blocked: Duration,
    },
    /// A record was written [`Timeouts::stuck`](crate::Timeouts::stuck) ago and is not acknowledged, link or no link.
    Stuck {
        /// Whose.
        peer: MemberId,
        /// When it was written first, before now.
        oldest_unacked: Duration,
    },
    /// This side wants a link, dials, and has had none for [`Timeouts::unreachable`](crate::Timeouts::unreachable).
    /// Told only by who dials.
    Unreachable {
        /// Who.
        peer: MemberId,
        /// For how long.
        since: Duration,
    },
    /// The peer says that it has not heard this member for two [`Timeouts::ping`](crate::Timeouts::ping) or longer,
    /// though this member spoke, and hears the peer. It comes before the peer closes the link, if its liveness is more
    /// than two of its pings. Where this side's packets do not arrive at all, nor do its TCP acknowledgements: the
    /// peer's TCP then repeats its oldest segment and sends nothing new, and both see silence instead (`tests/lab`).
    OneWaySilence {
        /// Who does not hear.
        peer: MemberId,
        /// For how long, by its own word.
        unheard: Duration,
    },
    /// Links keep failing by errors of protocol, without progress between them. Over with the next progress.
    Misbehaving {
        /// Whose.
        peer: MemberId,
        /// How many in a row.
        errors: u32,
    },
    /// A link is up, and none of the conditions that were told is left.
    Recovered {
        /// Who.
        peer: MemberId,
    },
    /// Another process answers at the address of a contact or of a member of the view, or advertises it; told once for
    /// each of them. The session of a contact ends by that; one that a view holds waits for the view.
    Replaced {
        /// Who was there.
        old: MemberId,
        /// Who is there now.
        new: MemberId,
    },
    /// The peer lost the session's state: what was written and not acknowledged is indeterminate, the rest goes on in
    /// a new session.
    SessionLost {
        /// Who lost it.
        peer: MemberId,
    },
    /// The peer's view does not hold this member any more: the session is over for good. Said by the peer itself, so
    /// evidence, not a decision.
    Expelled {
        /// Who says so.
        by: MemberId,
    },
    /// The peer refuses links, and says why; dialling goes on ever more slowly.
    Refused {
        /// Who.
        peer: MemberId,
        /// The code and text of the refusal.
        why: String,
    },
    /// The peer said goodbye, or the session ended for want of a reason.
    Left {
        /// Who.
        peer: MemberId,
    },
}

/// Events of the same topic replace each other for a listener that is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    kind: Discriminant<PeerEvent>,
    peer: MemberId,
    new: Option<MemberId>,
}

impl PeerEvent {
    /// Whom it is about; of a replacement, who was there before.
    #[must_use]
    pub const fn peer(&self) -> MemberId {
        match self {
            Self::Connected { peer }
            | Self::Disconnected { peer, .. }
            | Self::Slow { peer, .. }
            | Self::Stuck { peer, .. }
            | Self::Unreachable { peer, .. }
            | Self::OneWaySilence { peer, .. }
            | Self::Misbehaving { peer, .. }
            | Self::Recovered { peer }
            | Self::SessionLost { peer }
            | Self::Refused { peer, .. }
            | Self::Left { peer } => *peer,
            Self::Replaced { old, .. } => *old,
            Self::Expelled { by } => *by,
        }
    }

    pub(crate) const fn topic(&self) -> Topic {
        let new = if let Self::Replaced { new, .. } = self { Some(*new) } else { None };
        Topic { kind: discriminant(self), peer: self.peer(), new }
    }

    /// Nothing that comes later says it again.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::Left { .. } | Self::Replaced { .. } | Self::Expelled { .. })
    }
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disconnect {
    /// The other side ended it in order.
    End,
    /// The operating system reported an error: a reset, a time-out.
    Reset,
    /// Nothing was heard, or nothing could be written, for the liveness time.
    Silence,
    /// Bytes changed on the way.
    Corrupt,
    /// The peer broke the protocol.
    Misbehaved,
    /// Another link took its place.
    Superseded,
    /// No view included the side that sent more than is held for it, or for longer: it sends that again.
    NotInView,
    /// The session ended.
    Closed,
    /// It carried nothing for long, or there were too many links: no suspicion. The next message dials again.
    Idle,
}
