//! What a membership system wants to know of a peer.

use crate::member::MemberId;

/// Something happened to a peer or its link. Events are for judging members, not for counting messages.
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
    /// Another process answers at the address of a contact: its session ended.
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
    /// The peer refuses links, and says why; dialling goes on ever more slowly.
    Refused {
        /// Who.
        peer: MemberId,
        /// The code and text of the refusal.
        why: String,
    },
    /// Links keep failing by errors of protocol, without progress between them.
    Stuck {
        /// Whose.
        peer: MemberId,
    },
    /// The peer said goodbye, or the session ended for want of a reason.
    Left {
        /// Who.
        peer: MemberId,
    },
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
    /// The session ended.
    Closed,
    /// It carried nothing for long, or there were too many links: no suspicion. The next message dials again.
    Idle,
}
