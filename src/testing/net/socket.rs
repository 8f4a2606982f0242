//! One end of a simulated connection, as the driver sees it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::{ConnId, Network};
use crate::driver::net::Conn;

/// See the module's text.
pub(super) struct Socket {
    network: Arc<Network>,
    conn: ConnId,
    side: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(network: Arc<Network>, conn: ConnId, side: usize) -> Self {
        Self { network, conn, side, sleep: None }
    }
}

impl Conn for Socket {
    fn abort(self: Box<Self>) {
        self.network.abort(self.conn, self.side);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let (conn, side) = (self.conn, self.side);
            let until = match self.network.read(conn, side, cx.waker(), buf) {
                Poll::Ready(read) => return Poll::Ready(read),
                Poll::Pending => self.network.next_read(conn, side),
            };
            // Bytes are on their way: woken when they arrive.
            let Some(until) = until else { return Poll::Pending };
            let until = tokio::time::Instant::from_std(until);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if sleep.deadline() != until {
                sleep.as_mut().reset(until);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.network.write(self.conn, self.side, cx.waker(), &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.network.write(self.conn, self.side, cx.waker(), pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.shut_down(self.conn, self.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.close(self.conn, self.side);
    }
}
