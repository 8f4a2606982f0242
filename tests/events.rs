//! What a membership system is told of a peer, over real sockets, and how soon. T19, behaviour 1.

#![cfg(feature = "faults")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use karere::faults::{Direction, Fault, Plan, Proxy};
use karere::{Contact, Disconnect, Messenger, PeerEvent, Raw, Timeouts};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Quick, but for a liveness that a busy machine keeps to.
fn sharp() -> Timeouts {
    let quick = Timeouts { ping: ms(300), liveness: secs(3), ..quick() };
    Timeouts { slow: ms(500), stuck: ms(1000), unreachable: ms(1500), ..quick }
}

/// What a busy machine may add to a time.
const SLACK: Duration = secs(1);

/// All events of a messenger, with the time at which a listener had them.
#[derive(Clone, Default)]
struct Timed(Arc<Mutex<Vec<(Instant, PeerEvent)>>>);

impl Timed {
    fn by(messenger: &Messenger) -> Self {
        let timed = Self::default();
        let (to, mut events) = (timed.clone(), messenger.events());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                to.0.lock().push((Instant::now(), event));
            }
        });
        timed
    }

    fn all(&self) -> Vec<PeerEvent> {
        self.0.lock().iter().map(|(_, event)| event.clone()).collect()
    }

    fn find(&self, which: impl Fn(&PeerEvent) -> bool) -> Option<(Instant, PeerEvent)> {
        self.0.lock().iter().find(|(_, event)| which(event)).cloned()
    }

    /// Waits for the first such event; how long after `from` it came.
    #[track_caller]
    fn first<'a>(
        &'a self,
        what: &'a str,
        from: Instant,
        which: fn(&PeerEvent) -> bool,
    ) -> impl Future<Output = (Duration, PeerEvent)> + 'a {
        let found = eventually(LONG, move || self.find(which).is_some());
        async move {
            found.await;
            let (at, event) = self.find(which).unwrap();
            let took = at.saturating_duration_since(from);
            println!("{what}: {took:?}, {event:?}");
            (took, event)
        }
    }

    fn count(&self, which: impl Fn(&PeerEvent) -> bool) -> usize {
        self.0.lock().iter().filter(|(_, event)| which(event)).count()
    }
}

fn is_recovered(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Recovered { .. })
}

fn is_disconnected(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Disconnected { .. })
}

fn is_stuck(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Stuck { .. })
}

fn is_unreachable(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Unreachable { .. })
}

fn is_slow(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Slow { .. })
}

fn is_one_way(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::OneWaySilence { .. })
}

/// As long as its name says, and not much longer.
#[track_caller]
fn assert_about(took: Duration, time: Duration) {
    assert!(took >= time && took < time + SLACK, "{took:?} is not about {time:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_lost_at_once_unreachable_in_its_time_and_recovers() {
    let times = sharp();
    let server = server(times).await;
    let proxy = proxy_to(&server);
    let at = proxy.address();
    let client = client(times).await;
    let (told, server_told) = (Timed::by(&client), Timed::by(&server));
    let contact = contact_at(&client, at).await;
    let peer = contact.id();
    let killed = Instant::now();
    proxy.stop().await;
    let (took, event) = told.first("killed, disconnected", killed, is_disconnected).await;
    let PeerEvent::Disconnected { reason, .. } = event else { unreachable!() };
    assert!(matches!(reason, Disconnect::End | Disconnect::Reset), "{reason:?}");
    assert!(took < SLACK, "{took:?}");
    let (took, event) = told.first("killed, unreachable", killed, is_unreachable).await;
    assert_about(took, times.unreachable);
    assert!(matches!(event, PeerEvent::Unreachable { since, .. } if since >= times.unreachable));
    let _proxy = Proxy::start(at, address(&server), Plan::default()).unwrap();
    told.first("back, recovered", Instant::now(), is_recovered).await;
    let expected =
        |event: &PeerEvent| !is_unreachable(event) && !is_recovered(event) && !is_disconnected(event);
    assert!(
        told.all()
            .iter()
            .filter(|event| expected(event))
            .all(|event| *event == PeerEvent::Connected { peer })
    );
    assert_eq!((told.count(is_unreachable), told.count(is_recovered)), (1, 1), "{:?}", told.all());
    assert_eq!(server_told.count(is_unreachable), 0, "it dials nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_heard_is_told_so_before_the_link_is_closed_for_its_silence() {
    let times = sharp();
    for silent in [Direction::Up, Direction::Down] {
        let server = server(times).await;
        let got = Collected::by(&server);
        let proxy = proxy_to(&server);
        let client = client(times).await;
        let contact = contact_at(&client, proxy.address()).await;
        let me = client.member().id;
        // Whose bytes vanish is told by the other.
        let (told, other) = match silent {
            Direction::Up => (Timed::by(&client), contact.id()),
            Direction::Down => (Timed::by(&server), me),
        };
        let from = Instant::now();
        proxy.inject(Fault::OneWay { silent, drain: true });
        let (took, event) = told.first("one way, unheard", from, is_one_way).await;
        assert!(took < times.liveness, "{took:?}");
        let PeerEvent::OneWaySilence { peer, unheard } = event else { unreachable!() };
        assert!(peer == other && unheard >= times.ping * 2 && unheard < times.liveness, "{unheard:?}");
        let (ended, _) = told.first("one way, disconnected", from, is_disconnected).await;
        assert!(ended >= took);
        told.first("one way, recovered", from, is_recovered).await;
        send_all(&client, contact.id(), 0..10).await;
        got.are_exactly(10, LONG).await;
        assert_eq!((told.count(is_one_way), told.count(is_recovered)), (1, 1), "{:?}", told.all());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_hangs_makes_its_member_slow_until_it_goes_on() {
    let times = sharp();
    let server = stingy_server(times).await;
    let gate = Arc::new(Semaphore::new(0));
    let at_gate = Arc::clone(&gate);
    server
        .add_raw_handler(BLOB, move |_, _| {
            let gate = Arc::clone(&at_gate);
            async move { drop(gate.acquire().await) }
        })
        .unwrap();
    let client = client(times).await;
    let told = Timed::by(&client);
    let contact = contact(&client, &server).await;
    let body = bytes::Bytes::from(pattern(1, 50_000));
    let from = Instant::now();
    for _ in 0..6 {
        let report = client.send_wait(&Raw::new(BLOB, body.clone()), [contact.id()], LONG).await.unwrap();
        assert!(report.is_complete());
    }
    let (took, event) = told.first("hanging handler, slow", from, is_slow).await;
    assert_about(took, times.slow);
    assert!(
        matches!(event, PeerEvent::Slow { peer, blocked } if peer == contact.id() && blocked >= times.slow)
    );
    assert_eq!(told.count(is_recovered), 0);
    let from = Instant::now();
    gate.add_permits(6);
    told.first("handler goes on, recovered", from, is_recovered).await;
    eventually(LONG, || client.stats().total().pending == 0).await;
    let expected =
        [PeerEvent::Connected { peer: contact.id() }, event, PeerEvent::Recovered { peer: contact.id() }];
    assert_eq!(told.all(), expected, "the link was never in question");
}

struct Hole {
    client: Messenger,
    told: Timed,
    contact: Contact,
    proxy: Proxy,
    got: Collected,
    _server: Messenger,
}

/// A black hole from which nothing comes back, like a process that is stopped: the kernel keeps the connection.
async fn black_hole(times: Timeouts) -> Hole {
    let server = server(times).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(times).await;
    let told = Timed::by(&client);
    let contact = contact_at(&client, proxy.address()).await;
    proxy.inject(Fault::Silence { drain: false });
    proxy.inject(Fault::Refuse { ms: 60_000 });
    Hole { client, told, contact, proxy, got, _server: server }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_peer_is_stuck_disconnected_for_its_silence_unreachable_and_recovers_with_everything() {
    let times = sharp();
    let hole = black_hole(times).await;
    let (client, told, peer) = (&hole.client, &hole.told, hole.contact.id());
    let from = Instant::now();
    send_all(client, peer, 0..10).await;
    let (took, event) = told.first("stopped, stuck", from, is_stuck).await;
    assert_about(took, times.stuck);
    assert!(matches!(event, PeerEvent::Stuck { oldest_unacked, .. } if oldest_unacked >= times.stuck));
    let (took, event) = told.first("stopped, disconnected", from, is_disconnected).await;
    assert_eq!(event, PeerEvent::Disconnected { peer, reason: Disconnect::Silence });
    assert!(took < times.liveness + SLACK, "{took:?}");
    told.first("stopped, unreachable", from, is_unreachable).await;
    assert_eq!(told.count(is_recovered), 0);
    let from = Instant::now();
    hole.proxy.heal();
    told.first("goes on, recovered", from, is_recovered).await;
    hole.got.are_exactly(10, LONG).await;
    let each = [told.count(is_stuck), told.count(is_unreachable), told.count(is_recovered)];
    assert_eq!(each, [1, 1, 1], "{:?}", told.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_member_leaves_it_is_told_nothing_but_that_its_peers_are_gone() {
    let times = sharp();
    let hole = black_hole(times).await;
    let (client, told, peer) = (&hole.client, &hole.told, hole.contact.id());
    send_all(client, peer, 0..10).await;
    let before = told.all();
    client.leave(times.liveness + SLACK).await;
    eventually(LONG, || told.all().len() > before.len()).await;
    assert_eq!(told.all()[before.len()..], [PeerEvent::Left { peer }]);
    assert_eq!(before, [PeerEvent::Connected { peer }]);
}
