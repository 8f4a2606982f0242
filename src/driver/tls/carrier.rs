//! What TLS reads from and writes to. TLS reads some 4 KiB at a time: a busy link gets a buffer of its own here, so that one
//! system call serves several of these. Counts what has left.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::driver::net::{BoxConn, Conn};
use crate::limits::TLS_READ_BYTES;

/// See the module's text.
pub(super) struct Carrier {
    conn: BoxConn,
    /// Read, and not taken by TLS yet.
    buffer: BytesMut,
    /// The last read filled the room there was.
    busy: bool,
    passed_on: u64,
}

impl Carrier {
    pub(super) fn new(conn: BoxConn) -> Self {
        Self { conn, buffer: BytesMut::new(), busy: false, passed_on: 0 }
    }

    /// Whether the other side begins with these bytes. None of them is taken. Cancel safe.
    pub(super) async fn begins_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        loop {
            let seen = self.buffer.len().min(bytes.len());
            if self.buffer.get(..seen) != bytes.get(..seen) {
                return Ok(false);
            }
            if seen == bytes.len() {
                return Ok(true);
            }
            self.buffer.reserve(1024);
            if self.conn.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(super) fn has_buffered(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn take(&mut self, to: &mut ReadBuf<'_>) {
        let count = self.buffer.len().min(to.remaining());
        to.put_slice(self.buffer.get(..count).unwrap_or_default());
        self.buffer.advance(count);
        if self.buffer.is_empty() && !self.busy {
            // An idle link holds none.
            self.buffer = BytesMut::new();
        }
    }
}

impl Conn for Carrier {
    fn abort(self: Box<Self>) {
        self.conn.abort();
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.conn.local_address()
    }

    fn passed_on(&self) -> u64 {
        self.passed_on
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            if !this.busy {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.conn).poll_read(cx, buf))?;
                this.busy = buf.remaining() == 0 && buf.filled().len() > before;
                return Poll::Ready(Ok(()));
            }
            this.buffer.reserve(TLS_READ_BYTES);
            let count =
                ready!(tokio_util::io::poll_read_buf(Pin::new(&mut this.conn), cx, &mut this.buffer))?;
            this.busy = count > TLS_READ_BYTES / 4;
        }
        this.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.conn).poll_write(cx, data))?;
        this.passed_on += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.conn).poll_write_vectored(cx, pieces))?;
        this.passed_on += count as u64;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }
}
