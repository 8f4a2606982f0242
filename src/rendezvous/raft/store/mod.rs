//! What a server of the log must not forget, in one redb file: its vote, its entries, its last snapshot, and whose it is.
//!
//! A vote is on the disk before it is given, an entry before it is counted, a snapshot before the entries in it are dropped. The
//! machine itself lives in memory: it is restored from the snapshot, and openraft applies the entries after it again.
//!
//! When the disk fails, openraft is told and stops for good, because redb takes no more writes from a handle that failed once;
//! [`Store::fault`] says which disk and what to do. A restart finds all that was acknowledged.

mod directory;
mod disk;
#[cfg(any(test, feature = "testing"))]
pub(super) mod door;
mod error;
mod file;
mod identity;
mod log;
mod offline;
mod record;
mod state;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use disk::Disk;
pub(crate) use error::StoreError;
pub(crate) use file::SnapshotFile;
pub(crate) use identity::{Identity, Names};
pub(crate) use log::LogStore;
pub(crate) use offline::{Alone, copy, recover, restore, survey};
pub(crate) use state::MachineStore;

use super::Machine;
use super::types::ServerId;

/// An open store. Clones are of the same one; the disk is free again when the last of them and of its parts is gone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    disk: Arc<disk::Open>,
    identity: Arc<Mutex<Identity>>,
}

impl Store {
    /// Opens what is on the disk, or founds it with `fresh_id` as the server's number. Mends what a crash left.
    ///
    /// # Errors
    ///
    /// The disk is of another network, of a newer release, damaged, full, in use or refused. Nothing in it has changed.
    pub(crate) async fn open(disk: Disk, names: &Names, fresh_id: ServerId) -> Result<Self, StoreError> {
        let (disk, identity) = identity::open(disk, names, fresh_id).await?;
        Ok(Self { disk, identity: Arc::new(Mutex::new(identity)) })
    }

    /// Whose store it is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// The server's number, drawn once.
    pub(crate) fn server(&self) -> ServerId {
        self.identity.lock().server
    }

    /// Notes the cluster that this server belongs to. On the disk when it returns.
    ///
    /// # Errors
    ///
    /// The disk failed: see [`fault`](Self::fault).
    pub(crate) async fn set_cluster(&self, cluster: u128) -> Result<(), StoreError> {
        let identity = Identity { cluster: Some(cluster), ..self.identity() };
        self.disk.write(move |to| identity::put(to, &identity)).await?;
        self.identity.lock().cluster = Some(cluster);
        Ok(())
    }

    /// Log and machine, as openraft wants them. The machine becomes what the last snapshot says.
    ///
    /// # Errors
    ///
    /// The disk failed, or the machine does not understand its snapshot.
    pub(crate) async fn into_parts<M: Machine>(
        self,
        machine: M,
    ) -> Result<(LogStore, MachineStore<M>), StoreError> {
        let log = LogStore::open(self.disk.clone()).await?;
        let machine = MachineStore::open(self.disk, machine).await?;
        Ok((log, machine))
    }

    /// What the disk failed of, if it did: the first failure. Its text says what to do. openraft has stopped then.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<StoreError>> {
        self.disk.fault()
    }
}
