//! Links come and go, messages do not: T5 - T8, T19, T23.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(feature = "faults")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::*;
use karere::faults::{Direction, Ending, Fault, Pace, Plan, Schedule};
use karere::{Disconnect, Messenger, PeerEvent, Timeouts};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

// ---- one link a pair ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_dials_end_with_one_link_on_both_sides_and_nothing_lost_or_doubled() {
    const COUNT: u64 = 100;
    for round in 0..50 {
        let (one, two) = (server(patient()).await, server(patient()).await);
        let (got_one, got_two) = (Collected::by(&one), Collected::by(&two));
        let (to_two, to_one) =
            tokio::join!(one.contact(address(&two).to_string()), two.contact(address(&one).to_string()));
        let (to_two, to_one) = (to_two.unwrap(), to_one.unwrap());
        tokio::join!(send_all(&one, to_two.id(), 0..COUNT), send_all(&two, to_one.id(), 0..COUNT));
        got_one.are_exactly(COUNT, LONG).await;
        got_two.are_exactly(COUNT, LONG).await;
        eventually(LONG, || is_connected(&one, to_two.id()) && is_connected(&two, to_one.id())).await;
        // The same link on both sides: what goes through it is acknowledged, and it stays the same.
        let links = (links(&one, to_two.id()), links(&two, to_one.id()));
        within(LONG, receipt_for(&one, to_two.id(), COUNT).await.handled()).await.unwrap();
        within(LONG, receipt_for(&two, to_one.id(), COUNT).await.handled()).await.unwrap();
        assert_eq!(
            links,
            (common::links(&one, to_two.id()), common::links(&two, to_one.id())),
            "round {round}"
        );
        for (messenger, other) in [(&one, to_two.id()), (&two, to_one.id())] {
            let stats = peer(messenger, other).unwrap();
            assert!(stats.is_connected && stats.books.balance(), "round {round}: {stats:?}");
            assert!(stats.books.links <= 2, "round {round}: {stats:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_first_sends_arrive() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let address = address(&server).to_string();
    let mut sends = tokio::task::JoinSet::new();
    let contacts = Arc::new(Mutex::new(Vec::new()));
    for number in 0..50 {
        let (client, address, contacts) = (client.clone(), address.clone(), Arc::clone(&contacts));
        sends.spawn(async move {
            let contact = client.contact(address).await.unwrap();
            within(LONG, receipt_for(&client, contact.id(), number).await.handled()).await.unwrap();
            contacts.lock().push(contact);
        });
    }
    within(LONG, sends.join_all()).await;
    let mut numbers = got.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(links(&client, server.member().id), 1);
}

// ---- resume ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_resets_in_mid_stream_lose_and_double_nothing() {
    const RESETS: u64 = 100;
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let audit = (Auditor::of(&client), Auditor::of(&server));
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    let mut sent = 0;
    while proxy.counts().resets < RESETS {
        let before = links(&client, id);
        send_all(&client, id, sent..sent + 500).await;
        sent += 500;
        // A number in flight, most likely.
        if proxy.inject(Fault::Reset) > 0 {
            eventually(LONG, || links(&client, id) > before).await;
        }
    }
    got.are_exactly(sent, LONG).await;
    eventually(LONG, || client.stats().total().pending == 0).await;
    let total = client.stats().total();
    assert_eq!((total.acked, total.not_sent, total.indeterminate), (sent, 0, 0));
    assert!(total.links > RESETS, "{total:?}");
    audit.0.check();
    audit.1.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_cut_at_any_byte_lose_and_double_nothing_in_either_direction() {
    const COUNT: u64 = 60_000;
    let server = server(patient()).await;
    let plan =
        Schedule { cut_after_bytes: Some(Pace::from(500..=150_000).at_most(150)), ..Schedule::default() };
    let proxy = proxy_with(&server, Plan::new(7, plan));
    let client = client(patient()).await;
    let (got_server, got_client) = (Collected::by(&server), Collected::by(&client));
    let contact = client.contact(proxy.address().to_string()).await.unwrap();
    let (me, id) = (client.member().id, contact.id());
    eventually(LONG, || peer(&server, me).is_some()).await;
    within(secs(30), async {
        tokio::join!(send_all(&client, id, 0..COUNT), send_all(&server, me, 0..COUNT))
    })
    .await;
    got_server.are_exactly(COUNT, LONG).await;
    got_client.are_exactly(COUNT, LONG).await;
    assert!(proxy.counts().cuts >= 10, "{:?}", proxy.counts());
    eventually(LONG, || client.stats().total().pending == 0 && server.stats().total().pending == 0).await;
    assert_eq!((client.stats().total().acked, server.stats().total().acked), (COUNT, COUNT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_cut_at_each_of_its_first_bytes_is_done_again() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    // So that a handshake takes longer than it takes to aim at it.
    proxy.set_delay(Some(ms(10)));
    for number in 0..60u64 {
        // The next link is cut within its hello, answer or types.
        let before = proxy.counts().connections;
        proxy.inject(Fault::Reset);
        // Not the one that is being reset.
        eventually(LONG, || proxy.counts().connections > before).await;
        let direction = if number % 2 == 0 { Direction::Up } else { Direction::Down };
        let ending = if number % 3 == 0 { Ending::Rst } else { Ending::Fin };
        proxy.inject(Fault::Cut { direction, after_bytes: number * 7, ending });
        within(LONG, receipt_for(&client, contact.id(), number).await.handled()).await.unwrap();
    }
    got.are_exactly(60, LONG).await;
    assert!(proxy.counts().cuts >= 30, "{:?}", proxy.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_reset_the_link_and_nothing_wrong_is_delivered() {
    const COUNT: u64 = 20_000;
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let blobs = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&blobs);
    server
        .add_raw_handler(BLOB, move |_, raw| {
            to.lock().push(raw.into_bytes());
            async {}
        })
        .unwrap();
    let plan =
        Schedule { flip_every_bytes: Some(Pace::from(10_000..=80_000).at_most(40)), ..Schedule::default() };
    let proxy = proxy_with(&server, Plan::new(11, plan));
    let client = client(quick()).await;
    let seen = Seen::by(&client);
    let contact = client.contact(proxy.address().to_string()).await.unwrap();
    let large = bytes::Bytes::from(pattern(3, 200_000));
    let sends = async {
        for number in 0..COUNT {
            send_all(&client, contact.id(), number..number + 1).await;
            if number % 1000 == 0 {
                let raw = karere::Raw::new(BLOB, large.clone());
                let report = client.send_wait(&raw, [contact.id()], LONG).await.unwrap();
                assert!(report.is_complete());
            }
        }
    };
    within(secs(30), sends).await;
    got.are_exactly(COUNT, LONG).await;
    eventually(LONG, || blobs.lock().len() == 20).await;
    assert!(blobs.lock().iter().all(|blob| *blob == large));
    assert!(proxy.counts().flips >= 10, "{:?}", proxy.counts());
    eventually(LONG, || client.stats().total().pending == 0).await;
    let total = client.stats().total();
    assert_eq!((total.acked, total.indeterminate, total.not_sent), (COUNT + 20, 0, 0));
    let corrupt = |event: &PeerEvent| {
        matches!(
            event,
            PeerEvent::Disconnected {
                reason: Disconnect::Corrupt | Disconnect::Misbehaved | Disconnect::Closed,
                ..
            }
        )
    };
    assert!(seen.count(corrupt) > 0, "{:?}", seen.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_message_lost_on_the_way_arrives_without_further_traffic() {
    let server = server(quick()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(quick()).await;
    let contact = contact_at(&client, proxy.address()).await;
    for (number, silence) in
        [Fault::OneWay { silent: Direction::Up, drain: true }, Fault::Silence { drain: true }]
            .into_iter()
            .enumerate()
    {
        let before = proxy.counts();
        proxy.inject(silence);
        eventually(LONG, || proxy.counts().one_ways + proxy.counts().silences > number as u64).await;
        let receipt = receipt_for(&client, contact.id(), number as u64).await;
        within(LONG, receipt.handled()).await.unwrap();
        assert!(proxy.counts().connections > before.connections, "it was lost with its link");
    }
    got.are_exactly(2, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_sender_notices_that_the_receiver_closed_its_sockets() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let seen = Seen::by(&client);
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    for number in 0..20 {
        let before = links(&client, id);
        let ending = if number % 2 == 0 { Ending::Fin } else { Ending::Rst };
        proxy.inject(Fault::Cut { direction: Direction::Down, after_bytes: 0, ending });
        // Nothing is sent: the link comes back all the same.
        eventually(LONG, || links(&client, id) > before && is_connected(&client, id)).await;
        within(LONG, receipt_for(&client, id, number).await.handled()).await.unwrap();
    }
    got.are_exactly(20, LONG).await;
    assert!(seen.count(|event| matches!(event, PeerEvent::Disconnected { .. })) >= 20);
}

// ---- liveness ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_link_is_replaced_within_liveness_and_a_second_and_nothing_is_lost() {
    let times = quick();
    for drain in [false, true] {
        let server = server(times).await;
        let got = Collected::by(&server);
        let proxy = proxy_to(&server);
        let client = client(times).await;
        let seen = Seen::by(&client);
        let contact = contact_at(&client, proxy.address()).await;
        let id = contact.id();
        send_all(&client, id, 0..1000).await;
        let silent = Instant::now();
        assert_eq!(proxy.inject(Fault::Silence { drain }), 1);
        send_all(&client, id, 1000..1500).await;
        eventually(times.liveness + secs(1), || links(&client, id) == 2 && is_connected(&client, id)).await;
        assert!(silent.elapsed() >= times.liveness / 2, "not before it could be known");
        got.are_exactly(1500, LONG).await;
        // The old connection never dies.
        assert_eq!(proxy.counts().held, 1);
        eventually(LONG, || seen.all().len() >= 3).await;
        let expected = [
            PeerEvent::Connected { peer: id },
            PeerEvent::Disconnected { peer: id, reason: Disconnect::Silence },
            PeerEvent::Connected { peer: id },
        ];
        assert_eq!(seen.all(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_silent_direction_is_enough_to_replace_a_link() {
    let times = quick();
    for silent in [Direction::Up, Direction::Down] {
        let server = server(times).await;
        let got = Collected::by(&server);
        let proxy = proxy_to(&server);
        let client = client(times).await;
        let contact = contact_at(&client, proxy.address()).await;
        proxy.inject(Fault::OneWay { silent, drain: true });
        send_all(&client, contact.id(), 0..100).await;
        eventually(times.liveness + secs(1), || links(&client, contact.id()) >= 2).await;
        got.are_exactly(100, LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_stays_and_measures_its_round_trip() {
    let times = quick();
    let server = server(times).await;
    let proxy = proxy_to(&server);
    proxy.set_delay(Some(ms(20)));
    let client = client(times).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    eventually(LONG, || peer(&client, id).unwrap().rtt.is_some()).await;
    let rtt = peer(&client, id).unwrap().rtt.unwrap();
    assert!(rtt >= ms(40) && rtt < times.liveness, "{rtt:?}");
    tokio::time::sleep(times.liveness * 2).await;
    assert_eq!((links(&client, id), is_connected(&client, id)), (1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_that_moves_is_no_silence() {
    let times = quick();
    let server = server(times).await;
    let done = Arc::new(Mutex::new(0));
    let to = Arc::clone(&done);
    server
        .add_raw_handler(BLOB, move |_, raw| {
            *to.lock() += raw.bytes().len();
            async {}
        })
        .unwrap();
    // A frame takes two seconds, twice liveness: there is nothing to acknowledge meanwhile.
    let rate = karere::faults::Rate { bytes_per_second: 30_000, buffer_bytes: 4096 };
    let proxy = proxy_with(&server, Plan { rate: Some(rate), ..Plan::default() });
    let client = client(times).await;
    let contact = contact_at(&client, proxy.address()).await;
    let raw = karere::Raw::new(BLOB, pattern(1, 60_000).into());
    let receipt = client.send_with_receipt(&raw, contact.id()).unwrap();
    within(LONG, receipt.handled()).await.unwrap();
    assert_eq!((*done.lock(), links(&client, contact.id())), (60_000, 1));
}

// ---- who says hello ----

/// Forwards one connection to `target` and keeps what the dialler said first.
async fn tap(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let takes = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let takes = Arc::clone(&takes);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                let mut first = vec![0; 64 * 1024];
                let Ok(count) = client.read(&mut first).await else { return };
                first.truncate(count);
                takes.lock().push(first.clone());
                server.write_all(&first).await.unwrap();
                let _either_ends = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_hello_is_answered_as_the_rules_say_and_changes_nothing() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let (tapped, taken) = tap(address(&server)).await;
    let client = client(patient()).await;
    let contact = contact_at(&client, tapped).await;
    let id = contact.id();
    send_all(&client, id, 0..100).await;
    got.are_exactly(100, LONG).await;
    // The question, then the hello that means the server.
    let hello = taken.lock().last().cloned().unwrap();
    let mut replays = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (hello, target) = (hello.clone(), address(&server));
        replays.spawn(async move {
            let mut stream = TcpStream::connect(target).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            let mut reply = Vec::new();
            let _reset = stream.read_to_end(&mut reply).await;
            reply
        });
    }
    let replies = within(LONG, replays.join_all()).await;
    // An older or equal rank is a duplicate: refused, and the live link stays.
    for reply in replies {
        assert_eq!(reply.get(..4), Some(&b"KRRE"[..]));
        assert_eq!(reply.get(12), Some(&3), "a refusal");
    }
    send_all(&client, id, 100..200).await;
    got.are_exactly(200, LONG).await;
    assert_eq!((links(&client, id), links(&server, client.member().id)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_concurrent_identical_first_frames_deliver_once() {
    // A whole conversation of a client is recorded, and its server is asked for it ten times more.
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let (tapped, taken) = tap(address(&server)).await;
    let client = client(patient()).await;
    let contact = client.contact(tapped.to_string()).await.unwrap();
    within(LONG, receipt_for(&client, contact.id(), 0).await.handled()).await.unwrap();
    let hello = taken.lock().last().cloned().unwrap();
    // The link breaks, so that there is no live one to outrank the replays.
    client.close().await;
    let before = server.stats().total();
    let mut replays = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (hello, target) = (hello.clone(), address(&server));
        replays.spawn(async move {
            let mut stream = TcpStream::connect(target).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            let mut reply = vec![0; 4096];
            within(LONG, stream.read(&mut reply)).await.map(|count| count > 0)
        });
    }
    within(LONG, replays.join_all()).await;
    got.are_exactly(1, LONG).await;
    assert_eq!(server.stats().total().bytes_accepted, before.bytes_accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_where_they_began_when_both_dial_through_faulty_proxies() {
    const COUNT: u64 = 5_000;
    let times = patient();
    let (one, two): (Messenger, Messenger) = (server(times).await, server(times).await);
    let plan = |seed| {
        let resets = Some(Pace::from(5..=60).at_most(40));
        Plan::new(seed, Schedule { reset_every_ms: resets, ..Schedule::default() })
    };
    let (to_two, to_one) = (proxy_with(&two, plan(1)), proxy_with(&one, plan(2)));
    let (got_one, got_two) = (Collected::by(&one), Collected::by(&two));
    let audit = Auditor::of(&one);
    let (two_contact, one_contact) =
        tokio::join!(one.contact(to_two.address().to_string()), two.contact(to_one.address().to_string()));
    let (two_contact, one_contact) = (two_contact.unwrap(), one_contact.unwrap());
    let slowly = |from: Messenger, to| async move {
        for number in (0..COUNT).step_by(10) {
            send_all(&from, to, number..number + 10).await;
            tokio::time::sleep(ms(1)).await;
        }
    };
    within(secs(30), async {
        tokio::join!(slowly(one.clone(), two_contact.id()), slowly(two.clone(), one_contact.id()))
    })
    .await;
    got_one.are_exactly(COUNT, secs(15)).await;
    got_two.are_exactly(COUNT, secs(15)).await;
    eventually(LONG, || one.stats().total().pending == 0 && two.stats().total().pending == 0).await;
    assert!(one.stats().total().links >= 3, "{:?}", one.stats().total());
    audit.check();
    let _default = Timeouts::default();
}
