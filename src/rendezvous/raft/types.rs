//! What openraft is told of our types.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::tasks::Tasks;

/// A command as the log keeps it: bytes that [`Machine`](super::Machine) understands, a version byte first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command(pub(super) Bytes);

/// What the proposer of a command is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told(pub(super) Bytes);

/// A server of the cluster, as the log's membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// Where the others reach it; a name is resolved again at each dial.
    pub(crate) address: String,
}

/// A server's number: drawn once, kept in its data directory.
pub(crate) type ServerId = u64;

openraft::declare_raft_types!(
    /// Our types.
    pub(super) Types:
        D = Command,
        R = Told,
        NodeId = ServerId,
        Node = Server,
        Entry = openraft::Entry<Types>,
        SnapshotData = Bytes,
        AsyncRuntime = Tasks,
);
