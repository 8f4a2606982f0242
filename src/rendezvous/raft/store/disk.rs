//! Where a server keeps what must outlive it, and how the store speaks to it.
//!
//! A commit is in two phases (two fsyncs): a file whose newest transaction is damaged is then refused, where one fsync less would
//! quietly go back to the transaction before it, which is a forgotten vote. On the machine of 2026-11 (a virtual disk whose
//! fdatasync takes 4 ms, under a load of 13 on two cores, debug build) a vote takes 12 ms at the median, an append of one entry
//! 13 ms, of 64 entries 18 ms: many entries cost hardly more than one.

use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction,
};
use tokio::sync::{Mutex, watch};

use super::directory::Directory;
use super::error::{StoreError, Wrong};
use super::tables;

/// redb's cache of pages. The whole store is some megabytes; redb's default is a gigabyte.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a server keeps what must outlive it.
#[derive(Debug)]
pub(crate) struct Disk {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory(Directory),
    Backend(Held),
}

impl Disk {
    /// A data directory. It is made, for its owner only, when a store is first opened there.
    pub(crate) fn in_directory(path: impl AsRef<Path>) -> Self {
        Self { kind: Kind::Directory(Directory(path.as_ref().to_owned())) }
    }

    /// Another kind of storage: memory, or a disk that fails on purpose. Every call runs inline, on the caller's task, so that a
    /// simulation replays. A cut of the power while it is founded may leave a backend that does not open: nobody was told anything
    /// of it yet, begin with a new one. (A directory does.)
    pub(crate) fn of_backend(backend: impl StorageBackend) -> Self {
        Self { kind: Kind::Backend(Held(Box::new(backend))) }
    }

    /// How errors name it.
    pub(super) fn place(&self) -> String {
        match &self.kind {
            Kind::Directory(directory) => directory.name(),
            Kind::Backend(_) => "the store's backend".to_owned(),
        }
    }

    /// Opens the database, and mends what a crash left. Where there is none, it is founded with what `found` writes, whole or not
    /// at all. Says whether it was.
    pub(super) async fn open_or_found<F>(self, found: F) -> Result<(Arc<Open>, bool), StoreError>
    where
        F: FnOnce(&WriteTransaction) -> Result<(), Wrong> + Send + 'static,
    {
        self.on_its_thread(|kind| match kind {
            Kind::Directory(directory) => {
                directory.make()?;
                let lock = directory.lock()?;
                let fresh = !directory.has_store().map_err(redb::StorageError::from)?;
                if fresh {
                    directory.found(&builder(), |database| write(database, found))?;
                }
                Ok((directory.open(&builder())?, Some(lock), fresh))
            }
            Kind::Backend(backend) => {
                let database = builder().create_with_backend(backend)?;
                let fresh = tables::format(&database.begin_read()?)?.is_none();
                if fresh {
                    write(&database, found)?;
                }
                Ok((database, None, fresh))
            }
        })
        .await
    }

    /// Opens a database that is there, and mends what a crash left.
    pub(super) async fn open_existing(self) -> Result<Arc<Open>, StoreError> {
        let empty = StoreError::Empty { place: self.place() };
        let opened = self.on_its_thread(move |kind| match kind {
            Kind::Directory(directory) => {
                if !directory.has_store().map_err(redb::StorageError::from)? {
                    return Err(Wrong::Said(empty));
                }
                let lock = directory.lock()?;
                Ok((directory.open(&builder())?, Some(lock), false))
            }
            Kind::Backend(backend) if backend.len().map_err(redb::StorageError::from)? == 0 => {
                Err(Wrong::Said(empty))
            }
            Kind::Backend(backend) => Ok((builder().create_with_backend(backend)?, None, false)),
        });
        Ok(opened.await?.0)
    }

    /// For a directory the work is done on a thread that may block.
    async fn on_its_thread(
        self,
        work: impl FnOnce(Kind) -> Result<(Database, Option<File>, bool), Wrong> + Send + 'static,
    ) -> Result<(Arc<Open>, bool), StoreError> {
        let place = self.place();
        let inline = matches!(self.kind, Kind::Backend(_));
        let at = place.clone();
        let work = move || guarded(|| work(self.kind)).map_err(|wrong| wrong.at(&at));
        let (database, lock, fresh) = if inline { work() } else { blocking(&place, work).await }?;
        let order = Arc::new(Mutex::new(()));
        let open = Open { database, place, inline, order, fault: watch::Sender::new(None), _lock: lock };
        Ok((Arc::new(open), fresh))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    // Every page is verified before anything is believed; a plain open of a damaged file may panic.
    builder.set_cache_size(CACHE_BYTES_MAX).set_check_integrity_on_open(true);
    builder
}

/// One transaction, on the disk when this returns.
fn write<T>(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<T, Wrong>,
) -> Result<T, Wrong> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate).map_err(|error| Wrong::Database(error.into()))?;
    transaction.set_two_phase_commit(true);
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// An open database. All that is written to it is written one after another, in the order it was asked for.
pub(super) struct Open {
    database: Database,
    pub(super) place: String,
    inline: bool,
    order: Arc<Mutex<()>>,
    fault: watch::Sender<Option<StoreError>>,
    /// Let go when all of it is closed: the fields above are dropped first.
    _lock: Option<File>,
}

impl Open {
    /// One transaction: all of it is on the disk when this returns, or nothing of it ever counts.
    pub(super) async fn write<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTransaction) -> Result<T, Wrong> + Send + 'static,
    {
        let this = self.clone();
        // Held until the commit even if our caller is gone: what comes after must find it done.
        let turn = self.order.clone().lock_owned().await;
        self.run(move || {
            let _turn = turn;
            write(&this.database, work)
        })
        .await
    }

    /// Reads what was last committed.
    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, Wrong> + Send + 'static,
    {
        let this = self.clone();
        self.run(move || work(&this.database.begin_read()?)).await
    }

    async fn run<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Wrong> + Send + 'static,
    {
        let place = self.place.clone();
        let work = move || guarded(work).map_err(|wrong| wrong.at(&place));
        let done = if self.inline { work() } else { blocking(&self.place, work).await };
        if let Err(error) = &done {
            self.note(error);
        }
        done
    }

    /// The first failure is the one that explains those after it.
    fn note(&self, error: &StoreError) {
        self.fault.send_if_modified(|fault| {
            let first = fault.is_none();
            if first {
                tracing::error!(%error, "store");
                *fault = Some(error.clone());
            }
            first
        });
    }

    pub(super) fn fault(&self) -> watch::Receiver<Option<StoreError>> {
        self.fault.subscribe()
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("place", &self.place).finish_non_exhaustive()
    }
}

/// An fsync takes milliseconds, sometimes seconds: never on a thread of the runtime.
async fn blocking<T: Send + 'static>(
    place: &str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let stopped =
        |_| StoreError::Disk { place: place.to_owned(), what: "the runtime is stopping".to_owned() };
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

/// redb's own checks panic where a damaged file contradicts itself: that is the disk's fault, and is said as such.
fn guarded<T>(work: impl FnOnce() -> Result<T, Wrong>) -> Result<T, Wrong> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Wrong::bytes(format!("the database contradicts itself: {}", text.unwrap_or("no text"))))
    })
}

/// A backend behind a pointer. It has no locks of its own: who makes one knows who else has it.
#[derive(Debug)]
struct Held(Box<dyn StorageBackend>);

impl StorageBackend for Held {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.0.close()
    }
}
