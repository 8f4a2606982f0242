//! A network of actors: what ends with what, on real messengers.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use karere::router::{FlowError, MessageKey, Node, Replies, Route, RouteSource, Routes};
use karere::{Kind, Member, MemberId, Message, Messenger, View, ViewId};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
struct Ask(u64);

impl Message for Ask {
    const KIND: Kind = Kind::new("ends.ask", 1);
}

#[derive(Debug, Serialize, Deserialize)]
struct Word(String);

impl Message for Word {
    const KIND: Kind = Kind::new("ends.word", 1);
}

#[tokio::test]
async fn a_request_ends_when_its_messenger_closes() {
    let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let node = Node::builder().start(&messenger).unwrap();
    let begun = Arc::new(Semaphore::new(0));
    let tells = Arc::clone(&begun);
    let _host = node
        .host()
        .on(move |Ask(_), _| {
            tells.add_permits(1);
            std::future::pending::<Result<Word, _>>()
        })
        .start()
        .unwrap();
    let hub = node.hub();
    let asking =
        tokio::spawn(async move { hub.request(Ask(1)).callback::<Word>().deadline(10 * LONG).await });
    begun.acquire().await.unwrap().forget();
    messenger.close().await;
    let ended = timeout(LONG, asking).await.unwrap().unwrap().map(|word| word.0);
    assert_eq!(ended, Err(FlowError::Closed));
}

#[tokio::test]
async fn what_a_handler_sends_to_all_is_read_by_each_host_here() {
    let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let node = Node::builder().start(&messenger).unwrap();
    let (heard, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let _hosts: Vec<_> = (0..3)
        .map(|_| {
            let (heard, done) = (Arc::clone(&heard), Arc::clone(&done));
            let listen = move |Word(word), _| {
                heard.fetch_add(usize::from(word == "to all"), Ordering::Relaxed);
                done.add_permits(1);
                std::future::ready(Ok(()))
            };
            node.host().on(listen).start().unwrap()
        })
        .collect();
    let spread = |Ask(_), _| std::future::ready(Ok(Replies::new().and_broadcast(Word("to all".to_owned()))));
    let _host = node.host().on(spread).start().unwrap();
    node.hub().send(Ask(1)).await.unwrap();
    timeout(LONG, done.acquire_many(3)).await.unwrap().unwrap().forget();
    assert_eq!(heard.load(Ordering::Relaxed), 3);
    messenger.close().await;
}

/// One other node, which takes `Ask`.
struct Only(MemberId);

impl RouteSource for Only {
    fn start(self: Arc<Self>, _: &Messenger, routes: Routes) {
        routes.node_up(self.0);
        routes.replace(self.0, [Route { key: MessageKey::of::<Ask>(), host: 1 }]);
    }

    fn exchange(&self) -> bool {
        false
    }
}

/// A node, and another one of its view where nobody answers.
async fn beside_nobody() -> (Messenger, Node, MemberId) {
    let ghost = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let member = ghost.member();
    ghost.close().await;
    let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let node = Node::builder().source(Only(member.id)).start(&messenger).unwrap();
    let id = ViewId { generation: 1, number: 1 };
    let joined = |member: Member| Member { joined: Some(id), ..member };
    let view = View::new(id, [joined(messenger.member()), joined(member.clone())]);
    let _change = messenger.install_view(view).unwrap();
    (messenger, node, member.id)
}

async fn eventually(is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "it does not become so");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_waits_for_a_link_longer_than_it_lives_gives_its_room_back() {
    let (messenger, node, nobody) = beside_nobody().await;
    let waits = |messenger: &Messenger| {
        let stats = messenger.stats();
        stats.peers.iter().find(|peer| peer.peer == nobody).map_or(0, |peer| peer.queue_bytes)
    };
    // Twice as many as a window holds at once, and more than has room without a link: none may keep its place.
    for round in 0..2 {
        let asking: Vec<_> = (0..512)
            .map(|number| {
                let hub = node.hub();
                let time = Duration::from_millis(300);
                tokio::spawn(async move { hub.request(Ask(number)).callback::<Word>().deadline(time).await })
            })
            .collect();
        eventually(|| waits(&messenger) > 0).await;
        for asking in asking {
            let ended = timeout(LONG, asking).await.unwrap().unwrap().map(|word| word.0);
            assert_eq!(ended, Err(FlowError::Deadline), "round {round}");
        }
        eventually(|| waits(&messenger) == 0 && node.open() == (0, 0, 0)).await;
    }
    let books = messenger.stats().total();
    assert_eq!((books.queued, books.pending), (books.not_sent, 0));
    assert!(books.queued >= 512, "both rounds had places: {}", books.queued);
    messenger.close().await;
}

#[tokio::test]
async fn a_message_that_waited_for_a_link_as_long_as_it_lived_is_told_as_late() {
    let (messenger, node, _) = beside_nobody().await;
    let sending = node.hub().send(Ask(1)).time_to_live(Duration::from_millis(100));
    let mut delivery = sending.tracked().unwrap();
    let ended = timeout(LONG, delivery.handled()).await.unwrap();
    assert_eq!(ended, Err(FlowError::Deadline));
    messenger.close().await;
}
