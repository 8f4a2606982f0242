//! Probes: who answers now: T28.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(feature = "faults")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use karere::faults::{Direction, Fault};
use karere::{MemberId, Timeouts};

/// Links die by nothing but what a test does, and are not redialled before it is over.
fn lazy() -> Timeouts {
    Timeouts { redial_min: secs(40), redial_max: secs(80), ..Timeouts::default() }
}

/// What a busy machine may take for what is done at once.
const SLACK: Duration = secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_peers_answer_and_their_round_trip_is_told() {
    let (one, two) = (server(patient()).await, server(patient()).await);
    let proxy = proxy_to(&one);
    proxy.set_delay(Some(ms(20)));
    let client = client(patient()).await;
    let (far, near) = (contact_at(&client, proxy.address()).await, contact(&client, &two).await);
    let me = client.member().id;
    // Whoever is listed twice counts once.
    let report = client.probe([far.id(), near.id(), far.id(), me, me], LONG).await;
    assert!(report.is_complete() && report.answered.len() == 3, "{report:?}");
    let round_trip = |id| report.answered.iter().find(|(member, _)| *member == id).unwrap().1;
    assert!(round_trip(far.id()) >= ms(40) && round_trip(far.id()) < LONG, "{report:?}");
    assert!(round_trip(near.id()) < LONG && round_trip(me) == Duration::ZERO, "{report:?}");
    // Whoever was dialled may ask as well; the session is held by its lease alone.
    let report = one.probe(me, LONG).await;
    assert!(report.has_answered(me) && report.is_complete(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_peer_is_silent_exactly_at_the_timeout_and_costs_the_others_nothing() {
    let (good, hung) = (server(lazy()).await, server(lazy()).await);
    for fault in [Fault::Silence { drain: true }, Fault::OneWay { silent: Direction::Down, drain: true }] {
        let proxy = proxy_to(&hung);
        let client = client(lazy()).await;
        let (live, silent) = (contact(&client, &good).await, contact_at(&client, proxy.address()).await);
        assert_eq!(proxy.inject(fault), 1);
        let timeout = ms(300);
        let start = Instant::now();
        let report = client.probe([silent.id(), live.id()], timeout).await;
        let took = start.elapsed();
        assert!(took >= timeout && took < timeout + SLACK, "{took:?}");
        assert_eq!((&report.silent[..], report.has_answered(live.id())), (&[silent.id()][..], true));
        assert!(!report.is_complete() && report.absent.is_empty());
        let (_, round_trip) = report.answered[0];
        assert!(round_trip < timeout, "{round_trip:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_handlers_hang_answers() {
    let server = server(patient()).await;
    server.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    for number in 0..100 {
        within(LONG, receipt_for(&client, contact.id(), number).await.acked()).await.unwrap();
    }
    let start = Instant::now();
    assert!(client.probe(contact.id(), LONG).await.is_complete());
    assert!(start.elapsed() < SLACK, "it does not wait for the time to be over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_link_is_down_is_dialled_for_a_probe_without_waiting() {
    let server = server(lazy()).await;
    let proxy = proxy_to(&server);
    let client = client(lazy()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    assert_eq!(proxy.inject(Fault::Reset), 1);
    eventually(LONG, || !is_connected(&client, id)).await;
    let start = Instant::now();
    let report = client.probe(id, LONG).await;
    assert!(report.has_answered(id), "{report:?}");
    assert!(start.elapsed() < LONG, "the redial was due in 20 to 40 s: {:?}", start.elapsed());
    assert_eq!(links(&client, id), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probing_a_peer_that_is_down_is_no_storm_of_dials() {
    let server = server(lazy()).await;
    let proxy = proxy_to(&server);
    let client = client(lazy()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    proxy.inject(Fault::Refuse { ms: 3_600_000 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&client, id)).await;
    let start = Instant::now();
    while start.elapsed() < ms(2500) {
        let report = client.probe(id, ms(5)).await;
        assert_eq!(report.silent, [id]);
    }
    let dials = proxy.counts().refused;
    assert!((2..=1 + start.elapsed().as_secs()).contains(&dials), "{dials} in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_there_is_no_session_with_is_absent_at_once() {
    let client = client(patient()).await;
    let stranger: MemberId = server(patient()).await.member().id;
    let start = Instant::now();
    let report = client.probe([stranger, client.member().id], secs(60)).await;
    assert!(start.elapsed() < LONG);
    assert_eq!((&report.absent[..], report.answered.len(), report.silent.len()), (&[stranger][..], 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_probes_of_one_peer_share_few_pings() {
    const PROBES: usize = 1000;
    /// Of a ping or pong on the wire.
    const PING_BYTES: u64 = 24 + 12 + 4;
    let server = server(patient()).await;
    let proxy = proxy_to(&server);
    proxy.set_delay(Some(ms(25)));
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    assert!(client.probe(id, LONG).await.is_complete());
    let (before, start) = (proxy.counts().bytes_up, Instant::now());
    let mut probes = tokio::task::JoinSet::new();
    for _ in 0..PROBES {
        let client = client.clone();
        probes.spawn(async move { client.probe(id, LONG).await });
    }
    let reports = within(LONG, probes.join_all()).await;
    assert!(reports.iter().all(|report| report.has_answered(id) && report.is_complete()));
    assert!(reports.iter().all(|report| report.answered[0].1 >= ms(50)), "each by a ping of its time");
    // One for each round trip at most, and those of the idle link.
    let most = start.elapsed().as_millis() as u64 / 50 + 2;
    let pings = (proxy.counts().bytes_up - before) / PING_BYTES;
    assert!((1..=most).contains(&pings), "{pings} pings in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_is_cancelled_leaves_nothing_and_one_of_a_closed_messenger_ends() {
    let server = server(lazy()).await;
    let proxy = proxy_to(&server);
    let client = client(lazy()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    proxy.set_delay(Some(ms(100)));
    assert!(tokio::time::timeout(ms(10), client.probe(id, LONG)).await.is_err());
    proxy.set_delay(None);
    assert!(within(LONG, client.probe(id, LONG)).await.is_complete());

    assert_eq!(proxy.inject(Fault::Silence { drain: true }), 1);
    let mut probe = std::pin::pin!(client.probe(id, secs(600)));
    assert!(tokio::time::timeout(ms(10), &mut probe).await.is_err());
    client.close().await;
    let report = within(LONG, probe).await;
    assert_eq!((&report.answered[..], &report.silent[..]), (&[][..], &[id][..]));
    let report = within(LONG, client.probe([id, client.member().id], secs(600))).await;
    assert_eq!(report.answered, [], "{report:?}");
}
