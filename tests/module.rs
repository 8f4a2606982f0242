//! What protocol modules build on: streams of their own, tasks, and the views as they come.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use karere::{Cause, Kind, Lost, MemberId, Message, Messenger, View, ViewId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Plain;
impl Message for Plain {
    const KIND: Kind = Kind::new("module.plain", 1).open();
}

#[derive(Serialize, Deserialize)]
struct Own;
impl Message for Own {
    const KIND: Kind = Kind::new("module.own", 1).open().of_protocol(64);
}

/// The same name, and not in its protocol.
#[derive(Serialize, Deserialize)]
struct Astray;
impl Message for Astray {
    const KIND: Kind = Kind::new("module.own", 1).open();
}

async fn start() -> Messenger {
    Messenger::builder().bind("127.0.0.1:0").start().await.unwrap()
}

#[tokio::test]
async fn a_protocol_of_its_own_is_not_held_up_by_a_handler_of_the_application() {
    let (server, client) = (start().await, start().await);
    let never = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&never);
    server
        .add_handler(move |_: MemberId, _: Plain| {
            let gate = Arc::clone(&gate);
            async move { drop(gate.acquire().await) }
        })
        .unwrap();
    let (tell, mut told) = mpsc::channel(8);
    server
        .add_handler(move |_: MemberId, _: Own| {
            let tell = tell.clone();
            async move { tell.send(()).await.unwrap() }
        })
        .unwrap();
    let contact = client.contact(server.local_address().unwrap().to_string()).await.unwrap();
    let held = client.send_with_receipt(&Plain, contact.id()).unwrap();
    held.acked().await.unwrap();
    let receipt = client.send_with_receipt(&Own, contact.id()).unwrap();
    timeout(LONG, told.recv()).await.unwrap().unwrap();
    timeout(LONG, receipt.handled()).await.unwrap().unwrap();
    never.add_permits(1);
    timeout(LONG, held.handled()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_type_that_comes_outside_its_protocol_is_not_understood() {
    let (server, client) = (start().await, start().await);
    server.add_handler(|_: MemberId, _: Own| async { panic!("it came in another protocol") }).unwrap();
    let contact = client.contact(server.local_address().unwrap().to_string()).await.unwrap();
    let receipt = client.send_with_receipt(&Astray, contact.id()).unwrap();
    let lost = timeout(LONG, receipt.acked()).await.unwrap();
    assert_eq!(lost, Err(Lost::NotSent(Cause::NotUnderstood)));
}

#[tokio::test]
async fn a_fallback_handler_takes_nothing_of_another_protocol() {
    let (server, client) = (start().await, start().await);
    server.set_fallback_handler(|_: MemberId, _| async {}).unwrap();
    let contact = client.contact(server.local_address().unwrap().to_string()).await.unwrap();
    let lost = timeout(LONG, client.send_with_receipt(&Own, contact.id()).unwrap().acked()).await.unwrap();
    assert_eq!(lost, Err(Lost::NotSent(Cause::NotUnderstood)));
    timeout(LONG, client.send_with_receipt(&Plain, contact.id()).unwrap().handled()).await.unwrap().unwrap();
}

#[tokio::test]
async fn whoever_waits_for_views_sees_the_newest_and_that_there_is_none() {
    let messenger = start().await;
    let view = |number| View::new(ViewId { generation: 1, number }, [messenger.member()]);
    let id = |number| Some(ViewId { generation: 1, number });
    let waiting = tokio::spawn({
        let messenger = messenger.clone();
        async move { messenger.view_other_than(None).await.map(|view| view.id()) }
    });
    assert!(timeout(Duration::from_millis(20), messenger.view_other_than(None)).await.is_err());
    let _change = messenger.install_view(view(1)).unwrap();
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap(), id(1));
    let _change = messenger.install_view(view(2)).unwrap();
    let seen = timeout(LONG, messenger.view_other_than(id(1))).await.unwrap();
    assert_eq!(seen.map(|view| view.id()), id(2));
    let gone = tokio::spawn({
        let messenger = messenger.clone();
        async move { messenger.view_other_than(id(2)).await.is_none() }
    });
    tokio::task::yield_now().await;
    messenger.reincarnate().unwrap();
    assert!(timeout(LONG, gone).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_task_ends_with_its_messenger() {
    let messenger = start().await;
    let (held, mut free) = mpsc::channel::<()>(1);
    messenger.spawn(async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    timeout(LONG, messenger.close()).await.unwrap();
    assert!(timeout(LONG, free.recv()).await.unwrap().is_none());
}
