//! Members reached at a well-known address: T18.
#![cfg(feature = "faults")]

mod common;

use std::net::SocketAddr;
use std::time::Instant;

use common::*;
use karere::faults::{Fault, Plan, Proxy};
use karere::{Cause, ContactError, Lost, Messenger, PeerEvent, Timeouts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_given_is_dialled_not_the_one_advertised() {
    let builder = Messenger::builder().bind("127.0.0.1:0").advertise("192.0.2.1:7400").timeouts(patient());
    let server = builder.start().await.unwrap();
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    for number in 0..5 {
        within(LONG, receipt_for(&client, contact.id(), number).await.handled()).await.unwrap();
        let before = links(&client, contact.id());
        proxy.inject(Fault::Reset);
        eventually(LONG, || links(&client, contact.id()) > before).await;
    }
    got.are_exactly(5, LONG).await;
    assert!(proxy.counts().connections >= 6, "every link went through it");
}

#[tokio::test]
async fn a_contact_gives_up_with_a_reason_when_nobody_was_met() {
    let times = Timeouts { contact_give_up: ms(1200), ..quick() };
    let client = client(times).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = nobody.local_addr().unwrap();
    let closed = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap()
    };
    for (address, part) in [(closed, "refused"), (silent, "no answer")] {
        let start = Instant::now();
        let error = within(LONG, client.contact(address.to_string())).await.unwrap_err();
        assert!(start.elapsed() >= ms(1100) && start.elapsed() < secs(4), "{:?}", start.elapsed());
        let ContactError::GaveUp { endpoint, last } = &error else { panic!("{error:?}") };
        assert_eq!(endpoint.to_string(), address.to_string());
        assert!(last.contains(part), "{last}");
    }
    assert_eq!(client.stats().peers, [], "nothing is kept");
}

#[tokio::test]
async fn a_contact_waits_for_somebody_to_come() {
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    let client = client(quick()).await;
    let search =
        tokio::spawn(
            async move { client.contact(address.to_string()).await.map(|contact| (contact, client)) },
        );
    // It asks, and nobody is there: not behind the door, and then there is no door.
    let (asked, _) = within(LONG, door.accept()).await.unwrap();
    drop((asked, door));
    let server = Messenger::builder().bind(address.to_string()).start().await.unwrap();
    let (contact, _client) = within(LONG, search).await.unwrap().unwrap();
    assert_eq!(contact.id(), server.member().id);
}

#[tokio::test]
async fn another_environment_or_network_is_refused_with_both_names() {
    let server =
        Messenger::builder().bind("127.0.0.1:0").network("production", "blue").start().await.unwrap();
    let address = address(&server).to_string();
    for (environment, network, named) in
        [("testing", "blue", ["production", "testing"]), ("production", "green", ["blue", "green"])]
    {
        let client = Messenger::builder().network(environment, network).start().await.unwrap();
        let start = Instant::now();
        let error = client.contact(&address).await.unwrap_err();
        assert!(start.elapsed() < secs(5), "at once, not after giving up");
        assert!(matches!(error, ContactError::Refused { .. }), "{error:?}");
        assert!(named.iter().all(|name| error.to_string().contains(name)), "{error}");
        assert_eq!(client.stats().peers, []);
    }
    assert_eq!((server.stats().refused_connections, server.stats().peers.len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_first_meeting_a_contact_never_gives_up() {
    let times = Timeouts { contact_give_up: ms(1000), ..quick() };
    let server = server(times).await;
    let got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(times).await;
    let contact = contact_at(&client, proxy.address()).await;
    proxy.inject(Fault::Refuse { ms: 2500 });
    proxy.inject(Fault::Reset);
    within(LONG, receipt_for(&client, contact.id(), 0).await.handled()).await.unwrap();
    got.are_exactly(1, LONG).await;
    assert!(proxy.counts().refused > 3, "{:?}", proxy.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_at_the_address_replaces_the_old_and_gets_nothing_of_it() {
    let first = stingy_server(patient()).await;
    first.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let proxy = proxy_to(&first);
    let client = client(patient()).await;
    let seen = Seen::by(&client);
    let audit = Auditor::of(&client);
    let contact = contact_at(&client, proxy.address()).await;
    let old = contact.id();
    let mut receipts = Vec::new();
    receipts.push(receipt_for(&client, old, 0).await);
    within(LONG, receipts[0].acked()).await.unwrap();
    proxy.inject(Fault::Silence { drain: true });
    while let Ok(receipt) = client.send_with_receipt(&Number(1), old) {
        receipts.push(receipt);
    }
    // Another process comes at the same address; the first one is cut off without a word.
    let second = server(patient()).await;
    let got = Collected::by(&second);
    proxy.set_target(address(&second));
    let new = within(secs(9), contact.replaced()).await;
    assert_eq!((new, contact.id()), (second.member().id, second.member().id));
    let (mut indeterminate, mut not_sent) = (0, 0);
    for receipt in receipts.iter().skip(1) {
        match within(LONG, receipt.acked()).await {
            Err(Lost::Indeterminate(Cause::SessionLost)) => indeterminate += 1,
            Err(Lost::NotSent(Cause::SessionLost)) => not_sent += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(indeterminate > 0 && not_sent > 0, "{indeterminate} {not_sent}");
    assert_eq!(receipts[0].handled().await, Err(Lost::Indeterminate(Cause::SessionLost)));
    eventually(LONG, || seen.has(&PeerEvent::Replaced { old, new })).await;
    // The new one gets what is sent to it, and nothing else.
    assert_eq!(client.send(&Number(9), [old]).unwrap().absent, [old]);
    within(LONG, receipt_for(&client, new, 0).await.handled()).await.unwrap();
    got.are_exactly(1, LONG).await;
    assert_eq!(client.stats().total().pending, 0);
    audit.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_restarted_on_the_same_port_is_another_member() {
    let mut server = server(patient()).await;
    let address = address(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, address).await;
    for round in 0..5 {
        let before = contact.id();
        assert_eq!(before, server.member().id, "round {round}");
        within(LONG, receipt_for(&client, before, 0).await.acked()).await.unwrap_err();
        // A crash leaves no goodbye, a close a word; both end at the next process.
        server.close().await;
        server = Messenger::builder().bind(address.to_string()).timeouts(patient()).start().await.unwrap();
        eventually(LONG, || contact.id() == server.member().id).await;
        eventually(LONG, || is_connected(&client, contact.id())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_goodbye_the_contact_finds_whoever_comes_next() {
    let server = server(patient()).await;
    let address = address(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, address).await;
    within(LONG, server.leave(secs(3))).await;
    let server = Messenger::builder().bind(address.to_string()).timeouts(patient()).start().await.unwrap();
    let got = Collected::by(&server);
    eventually(LONG, || contact.id() == server.member().id).await;
    within(LONG, receipt_for(&client, contact.id(), 0).await.handled()).await.unwrap();
    got.are_exactly(1, LONG).await;
}

// ---- the accepting side ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accepting_side_keeps_the_session_over_a_link_loss_and_may_send() {
    let server = server(patient()).await;
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let got = Collected::by(&client);
    let me = client.member().id;
    let contact = contact_at(&client, proxy.address()).await;
    // Nobody handles it there; by its end both know each other's types.
    within(LONG, receipt_for(&client, contact.id(), 0).await.acked()).await.unwrap_err();
    for number in 0..20 {
        proxy.inject(Fault::Refuse { ms: 30 });
        proxy.inject(Fault::Reset);
        // The server has only the lease; it sends while there is no link.
        within(LONG, receipt_for(&server, me, number).await.handled()).await.unwrap();
    }
    got.are_exactly(20, LONG).await;
    assert_eq!(server.stats().total().acked, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_answers_a_joiner_from_its_handler() {
    let server = server(patient()).await;
    let answers = server.clone();
    server
        .add_handler(move |from, Number(number)| {
            let answers = answers.clone();
            async move { assert!(answers.send(&Word(number.to_string()), [from]).unwrap().is_complete()) }
        })
        .unwrap();
    let client = client(patient()).await;
    let (tx, mut rx) = tokio::sync::mpsc::channel(10);
    client
        .add_handler(move |_, Word(word)| {
            let tx = tx.clone();
            async move { tx.send(word).await.unwrap() }
        })
        .unwrap();
    let contact = contact(&client, &server).await;
    for number in 0..10 {
        assert!(client.send(&Number(number), [contact.id()]).unwrap().is_complete());
        assert_eq!(within(LONG, rx.recv()).await, Some(number.to_string()));
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_lease_the_session_is_over() {
    let lease = Timeouts { resume_lease: ms(1000), ..quick() };
    let server = server(lease).await;
    let seen = Seen::by(&server);
    let proxy = proxy_to(&server);
    let client = client(quick()).await;
    client.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let client_seen = Seen::by(&client);
    let me = client.member().id;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    let acked = receipt_for(&server, me, 0).await;
    within(LONG, acked.acked()).await.unwrap();
    proxy.inject(Fault::Refuse { ms: 2500 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&server, me)).await;
    let lost = Instant::now();
    let waits = receipt_for(&server, me, 1).await;
    let end = within(LONG, waits.acked()).await;
    assert!(lost.elapsed() >= ms(800) && lost.elapsed() < ms(2400), "{:?}", lost.elapsed());
    assert_eq!(end, Err(Lost::NotSent(Cause::SessionLost)));
    assert_eq!(acked.handled().await, Err(Lost::Indeterminate(Cause::SessionLost)));
    eventually(LONG, || peer(&server, me).is_none() && seen.has(&PeerEvent::Left { peer: me })).await;
    // The client, whose contact holds, is told that its session is lost, and begins another.
    let got = Collected::by(&server);
    eventually(LONG, || client_seen.has(&PeerEvent::SessionLost { peer: id })).await;
    eventually(LONG, || is_connected(&client, id)).await;
    within(LONG, receipt_for(&client, id, 0).await.handled()).await.unwrap();
    got.are_exactly(1, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_contact_and_making_it_again_at_the_same_time_always_leaves_one_that_works() {
    let server = server(patient()).await;
    let client = client(patient()).await;
    let address = address(&server).to_string();
    let mut held = client.contact(&address).await.unwrap();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&count);
    server
        .add_handler(move |_, _: Number| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async {}
        })
        .unwrap();
    for round in 0..300u64 {
        let (client_too, address) = (client.clone(), address.clone());
        let search = tokio::spawn(async move { client_too.contact(address).await });
        tokio::time::sleep(std::time::Duration::from_micros(fastrand::u64(0..400))).await;
        drop(held);
        held = within(LONG, search).await.unwrap().unwrap();
        if round % 3 == 0 {
            within(LONG, async {
                loop {
                    // The session before may be ending still.
                    if let Ok(receipt) = client.send_with_receipt(&Number(round), held.id())
                        && receipt.handled().await.is_ok()
                    {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
    eventually(LONG, || is_connected(&client, held.id())).await;
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) >= 100);
}

#[tokio::test]
async fn two_contacts_to_one_member_hold_one_session_until_both_are_dropped() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let proxy =
        Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), address(&server), Plan::default()).unwrap();
    let client = client(patient()).await;
    let direct = contact(&client, &server).await;
    let around = client.contact(proxy.address().to_string()).await.unwrap();
    let id = direct.id();
    assert_eq!(around.id(), id);
    assert_eq!(client.stats().peers.len(), 1);
    within(LONG, receipt_for(&client, id, 0).await.handled()).await.unwrap();
    drop(direct);
    within(LONG, receipt_for(&client, id, 1).await.handled()).await.unwrap();
    drop(around);
    eventually(LONG, || peer(&client, id).is_none()).await;
    got.are_exactly(2, LONG).await;
}
