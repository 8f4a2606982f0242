//! What the integration tests share: messages, messengers with short times, a collector, waiting for a condition.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use karere::{
    Contact, Kind, Limits, MemberId, Message, Messenger, PeerEvent, PeerStats, Receipt, SendError, Timeouts,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

/// Long enough for a busy machine; nothing that works comes near it.
pub(crate) const LONG: Duration = Duration::from_secs(10);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Number(pub(crate) u64);

impl Message for Number {
    const KIND: Kind = Kind::new("test.number", 1).open();
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Word(pub(crate) String);

impl Message for Word {
    const KIND: Kind = Kind::new("test.word", 1).open();
}

/// For members of a view only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Internal(pub(crate) u64);

impl Message for Internal {
    const KIND: Kind = Kind::new("test.internal", 1);
}

/// The kind of raw bodies.
pub(crate) const BLOB: Kind = Kind::new("test.blob", 1).open();

/// Liveness after a second, quick redials.
pub(crate) fn quick() -> Timeouts {
    Timeouts {
        ping: ms(200),
        liveness: ms(1000),
        hello: ms(1000),
        connect: ms(1000),
        redial_min: ms(5),
        redial_max: ms(100),
        contact_give_up: secs(5),
        ..Timeouts::default()
    }
}

/// Default liveness, quick redials: where a busy machine must not look like a dead link.
pub(crate) fn patient() -> Timeouts {
    Timeouts { redial_min: ms(5), redial_max: ms(100), ..Timeouts::default() }
}

/// Listens on IPv4 loopback.
pub(crate) async fn server(timeouts: Timeouts) -> Messenger {
    Messenger::builder().bind("127.0.0.1:0").timeouts(timeouts).start().await.unwrap()
}

/// As [`server`], but grants each sender only the least credit.
pub(crate) async fn stingy_server(timeouts: Timeouts) -> Messenger {
    let limits = Limits { credit_bytes: 128 * 1024, ..Limits::default() };
    Messenger::builder().bind("127.0.0.1:0").limits(limits).timeouts(timeouts).start().await.unwrap()
}

/// Dials only.
pub(crate) async fn client(timeouts: Timeouts) -> Messenger {
    Messenger::builder().timeouts(timeouts).start().await.unwrap()
}

pub(crate) fn address(messenger: &Messenger) -> SocketAddr {
    messenger.local_address().unwrap()
}

/// A contact whose link is up: without one only the reserve is there.
pub(crate) async fn contact(from: &Messenger, to: &Messenger) -> Contact {
    contact_at(from, address(to)).await
}

/// As [`contact`], through a proxy say.
pub(crate) async fn contact_at(from: &Messenger, address: SocketAddr) -> Contact {
    let contact = from.contact(address.to_string()).await.unwrap();
    eventually(LONG, || is_connected(from, contact.id())).await;
    contact
}

/// Waits for a condition; fails with the place of the call when it does not come.
#[track_caller]
pub(crate) fn eventually(deadline: Duration, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < deadline, "not within {deadline:?}: {caller}");
            tokio::time::sleep(ms(2)).await;
        }
    }
}

/// Fails with the place of the call when the future takes too long.
#[track_caller]
pub(crate) fn within<T>(deadline: Duration, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match tokio::time::timeout(deadline, future).await {
            Ok(value) => value,
            Err(_) => panic!("not within {deadline:?}: {caller}"),
        }
    }
}

/// What a messenger received of [`Number`]s, in the order of delivery.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected(Arc<Mutex<Vec<(MemberId, u64)>>>);

impl Collected {
    pub(crate) fn by(messenger: &Messenger) -> Self {
        let collected = Self::default();
        let to = collected.clone();
        messenger
            .add_handler(move |from, Number(number)| {
                to.0.lock().push((from, number));
                async {}
            })
            .unwrap();
        collected
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.0.lock().iter().map(|(_, number)| *number).collect()
    }

    pub(crate) fn from(&self, member: MemberId) -> Vec<u64> {
        self.0.lock().iter().filter(|(from, _)| *from == member).map(|(_, number)| *number).collect()
    }

    /// Waits until `count` came, and checks that they are 0, 1, 2, ... and stay so.
    #[track_caller]
    pub(crate) fn are_exactly(&self, count: u64, deadline: Duration) -> impl Future<Output = ()> + '_ {
        let caller = Location::caller();
        async move {
            let start = Instant::now();
            while (self.len() as u64) < count && start.elapsed() < deadline {
                tokio::time::sleep(ms(2)).await;
            }
            let numbers = self.numbers();
            let wrong = numbers.iter().enumerate().find(|(at, number)| *at as u64 != **number);
            assert_eq!(wrong, None, "lost, doubled or out of order (came {}): {caller}", numbers.len());
            assert_eq!(numbers.len() as u64, count, "{caller}");
        }
    }
}

/// Sends numbers one after the other, waiting for room.
pub(crate) async fn send_all(from: &Messenger, to: MemberId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let report = from.send_wait(&Number(number), [to], LONG).await.unwrap();
        assert!(report.is_complete(), "{number}: {report:?}");
    }
}

/// Sends with a receipt, trying again while the queue is full.
pub(crate) async fn receipt_for(from: &Messenger, to: MemberId, number: u64) -> Receipt {
    loop {
        match from.send_with_receipt(&Number(number), to) {
            Ok(receipt) => return receipt,
            Err(SendError::Full(_)) => tokio::time::sleep(ms(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn peer(messenger: &Messenger, id: MemberId) -> Option<PeerStats> {
    messenger.stats().peers.into_iter().find(|peer| peer.peer == id)
}

pub(crate) fn is_connected(messenger: &Messenger, id: MemberId) -> bool {
    peer(messenger, id).is_some_and(|peer| peer.is_connected)
}

pub(crate) fn links(messenger: &Messenger, id: MemberId) -> u64 {
    peer(messenger, id).map_or(0, |peer| peer.books.links)
}

/// All events of a messenger, as they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<PeerEvent>>>);

impl Seen {
    pub(crate) fn by(messenger: &Messenger) -> Self {
        let seen = Self::default();
        let (to, mut events) = (seen.clone(), messenger.events());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                to.0.lock().push(event);
            }
        });
        seen
    }

    pub(crate) fn all(&self) -> Vec<PeerEvent> {
        self.0.lock().clone()
    }

    pub(crate) fn count(&self, which: impl Fn(&PeerEvent) -> bool) -> usize {
        self.0.lock().iter().filter(|event| which(event)).count()
    }

    pub(crate) fn has(&self, event: &PeerEvent) -> bool {
        self.0.lock().contains(event)
    }
}

/// Looks at the books again and again until dropped; a messenger whose books do not balance fails the test that asks.
#[derive(Debug)]
pub(crate) struct Auditor {
    task: AbortHandle,
    bad: Arc<Mutex<Option<String>>>,
    looks: Arc<std::sync::atomic::AtomicU64>,
}

impl Auditor {
    pub(crate) fn of(messenger: &Messenger) -> Self {
        let bad = Arc::<Mutex<Option<String>>>::default();
        let looks = Arc::<std::sync::atomic::AtomicU64>::default();
        let (note, count, messenger) = (Arc::clone(&bad), Arc::clone(&looks), messenger.clone());
        let task = tokio::spawn(async move {
            loop {
                let stats = messenger.stats();
                let wrong = stats.peers.iter().find(|peer| !peer.books.balance());
                if let Some(peer) = wrong {
                    note.lock().get_or_insert(format!("{peer:?}"));
                }
                if !stats.gone.balance() {
                    note.lock().get_or_insert(format!("gone: {:?}", stats.gone));
                }
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(ms(1)).await;
            }
        });
        Self { task: task.abort_handle(), bad, looks }
    }

    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(*self.bad.lock(), None, "the books do not balance");
        assert!(self.looks.load(std::sync::atomic::Ordering::Relaxed) > 0);
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A proxy to a messenger in which nothing goes wrong until it is told to.
#[cfg(feature = "faults")]
pub(crate) fn proxy_to(messenger: &Messenger) -> karere::faults::Proxy {
    proxy_with(messenger, karere::faults::Plan::default())
}

#[cfg(feature = "faults")]
pub(crate) fn proxy_with(messenger: &Messenger, plan: karere::faults::Plan) -> karere::faults::Proxy {
    karere::faults::Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), address(messenger), plan).unwrap()
}

/// Bytes that look like noise and are the same each time.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}
