//! What handlers get, and what becomes of what they do not take: T3.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use common::*;
use karere::{Cause, HandlerError, Kind, Lost, Message, Messenger, Raw, Timeouts};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[tokio::test]
async fn a_second_handler_for_a_type_is_refused_and_the_first_stays() {
    let messenger = client(Timeouts::default()).await;
    let got = Collected::by(&messenger);
    let duplicate = HandlerError::Duplicate { name: "test.number" };
    assert_eq!(messenger.add_handler(|_, _: Number| async {}), Err(duplicate.clone()));
    assert_eq!(messenger.add_raw_handler(Number::KIND, |_, _| async {}), Err(duplicate));
    messenger.set_fallback_handler(|_, _| async {}).unwrap();
    assert_eq!(messenger.set_fallback_handler(|_, _| async {}), Err(HandlerError::SecondFallback));
    // Two names with one FNV-1a hash (a known pair).
    messenger.add_raw_handler(Kind::new("costarring", 1), |_, _| async {}).unwrap();
    let collision = HandlerError::Collision { name: "liquid", other: "costarring" };
    assert_eq!(messenger.add_raw_handler(Kind::new("liquid", 1), |_, _| async {}), Err(collision));
    within(LONG, receipt_for(&messenger, messenger.member().id, 0).await.handled()).await.unwrap();
    got.are_exactly(1, LONG).await;
}

#[tokio::test]
async fn a_type_goes_to_its_handler_and_everything_else_to_the_fallback() {
    let server = server(Timeouts::default()).await;
    let got = Collected::by(&server);
    let others = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&others);
    server
        .set_fallback_handler(move |_, message| {
            to.lock().push((message.version, message.bytes));
            async {}
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    for round in 0..100u64 {
        assert!(client.send(&Number(round), [contact.id()]).unwrap().is_complete());
        let raw = Raw::new(Kind::new("test.unknown", 9).open(), Bytes::from(vec![round as u8; 3]));
        assert!(client.send(&raw, [contact.id()]).unwrap().is_complete());
    }
    got.are_exactly(100, LONG).await;
    eventually(LONG, || others.lock().len() == 100).await;
    let expected: Vec<_> = (0..100u8).map(|round| (9, Bytes::from(vec![round; 3]))).collect();
    assert_eq!(*others.lock(), expected);
    assert_eq!(server.stats().refused_records, 0);
}

#[tokio::test]
async fn what_nobody_handles_is_not_understood_and_the_rest_goes_on() {
    let server = server(Timeouts::default()).await;
    let got = Collected::by(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let mut words = Vec::new();
    for number in 0..50 {
        assert!(client.send(&Number(number), [contact.id()]).unwrap().is_complete());
        words.push(client.send_with_receipt(&Word("?".to_owned()), contact.id()).unwrap());
    }
    for word in words {
        let lost = Lost::NotSent(Cause::NotUnderstood);
        assert_eq!(
            (within(LONG, word.acked()).await, word.handled().await, word.now()),
            (Err(lost), Err(lost), Some(Err(lost)))
        );
    }
    got.are_exactly(50, LONG).await;
    eventually(LONG, || client.stats().total().pending == 0).await;
    let total = client.stats().total();
    assert_eq!((total.acked, total.not_sent, total.balance()), (50, 50, true));
}

#[tokio::test]
async fn a_large_message_that_nobody_understands_does_not_block_the_stream() {
    let server = server(Timeouts::default()).await;
    let got = Collected::by(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let raw = Raw::new(BLOB, Bytes::from(vec![1; 1_000_000]));
    let receipt = client.send_with_receipt(&raw, contact.id()).unwrap();
    assert!(client.send(&Number(0), [contact.id()]).unwrap().is_complete());
    assert_eq!(within(LONG, receipt.acked()).await, Err(Lost::NotSent(Cause::NotUnderstood)));
    got.are_exactly(1, LONG).await;
    eventually(LONG, || client.stats().total().pending == 0).await;
    let total = client.stats().total();
    assert_eq!((total.queued, total.acked, total.not_sent), (2, 1, 1));
    eventually(LONG, || peer(&client, contact.id()).unwrap().queue_bytes == 0).await;
}

#[tokio::test]
async fn a_newer_version_is_not_understood_and_an_older_is() {
    let kind = |version| Kind::new("test.versioned", version).open();
    let server = server(Timeouts::default()).await;
    server.add_raw_handler(kind(3), |_, _| async {}).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    for (version, expected) in [(2, Ok(())), (3, Ok(())), (4, Err(Lost::NotSent(Cause::NotUnderstood)))] {
        let receipt = client.send_with_receipt(&Raw::new(kind(version), Bytes::new()), contact.id()).unwrap();
        assert_eq!(within(LONG, receipt.acked()).await, expected, "version {version}");
    }
}

#[tokio::test]
async fn a_type_for_members_of_a_view_is_not_admitted_from_a_contact() {
    let server = server(Timeouts::default()).await;
    server.add_handler(|_, _: Internal| async { panic!("must not come") }).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let not_admitted = Err(Lost::NotSent(Cause::NotAdmitted));
    let receipt = client.send_with_receipt(&Internal(1), contact.id()).unwrap();
    assert_eq!(within(LONG, receipt.acked()).await, not_admitted);
    // Nor if the sender claims that it is open.
    let claim = Raw::new(Internal::KIND.open(), Bytes::from_static(&[1]));
    let receipt = client.send_with_receipt(&claim, contact.id()).unwrap();
    assert_eq!(within(LONG, receipt.acked()).await, not_admitted);
    assert_eq!(server.stats().handler_panics, 0);
}

#[tokio::test]
async fn a_handler_that_is_added_later_is_told_to_the_peers() {
    let server = server(Timeouts::default()).await;
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let word = Word("now".to_owned());
    let receipt = client.send_with_receipt(&word, contact.id()).unwrap();
    assert_eq!(within(LONG, receipt.acked()).await, Err(Lost::NotSent(Cause::NotUnderstood)));
    server.add_handler(|_, _: Word| async {}).unwrap();
    within(LONG, async {
        while client.send_with_receipt(&word, contact.id()).unwrap().handled().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(client.stats().total().links, 1, "on the same link");
}

/// Silences the panics that a test wants.
fn expect_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("wanted")) {
                hook(info);
            }
        }));
    });
}

/// Reading it panics when it is odd.
#[derive(Debug, serde::Serialize)]
struct Odd(u64);

impl<'de> serde::Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(from)?;
        assert!(number % 2 == 0, "wanted: while it is read");
        Ok(Self(number))
    }
}

impl Message for Odd {
    const KIND: Kind = Kind::new("test.odd", 1).open();
}

#[tokio::test]
async fn a_message_whose_reading_panics_costs_itself_alone() {
    expect_panics();
    let server = server(Timeouts::default()).await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&got);
    server
        .add_handler(move |_, Odd(number)| {
            to.lock().push(number);
            async {}
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    for number in 0..6 {
        let receipt = client.send_with_receipt(&Odd(number), contact.id()).unwrap();
        within(LONG, receipt.handled()).await.unwrap();
    }
    assert_eq!(*got.lock(), [0, 2, 4]);
    assert_eq!(server.stats().handler_panics, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_costs_one_message() {
    expect_panics();
    let server = server(Timeouts::default()).await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&got);
    server
        .add_handler(move |_, Number(number)| {
            let to = Arc::clone(&to);
            if number % 10 == 3 {
                panic!("wanted: at once");
            }
            async move {
                if number % 10 == 6 {
                    tokio::task::yield_now().await;
                    panic!("wanted: after an await");
                }
                to.lock().push(number);
            }
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let mut receipts = Vec::new();
    for number in 0..100 {
        receipts.push(receipt_for(&client, contact.id(), number).await);
    }
    for receipt in receipts {
        within(LONG, receipt.handled()).await.unwrap();
    }
    let expected: Vec<u64> = (0..100).filter(|number| ![3, 6].contains(&(number % 10))).collect();
    assert_eq!(*got.lock(), expected);
    let stats = server.stats();
    assert_eq!(stats.handler_panics, 20);
    eventually(LONG, || server.stats().total().handled == 100).await;
    assert_eq!(client.stats().total().links, 1, "the link is the same");
}

#[tokio::test]
async fn a_panic_in_a_large_message_a_raw_handler_and_the_fallback_costs_one_message() {
    expect_panics();
    let server = server(Timeouts::default()).await;
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    server
        .add_raw_handler(BLOB, move |_, _| {
            let call = count.fetch_add(1, Relaxed);
            async move { assert!(call % 2 == 1, "wanted") }
        })
        .unwrap();
    server.set_fallback_handler(|_, _| async { panic!("wanted") }).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let mut receipts = Vec::new();
    for (at, bytes) in [10, 10, 100_000, 100_000, 300_000, 1_200_000].into_iter().enumerate() {
        let kind = if at == 1 { Kind::new("test.other", 1).open() } else { BLOB };
        let raw = Raw::new(kind, Bytes::from(vec![0; bytes]));
        receipts.push(client.send_with_receipt(&raw, contact.id()).unwrap());
    }
    for receipt in receipts {
        within(LONG, receipt.handled()).await.unwrap();
    }
    assert_eq!((calls.load(Relaxed), server.stats().handler_panics), (5, 4));
}

#[tokio::test]
async fn a_body_that_cannot_be_decoded_is_counted_and_the_next_is_handled() {
    let server = server(Timeouts::default()).await;
    let got = Collected::by(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    for number in 0..10 {
        // A number that is cut short.
        let wrong = Raw::new(Number::KIND, Bytes::from_static(&[0xff]));
        assert!(client.send(&wrong, [contact.id()]).unwrap().is_complete());
        assert!(client.send(&Number(number), [contact.id()]).unwrap().is_complete());
    }
    got.are_exactly(10, LONG).await;
    assert_eq!(server.stats().undecodable, 10);
    assert_eq!(client.stats().total().links, 1);
    eventually(LONG, || server.stats().total().handled == 20).await;
}

#[tokio::test]
async fn a_struct_that_another_version_wrote_is_undecodable_not_garbage() {
    #[derive(Serialize, Deserialize)]
    struct Renamed(String, String);
    impl Message for Renamed {
        const KIND: Kind = Word::KIND;
    }
    let server = server(Timeouts::default()).await;
    server.add_handler(|_, _: Renamed| async { panic!("must not come") }).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let receipt = client.send_with_receipt(&Word("one".to_owned()), contact.id()).unwrap();
    within(LONG, receipt.handled()).await.unwrap();
    assert_eq!(server.stats().undecodable, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_sender_are_handled_one_after_the_other_and_of_two_side_by_side() {
    let server = server(Timeouts::default()).await;
    let running = Arc::new(Mutex::new(Vec::<karere::MemberId>::new()));
    let most = Arc::new(AtomicU64::new(0));
    let (ours, peak) = (Arc::clone(&running), Arc::clone(&most));
    server
        .add_handler(move |from, _: Number| {
            let (running, most) = (Arc::clone(&ours), Arc::clone(&peak));
            async move {
                {
                    let mut running = running.lock();
                    assert!(!running.contains(&from), "two at once of one sender");
                    running.push(from);
                    most.fetch_max(running.len() as u64, Relaxed);
                }
                tokio::time::sleep(ms(1)).await;
                running.lock().retain(|other| *other != from);
            }
        })
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client: Messenger = client(Timeouts::default()).await;
        let contact = contact(&client, &server).await;
        clients.push((client, contact));
    }
    let mut last = Vec::new();
    for number in 0..100 {
        last.clear();
        for (client, contact) in &clients {
            last.push(receipt_for(client, contact.id(), number).await);
        }
    }
    for receipt in last {
        within(LONG, receipt.handled()).await.unwrap();
    }
    assert_eq!((most.load(Relaxed), server.stats().handler_panics), (2, 0));
}

#[tokio::test]
async fn zero_length_messages_are_delivered() {
    let server = server(Timeouts::default()).await;
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    server
        .add_raw_handler(BLOB, move |_, raw| {
            assert!(raw.bytes().is_empty());
            counted.fetch_add(1, Relaxed);
            async {}
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    for _ in 0..1000 {
        assert!(client.send(&Raw::new(BLOB, Bytes::new()), [contact.id()]).unwrap().is_complete());
    }
    eventually(LONG, || count.load(Relaxed) == 1000).await;
}
