//! The messenger over real sockets.

use std::time::Duration;
use karere::{Kind, Message, Messenger};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Serialize, Deserialize)]
struct Number(u64);
impl Message for Number {
    const KIND: Kind = Kind::new("test.number", 1).open();
}

#[tokio::test]
async fn messages_arrive_once_and_in_order() {
    let server = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let (tx, mut rx) = tokio::sync::mpsc::channel(100_000);
    server.add_handler(move |_from, n: Number| { let tx = tx.clone(); async move { tx.send(n.0).await.unwrap() } }).unwrap();
    let client = Messenger::builder().start().await.unwrap();
    let contact = client.contact(server.local_address().unwrap().to_string()).await.unwrap();
    for n in 0..50_000u64 {
        let r = client.send_wait(&Number(n), [contact.id()], Duration::from_secs(5)).await.unwrap();
        assert!(r.is_complete(), "{n} {r:?}");
    }
    let receipt = loop { match client.send_with_receipt(&Number(50_000), contact.id()) { Ok(r) => break r, Err(karere::SendError::Full(_)) => tokio::task::yield_now().await, Err(e) => panic!("{e}") } };
    for n in 0..=50_000u64 { assert_eq!(rx.recv().await.unwrap(), n); }
    receipt.handled().await.unwrap();
    let t = client.stats().total();
    assert!(t.balance(), "{t:?}");
    let mut s = client.open_stream(contact.id(), "x").await.unwrap();
    s.write_all(&[7; 300_000]).await.unwrap();
    s.shutdown().await.unwrap();
    let mut got = Vec::new();
    let mut t = server.accept_stream().await.unwrap();
    t.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, vec![7; 300_000]);
    client.leave(Duration::from_secs(5)).await;
    assert_eq!(client.stats().total().pending, 0);
    server.close().await;
}

#[tokio::test]
async fn oneself() {
    let m = Messenger::builder().start().await.unwrap();
    let (tx, mut rx) = tokio::sync::mpsc::channel(100);
    m.add_handler(move |_from, n: Number| { let tx = tx.clone(); async move { tx.send(n.0).await.unwrap() } }).unwrap();
    let r = m.send_with_receipt(&Number(3), m.member().id).unwrap();
    r.handled().await.unwrap();
    assert_eq!(rx.recv().await, Some(3));
    m.leave(Duration::from_secs(2)).await;
}
