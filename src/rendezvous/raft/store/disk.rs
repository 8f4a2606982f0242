//! Where a server keeps what must outlive it, and how the store speaks to it.
//!
//! A commit is in two phases (two fsyncs): a file whose newest transaction is damaged is then refused, where one fsync less would
//! quietly go back to the transaction before it, which is a forgotten vote.

use std::fmt;
use std::fs::DirBuilder;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction,
};
use tokio::sync::{Mutex, watch};

use super::error::{StoreError, Wrong, of_io};

/// The file in the data directory.
const FILE: &str = "rendezvous.redb";
/// redb's cache of pages. The whole store is some megabytes; redb's default is a gigabyte.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a server keeps what must outlive it.
#[derive(Debug)]
pub(crate) struct Disk {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory(PathBuf),
    Backend(Held),
}

impl Disk {
    /// A data directory. It is made, for its owner only, when a store is first opened there.
    pub(crate) fn in_directory(path: impl AsRef<Path>) -> Self {
        Self { kind: Kind::Directory(path.as_ref().to_owned()) }
    }

    /// Another kind of storage: memory, or a disk that fails on purpose. Every call runs inline, on the caller's task, so that a
    /// simulation replays.
    pub(crate) fn of_backend(backend: impl StorageBackend) -> Self {
        Self { kind: Kind::Backend(Held(Box::new(backend))) }
    }

    /// How errors name it.
    pub(super) fn place(&self) -> String {
        match &self.kind {
            Kind::Directory(path) => path.display().to_string(),
            Kind::Backend(_) => "the store's backend".to_owned(),
        }
    }

    /// Whether nothing was ever stored here.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let length = match &self.kind {
            Kind::Directory(path) => match path.join(FILE).metadata() {
                Ok(metadata) => Ok(metadata.len()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
                Err(error) => Err(error),
            },
            Kind::Backend(backend) => backend.0.len(),
        };
        length.map(|length| length == 0).map_err(|error| of_io(self.place(), &error))
    }

    /// Opens the database, and mends what a crash left. For a directory the work is done on a thread that may block.
    pub(super) async fn open(self) -> Result<Arc<Open>, StoreError> {
        let place = self.place();
        let inline = matches!(self.kind, Kind::Backend(_));
        let at = place.clone();
        let open = move || guarded(|| self.open_database()).map_err(|wrong| wrong.at(&at));
        let database = if inline { open() } else { blocking(&place, open).await }?;
        Ok(Arc::new(Open {
            database,
            place,
            inline,
            order: Arc::new(Mutex::new(())),
            fault: watch::Sender::new(None),
        }))
    }

    fn open_database(self) -> Result<Database, Wrong> {
        let mut builder = Builder::new();
        // Every page is verified before anything is believed; a plain open of a damaged file may panic.
        builder.set_cache_size(CACHE_BYTES_MAX).set_check_integrity_on_open(true);
        let database = match self.kind {
            Kind::Backend(backend) => builder.create_with_backend(backend),
            Kind::Directory(path) => {
                let io = |error: std::io::Error| Wrong::Said(of_io(path.display().to_string(), &error));
                let mut directory = DirBuilder::new();
                directory.recursive(true);
                #[cfg(unix)]
                std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
                directory.create(&path).map_err(io)?;
                builder.create(path.join(FILE))
            }
        };
        Ok(database?)
    }
}

/// An open database. All that is written to it is written one after another, in the order it was asked for.
pub(super) struct Open {
    database: Database,
    pub(super) place: String,
    inline: bool,
    order: Arc<Mutex<()>>,
    fault: watch::Sender<Option<StoreError>>,
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
            let mut transaction = this.database.begin_write()?;
            transaction
                .set_durability(Durability::Immediate)
                .map_err(|error| Wrong::Database(error.into()))?;
            transaction.set_two_phase_commit(true);
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
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
