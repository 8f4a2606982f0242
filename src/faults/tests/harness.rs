//! A target, a proxy before it, and connections through it.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::faults::{FaultCounts, Plan, Proxy};

/// Far beyond what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long nothing has to come for it to count as nothing.
const QUIET: Duration = Duration::from_millis(150);

pub(super) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) async fn within<F: Future>(future: F) -> F::Output {
    timeout(DEADLINE, future).await.expect("in time")
}

pub(super) struct Bench {
    pub(super) proxy: Proxy,
    pub(super) target: TcpListener,
}

impl Bench {
    pub(super) async fn new(plan: Plan) -> Bench {
        let target = TcpListener::bind(ANY).await.unwrap();
        let proxy = Proxy::start(ANY, target.local_addr().unwrap(), plan).unwrap();
        Bench { proxy, target }
    }

    /// A reset that follows the accept at once can come out of the connect already.
    pub(super) async fn try_client(&self) -> io::Result<TcpStream> {
        within(TcpStream::connect(self.proxy.address())).await
    }

    /// A new connection is reset.
    pub(super) async fn turns_away(&self) {
        let outcome = match self.try_client().await {
            Ok(mut client) => read_all(&mut client).await.1,
            Err(error) => Err(error),
        };
        assert!(is_reset(&outcome), "{outcome:?}");
    }

    /// A connection through the proxy: the client's end, the target's end.
    pub(super) async fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.try_client().await.unwrap();
        let (server, _) = within(self.target.accept()).await.unwrap();
        (client, server)
    }

    pub(super) async fn eventually(&self, holds: impl Fn(&FaultCounts) -> bool) {
        let start = Instant::now();
        while !holds(&self.proxy.counts()) {
            assert!(start.elapsed() < DEADLINE, "{:?}", self.proxy.counts());
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Everything until the end, and how it ended.
pub(super) async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let mut chunk = vec![0; 65536];
    loop {
        match within(stream.read(&mut chunk)).await {
            Ok(0) => return (all, Ok(())),
            Ok(len) => all.extend_from_slice(&chunk[..len]),
            Err(error) => return (all, Err(error)),
        }
    }
}

pub(super) fn is_reset(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// An end comes, of whichever kind.
pub(super) async fn closes(stream: &mut TcpStream) {
    let (_, _either) = read_all(stream).await;
}

pub(super) async fn sees_reset(stream: &mut TcpStream) {
    let (_, outcome) = read_all(stream).await;
    assert!(is_reset(&outcome), "{outcome:?}");
}

/// Neither a byte nor an end comes.
pub(super) async fn sees_nothing(stream: &mut TcpStream) {
    let outcome = timeout(QUIET, stream.read(&mut [0; 64])).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

/// A few bytes arrive at the other end.
pub(super) async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    within(from.write_all(b"through")).await.unwrap();
    let mut got = [0; 7];
    within(to.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"through");
}

/// Bytes in which a lost, doubled or moved piece shows.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(99);
    (0..len).map(|_| rng.u8(..)).collect()
}

/// How many bits differ, and the indices of the bytes that do.
pub(super) fn differences(one: &[u8], other: &[u8]) -> (u32, Vec<usize>) {
    assert_eq!(one.len(), other.len());
    let pairs = || one.iter().zip(other);
    let bits = pairs().map(|(a, b)| (a ^ b).count_ones()).sum();
    (bits, pairs().enumerate().filter(|(_, (a, b))| a != b).map(|(index, _)| index).collect())
}
