//! Starting, sending, oneself: T1, T2, T38.

mod common;

use std::net::TcpListener;

use bytes::Bytes;
use common::*;
use karere::{ContactError, Kind, Limits, Message, Messenger, Raw, SendError, StartError, Timeouts};
use serde::{Deserialize, Serialize, Serializer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_once_and_in_order() {
    let server = server(Timeouts::default()).await;
    let got = Collected::by(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    send_all(&client, contact.id(), 0..50_000).await;
    within(LONG, receipt_for(&client, contact.id(), 50_000).await.handled()).await.unwrap();
    got.are_exactly(50_001, LONG).await;
    let total = client.stats().total();
    assert_eq!((total.queued, total.acked, total.links), (50_001, 50_001, 1));
    client.leave(LONG).await;
    assert_eq!(client.stats().total().pending, 0);
    server.close().await;
}

// ---- start ----

#[tokio::test]
async fn port_0_takes_a_free_port_and_advertises_it() {
    let messenger = server(Timeouts::default()).await;
    let address = address(&messenger);
    assert_ne!(address.port(), 0);
    assert_eq!(messenger.member().endpoints, [address.into()]);
    assert_eq!(client(Timeouts::default()).await.local_address(), None);
}

#[tokio::test]
async fn what_is_advertised_may_differ_from_what_is_bound() {
    let builder =
        Messenger::builder().bind("127.0.0.1:0").advertise("example.org:7400").advertise("10.0.0.9:1");
    let messenger = builder.name("n").label("zone", "a").start().await.unwrap();
    let texts: Vec<_> = messenger.member().endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["example.org:7400", "10.0.0.9:1"]);
    assert_eq!((messenger.member().name.as_str(), messenger.member().labels["zone"].as_str()), ("n", "a"));
}

/// Consecutive ports below those the kernel hands out, so that nobody else takes them meanwhile. Held.
fn hold_ports(count: u16) -> (u16, Vec<TcpListener>) {
    loop {
        let first = fastrand::u16(15_000..30_000);
        let held: Vec<_> =
            (0..count).map_while(|at| TcpListener::bind(("127.0.0.1", first + at)).ok()).collect();
        if held.len() == usize::from(count) {
            return (first, held);
        }
    }
}

#[tokio::test]
async fn a_range_takes_its_first_free_port() {
    let (first, mut held) = hold_ports(6);
    drop(held.remove(4));
    drop(held.remove(2));
    let range = format!("127.0.0.1:{first}-{}", first + 5);
    let start = || Messenger::builder().bind(range.clone()).start();
    let (one, two) = (start().await.unwrap(), start().await.unwrap());
    assert_eq!((address(&one).port(), address(&two).port()), (first + 2, first + 4));
    let StartError::Bind { address, .. } = start().await.unwrap_err() else { panic!("the range is taken") };
    assert_eq!(address, format!("127.0.0.1:{}", first + 5), "the last one tried");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let holder = server(Timeouts::default()).await;
    let taken = address(&holder).to_string();
    let error = Messenger::builder().bind(taken.clone()).start().await.unwrap_err();
    assert!(
        matches!(&error, StartError::Bind { address, source }
        if *address == taken && source.kind() == std::io::ErrorKind::AddrInUse),
        "{error:?}"
    );
    assert!(error.to_string().contains(&taken), "{error}");
    // The port is free again when its holder is closed.
    holder.close().await;
    Messenger::builder().bind(taken).start().await.unwrap();
}

#[tokio::test]
async fn addresses_that_cannot_be_are_refused_at_the_start() {
    for bad in
        ["127.0.0.1", "127.0.0.300:1", "127.0.0.1:70000", "::1:7400", "127.0.0.1:9-3", "127.0.0.1:0-9", ""]
    {
        let error = Messenger::builder().bind(bad).start().await.unwrap_err();
        assert!(matches!(error, StartError::Config(_)), "{bad}: {error:?}");
    }
    // TEST-NET-1 (RFC 5737) is nobody's.
    let error = Messenger::builder().bind("192.0.2.1:0").start().await.unwrap_err();
    assert!(matches!(&error, StartError::Bind { address, .. } if address == "192.0.2.1:0"), "{error:?}");
    for bad in ["0.0.0.0:7400", "[::]:7400", "10.0.0.1", "[::ffff:0.0.0.0]:7400"] {
        let error = Messenger::builder().bind("127.0.0.1:0").advertise(bad).start().await.unwrap_err();
        assert!(matches!(error, StartError::Config(_)), "{bad}: {error:?}");
    }
    // Port 0 is the one that was bound; where nothing is, nobody can be reached there.
    let error = Messenger::builder().advertise("10.0.0.1:0").start().await.unwrap_err();
    assert!(matches!(error, StartError::Config(_)), "{error:?}");
    let bound = Messenger::builder().bind("127.0.0.1:0").advertise("10.0.0.1:0").start().await.unwrap();
    let port = bound.local_address().unwrap().port();
    assert_eq!(bound.member().endpoints, [format!("10.0.0.1:{port}").parse().unwrap()]);
    let messenger = client(Timeouts::default()).await;
    for bad in ["0.0.0.0:7400", "[::]:7400", "127.0.0.1:0", "nonsense", ""] {
        let error = messenger.contact(bad).await.unwrap_err();
        assert!(matches!(error, ContactError::Address(_)), "{bad}: {error:?}");
    }
}

#[tokio::test]
async fn ids_are_unique_and_sort_by_time() {
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(client(Timeouts::default()).await.member().id);
        tokio::time::sleep(ms(2)).await; // Another millisecond.
    }
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}

#[tokio::test]
async fn ipv6_loopback_works() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        eprintln!("skipped: this machine has no IPv6 loopback: {error}");
        return;
    }
    let server = Messenger::builder().bind("[::1]:0").start().await.unwrap();
    let got = Collected::by(&server);
    assert!(address(&server).is_ipv6());
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    within(LONG, receipt_for(&client, contact.id(), 0).await.handled()).await.unwrap();
    assert_eq!(got.from(client.member().id), [0]);
}

#[tokio::test]
async fn any_address_takes_ipv4_too_and_is_never_advertised() {
    let any = match Messenger::builder().bind("[::]:0").start().await {
        Ok(any) => any,
        Err(error) => return eprintln!("skipped: this machine has no IPv6: {error}"),
    };
    assert_eq!(any.member().endpoints, []);
    let got = Collected::by(&any);
    let port = address(&any).port();
    let client = client(Timeouts::default()).await;
    // A mapped address is the IPv4 address.
    for (number, text) in
        [format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}")].iter().enumerate()
    {
        let contact = client.contact(text).await.unwrap();
        assert_eq!(contact.endpoint().to_string(), format!("127.0.0.1:{port}"));
        within(LONG, receipt_for(&client, contact.id(), number as u64).await.acked()).await.unwrap();
    }
    got.are_exactly(2, LONG).await;
}

// ---- send ----

/// Room for a few messages only.
fn narrow() -> Limits {
    Limits { reserve_bytes: 4 * 1024, queue_bytes: 16 * 1024, credit_bytes: 128 * 1024, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_and_full_recipients_are_reported_and_the_others_served() {
    let good = server(Timeouts::default()).await;
    let got = Collected::by(&good);
    let stuck = Messenger::builder().bind("127.0.0.1:0").limits(narrow()).start().await.unwrap();
    stuck.add_handler(|_, _: Number| std::future::pending()).unwrap();
    let stranger = server(Timeouts::default()).await.member().id;
    let client = Messenger::builder().limits(narrow()).start().await.unwrap();
    let good_contact = contact(&client, &good).await;
    let stuck_contact = contact(&client, &stuck).await;
    let (good, stuck) = (good_contact.id(), stuck_contact.id());

    // Until the credit of the handler that never returns is used up, and the queue is full.
    let mut queued = 0;
    within(LONG, async {
        while client.send_wait(&Number(0), [stuck], ms(300)).await.unwrap().is_complete() {
            queued += 1;
        }
    })
    .await;
    let report = client.send(&Number(0), [stuck, stranger, good]).unwrap();
    assert_eq!((report.queued, &report.absent[..], &report.full[..]), (1, &[stranger][..], &[stuck][..]));
    assert!(!report.is_complete());
    got.are_exactly(1, LONG).await;
    assert_eq!(client.send_with_receipt(&Number(0), stuck).unwrap_err(), SendError::Full(stuck));
    assert_eq!(client.send_with_receipt(&Number(0), stranger).unwrap_err(), SendError::Absent(stranger));
    assert_eq!(peer(&client, stuck).unwrap().books.queued, queued, "a refused message is not queued");

    // Who is no contact any more is absent.
    drop(stuck_contact);
    eventually(LONG, || peer(&client, stuck).is_none()).await;
    let report = client.send(&Number(1), [stuck, good]).unwrap();
    assert_eq!((report.queued, &report.absent[..]), (1, &[stuck][..]));
    got.are_exactly(2, LONG).await;
}

struct Unserialisable;

impl Serialize for Unserialisable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("cannot be said"))
    }
}

impl<'de> Deserialize<'de> for Unserialisable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

impl Message for Unserialisable {
    const KIND: Kind = Kind::new("test.unserialisable", 1).open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_an_error_of_the_call_and_the_connection_stays() {
    let server = server(Timeouts::default()).await;
    let got = Collected::by(&server);
    let client = Messenger::builder().limits(Limits { message_bytes: 1000, ..Limits::default() });
    let client = client.start().await.unwrap();
    let contact = contact(&client, &server).await;
    within(LONG, receipt_for(&client, contact.id(), 0).await.handled()).await.unwrap();

    let error = client.send(&Unserialisable, [contact.id()]).unwrap_err();
    assert!(matches!(&error, SendError::Encode(error) if error.kind == "test.unserialisable"), "{error:?}");
    let error = client.send_wait(&Unserialisable, [contact.id()], LONG).await.unwrap_err();
    assert!(matches!(error, SendError::Encode(_)));
    let large = Raw::new(BLOB, Bytes::from(vec![0; 1001]));
    let error = client.send(&large, [contact.id()]).unwrap_err();
    assert_eq!(error, SendError::TooLarge { kind: "test.blob", bytes: 1001, most: 1000 });

    within(LONG, receipt_for(&client, contact.id(), 1).await.handled()).await.unwrap();
    got.are_exactly(2, LONG).await;
    let total = client.stats().total();
    assert_eq!((total.queued, total.links), (2, 1), "nothing of it was queued, the link is the same");
}

#[tokio::test]
async fn a_closed_messenger_says_by_what_it_was_closed() {
    for (how, left) in [("closed", false), ("left", true)] {
        let server = server(Timeouts::default()).await;
        let client = client(Timeouts::default()).await;
        let contact = contact(&client, &server).await;
        if left {
            client.leave(LONG).await;
        }
        client.close().await; // Closing again does not change the cause.
        let id = contact.id();
        assert_eq!(client.send(&Number(0), [id]), Err(SendError::Closed(how)));
        assert_eq!(client.send_with_receipt(&Number(0), id).unwrap_err(), SendError::Closed(how));
        assert_eq!(client.send_wait(&Number(0), [id], LONG).await, Err(SendError::Closed(how)));
        let again = client.contact(address(&server).to_string()).await.unwrap_err();
        assert!(matches!(again, ContactError::Closed(by) if by == how), "{again:?}");
        assert!(client.accept_stream().await.is_none());
        assert_eq!(client.stats().total().queued, 0);
    }
}

#[tokio::test]
async fn no_two_recipients_get_each_others_message_and_it_is_encoded_once() {
    struct Counted(std::sync::Arc<std::sync::atomic::AtomicU32>);
    impl Serialize for Counted {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            7u64.serialize(to)
        }
    }
    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            u64::deserialize(from).map(|_| Self(std::sync::Arc::default()))
        }
    }
    impl Message for Counted {
        const KIND: Kind = Number::KIND;
    }
    let client = client(Timeouts::default()).await;
    let mut parts = Vec::new();
    for _ in 0..5 {
        let server = server(Timeouts::default()).await;
        let got = Collected::by(&server);
        parts.push((contact(&client, &server).await, got, server));
    }
    let counted = Counted(std::sync::Arc::default());
    let report = client.send(&counted, parts.iter().map(|(contact, ..)| contact.id())).unwrap();
    assert_eq!((report.queued, report.is_complete()), (5, true));
    for (_, got, _) in &parts {
        eventually(LONG, || got.numbers() == [7]).await;
    }
    assert_eq!(counted.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}

// ---- oneself ----

#[tokio::test]
async fn oneself_is_reached_with_receipts_and_without_a_socket() {
    let messenger = client(Timeouts::default()).await;
    let got = Collected::by(&messenger);
    let me = messenger.member().id;
    send_all(&messenger, me, 0..1000).await;
    within(LONG, receipt_for(&messenger, me, 1000).await.handled()).await.unwrap();
    got.are_exactly(1001, LONG).await;
    assert_eq!(got.from(me).len(), 1001);
    assert_eq!(messenger.stats().total().acked, 1001);
    within(secs(3), messenger.leave(secs(2))).await;
    assert_eq!(messenger.stats().total().pending, 0);
}

#[tokio::test]
async fn a_large_message_to_oneself_arrives() {
    let messenger = client(Timeouts::default()).await;
    let (tx, mut rx) = tokio::sync::mpsc::channel(1);
    messenger
        .add_raw_handler(BLOB, move |_, raw| {
            let tx = tx.clone();
            async move { tx.send(raw.into_bytes()).await.unwrap() }
        })
        .unwrap();
    let body = Bytes::from(pattern(1, 3_000_000));
    let me = messenger.member().id;
    let receipt = messenger.send_with_receipt(&Raw::new(BLOB, body.clone()), me).unwrap();
    assert!(within(LONG, rx.recv()).await.unwrap() == body);
    within(LONG, receipt.handled()).await.unwrap();
}

#[tokio::test]
async fn a_stream_with_oneself_has_two_ends() {
    let messenger = client(Timeouts::default()).await;
    let mut ours = messenger.open_stream(messenger.member().id, "me").await.unwrap();
    let mut theirs = within(LONG, messenger.accept_stream()).await.unwrap();
    assert_eq!((theirs.name(), theirs.peer()), ("me", messenger.member().id));
    let body = pattern(2, 2_000_000);
    let write = async {
        ours.write_all(&body).await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = within(LONG, async { tokio::join!(write, theirs.read_to_end(&mut got)) }).await;
    read.unwrap();
    assert!(got == body);
}

#[tokio::test]
async fn a_contact_that_reaches_oneself_is_a_session_with_oneself() {
    let messenger = server(Timeouts::default()).await;
    let got = Collected::by(&messenger);
    let contact = contact(&messenger, &messenger).await;
    assert_eq!(contact.id(), messenger.member().id);
    within(LONG, receipt_for(&messenger, contact.id(), 0).await.handled()).await.unwrap();
    drop(contact);
    within(LONG, receipt_for(&messenger, messenger.member().id, 1).await.handled()).await.unwrap();
    got.are_exactly(2, LONG).await;
    assert_eq!(messenger.stats().refused_connections, 0);
}
