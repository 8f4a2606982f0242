//! How a pair of sockets is given up: reset, closed after a cut, or held in silence.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::lane::poll_drain;
use super::plan::Direction;

/// Bytes before a reset have this long to arrive, after an end of file both sides to close too.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parting {
    /// Both directions ended; only closing is left.
    Close,
    Reset,
    /// A reset as soon as all bytes forwarded in this direction have arrived.
    ResetAfter(Direction),
    /// An end of file for both sides.
    Fin,
    /// Held in silence until the proxy stops or needs the room.
    Hold {
        drain: bool,
    },
}

/// Closes by reset. `TcpStream::into_split` is no choice here: an owned write half sends an end of file when
/// it drops.
pub(super) fn reset(stream: TcpStream) {
    linger_zero(&stream);
}

/// Resets both, as close together as can be.
pub(super) fn reset_both(client: TcpStream, server: TcpStream) {
    linger_zero(&client);
    linger_zero(&server);
}

fn linger_zero(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "no reset: the socket is gone already");
    }
}

/// Waits until the kernel has sent all it was given: a reset discards what it still holds for want of a
/// window.
///
/// With `TCP_NOTSENT_LOWAT` at 1 a socket is writable only when nothing is left to send. Readiness is kept by
/// edges, so it is asked of a second descriptor, whose registration starts anew.
pub(super) async fn arrive(sink: &TcpStream, stop: CancellationToken) {
    let arrived = async {
        writable_when_sent(sink)?;
        let second = TcpStream::from_std(SockRef::from(sink).try_clone()?.into())?;
        second.writable().await
    };
    let outcome = tokio::select! {
        () = stop.cancelled() => return,
        outcome = timeout(LEAVE_MAX, arrived) => outcome,
    };
    if !matches!(outcome, Ok(Ok(()))) {
        tracing::debug!(?outcome, "reset before everything arrived");
    }
}

#[cfg(any(target_os = "android", target_os = "linux"))]
fn writable_when_sent(sink: &TcpStream) -> io::Result<()> {
    SockRef::from(sink).set_tcp_notsent_lowat(1)
}

/// Elsewhere bytes for which the receiver has no room yet are lost with the reset.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn writable_when_sent(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Ends both directions and waits for the same from both sides, so that unread bytes do not turn it into a
/// reset.
pub(super) async fn leave(client: TcpStream, server: TcpStream, stop: CancellationToken) {
    for stream in [&client, &server] {
        if let Err(error) = SockRef::from(stream).shutdown(Shutdown::Write) {
            tracing::debug!(%error, "no end of file: the socket is gone already");
        }
    }
    tokio::select! {
        () = stop.cancelled() => {}
        _ = timeout(LEAVE_MAX, drain_both(&client, &server)) => {}
    }
}

/// Keeps both sockets open and silent until `stop`.
pub(super) async fn hold(client: TcpStream, server: TcpStream, drain: bool, stop: CancellationToken) {
    if drain {
        tokio::select! {
            () = stop.cancelled() => return,
            () = drain_both(&client, &server) => {}
        }
    }
    stop.cancelled().await;
}

/// Reads and drops until both sides have ended.
async fn drain_both(client: &TcpStream, server: &TcpStream) {
    let mut open = [Some(client), Some(server)];
    poll_fn(|cx| {
        for slot in &mut open {
            // A side at a time has its turn; the runtime's budget ends it.
            while let Some(stream) = *slot {
                match poll_drain(cx, stream) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => *slot = None,
                    Poll::Pending => break,
                }
            }
        }
        if open.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
