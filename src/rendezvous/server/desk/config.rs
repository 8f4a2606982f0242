//! Times and bounds of a leader's desk.

use std::time::Duration;

use crate::rendezvous::judge::JudgeConfig;

/// Operations of one command: their encoded bytes together are below this, so that an entry of the log stays below its bound.
pub(super) const COMMAND_BYTES: usize = 24 * 1024;
/// One operation; parts of routes are to be some 16 KiB, what a member says of itself 12 KiB.
pub(super) const OP_BYTES_MAX: usize = COMMAND_BYTES - 1024;
/// What waits for the log, of all nodes together: some hundred commands.
pub(super) const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What one node may have asked and not been answered. Whoever asks more waits.
pub(super) const NODE_ASKED_MAX: usize = 32;
/// Nodes that are spoken to: members, and those who want to be or are told that they cannot be.
pub(super) const NODES_MAX: usize = crate::rendezvous::common::MEMBERS_MAX + 1024;
/// Everything, in parts of this size.
pub(super) const PART_BYTES: usize = 256 * 1024;
/// Of everything, as of different changes, so many are kept for those who are reading them. Who reads an older one begins again.
pub(super) const VERSIONS_MAX: usize = 4;
/// Changes of health that are kept, so that not everybody is told everything.
pub(super) const HEALTH_KEPT_MAX: usize = 1024;
/// Tools that wait for an answer.
pub(super) const TOOLS_MAX: usize = 64;

const _: () = assert!(OP_BYTES_MAX > crate::rendezvous::state::MEMBER_BYTES_MAX + 1024, "a join fits");

/// Times of a desk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeskConfig {
    /// Pings, eviction, probes, settling.
    pub(crate) judge: JudgeConfig,
    /// A cluster without members lets in the first only after this: whoever knows of a history that is lost says so before.
    pub(crate) settle: Duration,
    /// After a recovery, members of before are collected for so long.
    pub(crate) gather: Duration,
}
