//! What the house holds of a log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::error::RaftError;
use openraft::raft::ClientWriteResponse;
use tokio::sync::watch;

use super::house::House;
use super::lease::Lease;
use super::standing::Standing;
use super::store::SnapshotFile;
use super::types::{Command, ServerId, Types};

/// The largest body of a datagram is a little less than 32 KiB (its own header is in it).
const DATAGRAM_BODY_BYTES: usize = 32 * 1024 - 12;
/// What goes before the entries of an append, at most: numbers of a question (10 + 17 + 10 + 11), its kind (2), vote (22), two places in
/// the log (2 × 21), how many entries follow (3).
pub(super) const APPEND_HEAD_BYTES: usize = 128;
/// All of an append.
pub(super) const APPEND_BYTES_MAX: usize = DATAGRAM_BODY_BYTES;
/// What an entry adds to its command: its place (20), its kind (1), the command's length (3).
const ENTRY_HEAD_BYTES: usize = 32;
/// The largest command.
pub(crate) const COMMAND_BYTES_MAX: usize = 31 * 1024;

const _: () = assert!(
    APPEND_HEAD_BYTES + ENTRY_HEAD_BYTES + COMMAND_BYTES_MAX <= APPEND_BYTES_MAX,
    "one entry always fits one datagram"
);

/// Between two requests for a snapshot.
const SNAPSHOT_AGAIN: Duration = Duration::from_millis(100);

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Another leads: it was not proposed.
    #[error("another server leads")]
    NotLeader {
        /// Who, and where, if that is known.
        leader: Option<(ServerId, String)>,
    },
    /// It was not proposed.
    #[error("a command of {bytes} bytes; at most {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest.
        max: usize,
    },
    /// This server stopped leading, or no majority answered in time. It may be decided, now or later, or never.
    #[error("nobody knows whether it is decided")]
    Lost,
    /// The log is over, for this process. Whether it was decided nobody here can say.
    #[error("the log has stopped: {why}")]
    Stopped {
        /// As the standing says it.
        why: String,
    },
}

/// Why there is no snapshot. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Nothing was ever decided here.
    #[error("the log is empty")]
    Empty,
    /// The disk is slow.
    #[error("no snapshot in time")]
    Late,
    /// The log is over, for this process.
    #[error("the log has stopped: {why}")]
    Stopped {
        /// As the standing says it.
        why: String,
    },
}

/// One server's end of the log. Dropped, it takes part no more: as if its process had been killed, the messenger apart.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) house: Arc<House>,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.house.context.stop();
    }
}

impl Log {
    /// This server's number.
    pub(crate) fn id(&self) -> ServerId {
        self.house.me
    }

    /// What this server is to the cluster, now and from now on.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.house.standing.subscribe()
    }

    /// For how long it may speak, if it may now. To be asked each time before something is said: it is read from the clock and from what the
    /// others answered, at once. See the text of [`lease`](super::lease) for what it is worth.
    pub(crate) fn lease(&self, now: Instant) -> Option<Lease> {
        self.house.leases.lock().lease(now)
    }

    /// Puts a command into the log, and says what the machine answered to it. The leader's own machine has applied it then. Waits while too many
    /// are under way. Cancelled, it may be decided or not.
    ///
    /// # Errors
    ///
    /// [`ProposeError`]; each says whether the command may be decided all the same.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        let bytes = command.len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, max: COMMAND_BYTES_MAX });
        }
        let Ok(_permit) = self.house.proposing.acquire().await else { return Err(self.stopped()) };
        let leader = match &*self.house.standing.borrow() {
            Standing::Leader { .. } => None,
            Standing::Follower { leader, .. } => Some(leader.clone()),
            Standing::Founding { .. } | Standing::NotMember => Some(None),
            Standing::Stopped { why } => return Err(ProposeError::Stopped { why: why.clone() }),
        };
        if let Some(leader) = leader {
            return Err(ProposeError::NotLeader { leader });
        }
        let Some(raft) = self.house.raft() else { return Err(self.stopped()) };
        let deciding = raft.client_write(Command(command));
        match tokio::time::timeout(self.house.config.patience, deciding).await {
            Ok(Ok(ClientWriteResponse::<Types> { data, .. })) => Ok(data.0),
            // openraft says the same before it takes a command and after it has lost it.
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(ProposeError::Lost),
            Ok(Err(RaftError::Fatal(_))) => Err(self.stopped()),
        }
    }

    /// All that was decided so far, as [`SnapshotFile`] has it; other servers and proposers do not notice.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; nothing has changed.
    pub(crate) async fn snapshot(&self) -> Result<Bytes, SnapshotError> {
        let stopped = |_| SnapshotError::Stopped { why: self.why() };
        let raft = self.house.raft().ok_or(()).map_err(stopped)?;
        let mut metrics = raft.metrics();
        let applied = metrics.borrow().last_applied.ok_or(SnapshotError::Empty)?;
        let taking = async {
            loop {
                raft.trigger().snapshot().await.map_err(|_| ())?;
                let taken = metrics.wait_for(|seen| seen.snapshot >= Some(applied));
                // It does nothing while another is being built.
                match tokio::time::timeout(SNAPSHOT_AGAIN, taken).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(_)) => return Err(()),
                    Err(_) => {}
                }
            }
            raft.get_snapshot().await.map_err(drop)
        };
        let taken = tokio::time::timeout(self.house.config.patience, taking).await;
        let taken = taken.map_err(|_| SnapshotError::Late)?.map_err(stopped)?;
        let snapshot = taken.ok_or(SnapshotError::Empty)?;
        let file = SnapshotFile::of(&self.house.store.identity(), snapshot);
        file.encode().map(Bytes::from).map_err(|_| SnapshotError::Empty)
    }

    pub(super) fn stopped(&self) -> ProposeError {
        ProposeError::Stopped { why: self.why() }
    }

    pub(super) fn why(&self) -> String {
        match &*self.house.standing.borrow() {
            Standing::Stopped { why } => why.clone(),
            Standing::Founding { .. }
            | Standing::Follower { .. }
            | Standing::Leader { .. }
            | Standing::NotMember => "it is ending".to_owned(),
        }
    }
}
