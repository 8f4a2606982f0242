//! A connection under TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::carrier::Carrier;
use crate::config::tls::{ALPN, covers, names};
use crate::driver::net::Conn;
use crate::peer::Identity;

/// See the module's text. The other side's certificate was verified up to an authority.
pub(super) struct TlsConn {
    stream: TlsStream<Carrier>,
    identity: Arc<Certificate>,
}

impl TlsConn {
    /// `None`: no certificate was shown. The handshake has required one, so this is only to be sure.
    pub(super) fn new(stream: TlsStream<Carrier>) -> Option<Self> {
        let shown = stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
        Some(Self { stream, identity: Arc::new(Certificate::new(shown)) })
    }

    /// Whether both sides mean karere by it.
    pub(super) fn is_karere(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(ALPN)
    }
}

impl Conn for TlsConn {
    fn abort(self: Box<Self>) {
        let carrier = match self.stream {
            TlsStream::Client(stream) => stream.into_inner().0,
            TlsStream::Server(stream) => stream.into_inner().0,
        };
        Box::new(carrier).abort();
    }

    fn identity(&self) -> Option<Arc<dyn Identity>> {
        Some(Arc::clone(&self.identity) as Arc<dyn Identity>)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.stream.get_ref().0.local_address()
    }

    fn passed_on(&self) -> u64 {
        self.stream.get_ref().0.passed_on()
    }
}

impl AsyncRead for TlsConn {
    /// As many TLS records as are there: each has 16 KiB at most, and the reader has room for more.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        loop {
            let before = buf.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                // What was read counts; rustls says the same again.
                Poll::Ready(Err(_)) | Poll::Pending if before > start => return Poll::Ready(Ok(())),
                other => return other,
            }
            let ended = buf.filled().len() == before;
            // Only what needs no system call: an error of one would be told but once.
            if ended || buf.remaining() == 0 || !this.stream.get_ref().0.has_buffered() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for TlsConn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that nothing more comes (`close_notify`), and ends this half.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The certificate that the other side has shown.
#[derive(Debug)]
struct Certificate {
    certificate: CertificateDer<'static>,
    names: Vec<String>,
}

impl Certificate {
    fn new(certificate: CertificateDer<'static>) -> Self {
        Self { names: names(&certificate), certificate }
    }
}

impl Identity for Certificate {
    fn covers(&self, name: &str) -> bool {
        covers(&self.certificate, name)
    }

    fn names(&self) -> &[String] {
        &self.names
    }
}
