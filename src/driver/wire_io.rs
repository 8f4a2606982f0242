//! A live link's connection: reads into the frame reader's buffer, writes what the core gave, in few system calls.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::janitor::LinkUp;
use super::net::BoxConn;
use crate::link::{FrameReader, LinkId};
use crate::session::Transmit;
use crate::wire::BodyCheck;

/// Pieces offered to one vectored write.
const PIECES_MAX: usize = 64;

/// See the module's text.
pub(crate) struct WireIo {
    pub(crate) link: LinkId,
    conn: BoxConn,
    pub(crate) reader: FrameReader,
    pub(crate) out: Transmit,
    /// The piece of `out` that is written next, and how much of it is.
    part: usize,
    offset: usize,
    /// Nothing was read since the last timer.
    quiet: bool,
    /// Counts it among the links; the one with oneself is none.
    _up: Option<LinkUp>,
    /// The connection may still hold what was written: it is not on its way before it was flushed.
    unflushed: bool,
}

impl WireIo {
    pub(super) fn new(
        link: LinkId,
        conn: BoxConn,
        check: BodyCheck,
        rest: &BytesMut,
        up: Option<LinkUp>,
    ) -> Self {
        let mut reader = FrameReader::new(check);
        reader.buffer().extend_from_slice(rest);
        let out = Transmit::new(check);
        Self { link, conn, reader, out, part: 0, offset: 0, quiet: false, _up: up, unflushed: false }
    }

    /// Reads once. `Ok(0)`: the other side has ended.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let conn = Pin::new(&mut self.conn);
        let read = tokio_util::io::poll_read_buf(conn, cx, self.reader.buffer());
        if let Poll::Ready(Ok(_)) = &read {
            self.quiet = false;
            self.reader.note_read();
        }
        read
    }

    /// Gives the read buffer back when nothing was read between two calls.
    pub(crate) fn note_timer(&mut self) {
        if std::mem::replace(&mut self.quiet, true) {
            self.reader.note_idle();
        }
    }

    /// Writes what is there, and flushes it. Ready with how much was taken, also if it was not all.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while !self.out.is_empty() {
            self.unflushed = true;
            match self.poll_write_once(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    taken += count;
                    self.advance(count);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.poll_flush(cx, taken)
    }

    /// What was taken may still be in the connection's own buffer. A flush that gets some of it out is progress as well.
    fn poll_flush(&mut self, cx: &mut Context<'_>, taken: usize) -> Poll<io::Result<usize>> {
        let before = self.conn.passed_on();
        match Pin::new(&mut self.conn).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if taken > 0 || self.conn.passed_on() > before => Poll::Ready(Ok(taken)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let conn = Pin::new(&mut self.conn);
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        let rest = self.out.parts.get(self.part..).unwrap_or_default();
        for (slot, piece) in pieces.iter_mut().zip(rest) {
            let skip = if count == 0 { self.offset } else { 0 };
            *slot = IoSlice::new(piece.get(skip..).unwrap_or_default());
            count += 1;
        }
        conn.poll_write_vectored(cx, pieces.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.out.parts.get(self.part) {
            let left = piece.len() - self.offset;
            if count < left {
                self.offset += count;
                return;
            }
            count -= left;
            self.offset = 0;
            self.part += 1;
        }
        self.out.clear();
        self.part = 0;
    }

    /// Whether nothing is left to be written or flushed.
    pub(crate) fn is_written(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// The connection and what was not written of what was begun, for parting.
    pub(crate) fn into_parts(mut self) -> (BoxConn, Vec<Bytes>) {
        let mut rest: Vec<Bytes> = self.out.parts.drain(self.part.min(self.out.parts.len())..).collect();
        if let Some(first) = rest.first_mut() {
            bytes::Buf::advance(first, self.offset.min(first.len()));
        }
        (self.conn, rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use parking_lot::Mutex;
    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;
    use crate::driver::net::Conn;

    /// Takes everything at once, and lets out what it is allowed to.
    #[derive(Debug, Default)]
    struct Holder {
        held: usize,
        passed_on: u64,
        /// How much the next flushes may let out; shared with the test.
        allowed: Arc<Mutex<usize>>,
    }

    impl Conn for Holder {
        fn abort(self: Box<Self>) {}

        fn passed_on(&self) -> u64 {
            self.passed_on
        }
    }

    impl AsyncRead for Holder {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Holder {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held += data.len();
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let out = std::mem::take(&mut *self.allowed.lock()).min(self.held);
            self.held -= out;
            self.passed_on += out as u64;
            if self.held == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_the_connection_only_holds_is_not_written_and_a_flush_that_lets_some_out_is_progress() {
        let holder = Holder::default();
        let allowed = Arc::clone(&holder.allowed);
        let mut wire = WireIo::new(LinkId(1), Box::new(holder), BodyCheck::Absent, &BytesMut::new(), None);
        let mut cx = Context::from_waker(Waker::noop());
        wire.out.push(Bytes::from_static(b"0123456789"));
        assert!(matches!(wire.poll_write(&mut cx), Poll::Ready(Ok(10))), "taken");
        assert!(!wire.is_written(), "and not on its way");
        assert!(wire.poll_write(&mut cx).is_pending(), "a flush that is blocked is a write that is stalled");
        *allowed.lock() = 4;
        assert!(matches!(wire.poll_write(&mut cx), Poll::Ready(Ok(0))), "some went out");
        assert!(!wire.is_written());
        *allowed.lock() = 100;
        assert!(matches!(wire.poll_write(&mut cx), Poll::Ready(Ok(0))));
        assert!(wire.is_written());
    }
}
