//! [`ByteStream`]: what the application holds.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::mux::Key;
use super::streams::Streams;
use crate::member::MemberId;

/// A duplex stream of bytes to one peer, inside the session with it: in order, exactly once, whatever becomes of the
/// connections below.
///
/// Each direction has its own end ([`shutdown`](tokio::io::AsyncWriteExt::shutdown)) and its own window: a peer that
/// does not read stops this writer after 512 KiB (524,288 bytes), and no other stream. Written bytes are on their
/// way: there is nothing to flush.
///
/// Dropped before both directions have ended, it is aborted, and the peer reads and writes an error with the text
/// `dropped`. So shut down and read to the end, or expect it. What a peer has sent completely, with its end, stays
/// readable after its abort and after the loss of the session.
///
/// # Errors
///
/// Every error is a [`StreamError`](super::StreamError) inside an [`io::Error`]; it stays, and the other streams of
/// the session go on (unless the session is lost).
///
/// | kind | what it means |
/// |---|---|
/// | `ConnectionAborted` | the peer aborted or dropped its end; with its reason |
/// | `ConnectionReset` | the session is over: the peer restarted or left, or this side was closed |
/// | `BrokenPipe` | written after `shutdown`; reading goes on |
/// | `InvalidData` | the peer broke the protocol |
///
/// # Cancel safety
///
/// `read`, `write` and `shutdown` are cancel safe: a dropped future has taken or sent nothing, or has said so. A
/// `shutdown` that was dropped has shut down all the same. `read_exact`, `write_all` and `copy` are not; they never
/// are.
///
/// One task may read and one other write, through [`tokio::io::split`].
#[must_use = "a byte stream that is dropped is aborted"]
pub struct ByteStream {
    streams: Arc<Streams>,
    key: Key,
    name: String,
}

impl ByteStream {
    pub(super) const fn new(streams: Arc<Streams>, key: Key, name: String) -> Self {
        Self { streams, key, name }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> MemberId {
        self.streams.peer()
    }

    /// The name it was opened with, at most 255 bytes; may be empty, need not be unique.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends both directions at once. The peer's reads and writes fail with this reason (at most 512 bytes of it);
    /// what it has not read yet is gone, unless this side had shut down before.
    ///
    /// Does nothing to a stream whose directions have both ended.
    pub fn abort(self, reason: &str) {
        self.abort_shared(reason);
    }

    pub(crate) fn abort_shared(&self, reason: &str) {
        self.streams.abort(self.key, reason);
    }

    // For halves on threads: one reads, one writes.

    pub(crate) fn poll_read_shared(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        self.streams.poll_read(self.key, cx, most)
    }

    pub(crate) fn poll_write_shared(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.streams.poll_write(self.key, cx, buf)
    }

    pub(crate) fn poll_shutdown_shared(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.streams.poll_shutdown(self.key, cx)
    }
}

impl AsyncRead for ByteStream {
    /// Nothing at the end of the peer's direction.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.streams.poll_read(self.key, cx, buf.remaining()).map_ok(|bytes| buf.put_slice(&bytes))
    }
}

impl AsyncWrite for ByteStream {
    /// Takes at most 32 KiB at once, and no more than the window has left.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.streams.poll_write(self.key, cx, buf)
    }

    /// Always ready: written bytes are on their way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our direction; ready when that is on its way. May be repeated.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.streams.poll_shutdown(self.key, cx)
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        self.streams.dropped(self.key);
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream")
            .field("peer", &self.peer())
            .field("name", &self.name)
            .field("key", &self.key)
            .finish()
    }
}
