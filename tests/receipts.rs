//! Every message ends in exactly one way, and leaving and closing keep their word: T20, T21.
#![cfg(feature = "faults")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::*;
use karere::faults::{Fault, Pace, Plan, Schedule};
use karere::{Cause, Disconnect, Lost, MemberId, Messenger, PeerEvent, Receipt, SendError};
use tokio::sync::Semaphore;

/// Resolves both stages of a receipt, and checks that they agree and stay.
async fn end_of(receipt: &Receipt) -> (Result<(), Lost>, Result<(), Lost>) {
    let acked = within(LONG, receipt.acked()).await;
    assert_eq!(receipt.now(), Some(acked));
    let handled = within(LONG, receipt.handled()).await;
    match (acked, handled) {
        (Err(lost), handled) => assert_eq!(handled, Err(lost)),
        (Ok(()), Err(Lost::NotSent(cause))) => panic!("acked and not sent: {cause}"),
        (Ok(()), Ok(()) | Err(Lost::Indeterminate(_))) => {}
        (Ok(()), Err(other)) => panic!("{other}"),
    }
    assert_eq!((receipt.acked().await, receipt.handled().await), (acked, handled), "it does not change");
    (acked, handled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_resolve_once_each_and_the_books_balance_all_the_time() {
    const COUNT: u64 = 5_000;
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let schedule = Schedule { reset_every_ms: Some(Pace::from(10..=50).at_most(30)), ..Schedule::default() };
    let proxy = proxy_with(&server, Plan::new(3, schedule));
    let client = client(patient()).await;
    let audits = [Auditor::of(&client), Auditor::of(&server)];
    let contact = contact_at(&client, proxy.address()).await;
    let mut receipts = Vec::new();
    for number in 0..COUNT {
        receipts.push(receipt_for(&client, contact.id(), number).await);
        if number % 50 == 0 {
            tokio::time::sleep(ms(5)).await;
        }
    }
    for receipt in &receipts {
        assert_eq!(end_of(receipt).await, (Ok(()), Ok(())));
    }
    got.are_exactly(COUNT, LONG).await;
    assert!(proxy.counts().resets >= 5, "{:?}", proxy.counts());
    let total = client.stats().total();
    assert_eq!((total.queued, total.acked, total.pending), (COUNT, COUNT, 0));
    // Nothing disappears from the books with the peer.
    drop(contact);
    eventually(LONG, || client.stats().peers.is_empty()).await;
    let total = client.stats().total();
    assert_eq!((total.queued, total.acked, total.pending), (COUNT, COUNT, 0));
    audits.iter().for_each(Auditor::check);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_contact_ends_what_was_written_as_indeterminate_and_the_rest_as_not_sent() {
    let server = stingy_server(patient()).await;
    server.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let audit = Auditor::of(&client);
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    let acked = receipt_for(&client, id, 0).await;
    within(LONG, acked.acked()).await.unwrap();
    proxy.inject(Fault::Silence { drain: true });
    let mut receipts = Vec::new();
    // More than the credit of a stream, so that the last are never written.
    while let Ok(receipt) = client.send_with_receipt(&Number(1), id) {
        receipts.push(receipt);
    }
    let books = |messenger: &Messenger| messenger.stats().total();
    eventually(LONG, || {
        peer(&client, id).unwrap().streams.iter().any(|stream| stream.is_blocked && stream.credit_bytes < 64)
    })
    .await;
    drop(contact);
    let closed = Cause::Closed;
    assert_eq!(end_of(&acked).await, (Ok(()), Err(Lost::Indeterminate(closed))));
    let mut ends = [0, 0];
    let mut last = 0;
    for receipt in &receipts {
        let at = match end_of(receipt).await.0 {
            Err(Lost::Indeterminate(Cause::Closed)) => 0,
            Err(Lost::NotSent(Cause::Closed)) => 1,
            other => panic!("{other:?}"),
        };
        assert!(at >= last, "first what was written, then the rest");
        last = at;
        ends[at] += 1;
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
    eventually(LONG, || client.stats().peers.is_empty()).await;
    let total = books(&client);
    assert_eq!((total.acked, total.indeterminate, total.not_sent, total.pending), (1, ends[0], ends[1], 0));
    assert_eq!(client.send_with_receipt(&Number(1), id).unwrap_err(), SendError::Absent(id));
    audit.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_every_receipt() {
    let server = server(patient()).await;
    server.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let mut receipts = Vec::new();
    while let Ok(receipt) = client.send_with_receipt(&Number(1), contact.id()) {
        receipts.push(receipt);
    }
    within(secs(3), client.close()).await;
    for receipt in &receipts {
        let (_, handled) = end_of(receipt).await;
        assert!(matches!(handled, Err(Lost::Indeterminate(Cause::Closed) | Lost::NotSent(Cause::Closed))));
    }
    let total = client.stats().total();
    assert_eq!((total.queued, total.pending), (receipts.len() as u64, 0));
    assert!(total.balance());
}

#[tokio::test]
async fn a_message_that_nobody_was_met_for_is_not_sent() {
    let server = server(patient()).await;
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = client.contact(proxy.address().to_string()).await.unwrap();
    proxy.inject(Fault::Refuse { ms: 60_000 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&client, contact.id())).await;
    let receipt = receipt_for(&client, contact.id(), 0).await;
    drop(contact);
    assert_eq!(end_of(&receipt).await.0, Err(Lost::NotSent(Cause::Closed)));
}

// ---- leaving ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_drains_through_a_broken_link() {
    const COUNT: u64 = 2_000;
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    proxy.inject(Fault::Refuse { ms: 400 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&client, contact.id())).await;
    let mut receipts = Vec::new();
    for number in 0..COUNT {
        match client.send_with_receipt(&Number(number), contact.id()) {
            Ok(receipt) => receipts.push(receipt),
            Err(SendError::Full(_)) => break, // Only the reserve is there.
            Err(error) => panic!("{error}"),
        }
    }
    let start = Instant::now();
    within(LONG, client.leave(secs(8))).await;
    assert!(start.elapsed() >= ms(200), "it waited for the link");
    for receipt in &receipts {
        assert_eq!(receipt.now(), Some(Ok(())));
    }
    assert!(receipts.len() > 500);
    got.are_exactly(receipts.len() as u64, LONG).await;
    assert_eq!(client.stats().total().acked, receipts.len() as u64);
}

/// Found by `tests/model`: who leaves refused all hellos, also those of peers that it was still draining to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_and_cannot_dial_drains_when_its_peer_dials_again() {
    let server = server(patient()).await;
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let got = Collected::by(&client);
    let me = client.member().id;
    let contact = contact_at(&client, proxy.address()).await;
    assert_eq!(contact.id(), server.member().id);
    eventually(LONG, || is_connected(&server, me)).await;
    proxy.inject(Fault::Refuse { ms: 400 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&server, me)).await;
    let receipt = server.send_with_receipt(&Number(0), me).unwrap();
    let start = Instant::now();
    within(LONG, server.leave(secs(8))).await;
    assert_eq!(receipt.now(), Some(Ok(())), "it was acknowledged before the deadline");
    assert!(start.elapsed() < secs(7), "and nobody waited for that: {:?}", start.elapsed());
    got.are_exactly(1, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_ends_the_session_at_the_other_side_at_once() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let seen = Seen::by(&server);
    let client = client(patient()).await;
    let me = client.member().id;
    let contact = contact(&client, &server).await;
    send_all(&client, contact.id(), 0..1000).await;
    within(secs(3), client.leave(secs(2))).await;
    // Far sooner than any lease.
    eventually(secs(1), || peer(&server, me).is_none()).await;
    got.are_exactly(1000, LONG).await;
    eventually(LONG, || seen.has(&PeerEvent::Left { peer: me })).await;
    assert_eq!(server.send(&Number(0), [me]).unwrap().absent, [me]);
    let suspicious = |event: &PeerEvent| {
        matches!(event, PeerEvent::Disconnected { reason: Disconnect::Reset | Disconnect::Silence, .. })
    };
    assert_eq!(seen.count(suspicious), 0, "a goodbye raises no suspicion: {:?}", seen.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_may_leave_at_the_same_time() {
    for _ in 0..20 {
        let (one, two) = (server(patient()).await, server(patient()).await);
        let (got_one, got_two) = (Collected::by(&one), Collected::by(&two));
        let (to_two, to_one) = (contact(&one, &two).await, contact(&two, &one).await);
        tokio::join!(send_all(&one, to_two.id(), 0..100), send_all(&two, to_one.id(), 0..100));
        let start = Instant::now();
        within(secs(5), async { tokio::join!(one.leave(secs(4)), two.leave(secs(4))) }).await;
        assert!(start.elapsed() < secs(4), "nobody waited for the deadline");
        // Which goodbye came before the other had begun to leave is chance: then what it had not written is not sent. Nothing
        // that was written is in doubt.
        for total in [one.stats().total(), two.stats().total()] {
            assert_eq!((total.acked + total.not_sent, total.indeterminate), (100, 0), "{total:?}");
        }
        // What came while this side was leaving may go unhandled, but not out of order.
        for got in [got_one, got_two] {
            let numbers = got.numbers();
            assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_and_closing_return_in_time_with_a_hung_peer_and_a_blocked_write() {
    for (drain, leave) in [(false, true), (true, true), (false, false)] {
        let server = server(patient()).await;
        server.add_raw_handler(BLOB, |_, _| async {}).unwrap();
        let proxy = proxy_to(&server);
        let client = client(patient()).await;
        let contact = contact_at(&client, proxy.address()).await;
        let raw = karere::Raw::new(BLOB, vec![0; 60_000].into());
        let first = client.send_with_receipt(&raw, contact.id()).unwrap();
        within(LONG, first.handled()).await.unwrap();
        proxy.inject(Fault::Silence { drain });
        while client.send(&raw, [contact.id()]).unwrap().is_complete() {}
        eventually(LONG, || {
            peer(&client, contact.id()).unwrap().streams.iter().any(|stream| stream.unacked_bytes > 0)
        })
        .await;
        let start = Instant::now();
        if leave {
            client.leave(secs(1)).await;
        } else {
            client.close().await;
        }
        let deadline = if leave { secs(1) } else { secs(0) } + secs(2) + ms(500);
        assert!(start.elapsed() < deadline, "{:?}", start.elapsed());
        let total = client.stats().total();
        assert_eq!(total.pending, 0);
        assert!(total.indeterminate > 0 && total.balance(), "{total:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_returns_though_handlers_hang_here_and_there() {
    let (one, two) = (server(patient()).await, server(patient()).await);
    for messenger in [&one, &two] {
        messenger.add_handler(|_, _: Number| std::future::pending()).unwrap();
    }
    let contact = contact(&one, &two).await;
    let waits = receipt_for(&one, contact.id(), 0).await;
    within(LONG, waits.acked()).await.unwrap();
    let other = receipt_for(&two, one.member().id, 0).await;
    within(LONG, other.acked()).await.unwrap();
    within(secs(3), one.close()).await;
    assert_eq!(within(LONG, waits.handled()).await, Err(Lost::Indeterminate(Cause::Closed)));
    assert_eq!(within(LONG, other.handled()).await, Err(Lost::Indeterminate(Cause::Departed)));
    within(secs(3), two.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_messenger_that_is_dropped_closes() {
    let server = server(patient()).await;
    let seen = Seen::by(&server);
    let client = client(patient()).await;
    let me = client.member().id;
    let contact = contact(&client, &server).await;
    let _left = receipt_for(&client, contact.id(), 0).await;
    drop(contact);
    drop(client);
    eventually(LONG, || seen.has(&PeerEvent::Left { peer: me })).await;
}

/// A server whose handler waits for the returned permits, and a client that had `count` messages acknowledged by it.
async fn waiting_handlers(
    count: u64,
) -> (Messenger, Messenger, karere::Contact, Arc<Semaphore>, Vec<Receipt>) {
    let server = server(patient()).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let handler = move |_from: MemberId, _number: Number| {
        let held = Arc::clone(&held);
        async move { held.acquire().await.unwrap().forget() }
    };
    server.add_handler(handler).unwrap();
    let client = client(patient()).await;
    let contact = contact_at(&client, server.local_address().unwrap()).await;
    let mut receipts = Vec::new();
    for number in 0..count {
        receipts.push(receipt_for(&client, contact.id(), number).await);
    }
    for receipt in &receipts {
        assert_eq!(within(LONG, receipt.acked()).await, Ok(()));
    }
    (server, client, contact, gate, receipts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_lets_handlers_finish_what_was_accepted() {
    let (server, _client, _contact, gate, _receipts) = waiting_handlers(10).await;
    let leaving = tokio::spawn({
        let server = server.clone();
        async move { server.leave(LONG).await }
    });
    eventually(LONG, || server.stats().peers.is_empty()).await;
    assert!(!leaving.is_finished(), "handlers still run");
    gate.add_permits(10);
    within(LONG, leaving).await.unwrap();
    assert_eq!((gate.available_permits(), server.stats().dropped_at_close), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_handler_at_the_close_is_dropped_and_counted() {
    let (server, _client, contact, _gate, receipts) = waiting_handlers(10).await;
    within(LONG, server.close()).await;
    assert_eq!(server.stats().dropped_at_close, 10);
    drop(contact);
    for receipt in &receipts {
        let handled = within(LONG, receipt.handled()).await;
        assert!(
            matches!(handled, Err(Lost::Indeterminate(_))),
            "acknowledged, and never handled: {handled:?}"
        );
    }
}
