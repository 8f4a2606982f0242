//! Strangers at the door, for tests and for `benches/flood.rs`: garbage, hellos that come a byte at a time, TLS handshakes
//! that stop. And a way in from another address.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each binary uses its own part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How karere begins, and never goes on.
const HALF_HELLO: &[u8] = b"KRRE\x40\0\0\0\x01\0\x01\0\x01";
/// Between two bytes of a slow hello.
const DRIP: Duration = Duration::from_millis(250);
/// Garbage that is not turned away goes by itself after this.
const GARBAGE: Duration = Duration::from_secs(5);

/// How many there are, and what they do.
#[derive(Clone, Debug)]
pub(crate) struct Strangers {
    pub(crate) target: SocketAddr,
    /// Connections a second that bring noise, HTTP or half a hello.
    pub(crate) garbage_a_second: u64,
    /// Connections that bring a hello, a byte at a time.
    pub(crate) slow: usize,
    /// Connections that begin a TLS handshake and stop.
    pub(crate) stalled: usize,
    /// The first messages of TLS clients that stop.
    pub(crate) client_hello: Vec<u8>,
    /// Addresses that the slow and the stalled come from, each.
    pub(crate) addresses: usize,
    /// Who was turned away comes again, but not sooner than this after it came last.
    pub(crate) again: Duration,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: AtomicU64,
    /// Turned away; those who went by themselves are not counted.
    pub(crate) ended: AtomicU64,
    /// Slow or stalled ones that are connected now.
    pub(crate) held: AtomicU64,
    /// The longest that a slow or stalled one was connected, in milliseconds.
    pub(crate) longest_ms: AtomicU64,
}

/// Comes until it is dropped.
pub(crate) async fn flood(strangers: Strangers, tally: Arc<Tally>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(garbage(strangers.clone(), Arc::clone(&tally)));
    for number in 0..strangers.slow {
        let from = address(1, number % strangers.addresses);
        tasks.spawn(again(strangers.clone(), from, number, Arc::clone(&tally), true));
    }
    for number in 0..strangers.stalled {
        let from = address(2, number % strangers.addresses);
        tasks.spawn(again(strangers.clone(), from, number, Arc::clone(&tally), false));
    }
    while tasks.join_next().await.is_some() {}
}

/// One of up to 51,200 loopback addresses.
fn address(kind: u8, number: usize) -> Ipv4Addr {
    let [high, low] = [number / 200, number % 200].map(|part| u8::try_from(part).unwrap());
    Ipv4Addr::new(127, kind, high, low + 1)
}

async fn dial(from: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(target).await
}

async fn garbage(strangers: Strangers, tally: Arc<Tally>) {
    let most = usize::try_from(strangers.garbage_a_second).unwrap() * 5;
    let mut one_after_the_other =
        tokio::time::interval(Duration::from_secs(1) / u32::try_from(strangers.garbage_a_second).unwrap());
    let mut random = fastrand::Rng::with_seed(1);
    let mut tasks = JoinSet::new();
    for number in 0_usize.. {
        one_after_the_other.tick().await;
        while tasks.try_join_next().is_some() || tasks.len() > most && tasks.join_next().await.is_some() {}
        let noise: Vec<u8> = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
        let bytes = match number % 3 {
            0 => noise,
            1 => b"GET / HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n".to_vec(),
            _ => HALF_HELLO.to_vec(),
        };
        let (target, tally) = (strangers.target, Arc::clone(&tally));
        tasks.spawn(async move {
            let Ok(mut stream) = dial(Ipv4Addr::new(127, 0, 0, 3), target).await else { return };
            tally.opened.fetch_add(1, Ordering::SeqCst);
            let is_half = bytes == HALF_HELLO;
            let _closed = stream.write_all(&bytes).await;
            if is_half {
                // Half a hello, and gone.
                return;
            }
            let mut scratch = Vec::new();
            if tokio::time::timeout(GARBAGE, stream.read_to_end(&mut scratch)).await.is_ok() {
                tally.ended.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

async fn again(strangers: Strangers, from: Ipv4Addr, number: usize, tally: Arc<Tally>, is_slow: bool) {
    // Not all at once.
    let times = u32::try_from(number % 100).unwrap();
    tokio::time::sleep(strangers.again / 100 * times).await;
    loop {
        let start = Instant::now();
        if let Ok(stream) = dial(from, strangers.target).await {
            let held = Held::new(&tally);
            // Some stop within their first message, others behind it.
            let whole = &strangers.client_hello[..];
            let begun = if number.is_multiple_of(2) { whole } else { &whole[..whole.len() / 2] };
            if is_slow {
                drip(stream).await
            } else {
                stall(stream, begun).await
            }
            drop(held);
            tally.ended.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(strangers.again.saturating_sub(start.elapsed()).max(DRIP)).await;
    }
}

/// A slow or stalled one that is connected; counted also when the flood is over before it was turned away.
struct Held {
    since: Instant,
    tally: Arc<Tally>,
}

impl Held {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.opened.fetch_add(1, Ordering::SeqCst);
        tally.held.fetch_add(1, Ordering::SeqCst);
        Self { since: Instant::now(), tally: Arc::clone(tally) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_millis()).unwrap();
        self.tally.longest_ms.fetch_max(took, Ordering::SeqCst);
        self.tally.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A byte now and then, until it is turned away.
async fn drip(mut stream: TcpStream) {
    let mut scratch = [0; 64];
    for byte in HALF_HELLO.iter().chain(std::iter::repeat(&0)) {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        match tokio::time::timeout(DRIP, stream.read(&mut scratch)).await {
            Ok(Ok(1..)) | Err(_) => {}
            Ok(Ok(0) | Err(_)) => return,
        }
    }
}

/// Says this, and then nothing, until it is turned away.
async fn stall(mut stream: TcpStream, begun: &[u8]) {
    if stream.write_all(begun).await.is_ok() {
        let mut scratch = [0; 4096];
        while stream.read(&mut scratch).await.is_ok_and(|len| len > 0) {}
    }
}

/// The first message of a TLS client that means karere.
#[cfg(feature = "tls")]
pub(crate) fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let mut config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"karere/1".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Passes connections on to the target, to which they come from this address.
pub(crate) async fn relay(target: SocketAddr, from: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                let Ok(mut server) = dial(from, target).await else { return };
                let _both_ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}
