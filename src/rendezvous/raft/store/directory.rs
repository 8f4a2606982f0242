//! A data directory: one process at a time, and a file that is whole from its first moment.
//!
//! redb cannot open a file whose very first pages were cut by a power failure. So a file is founded under another name, and gets
//! its own once all of it is on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Builder, Database};

use super::error::{StoreError, Wrong, of_io};

const FILE: &str = "rendezvous.redb";
/// What a crash left of a founding; nobody has been told anything of what it says.
const FOUNDING: &str = "rendezvous.redb.new";
/// Locked by the process that has the directory. redb's own lock comes too late for the founding.
const LOCK: &str = "rendezvous.lock";

#[derive(Clone, Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// Whether a store was founded here.
    pub(super) fn has_store(&self) -> io::Result<bool> {
        match self.0.join(FILE).metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory, for its owner only, where there is none.
    pub(super) fn make(&self) -> Result<(), Wrong> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        self.said(builder.create(&self.0))
    }

    /// Takes it for this process, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, Wrong> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = self.said(private(&mut options).open(self.0.join(LOCK)))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Wrong::Said(StoreError::InUse { place: self.name() })),
            // Some network file systems have none. redb's lock is left then, or refuses as well.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::Error(error)) => self.said(Err(error)),
        }
    }

    /// Makes the file. It is there with all that `found` writes, or not at all.
    pub(super) fn found(
        &self,
        builder: &Builder,
        found: impl FnOnce(&Database) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        let path = self.0.join(FOUNDING);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return self.said(Err(error)),
            Ok(()) | Err(_) => {}
        }
        self.said(private(OpenOptions::new().write(true).create_new(true)).open(&path))?;
        let database = builder.create(&path)?;
        found(&database)?;
        drop(database);
        let placed = File::open(&path).and_then(|file| file.sync_all());
        let placed = placed.and_then(|()| fs::rename(&path, self.0.join(FILE)));
        self.said(placed.and_then(|()| sync(&self.0)))
    }

    pub(super) fn open(&self, builder: &Builder) -> Result<Database, Wrong> {
        Ok(builder.open(self.0.join(FILE))?)
    }

    pub(super) fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn said<T>(&self, done: io::Result<T>) -> Result<T, Wrong> {
        done.map_err(|error| Wrong::Said(of_io(self.name(), &error)))
    }
}

/// For its owner only.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// A new name is on the disk once its directory is. Elsewhere than on Unix a directory cannot be asked.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
