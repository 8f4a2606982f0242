//! A network of actors: what ends with what, on real messengers.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use karere::router::{FlowError, Node, Replies};
use karere::{Kind, Message, Messenger};
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
