//! A machine that remembers all it was told, and lets a test look.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::rendezvous::raft::{At, Machine};

const VERSION: u8 = 1;

/// Term, index and command, in order.
pub(super) type Lines = Vec<(u64, u64, Vec<u8>)>;

/// Clones are of the same machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Diary(pub(super) Arc<Mutex<Lines>>);

impl Diary {
    pub(super) fn lines(&self) -> Lines {
        self.0.lock().clone()
    }

    pub(super) fn of(snapshot: &[u8]) -> Lines {
        let mut diary = Self::default();
        diary.restore(At::default(), snapshot).unwrap();
        diary.lines()
    }
}

impl Machine for Diary {
    fn apply(&mut self, at: At, command: &[u8]) -> Bytes {
        self.0.lock().push((at.term, at.index, command.to_vec()));
        Bytes::copy_from_slice(command)
    }

    fn snapshot(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_stdvec(&*self.0.lock()).unwrap());
        bytes.into()
    }

    fn restore(&mut self, _at: At, snapshot: &[u8]) -> Result<(), String> {
        let body = snapshot.strip_prefix(&[VERSION]).ok_or("another version")?;
        *self.0.lock() = postcard::from_bytes(body).map_err(|error| error.to_string())?;
        Ok(())
    }
}
