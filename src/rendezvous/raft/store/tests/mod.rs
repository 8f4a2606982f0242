//! Claims about the store, each shown on a disk that does what disks do.

mod calls;
#[cfg(unix)]
mod cost;
mod damage;
mod full;
mod machine;
mod offline;
mod open;
mod platter;
mod power;
mod single;
mod suite;

use std::future::Future;

use openraft::{CommittedLeaderId, EntryPayload, LogId};

use super::tables::Entry;
use super::{Disk, LogStore, MachineStore, Names, Store, StoreError};
use crate::rendezvous::raft::types::{Command, ServerId};
use machine::Diary;

const ME: ServerId = 7;

fn names() -> Names {
    Names { environment: "testing".to_owned(), network: "ours".to_owned() }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn parts(disk: Disk) -> Result<(Store, LogStore, MachineStore<Diary>), StoreError> {
    let store = Store::open(disk, &names(), ME).await?;
    let (log, machine) = store.clone().into_parts(Diary::default()).await?;
    Ok((store, log, machine))
}

fn place(term: u64, index: u64) -> LogId<ServerId> {
    LogId::new(CommittedLeaderId::new(term, ME), index)
}

fn command(term: u64, index: u64, bytes: Vec<u8>) -> Entry {
    Entry { log_id: place(term, index), payload: EntryPayload::Normal(Command(bytes.into())) }
}
