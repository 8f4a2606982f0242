//! Datagrams: at once or never, counted, to the same handlers: T27.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(feature = "faults")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use karere::faults::Fault;
use karere::{Class, DatagramReport, DatagramStats, Kind, MemberId, Message, Messenger, Raw, SendError};
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::watch;

/// Longer than any test.
const EVER: Duration = secs(3600);

fn stats(messenger: &Messenger, id: MemberId) -> DatagramStats {
    peer(messenger, id).unwrap().datagrams
}

/// Sends numbers, and waits for room where there is none.
async fn send_datagrams(from: &Messenger, to: MemberId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        eventually(LONG, || stats(from, to).waiting < 100).await;
        let report = from.datagram(&Number(number), to, EVER).unwrap();
        assert_eq!(report.handed_over, 1, "{number}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_reach_the_handler_of_their_type_and_are_in_no_book() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let back = Collected::by(&client);
    let contact = contact(&client, &server).await;
    send_datagrams(&client, contact.id(), 0..500).await;
    got.are_exactly(500, LONG).await;
    let (sent, received) = (stats(&client, contact.id()), stats(&server, client.member().id));
    assert_eq!((sent.given(), sent.sent, received.received), (500, 500, 500));
    for messenger in [&client, &server] {
        let total = messenger.stats().total();
        assert_eq!((total.queued, total.acked, total.handled, total.pending), (0, 0, 0, 0));
    }
    // And back, to who dialled.
    server.datagram(&Number(0), client.member().id, EVER).unwrap();
    back.are_exactly(1, LONG).await;
    drop(contact);
    eventually(LONG, || client.stats().peers.is_empty()).await;
    let total = client.stats().total_datagrams();
    assert_eq!((total.sent, total.received), (500, 1), "nothing disappears with the peer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_counted_exactly_and_nothing_is_sent_again_after_a_reset() {
    const COUNT: u64 = 20_000;
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    let mut reports = DatagramStats::default();
    for number in 0..COUNT {
        let DatagramReport { handed_over, no_link, full, .. } =
            client.datagram(&Number(number), [id], EVER).unwrap();
        reports.sent += handed_over as u64;
        reports.no_link += no_link.len() as u64;
        reports.full += full.len() as u64;
        if number % 1000 == 999 {
            proxy.inject(Fault::Reset);
            tokio::task::yield_now().await;
        }
        if number % 100 == 99 {
            tokio::time::sleep(ms(1)).await;
        }
    }
    eventually(LONG, || is_connected(&client, id) && stats(&client, id).waiting == 0).await;
    let last = stats(&client, id);
    assert_eq!((last.given(), last.full), (COUNT, reports.full), "{last:?}");
    assert_eq!(last.sent + last.no_link, reports.sent + reports.no_link, "{last:?}, {reports:?}");
    assert!(last.no_link >= reports.no_link && last.no_link > 0 && last.sent > 0, "{last:?}");
    // Something that is acknowledged comes behind whatever may still come.
    within(LONG, receipt_for(&client, id, COUNT).await.handled()).await.unwrap();
    let me = client.member().id;
    eventually(LONG, || {
        let came = stats(&server, me);
        got.len() as u64 == came.received - came.overrun + 1
    })
    .await;
    let numbers = got.from(me);
    let numbers = &numbers[..];
    let mut sorted: Vec<_> = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), numbers.len(), "nothing came twice");
    assert!(stats(&server, me).received <= last.sent);
    assert!(client.stats().total().links > 2);
}

/// Counts how often it is encoded.
static ENCODED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, Deserialize)]
struct Vote(u64);

impl Serialize for Vote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Relaxed);
        serializer.serialize_newtype_struct("Vote", &self.0)
    }
}

impl Message for Vote {
    const KIND: Kind = Kind::new("test.vote", 1).open();
}

/// Behaviour 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreliable_send_to_three_sends_three_unreliable_copies_and_encodes_once() {
    let client = client(quick()).await;
    let came = Arc::new(AtomicU64::new(0));
    let mut servers = Vec::new();
    for _ in 0..3 {
        let server = server(quick()).await;
        let count = Arc::clone(&came);
        server
            .add_handler(move |_, Vote(_)| {
                count.fetch_add(1, Relaxed);
                async {}
            })
            .unwrap();
        let proxy = proxy_to(&server);
        let contact = contact_at(&client, proxy.address()).await;
        servers.push((server, proxy, contact));
    }
    let ids: Vec<_> = servers.iter().map(|(_, _, contact)| contact.id()).collect();
    let report = client.datagram(&Vote(1), ids.clone(), EVER).unwrap();
    assert_eq!((report.handed_over, ENCODED.load(Relaxed)), (3, 1));
    eventually(LONG, || came.load(Relaxed) == 3).await;

    // Each of the three links swallows it; each is replaced; none resends.
    for (_, proxy, _) in &servers {
        assert_eq!(proxy.inject(Fault::Silence { drain: true }), 1);
    }
    let before: Vec<_> = ids.iter().map(|id| links(&client, *id)).collect();
    assert_eq!(client.datagram(&Vote(2), ids.clone(), EVER).unwrap().handed_over, 3);
    for (id, before) in ids.iter().zip(before) {
        eventually(LONG, || links(&client, *id) > before && is_connected(&client, *id)).await;
    }
    assert_eq!(client.datagram(&Vote(3), ids.clone(), EVER).unwrap().handed_over, 3);
    eventually(LONG, || came.load(Relaxed) >= 6).await;
    for id in &ids {
        assert_eq!((stats(&client, *id).sent, stats(&client, *id).given()), (3, 3));
        assert_eq!(peer(&client, *id).unwrap().books.queued, 0);
    }
    for (server, _, _) in &servers {
        assert_eq!(stats(server, client.member().id).received, 2, "the first and the third");
    }
    assert_eq!((came.load(Relaxed), ENCODED.load(Relaxed)), (6, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_passes_a_handler_that_hangs_also_its_own() {
    let server = server(patient()).await;
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    server
        .add_handler(move |_, Number(number)| {
            let count = Arc::clone(&count);
            async move {
                if number == 0 {
                    std::future::pending::<()>().await;
                }
                count.fetch_add(1, Relaxed);
            }
        })
        .unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    within(LONG, receipt_for(&client, contact.id(), 0).await.acked()).await.unwrap();
    within(LONG, receipt_for(&client, contact.id(), 1).await.acked()).await.unwrap();
    for number in 1..=20 {
        client.datagram(&Number(number), contact.id(), EVER).unwrap();
        eventually(LONG, || seen.load(Relaxed) == number).await;
    }
    // In one class datagrams wait for each other, in another they do not.
    client.datagram(&Number(0), contact.id(), EVER).unwrap();
    client.datagram(&Number(1), contact.id(), EVER).unwrap();
    client.class(Class::Urgent).datagram(&Number(1), contact.id(), EVER).unwrap();
    eventually(LONG, || seen.load(Relaxed) == 21).await;
    eventually(LONG, || stats(&server, client.member().id).received == 23).await;
    let handled = server.stats().total().handled;
    assert_eq!((seen.load(Relaxed), handled), (21, 0), "messages wait for the one that hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_pass_bulk_that_saturates_the_link() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    server.add_raw_handler(BLOB, |_, _| async {}).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let id = contact.id();
    let sender = client.clone();
    let bulk = tokio::spawn(async move {
        let blob = Raw::new(BLOB, Bytes::from(vec![7; 256 * 1024]));
        loop {
            let report = sender.class(Class::Bulk).send_wait(&blob, [id], LONG).await.unwrap();
            assert!(report.is_complete());
        }
    });
    eventually(LONG, || peer(&client, id).unwrap().queue_bytes > 256 * 1024).await;
    for number in 0..50 {
        let report = client.datagram(&Number(number), id, secs(1)).unwrap();
        assert_eq!(report.handed_over, 1);
        got.are_exactly(number + 1, secs(2)).await;
    }
    bulk.abort();
    assert_eq!(stats(&client, id).sent, 50);
    assert!(client.stats().total().bytes_written > 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_handler_of_datagrams_cannot_take_is_dropped_there_and_nothing_else() {
    const COUNT: u64 = 1000;
    /// The bound of a lane, and the one that the handler has.
    const KEPT: u64 = 256 + 1;
    let server = server(patient()).await;
    let (gate, open) = watch::channel(false);
    let (started, handled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&started), Arc::clone(&handled));
    server
        .add_handler(move |_, _: Number| {
            let (mut open, counts) = (open.clone(), counts.clone());
            async move {
                counts.0.fetch_add(1, Relaxed);
                open.wait_for(|open| *open).await.unwrap();
                counts.1.fetch_add(1, Relaxed);
            }
        })
        .unwrap();
    server.add_handler(|_, _: Word| async {}).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let (id, me) = (contact.id(), client.member().id);
    send_datagrams(&client, id, 0..1).await;
    eventually(LONG, || started.load(Relaxed) == 1).await;
    send_datagrams(&client, id, 1..COUNT).await;
    eventually(LONG, || stats(&server, me).received == COUNT).await;
    assert_eq!(stats(&server, me).overrun, COUNT - KEPT);
    // Messages have lanes and credit of their own.
    let receipt = client.send_with_receipt(&Word("passes".to_owned()), id).unwrap();
    within(LONG, receipt.handled()).await.unwrap();
    assert_eq!(stats(&client, id).given(), COUNT, "the sender does not see it");
    gate.send_replace(true);
    eventually(LONG, || handled.load(Relaxed) == KEPT).await;
    send_datagrams(&client, id, 0..1).await;
    eventually(LONG, || handled.load(Relaxed) == KEPT + 1).await;
    assert_eq!(stats(&server, me).overrun, COUNT - KEPT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_whose_time_is_over_is_not_sent() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    for (number, time_to_live) in [(9, Duration::ZERO), (0, Duration::MAX), (9, Duration::ZERO), (1, EVER)] {
        assert_eq!(client.datagram(&Number(number), contact.id(), time_to_live).unwrap().handed_over, 1);
    }
    got.are_exactly(2, LONG).await;
    let stats = stats(&client, contact.id());
    assert_eq!((stats.given(), stats.expired, stats.sent), (4, 2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_datagram_passes_and_one_byte_more_is_refused() {
    const LARGEST: usize = 32 * 1024 - 12;
    let server = server(patient()).await;
    let came = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&came);
    server
        .add_raw_handler(BLOB, move |_, raw| {
            count.fetch_add(raw.bytes().len() as u64, Relaxed);
            async {}
        })
        .unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let blob = |bytes| Raw::new(BLOB, pattern(3, bytes).into());
    client.datagram(&blob(LARGEST), contact.id(), EVER).unwrap();
    eventually(LONG, || came.load(Relaxed) == LARGEST as u64).await;
    let error = client.datagram(&blob(LARGEST + 1), contact.id(), EVER).unwrap_err();
    assert_eq!(error, SendError::TooLarge { kind: "test.blob", bytes: LARGEST + 1, most: LARGEST });
    assert_eq!(stats(&client, contact.id()).given(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_there_takes_is_not_sent_and_counted_here() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    server.add_handler(|_, _: Internal| async { panic!("a stranger's") }).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let id = contact.id();
    client.datagram(&Word("of no handler".to_owned()), id, EVER).unwrap();
    client.datagram(&Internal(1), id, EVER).unwrap();
    client.datagram(&Number(0), id, EVER).unwrap();
    got.are_exactly(1, LONG).await;
    let sent = stats(&client, id);
    assert_eq!((sent.given(), sent.not_taken, sent.sent), (3, 2, 1));
    // A fallback handler takes what is left.
    let fallen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&fallen);
    server
        .set_fallback_handler(move |_, unmatched| {
            assert!(!unmatched.bytes.is_empty());
            count.fetch_add(1, Relaxed);
            async {}
        })
        .unwrap();
    eventually(LONG, || {
        client.datagram(&Word("of the fallback".to_owned()), id, EVER).unwrap();
        fallen.load(Relaxed) > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_there_is_no_session_with_gets_none_and_it_is_counted() {
    let client = client(patient()).await;
    let got = Collected::by(&client);
    let stranger = server(patient()).await.member().id;
    let me = client.member().id;
    let report = client.datagram(&Number(0), [stranger, me, stranger], EVER).unwrap();
    assert_eq!((report.handed_over, &report.no_link[..]), (1, &[stranger, stranger][..]));
    assert_eq!((client.stats().datagrams_absent, client.stats().total_datagrams().given()), (2, 3));
    // To oneself as to any other.
    got.are_exactly(1, LONG).await;
    assert_eq!((stats(&client, me).sent, stats(&client, me).received), (1, 1));
    client.close().await;
    assert_eq!(client.datagram(&Number(0), me, EVER), Err(SendError::Closed("closed")));
}
