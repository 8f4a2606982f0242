//! Messages in chunks: T14.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::*;
use karere::{Cause, Class, Limits, Lost, Messenger, Raw, SendError, Timeouts};
use parking_lot::Mutex;

const KIB: usize = 1024;

type Bodies = Arc<Mutex<Vec<Bytes>>>;

fn bodies(messenger: &Messenger) -> Bodies {
    let bodies = Bodies::default();
    let to = Arc::clone(&bodies);
    messenger
        .add_raw_handler(BLOB, move |_, raw| {
            to.lock().push(raw.into_bytes());
            async {}
        })
        .unwrap();
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_arrives_once_whole_and_in_order() {
    let server = server(Timeouts::default()).await;
    let got = bodies(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        64 * KIB - 17,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        96 * KIB,
        128 * KIB,
        0,
        128 * KIB + 1,
        3,
        1024 * KIB,
        1200 * KIB,
        7,
        5 * 1024 * KIB,
        1,
    ];
    let sent: Vec<_> = sizes.iter().map(|size| Bytes::from(pattern(*size as u64, *size))).collect();
    let mut receipts = Vec::new();
    for body in &sent {
        let raw = Raw::new(BLOB, body.clone());
        receipts.push(loop {
            match client.send_with_receipt(&raw, contact.id()) {
                Ok(receipt) => break receipt,
                Err(SendError::Full(_)) => tokio::time::sleep(ms(1)).await,
                Err(error) => panic!("{error}"),
            }
        });
    }
    for receipt in receipts {
        within(LONG, receipt.handled()).await.unwrap();
    }
    assert!(*got.lock() == sent);
    eventually(LONG, || client.stats().total().acked == sizes.len() as u64).await;
    assert_eq!(server.stats().total().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_message_arrives_and_one_byte_more_is_refused() {
    const MOST: usize = 64 * 1024 * KIB;
    let server = server(Timeouts::default()).await;
    let got = bodies(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let body = Bytes::from(pattern(64, MOST));
    let receipt = client.send_with_receipt(&Raw::new(BLOB, body.clone()), contact.id()).unwrap();
    within(secs(30), receipt.handled()).await.unwrap();
    assert!(*got.lock() == [body]);
    let too_large = Raw::new(BLOB, Bytes::from(vec![0; MOST + 1]));
    let error = client.send(&too_large, [contact.id()]).unwrap_err();
    assert_eq!(error, SendError::TooLarge { kind: "test.blob", bytes: MOST + 1, most: MOST });
    eventually(LONG, || peer(&client, contact.id()).unwrap().queue_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_big_small_arrive_in_that_order() {
    let server = server(Timeouts::default()).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&order);
    server
        .add_handler(move |_, Number(number)| {
            to.lock().push(number as usize);
            async {}
        })
        .unwrap();
    let to = Arc::clone(&order);
    server
        .add_raw_handler(BLOB, move |_, raw| {
            to.lock().push(raw.bytes().len());
            async {}
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let mut expected = Vec::new();
    for round in 0..10usize {
        let big = 100_000 + round * 300_000;
        send_all(&client, contact.id(), round as u64..round as u64 + 1).await;
        let raw = Raw::new(BLOB, Bytes::from(vec![0; big]));
        assert!(client.send_wait(&raw, [contact.id()], LONG).await.unwrap().is_complete());
        send_all(&client, contact.id(), 50..51).await;
        expected.extend([round, big, 50]);
    }
    eventually(LONG, || order.lock().len() == expected.len()).await;
    assert_eq!(*order.lock(), expected);
}

/// Memory for one large message at a time.
fn one_at_a_time() -> Limits {
    let most = 3 * 1024 * KIB;
    Limits { message_bytes: most, reassembly_bytes: most, credit_bytes: 128 * 1024, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_of_several_senders_to_one_receiver_do_not_starve_each_other() {
    let builder = Messenger::builder().bind("127.0.0.1:0").limits(one_at_a_time());
    let server = builder.start().await.unwrap();
    let got = bodies(&server);
    let body = Bytes::from(pattern(3, 3 * 1024 * KIB));
    let mut senders = Vec::new();
    for _ in 0..3 {
        let queue = Limits { queue_bytes: 16 * 1024 * KIB, ..Limits::default() };
        let client = Messenger::builder().limits(queue).start().await.unwrap();
        let contact = contact(&client, &server).await;
        senders.push((client, contact));
    }
    let mut receipts = Vec::new();
    for _ in 0..2 {
        for (client, contact) in &senders {
            for class in [Class::Normal, Class::Bulk] {
                let receipt =
                    client.class(class).send_with_receipt(&Raw::new(BLOB, body.clone()), contact.id());
                receipts.push(receipt.unwrap());
            }
        }
    }
    assert_eq!(receipts.len(), 12);
    for receipt in &receipts {
        within(LONG, receipt.handled()).await.unwrap();
    }
    assert!(got.lock().len() == receipts.len() && got.lock().iter().all(|got| *got == body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_leaves_in_the_middle_gives_its_memory_back() {
    let builder = Messenger::builder().bind("127.0.0.1:0").limits(one_at_a_time());
    let server = builder.start().await.unwrap();
    let got = bodies(&server);
    let body = Bytes::from(pattern(3, 3 * 1024 * KIB));
    for step in 0..10 {
        let client = client(Timeouts::default()).await;
        let contact = contact(&client, &server).await;
        let receipt = client.send_with_receipt(&Raw::new(BLOB, body.clone()), contact.id()).unwrap();
        // Whatever it is in the middle of.
        tokio::time::sleep(std::time::Duration::from_micros(500 * step)).await;
        client.close().await;
        drop(receipt);
    }
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let receipt = client.send_with_receipt(&Raw::new(BLOB, body.clone()), contact.id()).unwrap();
    within(LONG, receipt.handled()).await.unwrap();
    assert!(got.lock().iter().all(|got| *got == body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_the_receiver_takes_is_not_sent_and_the_link_stays() {
    let limits = Limits { message_bytes: 100 * 1024, ..Limits::default() };
    let builder = Messenger::builder().bind("127.0.0.1:0").limits(limits).timeouts(patient());
    let server = builder.start().await.unwrap();
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, server.local_address().unwrap()).await;
    // The link is up, so that the queue takes large messages.
    let first = receipt_for(&client, contact.id(), 0).await;
    assert_eq!(within(LONG, first.acked()).await, Ok(()));
    let large = Word("x".repeat(200 * 1024));
    let receipt = client.send_with_receipt(&large, contact.id()).unwrap();
    assert_eq!(within(LONG, receipt.acked()).await, Err(Lost::NotSent(Cause::TooLarge)));
    let next = receipt_for(&client, contact.id(), 1).await;
    assert_eq!(within(LONG, next.handled()).await, Ok(()));
    got.are_exactly(2, LONG).await;
    assert_eq!(client.stats().total().links, 1, "the link stays");
}
