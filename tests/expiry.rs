//! Messages with a time to live and with keys, over real sockets: T34.
#![cfg(feature = "faults")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Instant;

use common::*;
use karere::faults::Fault;
use karere::{Cause, Class, Lost, SendError, Timeouts};
use tokio::sync::Semaphore;

const EXPIRED: Result<(), Lost> = Err(Lost::NotSent(Cause::Expired));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_too_long_for_an_unreachable_peer_is_resolved_while_it_is_unreachable() {
    let server = server(quick()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    // Nothing but an expiry wakes the client in time.
    let seldom = Timeouts { redial_min: secs(60), redial_max: secs(60), ..quick() };
    let client = client(seldom).await;
    let audit = Auditor::of(&client);
    let contact = contact_at(&client, proxy.address()).await;
    proxy.inject(Fault::Refuse { ms: 3_600_000 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&client, contact.id())).await;
    let start = Instant::now();
    let short = client.class(Class::Normal).expires_in(ms(300));
    let receipts: Vec<_> =
        (0..100).map(|number| short.send_with_receipt(&Number(number), contact.id()).unwrap()).collect();
    let stays = client.send_with_receipt(&Number(0), contact.id()).unwrap();
    for receipt in &receipts {
        assert_eq!(within(LONG, receipt.acked()).await, EXPIRED);
    }
    assert!(start.elapsed() >= ms(300) && start.elapsed() < secs(5), "{:?}", start.elapsed());
    assert!(!is_connected(&client, contact.id()) && stays.now().is_none());
    let stats = peer(&client, contact.id()).unwrap();
    assert_eq!((stats.books.not_sent, stats.books.pending), (100, 1));
    assert!(stats.queue_bytes < 100, "their room came back: {}", stats.queue_bytes);
    assert_eq!(got.len(), 0);
    audit.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_updates_to_a_blocked_peer_the_newest_of_each_key_are_left() {
    const KEYS: u64 = 10;
    let server = stingy_server(patient()).await;
    let gate: &'static Semaphore = Box::leak(Box::new(Semaphore::new(0)));
    let got: &'static parking_lot::Mutex<Vec<u64>> = Box::leak(Box::default());
    server
        .add_handler(move |_, Number(number)| async move {
            gate.acquire().await.unwrap().forget();
            got.lock().push(number);
        })
        .unwrap();
    let client = client(patient()).await;
    let audit = Auditor::of(&client);
    let contact = contact(&client, &server).await;
    let id = contact.id();
    // The credit is used up.
    let blocked = || peer(&client, id).unwrap().streams.iter().any(|stream| stream.is_blocked);
    let mut fillers = 0;
    while !blocked() {
        match client.send_with_receipt(&Number(u64::MAX), id) {
            Ok(_) => fillers += 1,
            Err(SendError::Full(_)) => tokio::time::sleep(ms(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
    let before = peer(&client, id).unwrap().books.pending;
    let mut receipts = Vec::new();
    for number in 0..1000 {
        let sender = client.class(Class::Normal).conflate(number % KEYS);
        receipts.push(sender.send_with_receipt(&Number(number), id).unwrap());
    }
    // Acknowledgements may still come in; what is written meanwhile is gone from the queue too.
    let books = peer(&client, id).unwrap().books;
    assert!(books.pending <= before + KEYS, "{books:?}, {before} before");
    assert_eq!(books.not_sent, 1000 - KEYS);
    gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    for (number, receipt) in receipts.iter().enumerate() {
        let expected = if number < 990 { Err(Lost::NotSent(Cause::Superseded)) } else { Ok(()) };
        assert_eq!(within(LONG, receipt.handled()).await, expected, "{number}");
    }
    let numbers: Vec<u64> = got.lock().iter().copied().filter(|number| *number != u64::MAX).collect();
    assert_eq!(numbers, (990..1000).collect::<Vec<_>>());
    eventually(LONG, || got.lock().len() as u64 == fillers + KEYS).await;
    audit.check();
}

#[tokio::test]
async fn nobody_waits_for_room_longer_than_the_time_to_live() {
    let server = stingy_server(patient()).await;
    server.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let id = contact.id();
    within(LONG, async {
        loop {
            let report = client.send_wait(&Number(0), [id], ms(50)).await.unwrap();
            if !report.is_complete() {
                break;
            }
        }
    })
    .await;
    let queued = client.stats().total().queued;
    let sender = client.class(Class::Normal).expires_in(ms(100));
    let start = Instant::now();
    let report = within(LONG, sender.send_wait(&Number(1), [id], secs(60))).await.unwrap();
    assert!(start.elapsed() >= ms(100) && start.elapsed() < secs(5), "{:?}", start.elapsed());
    assert_eq!((report.queued, report.full), (0, vec![id]));
    assert_eq!(client.stats().total().queued, queued, "it never counted as queued");
}

#[tokio::test]
async fn a_time_to_live_of_zero_is_over_at_once_and_the_longest_never_is() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let zero = client.class(Class::Normal).expires_in(secs(0));
    let receipt = zero.send_with_receipt(&Number(7), contact.id()).unwrap();
    assert_eq!(receipt.now(), Some(EXPIRED));
    let longest = client.class(Class::Normal).expires_in(std::time::Duration::MAX).conflate(1);
    let receipt = longest.send_with_receipt(&Number(0), contact.id()).unwrap();
    assert_eq!(within(LONG, receipt.handled()).await, Ok(()));
    got.are_exactly(1, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_does_not_wait_for_what_has_expired() {
    // The server cannot dial the client; what it still has for it expires soon.
    let server = server(quick()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(quick()).await;
    let contact = contact_at(&client, proxy.address()).await;
    assert!(client.send(&Number(0), [contact.id()]).unwrap().is_complete());
    got.are_exactly(1, LONG).await;
    proxy.inject(Fault::Refuse { ms: 3_600_000 });
    proxy.inject(Fault::Reset);
    let to = client.member().id;
    eventually(LONG, || !is_connected(&server, to)).await;
    let receipt = server.class(Class::Normal).expires_in(ms(200)).send_with_receipt(&Number(1), to).unwrap();
    let start = Instant::now();
    within(secs(30), server.leave(secs(60))).await;
    assert!(start.elapsed() < secs(10), "{:?}", start.elapsed());
    assert_eq!(receipt.now(), Some(EXPIRED));
}
