//! A snapshot as a file: `karereSN`, a version byte, the body's length (8 bytes, little endian), its CRC32C (4 bytes, little
//! endian), the body (postcard): whose it is, what it covers, the machine's bytes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use openraft::storage::Snapshot;
use serde::{Deserialize, Serialize};

use super::directory::{private, sync};
use super::error::{StoreError, of_io};
use super::identity::{Identity, Names};
use super::state::{Meta, at};
use crate::rendezvous::raft::At;
use crate::rendezvous::raft::types::Types;

const MAGIC: &[u8; 8] = b"karereSN";
const VERSION: u8 = 1;
/// Magic, version, length, checksum.
const HEAD_BYTES: usize = 8 + 1 + 8 + 4;

/// All that a cluster decided up to one place in its log, and whose decisions they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotFile {
    /// Of which network.
    pub(crate) names: Names,
    /// Its generation when it was taken.
    pub(crate) generation: u64,
    pub(super) meta: Meta,
    pub(super) state: Bytes,
}

impl SnapshotFile {
    /// Of a snapshot that openraft has: the online way.
    pub(in crate::rendezvous::raft) fn of(identity: &Identity, snapshot: Snapshot<Types>) -> Self {
        let Snapshot { meta, snapshot } = snapshot;
        Self { names: identity.names.clone(), generation: identity.generation, meta, state: *snapshot }
    }

    /// Up to which entry it has everything.
    pub(crate) fn upto(&self) -> At {
        at(self.meta.last_log_id)
    }

    /// Writes it beside the file first, and puts it in its place once it is on the disk: a crash leaves the old file or the new.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// The disk refuses. What stood there stands there still.
    pub(crate) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let bytes = self.encode().map_err(|what| StoreError::SnapshotFile { file: name(path), what })?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let written = put(Path::new(&beside), &bytes).and_then(|()| fs::rename(&beside, path));
        let written = written.and_then(|()| sync(directory(path)));
        if let Err(error) = written {
            // It is nothing whole, and in the way of the next attempt.
            let _ = fs::remove_file(&beside);
            return Err(of_io(name(path), &error));
        }
        Ok(())
    }

    /// Reads one. Blocks.
    ///
    /// # Errors
    ///
    /// The disk refuses, or the file is not what was written.
    pub(crate) fn read(path: &Path) -> Result<Self, StoreError> {
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => {
                StoreError::SnapshotFile { file: name(path), what: error.to_string() }
            }
            _ => of_io(name(path), &error),
        })?;
        Self::decode(&bytes).map_err(|what| StoreError::SnapshotFile { file: name(path), what })
    }

    /// As it stands in a file.
    ///
    /// # Errors
    ///
    /// It cannot be written down; nothing says that it ever happens.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let body = postcard::to_stdvec(self).map_err(|error| error.to_string())?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let short = || format!("it ends after {} bytes", bytes.len());
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
        if magic != MAGIC {
            return Err("it does not begin like one".to_owned());
        }
        let (version, rest) = rest.split_first().ok_or_else(short)?;
        if *version != VERSION {
            return Err(format!("it is of version {version}, this release reads {VERSION}"));
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (checksum, body) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u64::from_le_bytes(*length);
        if length != body.len() as u64 {
            return Err(format!("it has {} bytes of {length}", body.len()));
        }
        if u32::from_le_bytes(*checksum) != crc32c::crc32c(body) {
            return Err("it does not match its checksum".to_owned());
        }
        let (file, rest) = postcard::take_from_bytes(body).map_err(|error| error.to_string())?;
        if rest.is_empty() { Ok(file) } else { Err("it has bytes behind its end".to_owned()) }
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Members' addresses are nobody else's business.
    let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where the file lies.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
