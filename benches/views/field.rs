//! Members, views, load, and those who do not answer.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use karere::faults::{Fault, Plan, Proxy};
use karere::{Endpoint, Kind, Limits, Member, MemberId, Messenger, Raw, Timeouts, View, ViewId};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// For members only.
pub(crate) const LOAD: Kind = Kind::new("bench.views", 1);
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What the README and the documents say of who left.
pub(crate) const GONE_WITHIN: Duration = Duration::from_millis(100);

/// Silent links and dials must stay: nothing here may declare them dead.
pub(crate) fn patient() -> Timeouts {
    let long = Duration::from_secs(600);
    Timeouts {
        liveness: long,
        hello: long,
        connect: long,
        contact_give_up: long,
        resume_lease: long,
        slow: long,
        stuck: long,
        unreachable: long,
        ..Timeouts::default()
    }
}

pub(crate) fn message(bytes: usize) -> Raw {
    Raw::new(LOAD, Bytes::from(vec![7; bytes]))
}

/// Starts a member in a runtime. It takes [`LOAD`].
pub(crate) async fn start(runtime: &Handle, limits: Limits, timeouts: Timeouts) -> Messenger {
    let started = runtime.spawn(async move {
        let builder = Messenger::builder().bind("127.0.0.1:0").limits(limits).timeouts(timeouts);
        let messenger = builder.start().await.expect("started");
        messenger.add_raw_handler(LOAD, |_from, _message| ready(())).expect("one handler");
        messenger
    });
    started.await.expect("started")
}

pub(crate) fn address(messenger: &Messenger) -> SocketAddr {
    messenger.local_address().expect("bound")
}

/// Somebody who is in a view only.
pub(crate) fn stranger(at: SocketAddr) -> Member {
    Member {
        id: MemberId::from_parts(0, fastrand::u128(..)),
        endpoints: vec![Endpoint::from(at)],
        name: String::new(),
        labels: BTreeMap::new(),
        joined: None,
    }
}

/// A view of these; who has not joined yet joins in it.
pub(crate) fn view(number: u64, members: impl IntoIterator<Item = Member>) -> View {
    let id = ViewId { generation: 1, number };
    View::new(id, members.into_iter().map(|member| Member { joined: member.joined.or(Some(id)), ..member }))
}

/// Waits for a condition that comes soon.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Counts a future that has begun to wait.
pub(crate) async fn noting<T>(future: impl Future<Output = T>, waiting: Arc<AtomicUsize>) -> T {
    let mut future = pin!(future);
    let mut noted = false;
    std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() && !std::mem::replace(&mut noted, true) {
            waiting.fetch_add(1, Ordering::SeqCst);
        }
        match polled {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A member behind a proxy that will forward nothing more and read nothing more.
pub(crate) struct Silent {
    pub(crate) messenger: Messenger,
    pub(crate) proxy: Proxy,
}

impl Silent {
    /// Grants so much credit that writes block, and not the credit.
    pub(crate) async fn start(outside: &Handle) -> Self {
        let limits = Limits { credit_bytes: 64 << 20, ..Limits::default() };
        let messenger = start(outside, limits, patient()).await;
        let target = address(&messenger);
        let proxy = outside.spawn(async move {
            Proxy::start(([127, 0, 0, 1], 0).into(), target, Plan::default()).expect("a proxy")
        });
        Self { messenger, proxy: proxy.await.expect("started") }
    }

    /// As the view has it: dialled through the proxy.
    pub(crate) fn member(&self) -> Member {
        Member { endpoints: vec![Endpoint::from(self.proxy.address())], ..self.messenger.member() }
    }

    /// After it was in a view with `from`, and one message was handled: it falls silent.
    pub(crate) async fn hush(&self, from: &Messenger) {
        let first = from.send_with_receipt(&message(64), self.messenger.id()).expect("queued");
        tokio::time::timeout(PATIENCE, first.handled()).await.expect("in time").expect("handled");
        assert_eq!(self.proxy.inject(Fault::Silence { drain: false }), 1, "one link");
        until("silence", || self.proxy.counts().silences == 1).await;
    }

    pub(crate) async fn end(self) {
        self.proxy.stop().await;
        self.messenger.close().await;
    }
}

/// Accepts connections, reads the hello, and says nothing.
pub(crate) struct Mute {
    pub(crate) address: SocketAddr,
    pub(crate) heard: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Mute {
    pub(crate) async fn start(outside: &Handle) -> Self {
        let heard = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&heard);
        let listening = outside.spawn(async { TcpListener::bind("127.0.0.1:0").await.expect("bound") });
        let listener = listening.await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let task = outside.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut hello = [0; 4096];
                if stream.read(&mut hello).await.is_ok_and(|read| read > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                // Until it is given up; one at a time.
                while stream.read(&mut hello).await.is_ok_and(|read| read > 0) {}
            }
        });
        Self { address, heard, task }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address that swallows what is sent there: nobody accepts, and the backlog is full.
pub(crate) struct Hole {
    pub(crate) address: SocketAddr,
    _listener: socket2::Socket,
    _backlog: Vec<std::net::TcpStream>,
}

impl Hole {
    pub(crate) fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        socket.listen(0).expect("listening");
        let address = socket.local_addr().expect("bound").as_socket().expect("an address");
        let mut backlog = Vec::new();
        let soon = Duration::from_millis(200);
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, soon) {
            backlog.push(stream);
            assert!(backlog.len() < 1000, "it accepts for ever");
        }
        Self { address, _listener: socket, _backlog: backlog }
    }
}

/// Messages all the time between pairs of members.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Load {
    /// Each of a pair sends to the other, as fast as it can.
    pub(crate) fn between(pairs: &[(&Messenger, &Handle, &Messenger, &Handle)]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let one = |from: &Messenger, at: &Handle, to: MemberId| {
            let (from, stop) = (from.clone(), Arc::clone(&stop));
            at.spawn(async move {
                let message = message(256);
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let report = from.send_wait(&message, [to], PATIENCE).await.expect("sent");
                    assert!(report.is_complete(), "a sender starves: {report:?}");
                    sent += 1;
                    if sent % 256 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                sent
            })
        };
        let tasks = pairs.iter().flat_map(|(a, at_a, b, at_b)| [one(a, at_a, b.id()), one(b, at_b, a.id())]);
        let tasks = tasks.collect();
        Self { stop, tasks }
    }

    /// Messages sent by all.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for task in self.tasks {
            sent += task.await.expect("a load that nothing breaks");
        }
        sent
    }
}
