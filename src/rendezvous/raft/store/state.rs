//! The machine in memory, its snapshots on the disk.

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};
use parking_lot::Mutex;

use super::disk::Open;
use super::error::StoreError;
use super::tables::{self, Entry, Slot};
use crate::rendezvous::raft::types::{Server, ServerId, Told, Types};
use crate::rendezvous::raft::{At, Machine};

type Failed = StorageError<ServerId>;
pub(super) type Meta = SnapshotMeta<ServerId, Server>;

/// What a log id says to a machine.
pub(super) fn at(log_id: Option<LogId<ServerId>>) -> At {
    log_id.map_or_else(At::default, |log_id| At { term: log_id.leader_id.term, index: log_id.index })
}

/// The machine as of its last snapshot and what was applied since.
#[derive(Debug)]
pub(crate) struct MachineStore<M> {
    disk: Arc<Open>,
    /// Never contended: openraft asks that the store may be shared, and only its own task uses it.
    machine: Mutex<M>,
    applied: Option<LogId<ServerId>>,
    membership: StoredMembership<ServerId, Server>,
}

impl<M: Machine> MachineStore<M> {
    /// The machine becomes what the last snapshot says; the log after it is applied again by openraft.
    pub(super) async fn open(disk: Arc<Open>, mut machine: M) -> Result<Self, StoreError> {
        let (mut applied, mut membership) = (None, StoredMembership::default());
        if let Some((meta, bytes)) = read(&disk).await? {
            let unread = |what| StoreError::State { place: disk.place.clone(), what };
            machine.restore(at(meta.last_log_id), &bytes).map_err(unread)?;
            (applied, membership) = (meta.last_log_id, meta.last_membership);
        }
        Ok(Self { disk, machine: Mutex::new(machine), applied, membership })
    }

    /// The index of the entry that it wants next.
    pub(super) fn next(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.index.saturating_add(1))
    }

    /// All of it as of now.
    pub(super) fn picture(&mut self) -> (Meta, Bytes) {
        let At { term, index } = at(self.applied);
        let meta = Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{term}-{index}"),
        };
        (meta, self.machine.get_mut().snapshot())
    }

    /// Applies an entry, and says what its proposer is told.
    pub(super) fn decide(&mut self, entry: Entry) -> Told {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Told::default(),
            EntryPayload::Normal(command) => {
                Told(self.machine.get_mut().apply(at(Some(entry.log_id)), &command.0))
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Told::default()
            }
        }
    }
}

/// The snapshot on the disk.
pub(super) async fn read(disk: &Arc<Open>) -> Result<Option<(Meta, Bytes)>, StoreError> {
    disk.read(|from| {
        let meta = tables::get(from, Slot::SnapshotMeta)?;
        let bytes = tables::get_bytes(from, Slot::Snapshot)?;
        Ok(meta.zip(bytes.map(Bytes::from)))
    })
    .await
}

/// Replaces the snapshot on the disk, unless it is a newer one.
async fn keep(disk: &Arc<Open>, meta: Meta, bytes: Bytes) -> Result<(), StoreError> {
    disk.write(move |to| {
        let kept: Option<Meta> = tables::get_in(to, Slot::SnapshotMeta)?;
        // One was installed while ours was built.
        if kept.is_some_and(|kept| kept.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        tables::put(to, Slot::SnapshotMeta, &meta)?;
        tables::put_bytes(to, Slot::Snapshot, &bytes)
    })
    .await
}

impl<M: Machine> RaftStateMachine<Types> for MachineStore<M> {
    type SnapshotBuilder = Picture;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<ServerId>>, StoredMembership<ServerId, Server>), Failed> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Told>, Failed>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.decide(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Picture {
        let (meta, bytes) = self.picture();
        Picture { disk: self.disk.clone(), meta, bytes }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, Failed> {
        Ok(Box::new(Bytes::new()))
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Bytes>) -> Result<(), Failed> {
        let failed = |error: AnyError| StorageIOError::write_snapshot(Some(meta.signature()), error);
        // Understood before it replaces one that is.
        let restored = self.machine.get_mut().restore(at(meta.last_log_id), &snapshot);
        restored.map_err(|what| failed(AnyError::error(what)))?;
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        let kept = keep(&self.disk, meta.clone(), *snapshot).await;
        kept.map_err(|error| failed(AnyError::new(&error)))?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failed> {
        let kept = read(&self.disk).await;
        let kept = kept.map_err(|error| StorageIOError::read_snapshot(None, AnyError::new(&error)))?;
        Ok(kept.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(bytes) }))
    }
}

/// The machine at one moment, to be kept while it goes on.
#[derive(Debug)]
pub(crate) struct Picture {
    disk: Arc<Open>,
    meta: Meta,
    bytes: Bytes,
}

impl RaftSnapshotBuilder<Types> for Picture {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failed> {
        let (meta, bytes) = (self.meta.clone(), self.bytes.clone());
        let kept = keep(&self.disk, meta.clone(), bytes.clone()).await;
        kept.map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(bytes) })
    }
}
