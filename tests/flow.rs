//! Acknowledgements, credit, isolation, waiting for room: T9 - T12.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(feature = "faults")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use karere::faults::Fault;
use karere::{Class, Contact, Limits, MemberId, Messenger, Raw, SendError, Timeouts};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Queues of a few messages, the least credit.
fn narrow() -> Limits {
    Limits { reserve_bytes: 4 * 1024, queue_bytes: 16 * 1024, credit_bytes: 128 * 1024, ..Limits::default() }
}

async fn narrow_server(timeouts: Timeouts) -> Messenger {
    Messenger::builder().bind("127.0.0.1:0").limits(narrow()).timeouts(timeouts).start().await.unwrap()
}

async fn narrow_client(timeouts: Timeouts) -> Messenger {
    Messenger::builder().limits(narrow()).timeouts(timeouts).start().await.unwrap()
}

/// A handler of numbers that waits until the gate is open, and counts.
fn gated(messenger: &Messenger) -> (watch::Sender<bool>, Arc<AtomicU64>) {
    let (gate, open) = watch::channel(false);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    messenger
        .add_handler(move |_, _: Number| {
            let (mut open, counted) = (open.clone(), Arc::clone(&counted));
            async move {
                open.wait_for(|open| *open).await.unwrap();
                counted.fetch_add(1, Relaxed);
            }
        })
        .unwrap();
    (gate, count)
}

/// Sends until nothing more goes: the credit is used up, then the queue.
async fn fill(from: &Messenger, to: MemberId) -> u64 {
    let mut queued = 0;
    while from.send_wait(&Number(queued), [to], ms(250)).await.unwrap().is_complete() {
        queued += 1;
    }
    queued
}

// ---- acknowledgements ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_goes_alone_after_its_delay() {
    let server = server(Timeouts::default()).await;
    server.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    for number in 0..20 {
        let start = Instant::now();
        let receipt = receipt_for(&client, contact.id(), number).await;
        within(LONG, receipt.acked()).await.unwrap();
        // Well before the next ping would carry it.
        assert!(start.elapsed() < ms(1000), "{:?}", start.elapsed());
        assert_eq!(receipt.now(), Some(Ok(())));
    }
}

// ---- credit ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_withholds_its_streams_credit_and_nothing_else() {
    let times = quick();
    let server = narrow_server(times).await;
    let (gate, handled) = gated(&server);
    server.add_handler(|_, _: Word| async {}).unwrap();
    let client = narrow_client(times).await;
    let got = Collected::by(&client);
    let contact = contact(&client, &server).await;
    let (id, me) = (contact.id(), client.member().id);
    let queued = fill(&client, id).await;
    let unhandled = peer(&server, me).unwrap().unhandled_bytes;
    assert!(unhandled <= narrow().credit_bytes && unhandled > narrow().credit_bytes * 9 / 10, "{unhandled}");
    assert!(peer(&client, id).unwrap().queue_bytes <= narrow().queue_bytes);
    assert!(peer(&client, id).unwrap().streams.iter().any(|stream| stream.is_blocked));

    // The queue itself is full: what the slow stream holds is the destination's. Reply reserves and streams of bytes
    // are not what this is about, so: acknowledgements and pings pass, and so does the other direction.
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < times.liveness * 2 {
        within(LONG, receipt_for(&server, me, number).await.handled()).await.unwrap();
        number += 1;
        tokio::time::sleep(ms(20)).await;
    }
    got.are_exactly(number, LONG).await;
    assert_eq!((links(&client, id), handled.load(Relaxed)), (1, 0));
    assert!(peer(&client, id).unwrap().rtt.is_some() || peer(&server, me).unwrap().rtt.is_some());

    gate.send_replace(true);
    eventually(LONG, || handled.load(Relaxed) == queued).await;
    within(LONG, receipt_for(&client, id, 0).await.handled()).await.unwrap();
    assert_eq!(client.stats().total().acked, queued + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_classes_and_byte_streams_pass_a_slow_handler() {
    // The receiver's credit is small, the sender's queue is not.
    let server = narrow_server(patient()).await;
    let (gate, handled) = gated(&server);
    server.add_handler(|_, _: Word| async {}).unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let id = contact.id();
    let mut queued = 0;
    while peer(&client, id).unwrap().queue_bytes < 200_000 {
        send_all(&client, id, 0..100).await;
        queued += 100;
    }
    for class in [Class::Urgent, Class::Bulk] {
        let receipt = client.class(class).send_with_receipt(&Word("passes".to_owned()), id).unwrap();
        within(LONG, receipt.handled()).await.unwrap();
    }
    let mut stream = client.open_stream(id, "passes").await.unwrap();
    let mut far_end = within(LONG, server.accept_stream()).await.unwrap();
    let body = pattern(1, 2_000_000);
    let mut read = vec![0; body.len()];
    let both = async { tokio::join!(stream.write_all(&body), far_end.read_exact(&mut read)) };
    let (wrote, got) = within(LONG, both).await;
    wrote.unwrap();
    got.unwrap();
    assert!(read == body);
    assert_eq!(handled.load(Relaxed), 0);
    gate.send_replace(true);
    eventually(LONG, || handled.load(Relaxed) == queued).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_messages_overtake_what_is_queued() {
    let server = narrow_server(patient()).await;
    let (gate, _) = gated(&server);
    let words = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&words);
    server
        .add_handler(move |_, _: Word| {
            *seen.lock() += 1;
            async {}
        })
        .unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    send_all(&client, contact.id(), 0..20_000).await;
    let urgent = client.class(Class::Urgent);
    for _ in 0..5 {
        let receipt = urgent.send_with_receipt(&Word("!".to_owned()), contact.id()).unwrap();
        within(LONG, receipt.handled()).await.unwrap();
    }
    assert_eq!(*words.lock(), 5);
    gate.send_replace(true);
    within(LONG, receipt_for(&client, contact.id(), 1).await.handled()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_never_returns_effects_no_other_sender_and_no_close() {
    let server = server(patient()).await;
    let (stuck, good) = (client(patient()).await, client(patient()).await);
    let evil = stuck.member().id;
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    server
        .add_handler(move |from, _: Number| {
            let counted = Arc::clone(&counted);
            async move {
                if from == evil {
                    std::future::pending::<()>().await;
                }
                counted.fetch_add(1, Relaxed);
            }
        })
        .unwrap();
    let (stuck_contact, good_contact) = (contact(&stuck, &server).await, contact(&good, &server).await);
    let mut waits = Vec::new();
    for number in 0..100 {
        waits.push(receipt_for(&stuck, stuck_contact.id(), number).await);
        within(LONG, receipt_for(&good, good_contact.id(), number).await.handled()).await.unwrap();
    }
    assert_eq!(count.load(Relaxed), 100);
    for receipt in &waits {
        within(LONG, receipt.acked()).await.unwrap();
    }
    within(secs(3), server.close()).await;
    // The contact might find it again; without it nobody will ever know.
    drop(stuck_contact);
    for receipt in &waits {
        within(LONG, receipt.handled()).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_more_than_the_credit_passes() {
    let server = narrow_server(patient()).await;
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&sizes);
    server
        .add_raw_handler(BLOB, move |_, raw| {
            to.lock().push(raw.bytes().len());
            async {}
        })
        .unwrap();
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let credit = narrow().credit_bytes as usize;
    let expected: Vec<_> = [10, 12, 8, 30, 10, 11].iter().map(|tenths| credit * tenths / 10).collect();
    let mut last = None;
    for size in &expected {
        let raw = Raw::new(BLOB, Bytes::from(vec![0; *size]));
        last = Some(client.send_with_receipt(&raw, contact.id()).unwrap());
    }
    within(LONG, last.unwrap().handled()).await.unwrap();
    assert_eq!(*sizes.lock(), expected);
}

// ---- replies ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_inside_a_handler_is_refused_and_one_reply_draws_on_the_reserve() {
    let server = narrow_server(patient()).await;
    let client = client(patient()).await;
    let me = client.member().id;
    // The client handles nothing, so that the queue to it is full.
    client.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let (replies, mut replied) = tokio::sync::mpsc::channel(10);
    let messenger = server.clone();
    server
        .add_handler(move |from, _: Word| {
            let (messenger, replies) = (messenger.clone(), replies.clone());
            async move {
                let wait = messenger.send_wait(&Number(0), [from], LONG).await;
                tokio::task::yield_now().await;
                let first = messenger.send(&Number(1), [from]).unwrap();
                let second = messenger.send(&Number(2), [from]).unwrap();
                replies.send((wait, first.is_complete(), second.is_complete())).await.unwrap();
            }
        })
        .unwrap();
    let contact = client.contact(address(&server).to_string()).await.unwrap();
    eventually(LONG, || is_connected(&server, me)).await;
    let queued = fill(&server, me).await;
    let outside = server.send(&Number(0), [me]).unwrap();
    assert_eq!(outside.full, [me]);
    for round in 1..=5 {
        assert!(client.send(&Word("?".to_owned()), [contact.id()]).unwrap().is_complete());
        let reply = within(LONG, replied.recv()).await.unwrap();
        assert_eq!(reply, (Err(SendError::WithinHandler), true, false), "one reply a message");
        assert_eq!(peer(&server, me).unwrap().books.queued, queued + round);
    }
    assert_eq!(server.send(&Number(0), [me]).unwrap().full, [me]);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_flood_each_other_with_replies_do_not_lock() {
    let (one, two) = (narrow_server(patient()).await, narrow_server(patient()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    for messenger in [&one, &two] {
        let (replier, stop, answered) = (messenger.clone(), Arc::clone(&stop), Arc::clone(&answered));
        messenger
            .add_handler(move |from, Number(number)| {
                let (replier, stop, answered) = (replier.clone(), Arc::clone(&stop), Arc::clone(&answered));
                async move {
                    // Each message is answered for ever; where there is no room the answer is given up.
                    if !stop.load(Relaxed) && replier.send(&Number(number + 1), [from]).unwrap().is_complete()
                    {
                        answered.fetch_add(1, Relaxed);
                    }
                }
            })
            .unwrap();
    }
    let (to_two, to_one) = (contact(&one, &two).await, contact(&two, &one).await);
    let flood = |from: Messenger, to: MemberId, stop: Arc<AtomicBool>| async move {
        let mut complete = 0u64;
        while !stop.load(Relaxed) {
            complete += u64::from(from.send_wait(&Number(0), [to], ms(50)).await.unwrap().is_complete());
        }
        complete
    };
    let floods = [
        tokio::spawn(flood(one.clone(), to_two.id(), Arc::clone(&stop))),
        tokio::spawn(flood(two.clone(), to_one.id(), Arc::clone(&stop))),
    ];
    // Progress is seen all the time, by both.
    for _ in 0..20 {
        let before = [one.stats().total().handled, two.stats().total().handled, answered.load(Relaxed)];
        eventually(LONG, || {
            let now = [one.stats().total().handled, two.stats().total().handled, answered.load(Relaxed)];
            now.iter().zip(before).all(|(now, before)| *now > before + 50)
        })
        .await;
    }
    stop.store(true, Relaxed);
    for flood in floods {
        assert!(within(LONG, flood).await.unwrap() > 0);
    }
    eventually(LONG, || one.stats().total().pending == 0 && two.stats().total().pending == 0).await;
    let (one_total, two_total) = (one.stats().total(), two.stats().total());
    eventually(LONG, || {
        (one.stats().total().handled, two.stats().total().handled) == (two_total.queued, one_total.queued)
    })
    .await;
    one.close().await;
    two.close().await;
}

// ---- isolation ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_with_a_full_queue_changes_nothing_for_the_others() {
    let (good, silent) = (server(patient()).await, server(patient()).await);
    let got = Collected::by(&good);
    silent.add_raw_handler(BLOB, |_, _| async {}).unwrap();
    let proxy = proxy_to(&silent);
    let client = client(patient()).await;
    let good_contact = contact(&client, &good).await;
    let silent_contact = contact_at(&client, proxy.address()).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let searching = tokio::spawn({
        let (client, address) = (client.clone(), nobody.local_addr().unwrap());
        async move { client.contact(address.to_string()).await.map(drop) }
    });
    proxy.inject(Fault::Silence { drain: false });
    let raw = Raw::new(BLOB, Bytes::from(vec![0; 100_000]));
    while client.send(&raw, [silent_contact.id()]).unwrap().is_complete() {}
    let mut worst = Duration::ZERO;
    for number in 0..100 {
        let start = Instant::now();
        let report = client.send(&Number(number), [silent_contact.id(), good_contact.id()]).unwrap();
        assert!(start.elapsed() < ms(200), "a send never waits: {:?}", start.elapsed());
        assert_eq!(report.queued + report.full.len(), 2);
        let start = Instant::now();
        let receipt = client.class(Class::Urgent).send_with_receipt(&Number(0), good_contact.id());
        within(LONG, receipt.unwrap().handled()).await.unwrap();
        worst = worst.max(start.elapsed());
    }
    assert!(worst < secs(1), "{worst:?}");
    eventually(LONG, || got.len() == 200).await;
    searching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_cap_holds_and_leaves_room_for_one_more() {
    let limits =
        Limits { process_bytes: 4 << 20, queue_bytes: 4 << 20, message_bytes: 1 << 20, ..Limits::default() };
    let client = Messenger::builder().limits(limits).timeouts(patient()).start().await.unwrap();
    let raw = Raw::new(BLOB, Bytes::from(vec![0; 20_000]));
    let mut held = Vec::new();
    for _ in 0..4 {
        let silent = server(patient()).await;
        silent.add_raw_handler(BLOB, |_, _| std::future::pending()).unwrap();
        let proxy = proxy_to(&silent);
        let contact = contact_at(&client, proxy.address()).await;
        proxy.inject(Fault::Silence { drain: false });
        while client.send(&raw, [contact.id()]).unwrap().is_complete() {}
        held.push((contact, proxy, silent));
        let taken: usize = client.stats().peers.iter().map(|peer| peer.queue_bytes).sum();
        assert!(taken <= limits.process_bytes, "{taken}");
    }
    let good = server(patient()).await;
    let got = Collected::by(&good);
    let good_contact = contact(&client, &good).await;
    send_all(&client, good_contact.id(), 0..5000).await;
    got.are_exactly(5000, LONG).await;
}

// ---- waiting for room ----

/// A client whose queue to `server` is full, with ten that wait for room.
async fn ten_waiting(server: &Messenger) -> (Messenger, Contact, u64, Vec<tokio::task::JoinHandle<Waited>>) {
    let client = narrow_client(patient()).await;
    let contact = contact(&client, server).await;
    let id = contact.id();
    let queued = fill(&client, id).await;
    let waits = (0..10)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.send_wait(&Number(number), [id], secs(20)).await })
        })
        .collect();
    tokio::time::sleep(ms(50)).await; // So that they wait: no claim hangs on it.
    (client, contact, queued, waits)
}

type Waited = Result<karere::SendReport, SendError>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_waiters_wake_on_room() {
    let server = narrow_server(patient()).await;
    let (gate, handled) = gated(&server);
    let (_client, _contact, queued, waits) = ten_waiting(&server).await;
    gate.send_replace(true);
    for wait in waits {
        assert!(within(LONG, wait).await.unwrap().unwrap().is_complete());
    }
    eventually(LONG, || handled.load(Relaxed) == queued + 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_waiters_wake_when_the_contact_is_dropped_and_on_close() {
    for close in [false, true] {
        let server = narrow_server(patient()).await;
        let (_gate, _) = gated(&server);
        let (client, contact, _, waits) = ten_waiting(&server).await;
        let id = contact.id();
        if close {
            within(secs(3), client.close()).await;
        } else {
            drop(contact);
        }
        for wait in waits {
            let report = within(secs(3), wait).await.unwrap();
            match report {
                Ok(report) => assert_eq!((report.queued, report.absent), (0, vec![id])),
                Err(error) => assert!(close && matches!(error, SendError::Closed(_)), "{error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_one_recipient_holds_up_no_other_and_ends_in_time() {
    let (stuck, good) = (narrow_server(patient()).await, server(patient()).await);
    let (_gate, _) = gated(&stuck);
    let got = Collected::by(&good);
    let (client, stuck_contact, queued, waits) = ten_waiting(&stuck).await;
    let good_contact = contact(&client, &good).await;
    let wait = {
        let (client, to) = (client.clone(), [stuck_contact.id(), good_contact.id()]);
        tokio::spawn(async move {
            let start = Instant::now();
            (client.send_wait(&Number(0), to, ms(500)).await.unwrap(), start.elapsed())
        })
    };
    got.are_exactly(1, ms(400)).await;
    let (report, took) = within(LONG, wait).await.unwrap();
    assert_eq!((report.queued, &report.full[..]), (1, &[stuck_contact.id()][..]));
    assert!(took >= ms(450) && took < secs(3), "{took:?}");
    waits.iter().for_each(tokio::task::JoinHandle::abort);
    for wait in waits {
        assert!(wait.await.unwrap_err().is_cancelled());
    }
    assert_eq!(peer(&client, stuck_contact.id()).unwrap().books.queued, queued, "cancelled: not sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_in_the_process_wakes_who_waits_for_another_destination() {
    // Half of what is shared goes to the first; the second waits for the process, not for its own queue.
    let limits = Limits {
        process_bytes: 2 << 20,
        queue_bytes: 2 << 20,
        reserve_bytes: 1024,
        message_bytes: 1 << 20,
        ..Limits::default()
    };
    let client = Messenger::builder().limits(limits).timeouts(patient()).start().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let silent = server(patient()).await;
        silent.add_raw_handler(BLOB, |_, _| async {}).unwrap();
        let proxy = proxy_to(&silent);
        let contact = contact_at(&client, proxy.address()).await;
        proxy.inject(Fault::Silence { drain: false });
        held.push((contact, proxy, silent));
    }
    let raw = Raw::new(BLOB, Bytes::from(vec![0; 50_000]));
    for (contact, ..) in &held {
        while client.send(&raw, [contact.id()]).unwrap().is_complete() {}
    }
    let second = held[1].0.id();
    let wait = {
        let (client, raw) = (client.clone(), raw.clone());
        tokio::spawn(async move { client.send_wait(&raw, [second], secs(20)).await.unwrap() })
    };
    tokio::time::sleep(ms(50)).await;
    assert!(!wait.is_finished());
    // Before the second's own link is found dead.
    drop(held.remove(0));
    assert!(within(secs(2), wait).await.unwrap().is_complete());
}

// ---- figures ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_tell_what_waits_what_was_repeated_and_how_far_away_the_peer_is() {
    let server = server(quick()).await;
    let (gate, handled) = gated(&server);
    let proxy = proxy_to(&server);
    let client = client(quick()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let (id, me) = (contact.id(), client.member().id);
    // Rests until pinged.
    eventually(LONG, || peer(&client, id).is_some_and(|peer| peer.rtt.is_some())).await;
    // Acknowledgements do not come through: what is written stays unacknowledged.
    proxy.inject(Fault::OneWay { silent: karere::faults::Direction::Down, drain: true });
    send_all(&client, id, 0..1000).await;
    eventually(LONG, || {
        let stats = peer(&client, id).unwrap();
        stats.queue_bytes > 10_000
            && stats.books.pending == 1000
            && stats
                .streams
                .iter()
                .any(|stream| stream.unacked_bytes > 10_000 && stream.oldest_unacked.is_some())
    })
    .await;
    // The link is replaced; hello acknowledges.
    eventually(LONG, || peer(&client, id).unwrap().books.pending == 0).await;
    let stats = peer(&client, id).unwrap();
    assert!(stats.books.links >= 2 && stats.books.balance(), "{stats:?}");
    assert_eq!((stats.queue_bytes, stats.streams[0].unacked_bytes), (0, 0));
    let far = peer(&server, me).unwrap();
    assert!(far.unhandled_bytes > 0 && far.books.bytes_accepted > 0, "{far:?}");
    gate.send_replace(true);
    eventually(LONG, || handled.load(Relaxed) == 1000 && server.stats().total().handled == 1000).await;
    eventually(LONG, || peer(&server, me).unwrap().unhandled_bytes == 0).await;

    // What does not come through is written again.
    proxy.inject(Fault::OneWay { silent: karere::faults::Direction::Up, drain: true });
    eventually(LONG, || proxy.counts().one_ways == 2).await;
    send_all(&client, id, 0..100).await;
    eventually(LONG, || handled.load(Relaxed) == 1100).await;
    let stats = peer(&client, id).unwrap();
    assert!(stats.books.resent >= 100 && stats.books.bytes_written > 0, "{stats:?}");
    assert_eq!(server.stats().total().duplicates, 0, "the hello says what came");
}
