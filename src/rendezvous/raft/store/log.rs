//! The log and the vote, as openraft asks for them.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use parking_lot::Mutex;
use redb::WriteTransaction;

use super::disk::Open;
use super::error::{StoreError, Wrong};
use super::tables::{self, Entry, Slot};
use crate::rendezvous::raft::types::{ServerId, Types};

/// Of the entries read for one append to a follower: some hundred usual ones, and never less than one.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Log and vote of a server. Clones are of the same log.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    disk: Arc<Open>,
    /// How far the log is committed. It may be late on the disk, so it is not worth an fsync: it goes with the next write.
    committed: Arc<Mutex<Option<LogId<ServerId>>>>,
}

type Failed = StorageError<ServerId>;

impl LogStore {
    pub(super) async fn open(disk: Arc<Open>) -> Result<Self, StoreError> {
        let committed = disk.read(|from| tables::get(from, Slot::Committed)).await?;
        Ok(Self { disk, committed: Arc::new(Mutex::new(committed)) })
    }

    async fn write<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnOnce(&WriteTransaction) -> Result<(), Wrong> + Send + 'static,
    {
        let committed = *self.committed.lock();
        self.disk
            .write(move |to| {
                if let Some(committed) = committed {
                    tables::put(to, Slot::Committed, &committed)?;
                }
                work(to)
            })
            .await
    }
}

fn any(error: &StoreError) -> AnyError {
    AnyError::new(error)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, Failed> {
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let found = self.disk.read(move |from| tables::entries(from, first, end, usize::MAX)).await;
        found.map_err(|error| StorageIOError::read_logs(any(&error)).into())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, Failed> {
        let found = self.disk.read(move |from| tables::entries(from, start, end, READ_BYTES_MAX)).await;
        found.map_err(|error| StorageIOError::read_logs(any(&error)).into())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failed> {
        let state = self.disk.read(|from| {
            let last_purged_log_id = tables::get(from, Slot::Purged)?;
            let last_log_id = tables::last_entry(from)?.map(|entry| entry.log_id).or(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        });
        state.await.map_err(|error| StorageIOError::read_logs(any(&error)).into())
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<ServerId>) -> Result<(), Failed> {
        let vote = *vote;
        let saved = self.write(move |to| tables::put(to, Slot::Vote, &vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(any(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<ServerId>>, Failed> {
        let vote = self.disk.read(|from| tables::get(from, Slot::Vote)).await;
        vote.map_err(|error| StorageIOError::read_vote(any(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId<ServerId>>) -> Result<(), Failed> {
        *self.committed.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<ServerId>>, Failed> {
        Ok(*self.committed.lock())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let appended = self.write(move |to| tables::append(to, &entries)).await;
        // A failure is told by the return; openraft stops then, and the entries count as never sent.
        appended.map_err(|error| StorageIOError::write_logs(any(&error)))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<ServerId>) -> Result<(), Failed> {
        let cut = self.write(move |to| tables::cut_from(to, log_id.index)).await;
        cut.map_err(|error| StorageIOError::write_logs(any(&error)).into())
    }

    async fn purge(&mut self, log_id: LogId<ServerId>) -> Result<(), Failed> {
        let cut = self.write(move |to| {
            tables::put(to, Slot::Purged, &log_id)?;
            tables::cut_upto(to, log_id.index)
        });
        cut.await.map_err(|error| StorageIOError::write_logs(any(&error)).into())
    }
}
