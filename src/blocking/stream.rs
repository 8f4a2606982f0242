//! Byte streams as [`Read`] and [`Write`].

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Messenger, RecvTimeoutError};
use crate::driver::own;
use crate::member::MemberId;
use crate::messenger::{self, OpenError};

impl Messenger {
    /// Opens a byte stream to a member there is a session with. Waits for room for the opening message, but not inside a
    /// handler, which could wait for itself.
    ///
    /// # Errors
    ///
    /// [`OpenError`], with [`OpenError::Full`] when the time is over; no stream was opened.
    pub fn open_stream(
        &self,
        member: MemberId,
        name: &str,
        timeout: Duration,
    ) -> Result<ByteStream, OpenError> {
        let opened = own::wait_for(self.core.messenger.open_stream(member, name), timeout);
        opened.unwrap_or(Err(OpenError::Full)).map(ByteStream::new)
    }

    /// The next byte stream that a peer opened.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError`]: the time is over, or the messenger is closed.
    pub fn accept_stream(&self, timeout: Duration) -> Result<ByteStream, RecvTimeoutError> {
        let accepted = own::wait_for(self.core.messenger.accept_stream(), timeout);
        let accepted = accepted.ok_or(RecvTimeoutError::Timeout)?;
        accepted.map(ByteStream::new).ok_or(RecvTimeoutError::Disconnected)
    }
}

/// A duplex stream of bytes to one peer, as [`karere::ByteStream`](crate::ByteStream), with its windows, ends and errors.
/// Reads and writes wait without bound, unless [`ByteStream::set_timeout`] says for how long; they end with the session in
/// any case.
#[derive(Debug)]
#[must_use = "a byte stream that is dropped is aborted"]
pub struct ByteStream {
    read: ReadHalf,
    write: WriteHalf,
}

/// The half of a [`ByteStream`] that reads.
#[derive(Debug)]
pub struct ReadHalf {
    stream: Arc<messenger::ByteStream>,
    timeout: Duration,
}

/// The half of a [`ByteStream`] that writes.
#[derive(Debug)]
pub struct WriteHalf {
    stream: Arc<messenger::ByteStream>,
    timeout: Duration,
}

impl ByteStream {
    fn new(stream: messenger::ByteStream) -> Self {
        let stream = Arc::new(stream);
        let read = ReadHalf { stream: Arc::clone(&stream), timeout: Duration::MAX };
        Self { read, write: WriteHalf { stream, timeout: Duration::MAX } }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> MemberId {
        self.read.stream.peer()
    }

    /// The name it was opened with, at most 255 bytes; may be empty, need not be unique.
    #[must_use]
    pub fn name(&self) -> &str {
        self.read.stream.name()
    }

    /// How long one read, write or [`ByteStream::finish`] may wait; then it fails with [`io::ErrorKind::TimedOut`], and has
    /// read or written nothing. `None`, and at first: without bound.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.read.set_timeout(timeout);
        self.write.set_timeout(timeout);
    }

    /// Ends our direction; the peer reads to the end of what was written. Reading goes on.
    ///
    /// # Errors
    ///
    /// As for writing.
    pub fn finish(&mut self) -> io::Result<()> {
        self.write.finish()
    }

    /// Ends both directions at once. The peer's reads and writes fail with this reason (at most 512 bytes of it).
    pub fn abort(self, reason: &str) {
        self.read.stream.abort_shared(reason);
    }

    /// For two threads, one that reads and one that writes. The stream is dropped when both halves are.
    #[must_use]
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

impl ReadHalf {
    /// See [`ByteStream::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout.unwrap_or(Duration::MAX);
    }
}

impl WriteHalf {
    /// See [`ByteStream::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout.unwrap_or(Duration::MAX);
    }

    /// See [`ByteStream::finish`].
    ///
    /// # Errors
    ///
    /// As for writing.
    pub fn finish(&mut self) -> io::Result<()> {
        wait(self.timeout, |cx| self.stream.poll_shutdown_shared(cx))
    }
}

fn wait<T>(timeout: Duration, poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
    own::wait_for(poll_fn(poll), timeout).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let bytes = wait(self.timeout, |cx| self.stream.poll_read_shared(cx, buffer.len()))?;
        // No more than was asked for comes.
        for (to, from) in buffer.iter_mut().zip(&bytes) {
            *to = *from;
        }
        Ok(bytes.len())
    }
}

impl Write for WriteHalf {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        wait(self.timeout, |cx| self.stream.poll_write_shared(cx, buffer))
    }

    /// Written bytes are on their way: there is nothing to flush.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ByteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer)
    }
}

impl Write for ByteStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write.flush()
    }
}
