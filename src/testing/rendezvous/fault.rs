//! What can go wrong in a world of a rendezvous.

/// One kind of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A server's process dies; its disk stays, all of it.
    ServerKilled,
    /// A server's machine dies: what was not synced is lost in part.
    ServerPowerLoss,
    /// A server stands still for a while.
    ServerFrozen,
    /// The leader dies.
    LeaderKilled,
    /// The leader stands still for a while.
    LeaderFrozen,
    /// Nothing gets through between one server and the others, and perhaps some nodes, for a while.
    ServerCutOff,
    /// Servers are split in two, nodes too, for a while.
    Split,
    /// All servers die at once, and come again one by one.
    AllServersKilled,
    /// A server does not hear others, or is not heard, for a while.
    ServerOneWay,
    NodeKilled,
    NodeFrozen,
    /// Nothing gets through between a node and everybody, or the servers, or another node, for a while.
    NodeCutOff,
    /// No server hears a node, and one other node does not reach it either; all others do.
    NodeDoubted,
    /// A node falls silent, and the leader dies.
    NodeAndLeader,
    /// A node leaves in order, and another begins in its place.
    NodeLeaves,
    /// A connection breaks, in one of the ways in which connections do.
    Connection,
    /// The wall clock of a process jumps.
    WallClock,
}

impl Fault {
    const ALL: [(Self, u32); 17] = [
        (Self::ServerKilled, 3),
        (Self::ServerPowerLoss, 3),
        (Self::ServerFrozen, 3),
        (Self::LeaderKilled, 4),
        (Self::LeaderFrozen, 4),
        (Self::ServerCutOff, 4),
        (Self::Split, 3),
        (Self::AllServersKilled, 1),
        (Self::ServerOneWay, 3),
        (Self::NodeKilled, 3),
        (Self::NodeFrozen, 3),
        (Self::NodeCutOff, 4),
        (Self::NodeDoubted, 3),
        (Self::NodeAndLeader, 1),
        (Self::NodeLeaves, 2),
        (Self::Connection, 6),
        (Self::WallClock, 1),
    ];

    pub(super) fn choose(chance: &mut fastrand::Rng) -> Self {
        let all: u32 = Self::ALL.iter().map(|(_, weight)| weight).sum();
        let mut at = chance.u32(..all);
        for (fault, weight) in Self::ALL {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return fault,
            }
        }
        Self::Connection
    }

    /// Whether nobody who is well may be evicted for it: it touches servers alone, or others reach who is touched.
    pub(super) const fn spares_nodes(self) -> bool {
        matches!(
            self,
            Self::ServerKilled
                | Self::ServerPowerLoss
                | Self::ServerFrozen
                | Self::LeaderKilled
                | Self::LeaderFrozen
                | Self::AllServersKilled
                | Self::NodeDoubted
        )
    }
}
