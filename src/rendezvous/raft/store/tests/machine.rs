//! A machine that remembers all it was told.

use bytes::Bytes;

use crate::rendezvous::raft::{At, Machine};

const VERSION: u8 = 1;

/// Commands and their places, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Diary {
    pub(super) lines: Vec<(u64, u64, Vec<u8>)>,
}

impl Machine for Diary {
    fn apply(&mut self, at: At, command: &[u8]) -> Bytes {
        self.lines.push((at.term, at.index, command.to_vec()));
        Bytes::copy_from_slice(command)
    }

    fn snapshot(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_stdvec(&self.lines).unwrap());
        bytes.into()
    }

    fn restore(&mut self, _at: At, snapshot: &[u8]) -> Result<(), String> {
        let body = snapshot.strip_prefix(&[VERSION]).ok_or("another version")?;
        self.lines = postcard::from_bytes(body).map_err(|error| error.to_string())?;
        Ok(())
    }
}
