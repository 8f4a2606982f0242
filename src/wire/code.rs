//! Why a connection is refused or closed: the numbers of refusals and closes.

/// Why a connection is refused or closed. Numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Code {
    VersionMismatch,
    EnvironmentMismatch,
    NetworkMismatch,
    WrongMember,
    SessionUnknown,
    Stale,
    Duplicate,
    Removed,
    NotInView,
    Busy,
    Malformed,
    Corrupt,
    Closing,
    Superseded,
    Idle,
    /// The certificate does not fit the name, or there is none.
    Identity,
    /// One that a later version added; it refuses, whatever it means.
    Other(u16),
}

const CODES: [(Code, u16); 16] = [
    (Code::VersionMismatch, 1),
    (Code::EnvironmentMismatch, 2),
    (Code::NetworkMismatch, 3),
    (Code::WrongMember, 4),
    (Code::SessionUnknown, 5),
    (Code::Stale, 6),
    (Code::Duplicate, 7),
    (Code::Removed, 8),
    (Code::NotInView, 9),
    (Code::Busy, 10),
    (Code::Malformed, 11),
    (Code::Corrupt, 12),
    (Code::Closing, 13),
    (Code::Superseded, 14),
    (Code::Identity, 15),
    (Code::Idle, 16),
];

impl Code {
    pub(crate) fn to_wire(self) -> u16 {
        match self {
            Self::Other(raw) => raw,
            known => CODES.iter().find(|(code, _)| *code == known).map_or(u16::MAX, |(_, raw)| *raw),
        }
    }

    pub(crate) fn from_wire(raw: u16) -> Self {
        CODES.iter().find(|(_, known)| *known == raw).map_or(Self::Other(raw), |(code, _)| *code)
    }
}
