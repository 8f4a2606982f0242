//! All of the state, as a snapshot of the log keeps it.

use bytes::Bytes;

use super::command::{read_version, with_version};
use super::{Kept, State};

/// The first byte of a snapshot.
const VERSION: u8 = 1;

impl State {
    pub(crate) fn snapshot(&self) -> Bytes {
        with_version(VERSION, &(self.index, &self.kept))
    }

    /// Becomes what a snapshot says. What changed before is not known any more, so whoever is behind gets everything.
    ///
    /// # Errors
    ///
    /// It cannot be read, and why; nothing has changed.
    pub(crate) fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let (index, kept): (u64, Kept) = read_version(VERSION, "snapshot", snapshot)?;
        let routes = kept.members.values().map(|entry| entry.routes.len()).sum();
        self.history.clear();
        (self.index, self.kept, self.routes) = (index, kept, routes);
        Ok(())
    }
}
