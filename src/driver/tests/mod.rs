//! Drivers without a messenger, over real sockets of the loopback: names, idle links, too many sessions.

mod idle;
mod leases;
mod names;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::net::OsNet;
use super::resolve::Resolver;
use super::*;
use crate::config::{Limits, Raw, Settings, Timeouts};
use crate::member::{Endpoint, Member};
use crate::session::{Body, Outgoing};
use crate::wire::{Class, Protocol, StreamId, VERSIONS};

const LONG: Duration = Duration::from_secs(10);

/// A process of a test. Its tasks end with it.
struct Process {
    driver: Arc<Driver>,
    port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.driver.end();
    }
}

fn quick() -> Timeouts {
    Timeouts {
        redial_min: Duration::from_millis(5),
        redial_max: Duration::from_millis(100),
        ..Timeouts::default()
    }
}

/// Listens on a free port of this loopback address, and takes every message of the application.
fn process(ip: [u8; 4], timeouts: Timeouts, limits: Limits, resolver: Resolver) -> Process {
    let settings = Settings::try_from(Raw { timeouts, limits, ..Raw::default() }).unwrap();
    let net = Arc::new(OsNet { resolver, ..OsNet::new(settings.peer.link.liveness) });
    let listener = net.listen((ip, 0).into()).unwrap();
    let address = listener.local_address().unwrap();
    let member = Member {
        id: MemberId::from_parts(clock::unix_millis(), clock::random()),
        endpoints: vec![address.into()],
        name: String::new(),
        labels: std::collections::BTreeMap::new(),
        joined: None,
    };
    let introduction = Introduction { versions: VERSIONS, member, ..Introduction::default() };
    let driver = Driver::new(&settings, introduction, net, None);
    driver.set_types(vec![TypeEntry {
        protocol: Protocol::APPLICATION,
        hash: 0,
        version: 0,
        open: true,
        any: true,
        name: String::new(),
    }]);
    driver.set_application(Arc::new(Handling(Arc::downgrade(&driver))));
    driver.accept(listener);
    Process { driver, port: address.port() }
}

fn plain() -> Process {
    process([127, 0, 0, 1], quick(), Limits::default(), Resolver::system())
}

impl Process {
    fn id(&self) -> MemberId {
        self.driver.surroundings.me.member.id
    }

    fn endpoint(&self) -> Endpoint {
        self.driver.surroundings.me.member.endpoints[0].clone()
    }

    /// Keeps the session with another as a view would.
    fn join(&self, other: &Self) -> Arc<PeerHandle> {
        let handle = self.driver.peer_or_new(&self.driver.registry.lock(), other.id());
        handle.peer.lock().hold_as_member(vec![other.endpoint()]);
        handle.doorbell.ring();
        handle
    }

    fn send(&self, to: MemberId) {
        let stream = StreamId::new(Protocol::APPLICATION, Class::Normal, true);
        let out = Outgoing { stream, hash: 1, version: 1, body: Body::Slice(b"message"), reply: &|| false };
        let handle = self.driver.peer(to).unwrap();
        handle.intake.lock().push(out, None).unwrap();
        handle.doorbell.ring();
    }

    fn is_linked(&self, to: MemberId) -> bool {
        self.driver.with_peer(to, |handle| handle.peer.lock().live_link().is_some()) == Some(true)
    }

    fn links(&self) -> usize {
        self.driver.peers().iter().filter(|handle| handle.peer.lock().live_link().is_some()).count()
    }

    /// Messages of all peers that were acknowledged.
    fn acked(&self) -> u64 {
        let peers = self.driver.peers();
        peers.iter().map(|handle| handle.peer.lock().session().accounts().acked).sum()
    }
}

/// Handles at once.
struct Handling(std::sync::Weak<Driver>);

impl Application for Handling {
    fn attach(&self, handle: &Arc<PeerHandle>) -> Box<dyn Inbound> {
        Box::new(Handler { driver: self.0.clone(), id: handle.id })
    }

    fn event(&self, _event: PeerEvent) {}
}

struct Handler {
    driver: std::sync::Weak<Driver>,
    id: MemberId,
}

impl Inbound for Handler {
    fn deliver(&mut self, epoch: Epoch, delivery: Delivery) {
        let Delivery { stream, records, bytes, .. } = delivery;
        let done = crate::session::Handled { epoch, stream, records, bytes };
        if let Some(handle) = self.driver.upgrade().and_then(|driver| driver.peer(self.id)) {
            handle.note_handled(done);
        }
    }

    fn datagram(&mut self, _datagram: crate::wire::frame::Datagram) {}

    fn session_over(&mut self, _over: crate::peer::SessionOver, _next: Option<Epoch>) {}

    fn turn_over(&mut self) {}
}

#[track_caller]
fn eventually(what: &'static str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}, {caller}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
