//! Waiting until what reached a member is handled: T29.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use bytes::Bytes;
use common::*;
use karere::{Class, Digest, Kind, Message, Messenger, Raw, Request, Timeouts, Unflushed};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// A digest as it travels.
#[derive(Clone, Serialize, Deserialize)]
struct Told(Digest);

impl Message for Told {
    const KIND: Kind = Kind::new("test.told", 1).open();
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ask(u64);

impl Message for Ask {
    const KIND: Kind = Kind::new("test.ask", 1).open();
}

impl Request for Ask {
    type Reply = Number;
}

/// Handles numbers, words and blobs, each only when it is let.
#[derive(Clone)]
struct Gate {
    permits: Arc<Semaphore>,
    handled: Arc<AtomicU64>,
}

impl Gate {
    fn at(messenger: &Messenger) -> Self {
        let gate = Self { permits: Arc::new(Semaphore::new(0)), handled: Arc::default() };
        let pass = gate.clone();
        messenger.add_handler(move |_, _: Number| pass.clone().pass()).unwrap();
        let pass = gate.clone();
        messenger.add_raw_handler(BLOB, move |_, _| pass.clone().pass()).unwrap();
        gate
    }

    async fn pass(self) {
        self.permits.acquire().await.unwrap().forget();
        self.handled.fetch_add(1, SeqCst);
    }

    fn let_pass(&self, count: usize) {
        self.permits.add_permits(count);
    }

    fn handled(&self) -> u64 {
        self.handled.load(SeqCst)
    }
}

/// A digest of a messenger, as another would get it.
async fn through_the_wire(messenger: &Messenger) -> Digest {
    let (to, mut got) = tokio::sync::mpsc::channel(1);
    let told = Told(messenger.digest());
    let reader = client(Timeouts::default()).await;
    reader
        .add_handler(move |_, Told(digest)| {
            to.try_send(digest).unwrap();
            async {}
        })
        .unwrap();
    assert!(reader.send(&told, [reader.member().id]).unwrap().is_complete());
    let digest = within(LONG, got.recv()).await.unwrap();
    assert_eq!(digest, told.0);
    digest
}

/// What is missing, as (why, records), summed.
fn missing(report: &karere::FlushReport, why: Unflushed) -> u64 {
    report.missing.iter().filter(|missing| missing.why == why).map(|missing| missing.records).sum()
}

#[tokio::test]
async fn ones_own_digest_is_handled_when_the_handlers_of_what_was_accepted_are_done() {
    let server = server(Timeouts::default()).await;
    let gate = Gate::at(&server);
    assert!(server.wait_handled(&server.digest(), ms(0)).await.is_complete(), "nothing came yet");
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    send_all(&client, contact.id(), 0..10).await;
    client.send_with_receipt(&Number(10), contact.id()).unwrap().acked().await.unwrap();
    let digest = server.digest();
    // What comes later is not waited for.
    send_all(&client, contact.id(), 11..30).await;
    let start = Instant::now();
    let report = server.wait_handled(&digest, ms(100)).await;
    assert!(start.elapsed() >= ms(100));
    assert_eq!((report.missing.len(), missing(&report, Unflushed::NotHandled)), (1, 11), "{report:?}");
    assert_eq!((report.missing[0].from, report.missing[0].class), (client.member().id, Class::Normal));
    gate.let_pass(10);
    eventually(LONG, || gate.handled() == 10).await;
    let report = server.wait_handled(&digest, ms(50)).await;
    assert_eq!(missing(&report, Unflushed::NotHandled), 1, "all but one: {report:?}");
    let waiting = server.wait_handled(&digest, LONG);
    let (report, ()) = within(secs(5), async { tokio::join!(waiting, async { gate.let_pass(1) }) }).await;
    assert!(report.is_complete() && gate.handled() == 11, "{report:?}");
    gate.let_pass(100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anothers_digest_covers_all_that_it_had_taken_in_every_class_and_size() {
    let server = stingy_server(Timeouts::default()).await;
    let gate = Gate::at(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let mut sent = 0;
    // Beyond the credit, so that some wait on the sender's side.
    for class in [Class::Urgent, Class::Normal, Class::Bulk] {
        for bytes in [10, 100_000, 5_000, 200_000, 0] {
            let raw = Raw::new(BLOB, Bytes::from(vec![1; bytes]));
            assert!(client.class(class).send(&raw, [contact.id()]).unwrap().is_complete());
            sent += 1;
        }
    }
    let digest = client.digest();
    assert_eq!(digest.of(), client.member().id);
    assert!(client.send(&Number(1), [contact.id()]).unwrap().is_complete(), "after the digest");
    let report = server.wait_handled(&digest, ms(100)).await;
    assert!(missing(&report, Unflushed::NotCome) > 0 && report.missing.len() == 3, "{report:?}");
    let waiting = tokio::spawn({
        let (server, gate) = (server.clone(), gate.clone());
        async move { (server.wait_handled(&digest, LONG).await, gate.handled()) }
    });
    for passed in 1..sent {
        gate.let_pass(1);
        eventually(LONG, || gate.handled() == passed).await;
    }
    assert!(!waiting.is_finished());
    gate.let_pass(2);
    let (report, handled) = within(LONG, waiting).await.unwrap();
    assert!(report.is_complete() && handled >= sent, "{report:?}, {handled} of {sent}");
    // Others are not meant.
    assert!(client.wait_handled(&server.digest(), ms(0)).await.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_wait_for_each_others_digests_have_handled_all_that_was_sent_before() {
    let one = server(patient()).await;
    let two = client(patient()).await;
    // Before they meet: what is not understood is not sent, and missing.
    let counts = [&one, &two].map(Collected::by);
    let contact = contact(&two, &one).await;
    let pair = [(one.clone(), two.member().id), (two.clone(), contact.id())];
    for round in 1..=20u64 {
        for (messenger, other) in &pair {
            send_all(messenger, *other, (round - 1) * 50..round * 50).await;
        }
        for (at, (messenger, other)) in pair.iter().enumerate() {
            let digest = through_the_wire(messenger).await;
            let (waiter, count) = (&pair[1 - at].0, &counts[1 - at]);
            assert_eq!(*other, waiter.member().id);
            let report = waiter.wait_handled(&digest, LONG).await;
            assert!(report.is_complete(), "{report:?}");
            assert!(count.len() as u64 >= round * 50, "{} in round {round}", count.len());
        }
    }
}

#[tokio::test]
async fn what_a_member_that_is_gone_had_sent_is_still_waited_for() {
    let server = server(Timeouts::default()).await;
    let gate = Gate::at(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    send_all(&client, contact.id(), 0..5).await;
    client.send_with_receipt(&Number(5), contact.id()).unwrap().acked().await.unwrap();
    let theirs = client.digest();
    client.leave(LONG).await;
    eventually(LONG, || server.stats().peers.is_empty()).await;
    let own = server.digest();
    for digest in [&own, &theirs] {
        let report = server.wait_handled(digest, ms(50)).await;
        assert_eq!(missing(&report, Unflushed::NotHandled), 6, "{report:?}");
    }
    let waiting = async { tokio::join!(server.wait_handled(&own, LONG), server.wait_handled(&theirs, LONG)) };
    let ((own, theirs), ()) = tokio::join!(waiting, async { gate.let_pass(6) });
    assert!(own.is_complete() && theirs.is_complete(), "{own:?}, {theirs:?}");
    assert_eq!(gate.handled(), 6);
    drop(contact);
}

#[tokio::test]
async fn what_can_never_come_is_said_as_soon_as_the_session_is_over() {
    let server = stingy_server(Timeouts::default()).await;
    let gate = Gate::at(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    // More than the credit: some are accepted, the rest waits with the sender.
    let raw = Raw::new(BLOB, Bytes::from(vec![1; 50_000]));
    for _ in 0..10 {
        assert!(client.send(&raw, [contact.id()]).unwrap().is_complete());
    }
    eventually(LONG, || server.stats().total().bytes_accepted >= 100_000).await;
    let digest = client.digest();
    let waiting = {
        let server = server.clone();
        tokio::spawn(async move { server.wait_handled(&digest, secs(3600)).await })
    };
    let again = client.digest();
    client.close().await;
    eventually(LONG, || server.stats().peers.is_empty()).await;
    assert!(!waiting.is_finished(), "what came waits for its handler");
    gate.let_pass(10);
    let report = within(LONG, waiting).await.unwrap();
    let lost = missing(&report, Unflushed::SessionOver);
    assert_eq!((lost + gate.handled(), report.missing.len()), (10, 1), "{report:?}");
    assert!(lost >= 7, "{report:?}");
    let report = within(secs(5), server.wait_handled(&again, secs(3600))).await;
    assert_eq!(missing(&report, Unflushed::SessionOver), lost, "also when it is asked later: {report:?}");
    drop(contact);
}

#[tokio::test]
async fn a_request_counts_until_its_handler_is_done_whatever_is_called_off_behind_it() {
    let server = server(Timeouts::default()).await;
    let gate = Gate::at(&server);
    let pass = gate.clone();
    server
        .add_request_handler(move |_, Ask(number)| {
            let pass = pass.clone();
            async move {
                pass.pass().await;
                Ok(Number(number))
            }
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let ask = |number| {
        let (client, id) = (client.clone(), contact.id());
        tokio::spawn(async move { client.request(&Ask(number), id, secs(3600)).await })
    };
    let (first, second) = (ask(1), ask(2));
    eventually(LONG, || server.stats().total().bytes_accepted > 64).await;
    eventually(LONG, || client.stats().total().acked == 2).await;
    let (own, theirs) = (server.digest(), client.digest());
    second.abort();
    eventually(LONG, || server.stats().requests_called_off == 1).await;
    for digest in [&own, &theirs] {
        let report = server.wait_handled(digest, ms(50)).await;
        assert_eq!(missing(&report, Unflushed::NotHandled), 2, "in order: {report:?}");
        assert_eq!(report.missing[0].protocol, 6);
    }
    gate.let_pass(1);
    for digest in [&own, &theirs] {
        assert!(server.wait_handled(digest, LONG).await.is_complete());
    }
    assert_eq!(within(LONG, first).await.unwrap(), Ok(Number(1)));
}

#[tokio::test]
async fn a_wait_ends_with_the_messenger_and_says_what_is_missing() {
    let server = server(Timeouts::default()).await;
    let _gate = Gate::at(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    client.send_with_receipt(&Number(0), contact.id()).unwrap().acked().await.unwrap();
    let digest = server.digest();
    let (waiter, closer) = (server.clone(), server.clone());
    let waiting = async { waiter.wait_handled(&digest, secs(3600)).await };
    let (report, ()) = within(secs(5), async { tokio::join!(waiting, closer.close()) }).await;
    assert_eq!(missing(&report, Unflushed::NotHandled), 1, "{report:?}");
}
