//! What can be wrong with a disk, by blame, each with its mend.

use std::io;

use super::Names;

/// Why the store does not open, or stopped. Whatever it is, nothing that was acknowledged has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The directory, or the snapshot's file, belongs to another network: the configuration's fault. Nothing was changed.
    #[error(
        "{place} belongs to network {theirs}, and this server is configured for {ours}: correct environment and network, \
         or give what belongs to {ours}"
    )]
    OtherNetwork {
        /// Directory.
        place: String,
        /// What the directory says.
        theirs: Names,
        /// What we were told.
        ours: Names,
    },
    /// Written by a newer release. Nothing was changed.
    #[error(
        "{place} is of format {format}, and this release reads up to {known}: start the newer release that wrote it"
    )]
    NewerFormat {
        /// Directory.
        place: String,
        /// What the directory says.
        format: u32,
        /// The newest we read.
        known: u32,
    },
    /// Bytes that nobody wrote: the disk's fault. The store does not open; the file stays as it is for whoever wants to look.
    #[error(
        "{place} is damaged ({what}): move it away and let this server join anew with an empty directory; \
         if it was the only server, restore a snapshot (`karere rendezvous restore`)"
    )]
    Corrupt {
        /// Directory.
        place: String,
        /// What was found.
        what: String,
    },
    /// The operating system refuses. Nothing was changed.
    #[error(
        "{place} may not be read and written by this user ({what}): give it to the user that runs the server"
    )]
    Denied {
        /// Directory.
        place: String,
        /// What the system said.
        what: String,
    },
    /// No room. What was not written was not acknowledged; a restart goes on with what was.
    #[error(
        "the disk of {place} is full ({what}): make room, then restart this server; nothing acknowledged is lost"
    )]
    Full {
        /// Directory.
        place: String,
        /// What the system said.
        what: String,
    },
    /// Another process runs on the same directory. Nothing was changed.
    #[error(
        "{place} is in use by another process: stop that server, or give this one a directory of its own"
    )]
    InUse {
        /// Directory.
        place: String,
    },
    /// Any other failure of the disk. What was not written was not acknowledged.
    #[error(
        "the disk of {place} failed ({what}): look at the disk, then restart this server; nothing acknowledged is lost"
    )]
    Disk {
        /// Directory.
        place: String,
        /// What the system said.
        what: String,
    },
    /// A restore goes into an empty directory only. Nothing was changed.
    #[error("{place} already holds a server's store: restore into an empty directory, or move this one away")]
    NotEmpty {
        /// Directory.
        place: String,
    },
    /// There is no store to recover from, or to copy. Nothing was changed.
    #[error("{place} holds no store: name the data directory of a server that ran")]
    Empty {
        /// Directory.
        place: String,
    },
    /// A snapshot's file that cannot be used. Nothing was changed.
    #[error("{file} is no snapshot that can be restored ({what}): take another copy")]
    SnapshotFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The state in the store is not understood by this release's state machine. Nothing was changed.
    #[error("the state in {place} cannot be read ({what}): start the release that wrote it")]
    State {
        /// Directory.
        place: String,
        /// What the machine said.
        what: String,
    },
}

/// A failure before its place is known.
#[derive(Debug)]
pub(super) enum Wrong {
    /// Of the database.
    Database(redb::Error),
    /// Bytes that cannot be what we wrote.
    Bytes(String),
    /// Already said in full.
    Said(StoreError),
}

impl Wrong {
    pub(super) fn bytes(what: impl Into<String>) -> Self {
        Self::Bytes(what.into())
    }

    /// The same, with its place.
    pub(super) fn at(self, place: &str) -> StoreError {
        let place = place.to_owned();
        match self {
            Self::Said(error) => error,
            Self::Bytes(what) => StoreError::Corrupt { place, what },
            Self::Database(error) => of_database(place, error),
        }
    }
}

fn of_database(place: String, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => of_io(place, &error),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::InUse { place },
        redb::Error::Corrupted(what) => StoreError::Corrupt { place, what },
        // A table of another shape, or a file older than any release of ours.
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::LockPoisoned(_)) => StoreError::Corrupt { place, what: error.to_string() },
        error => StoreError::Disk { place, what: error.to_string() },
    }
}

/// A failed call to the operating system, by blame.
pub(super) fn of_io(place: String, error: &io::Error) -> StoreError {
    let what = error.to_string();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Denied { place, what }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { place, what }
        }
        // How redb says that the file is not one of its own.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreError::Corrupt { place, what },
        _ => StoreError::Disk { place, what },
    }
}

macro_rules! of_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Wrong {
            fn from(error: $error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}

of_redb!(
    redb::Error,
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);
