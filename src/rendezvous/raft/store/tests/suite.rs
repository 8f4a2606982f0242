//! openraft's own claims about a store.

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use redb::backends::InMemoryBackend;

use super::super::{Disk, LogStore, MachineStore, Store};
use super::machine::Diary;
use super::names;
use crate::rendezvous::raft::types::{ServerId, Types};

struct InMemory;

impl StoreBuilder<Types, LogStore, MachineStore<Diary>> for InMemory {
    async fn build(&self) -> Result<((), LogStore, MachineStore<Diary>), StorageError<ServerId>> {
        let disk = Disk::of_backend(InMemoryBackend::new());
        let store = Store::open(disk, &names(), 1).await.unwrap();
        let (log, machine) = store.into_parts(Diary::default()).await.unwrap();
        Ok(((), log, machine))
    }
}

struct InDirectory;

impl StoreBuilder<Types, LogStore, MachineStore<Diary>, tempfile::TempDir> for InDirectory {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, MachineStore<Diary>), StorageError<ServerId>> {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Disk::in_directory(directory.path()), &names(), 1).await.unwrap();
        let (log, machine) = store.into_parts(Diary::default()).await.unwrap();
        Ok((directory, log, machine))
    }
}

#[test]
fn openraft_finds_nothing_wrong_with_the_store_in_memory() {
    Suite::test_all(InMemory).unwrap();
}

#[test]
fn openraft_finds_nothing_wrong_with_the_store_in_a_directory() {
    Suite::test_all(InDirectory).unwrap();
}
