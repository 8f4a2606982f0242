//! Other releases and other implementations: T22. The other side is a hand-written peer (`support/foreign.rs`) that shares
//! no code with karere.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "support/foreign.rs"]
mod foreign;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use common::*;
use foreign::*;
use karere::{Cause, ContactError, Disconnect, Lost, MemberId, Messenger, PeerEvent, Raw};
use parking_lot::Mutex;

/// What came of kind [`BLOB`].
#[derive(Clone, Default)]
struct Blobs(Arc<Mutex<Vec<Vec<u8>>>>);

impl Blobs {
    fn by(messenger: &Messenger) -> Self {
        let blobs = Self::default();
        let to = blobs.clone();
        let take = move |_, raw: Raw| {
            to.0.lock().push(raw.bytes().to_vec());
            async {}
        };
        messenger.add_raw_handler(BLOB, take).unwrap();
        blobs
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().iter().map(|blob| String::from_utf8_lossy(blob).into_owned()).collect()
    }
}

fn blob(text: &str) -> Vec<u8> {
    record(WHOLE, 1, hash("test.blob"), text.as_bytes())
}

fn number() -> Type {
    Type::new("test.number", 1)
}

fn id(foreign: &Foreign) -> MemberId {
    foreign.name().parse().unwrap()
}

fn door() -> (TcpListener, SocketAddr) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    (door, address)
}

/// Two of ours that talk to each other meanwhile.
struct Bystanders {
    server: Messenger,
    got: Collected,
    client: Messenger,
    contact: karere::Contact,
    sent: u64,
}

impl Bystanders {
    async fn new() -> Self {
        let server = server(patient()).await;
        let got = Collected::by(&server);
        let client = client(patient()).await;
        let contact = contact(&client, &server).await;
        Self { server, got, client, contact, sent: 0 }
    }

    async fn go_on(&mut self) {
        send_all(&self.client, self.contact.id(), self.sent..self.sent + 100).await;
        self.sent += 100;
        self.got.are_exactly(self.sent, LONG).await;
        assert_eq!(links(&self.client, self.contact.id()), 1, "one link for all of it");
    }
}

// ---- versions ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_1_and_2_is_spoken_to_in_1_and_messages_go_both_ways() {
    let server = server(patient()).await;
    let blobs = Blobs::by(&server);
    let newer = Foreign { versions: (1, 2), ..Foreign::new(1) };
    let (mut wire, answer) = newer.link(address(&server), &Session::new(1, 0, 1), &[number()]);
    assert_eq!((answer.versions, answer.field(9)), ((1, 1), Some(&newer.id[..])));
    assert_eq!(hex(&answer.id()), server.member().id.to_string());
    wire.batch(1, &[blob("one"), blob("two")]);
    wire.until_handled(OPEN_NORMAL, 2);
    assert_eq!(blobs.all(), ["one", "two"]);
    let receipt = receipt_for(&server, id(&newer), 7).await;
    let batch = wire.until(BATCH);
    assert_eq!((batch.stream, batch.first, batch.count), (OPEN_NORMAL, 1, 1));
    assert_eq!(batch.records(), [(hash("test.number"), vec![7])]);
    wire.ack(1, 0);
    within(LONG, receipt.acked()).await.unwrap();
    wire.ack(1, 1);
    within(LONG, receipt.handled()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_to_who_speaks_1_and_2_works_and_asks_for_its_link_to_be_kept() {
    let client = client(patient()).await;
    let blobs = Blobs::by(&client);
    let (door, address) = door();
    let newer = Foreign { versions: (1, 2), ..Foreign::new(2) };
    let there = std::thread::spawn(move || {
        let (mut wire, hello) = newer.accept(&door);
        assert_eq!((hello.versions, hello.number(16) & 1), ((1, 1), 1));
        let session = Session { generation: hello.number(12), ..Session::new(1, hello.number(10), 0) };
        wire.say(&newer.hello(ANSWER, Some(hello.id()), &session));
        wire.types(&[number()]);
        wire.batch(1, &[blob("hello")]);
        assert_eq!(wire.until(BATCH).records(), [(hash("test.number"), vec![3])]);
        wire.ack(1, 1);
        wire.until_handled(OPEN_NORMAL, 1);
        wire
    });
    let contact = within(LONG, client.contact(address.to_string())).await.unwrap();
    within(LONG, receipt_for(&client, contact.id(), 3).await.handled()).await.unwrap();
    eventually(LONG, || blobs.all() == ["hello"]).await;
    let _held = there.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_only_2_is_refused_with_both_ranges_and_a_running_stream_goes_on() {
    let mut others = Bystanders::new().await;
    let later = Foreign { versions: (2, 4), ..Foreign::new(3) };
    for round in 1..4 {
        let (_wire, refusal) = later.dial(address(&others.server), &Session::new(1, 0, round));
        assert_eq!((refusal.code(), refusal.versions), (VERSION_MISMATCH, (1, 1)));
        let theirs: Vec<u8> = [2u16, 4].map(u16::to_le_bytes).concat();
        assert_eq!(refusal.field(34), Some(&theirs[..]), "as they were read");
        assert!(refusal.text().contains("1-1") && refusal.text().contains("2-4"), "{}", refusal.text());
        eventually(LONG, || others.server.stats().refused_connections == round).await;
        others.go_on().await;
    }
    assert_eq!(others.server.stats().peers.len(), 1, "nothing is kept of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_to_who_speaks_only_2_says_so_at_once() {
    let client = client(patient()).await;
    let (door, address) = door();
    let later = Foreign { versions: (2, 4), ..Foreign::new(4) };
    let there = std::thread::spawn(move || {
        let mut wire = Wire::at(&door);
        let hello = wire.opening();
        assert_eq!(hello.versions, (1, 1));
        wire.say(&later.reject(VERSION_MISMATCH, "speaks versions 2-4, you 1-1"));
    });
    let error = within(secs(3), client.contact(address.to_string())).await.unwrap_err();
    assert!(matches!(error, ContactError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("2-4"), "{error}");
    there.join().unwrap();
}

// ---- what is not known ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_features_frames_flags_and_codes_are_passed_over() {
    let server = server(patient()).await;
    let blobs = Blobs::by(&server);
    let seen = Seen::by(&server);
    let features = (!1u64).to_le_bytes().to_vec();
    let extra = vec![(0x0077, vec![1, 2, 3]), (16, features), (0x7fff, Vec::new())];
    let newer = Foreign { extra, ..Foreign::new(5) };
    let odd = Type { flags: 0xfd, ..number() };
    let (mut wire, answer) = newer.link(address(&server), &Session::new(1, 0, 1), &[odd]);
    wire.say(&frame(0x33, 0xffff, u64::MAX, 5, b"whatever"));
    wire.say(&frame(0x7f, 0, 0, 0, b""));
    let extended = [&6u16.to_le_bytes()[..], &[0x55, 0, 2, 0, 1, 2], b"extended"].concat();
    let hash = hash("test.blob");
    let records = [record(WHOLE | 1 << 6, 1, hash, b"flag"), record(WHOLE | 4, 1, hash, &extended)];
    wire.batch(1, &records);
    wire.until_handled(OPEN_NORMAL, 2);
    assert_eq!(blobs.all(), ["flag", "extended"]);
    // A code of a later version ends the link and nothing else.
    wire.say(&frame(CLOSE, 0, 0, 0, &[&999u16.to_le_bytes()[..], b"for a later reason"].concat()));
    let ended = PeerEvent::Disconnected { peer: id(&newer), reason: Disconnect::Closed };
    eventually(LONG, || seen.has(&ended)).await;
    let again = Session::new(1, answer.number(10), 2);
    let (mut wire, answer) = newer.link(address(&server), &again, &[number()]);
    assert_eq!(answer.next_expected(OPEN_NORMAL), 3, "the session goes on");
    wire.batch(3, &[blob("three")]);
    wire.until_handled(OPEN_NORMAL, 3);
    assert_eq!(blobs.all().len(), 3);
    assert_eq!(server.stats().refused_connections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_understood_and_is_not_is_refused_with_a_code_and_the_session_survives() {
    let mut others = Bystanders::new().await;
    let server = others.server.clone();
    let blobs = Blobs::by(&server);
    let newer = Foreign::new(6);
    let demanding = Foreign { extra: vec![(0x8077, vec![1])], ..newer.clone() };
    let (_wire, refusal) = demanding.dial(address(&server), &Session::new(1, 0, 1));
    assert_eq!(refusal.code(), MALFORMED);
    assert!(refusal.text().contains("0x8077"), "{}", refusal.text());
    assert_eq!(server.stats().refused_connections, 1);
    let (mut wire, answer) = newer.link(address(&server), &Session::new(1, 0, 1), &[number()]);
    let epoch = answer.number(10);
    let hash = hash("test.blob");
    let field = [&6u16.to_le_bytes()[..], &[0x55, 0x80, 2, 0, 1, 2], b"body"].concat();
    let batch = |record: Vec<u8>| frame(BATCH, OPEN_NORMAL, 1, 1, &record);
    let critical = [
        frame(0xb3, 0, 0, 0, b"must be understood"),
        batch(record(WHOLE | 1 << 9, 1, hash, b"flag")),
        batch(record(WHOLE | 4, 1, hash, &field)),
        frame(BATCH, 3, 1, 1, &blob("a class that no stream has")),
    ];
    for (generation, bytes) in (2..).zip(critical) {
        wire.say(&bytes);
        wire.is_closed_with(MALFORMED);
        others.go_on().await;
        let again = Session::new(1, epoch, generation);
        let (next, answer) = newer.link(address(&server), &again, &[number()]);
        assert_eq!((answer.number(10), answer.next_expected(OPEN_NORMAL)), (epoch, 1), "nothing counted");
        wire = next;
    }
    wire.batch(1, &[blob("one")]);
    wire.until_handled(OPEN_NORMAL, 1);
    assert_eq!(blobs.all(), ["one"]);
}

// ---- types ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_peer_does_not_list_lists_lower_or_by_another_name_is_not_sent_and_its_sender_is_told() {
    let server = server(patient()).await;
    let older = Foreign::new(7);
    let same_hash = Type { name: "another.name".to_owned(), ..number() };
    let fallback = Type { name: "*".to_owned(), hash: 0, version: 0, flags: 3 };
    let lists = [
        vec![],
        vec![Type::new("test.word", 1)],
        vec![Type { version: 0, ..number() }],
        vec![same_hash.clone()],
        // Who takes everything does not take it under another name.
        vec![same_hash, fallback.clone()],
        vec![fallback, Type { version: 0, ..number() }],
    ];
    let (mut wire, _) = older.link(address(&server), &Session::new(1, 0, 1), &[]);
    let not_sent = Err(Lost::NotSent(Cause::NotUnderstood));
    for (at, list) in (0..).zip(&lists) {
        wire.types(list);
        // Answered after the list was read.
        wire.say(&frame(PING, 0, 0, 0, &[7; 12]));
        wire.until(PONG);
        let receipt = receipt_for(&server, id(&older), at).await;
        assert_eq!(within(LONG, receipt.acked()).await, not_sent, "{list:?}");
    }
    wire.types(&[number()]);
    wire.say(&frame(PING, 0, 0, 0, &[7; 12]));
    wire.until(PONG);
    let receipt = receipt_for(&server, id(&older), 99).await;
    let batch = wire.until(BATCH);
    assert_eq!((batch.first, batch.records()), (1, vec![(hash("test.number"), vec![99])]), "the only one");
    wire.ack(1, 1);
    within(LONG, receipt.handled()).await.unwrap();
    let total = server.stats().total();
    assert_eq!((total.not_sent, total.acked), (lists.len() as u64, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_was_never_listed_is_counted_when_it_comes_and_stops_nothing() {
    let server = server(patient()).await;
    let blobs = Blobs::by(&server);
    let (mut wire, _) = Foreign::new(8).link(address(&server), &Session::new(1, 0, 1), &[]);
    let unknown = record(WHOLE, 1, hash("nobody.knows"), b"1");
    let newer = record(WHOLE, 2, hash("test.blob"), b"2");
    wire.batch(1, &[unknown, newer, blob("three")]);
    // Our list said so before: the sender broke the rule, and is told no more than that it is done with.
    wire.until_handled(OPEN_NORMAL, 3);
    assert_eq!((blobs.all(), server.stats().refused_records), (vec!["three".to_owned()], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_sent_first_after_the_peer_listed_another_for_its_hash_is_not_sent() {
    let server = server(patient()).await;
    let other = Foreign::new(12);
    let same_hash = Type { name: "another.name".to_owned(), ..number() };
    let (mut wire, _) = other.link(address(&server), &Session::new(1, 0, 1), &[same_hash]);
    wire.say(&frame(PING, 0, 0, 0, &[7; 12]));
    wire.until(PONG);
    for at in 0..3 {
        let receipt = receipt_for(&server, id(&other), at).await;
        let end = within(LONG, receipt.acked()).await;
        assert_eq!(end, Err(Lost::NotSent(Cause::NotUnderstood)), "{at}");
    }
}

// ---- acknowledgements and first frames ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_identical_first_frames_at_once_make_one_link_and_deliver_once() {
    let server = server(patient()).await;
    let blobs = Blobs::by(&server);
    let foreign = Foreign::new(9);
    let target = address(&server);
    let to = foreign.ask(target).id();
    let session = Session::new(1, 0, 1);
    let first = [
        foreign.hello(HELLO, Some(to), &session),
        types_frame(&[number()]),
        frame(BATCH, OPEN_NORMAL, 1, 2, &[blob("one"), blob("two")].concat()),
    ]
    .concat();
    let dials: Vec<_> = (0..10)
        .map(|_| {
            let first = first.clone();
            std::thread::spawn(move || {
                let mut wire = Wire::connect(target);
                wire.say(&first);
                let reply = wire.opening();
                (wire, reply)
            })
        })
        .collect();
    let dials: Vec<_> = dials.into_iter().map(|dial| dial.join().unwrap()).collect();
    let (mut adopted, refused): (Vec<_>, Vec<_>) =
        dials.into_iter().partition(|(_, reply)| reply.kind == ANSWER);
    assert_eq!(adopted.len(), 1);
    assert!(refused.iter().all(|(_, reply)| reply.code() == DUPLICATE));
    adopted[0].0.until_handled(OPEN_NORMAL, 2);
    // And once more, on a link that takes its place.
    let (mut wire, reply) = foreign.dial(target, &Session { attempt: 2, ..session });
    assert_eq!(reply.next_expected(OPEN_NORMAL), 3);
    wire.types(&[number()]);
    wire.batch(1, &[blob("one"), blob("two")]);
    wire.batch(3, &[blob("three")]);
    wire.until_handled(OPEN_NORMAL, 3);
    assert_eq!(blobs.all(), ["one", "two", "three"]);
    assert_eq!((server.stats().total().duplicates, server.stats().peers.len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_acknowledgements_change_nothing() {
    let server = server(patient()).await;
    let foreign = Foreign::new(10);
    let target = address(&server);
    let (mut old, _) = foreign.link(target, &Session::new(1, 0, 1), &[number()]);
    let mut lost = Vec::new();
    for number in 0..3 {
        lost.push(receipt_for(&server, id(&foreign), number).await);
        assert_eq!(old.until(BATCH).first, number + 1);
    }
    // It forgets, begins anew, and an acknowledgement of the session before comes after that.
    let (mut wire, _) = foreign.link(target, &Session::new(2, 0, 1), &[number()]);
    for receipt in lost {
        let end = within(LONG, receipt.acked()).await;
        assert_eq!(end, Err(Lost::Indeterminate(Cause::SessionLost)));
    }
    let receipts =
        [receipt_for(&server, id(&foreign), 10).await, receipt_for(&server, id(&foreign), 11).await];
    while wire.until(BATCH).records().iter().all(|(_, body)| *body != [11]) {}
    old.try_say(&ack(3, 3));
    wire.say(&frame(PING, 0, 0, 0, &[1; 12]));
    wire.until(PONG);
    assert!(
        receipts.iter().all(|receipt| receipt.now().is_none()),
        "the old connection says nothing any more"
    );
    // On one link they are absolute: an older one that comes later takes nothing back.
    wire.ack(2, 1);
    wire.ack(1, 0);
    wire.ack(0, 0);
    wire.say(&frame(PING, 0, 0, 0, &[2; 12]));
    wire.until(PONG);
    for receipt in &receipts {
        assert_eq!(within(LONG, receipt.acked()).await, Ok(()));
    }
    wire.ack(2, 2);
    within(LONG, receipts[1].handled()).await.unwrap();
    let total = server.stats().total();
    assert_eq!((total.acked, total.indeterminate, total.pending, total.links), (2, 3, 0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_beyond_what_was_sent_costs_the_link_and_not_the_session() {
    let server = server(patient()).await;
    let foreign = Foreign::new(11);
    let target = address(&server);
    let (mut wire, answer) = foreign.link(target, &Session::new(1, 0, 1), &[number()]);
    let epoch = answer.number(10);
    let receipt = receipt_for(&server, id(&foreign), 5).await;
    for (generation, bad) in (2..).zip([ack(2, 0), ack(1, 2), ack(u64::MAX, u64::MAX)]) {
        let batch = wire.until(BATCH);
        assert_eq!((batch.first, batch.records()), (1, vec![(hash("test.number"), vec![5])]));
        wire.say(&bad);
        wire.is_closed_with(MALFORMED);
        assert_eq!(receipt.now(), None);
        let again = Session::new(1, epoch, generation).expecting(OPEN_NORMAL, 1);
        (wire, _) = foreign.link(target, &again, &[number()]);
    }
    wire.until(BATCH);
    // A hello that claims too much is refused, and the link that is there does not notice.
    let lie = Session::new(1, epoch, 9).expecting(OPEN_NORMAL, 3);
    let (_refused, refusal) = foreign.dial(target, &lie);
    assert_eq!(refusal.code(), MALFORMED);
    assert!(refusal.text().contains("acknowledged record 2 of 1"), "{}", refusal.text());
    wire.ack(1, 1);
    within(LONG, receipt.handled()).await.unwrap();
    assert_eq!(links(&server, id(&foreign)), 4);
}
