//! The seam to the network: the operating system's, or a simulated one, in one build.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

#[cfg(any(test, feature = "testing"))]
use super::gate::Gate;
use super::resolve::Resolver;
use super::{clock, connect};
use crate::limits::{NOTSENT_BYTES, USER_TIMEOUT_LIVENESSES};
use crate::member::Endpoint;
use crate::peer::Identity;

/// A connection: bytes both ways.
pub(crate) trait Conn: AsyncRead + AsyncWrite + Send + Unpin {
    /// Ends it at once: a reset, and nothing that was written waits in the kernel any more (`SO_LINGER` 0).
    fn abort(self: Box<Self>);

    /// What the other side's certificate proved; `None`: it showed none, because this is no TLS.
    fn identity(&self) -> Option<Arc<dyn Identity>> {
        None
    }

    /// The address on this side; `None` where there is no such thing.
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Bytes that have left buffers of its own so far. A connection without such buffers has nothing to say.
    fn passed_on(&self) -> u64 {
        0
    }
}

impl Conn for TcpStream {
    fn abort(self: Box<Self>) {
        // If it cannot be set, the kernel says what is left; it is closed all the same.
        let _in_order_without = SockRef::from(&*self).set_linger(Some(std::time::Duration::ZERO));
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }
}

/// A connection, whatever it is made of. The indirection costs one call per system call.
pub(crate) type BoxConn = Box<dyn Conn>;

/// A future of the seam.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A network.
pub(crate) trait Net: Send + Sync + 'static {
    /// Connects to one of the endpoint's addresses. A name is resolved anew each time.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<io::Result<BoxConn>>;

    /// Listens. Only port 0 and free ports succeed.
    fn listen(&self, address: SocketAddr) -> io::Result<Arc<dyn Listener>>;

    /// The wall clock where this process runs, in milliseconds since the Unix epoch. For ids only.
    fn unix_millis(&self) -> u64 {
        clock::unix_millis()
    }

    /// What the tasks of this process run behind, if anything can stop them.
    #[cfg(any(test, feature = "testing"))]
    fn gate(&self) -> Option<Arc<Gate>> {
        None
    }
}

/// Where connections come in.
pub(crate) trait Listener: Send + Sync + 'static {
    /// The next one. Cancel safe.
    fn accept(&self) -> BoxFuture<io::Result<(BoxConn, SocketAddr)>>;

    /// What was bound.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// The operating system's network.
#[derive(Debug)]
pub(crate) struct OsNet {
    /// How long written data may stay unacknowledged before the kernel gives the connection up (TCP_USER_TIMEOUT).
    pub(crate) user_timeout: std::time::Duration,
    /// Who knows the addresses of names.
    pub(crate) resolver: Resolver,
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

impl OsNet {
    /// For links of this liveness time.
    pub(crate) fn new(liveness: std::time::Duration) -> Self {
        Self { user_timeout: liveness * USER_TIMEOUT_LIVENESSES, resolver: Resolver::system() }
    }
}

impl Net for OsNet {
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<io::Result<BoxConn>> {
        let (user_timeout, resolver) = (self.user_timeout, self.resolver.clone());
        Box::pin(async move {
            let stream = match endpoint.name() {
                Some(name) => {
                    let addresses = resolver.resolve(name, endpoint.port()).await?;
                    connect::first(addresses, TcpStream::connect::<SocketAddr>).await?
                }
                None => {
                    let address = endpoint.address().ok_or(io::ErrorKind::AddrNotAvailable)?;
                    TcpStream::connect(address).await?
                }
            };
            tune(&stream, user_timeout);
            Ok(Box::new(stream) as BoxConn)
        })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Arc<dyn Listener>> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            // `[::]` takes IPv4 as well.
            let _refused_by_some_systems = socket.set_only_v6(false);
        }
        // A restarted process gets its port back while old connections linger.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        Ok(Arc::new(OsListener { listener: Arc::new(listener), user_timeout: self.user_timeout }))
    }
}

#[derive(Debug)]
struct OsListener {
    listener: Arc<TcpListener>,
    user_timeout: std::time::Duration,
}

impl Listener for OsListener {
    fn accept(&self) -> BoxFuture<io::Result<(BoxConn, SocketAddr)>> {
        let (listener, user_timeout) = (Arc::clone(&self.listener), self.user_timeout);
        Box::pin(async move {
            let (stream, from) = listener.accept().await?;
            tune(&stream, user_timeout);
            Ok((Box::new(stream) as BoxConn, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Options that make a link prompt. A system that lacks one is slower, not wrong.
fn tune(stream: &TcpStream, user_timeout: std::time::Duration) {
    let socket = SockRef::from(stream);
    let _slower_without = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let _slower_without = socket.set_tcp_user_timeout(Some(user_timeout));
        let _slower_without = socket.set_tcp_notsent_lowat(NOTSENT_BYTES);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = user_timeout;
}

#[cfg(test)]
impl Conn for tokio::io::DuplexStream {
    fn abort(self: Box<Self>) {}
}
