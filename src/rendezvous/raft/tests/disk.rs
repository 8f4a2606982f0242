//! Disks that outlive their processes, and a machine that writes down what it is told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use redb::StorageBackend;

use crate::rendezvous::raft::{At, Disk, Machine};

/// A disk. Each process that opens it gets a handle; those of processes before are dead.
#[derive(Clone, Debug, Default)]
pub(super) struct Platter(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    bytes: Mutex<Vec<u8>>,
    handle: AtomicU64,
    full: AtomicBool,
}

impl Platter {
    pub(super) fn open(&self) -> Disk {
        let handle = self.0.handle.fetch_add(1, Ordering::SeqCst) + 1;
        Disk::of_backend(Handle { inside: Arc::clone(&self.0), handle })
    }

    /// From now on nothing can be written.
    pub(super) fn fill(&self) {
        self.0.full.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Handle {
    inside: Arc<Inside>,
    handle: u64,
}

impl Handle {
    fn alive(&self) -> io::Result<()> {
        let is_alive = self.inside.handle.load(Ordering::SeqCst) == self.handle;
        if is_alive { Ok(()) } else { Err(io::Error::other("of a process that is no more")) }
    }

    fn writable(&self) -> io::Result<()> {
        self.alive()?;
        if self.inside.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.inside.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.alive()?;
        let bytes = self.inside.bytes.lock();
        let from = offset as usize;
        let part = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.inside.bytes.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable()?;
        let from = offset as usize;
        self.inside.bytes.lock()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Writes down what was decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(pub(super) Arc<Mutex<Vec<Vec<u8>>>>);

impl Book {
    pub(super) fn commands(&self) -> Vec<Vec<u8>> {
        self.0.lock().clone()
    }
}

impl Machine for Book {
    fn apply(&mut self, at: At, command: &[u8]) -> Bytes {
        self.0.lock().push(command.to_vec());
        Bytes::copy_from_slice(&at.index.to_be_bytes())
    }

    fn snapshot(&self) -> Bytes {
        postcard::to_stdvec(&*self.0.lock()).unwrap().into()
    }

    fn restore(&mut self, _: At, snapshot: &[u8]) -> Result<(), String> {
        *self.0.lock() = postcard::from_bytes(snapshot).map_err(|error| error.to_string())?;
        Ok(())
    }
}
