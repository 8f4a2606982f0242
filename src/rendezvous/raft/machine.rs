//! What the log decides.

use bytes::Bytes;

/// Where in the log a command stands. Indexes only grow, and so do terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At {
    /// Of the leader that proposed it.
    pub(crate) term: u64,
    /// Its place, from 1.
    pub(crate) index: u64,
}

/// What the log decides: the same on every server, because each applies the same commands in the same order. It reads no clock
/// and draws no chance.
pub(crate) trait Machine: Send + 'static {
    /// Applies a committed command, and says what its proposer is told. A command that cannot be decoded changes nothing, and is
    /// answered so.
    fn apply(&mut self, at: At, command: &[u8]) -> Bytes;

    /// All of it, with a version byte first.
    fn snapshot(&self) -> Bytes;

    /// Becomes what a snapshot says, as of that place in the log.
    ///
    /// # Errors
    ///
    /// It cannot be read: nothing has changed. The text says what is wrong.
    fn restore(&mut self, at: At, snapshot: &[u8]) -> Result<(), String>;
}
