//! What is refused, and what is said of it.

use std::time::Duration;

use tokio::time::timeout;

use super::node::Node;
use super::{LONG, alone, short, timeouts};
use crate::rendezvous::server::{Server, ServerBuilder, ServerError};
use crate::rendezvous::words::{Refusal, ToNode};
use crate::{ContactError, Messenger};

fn builder() -> ServerBuilder {
    Server::builder().bind("127.0.0.1:0").times(short()).timeouts(timeouts())
}

async fn refused(builder: ServerBuilder) -> ServerError {
    builder.start().await.err().expect("refused")
}

#[tokio::test]
async fn a_node_of_another_network_is_refused_with_both_names() {
    let server = alone().await;
    let node = Messenger::builder().network("production", "orders").start().await.unwrap();
    let why = match timeout(LONG, node.contact(server.address().to_string())).await.unwrap() {
        Err(ContactError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert!(why.contains("production") && why.contains("development"), "{why}");
    server.close().await;
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_network_and_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let server = builder().data(directory.path()).start().await.unwrap();
    let why = refused(builder().data(directory.path())).await;
    assert!(matches!(&why, ServerError::Data(text) if text.contains("in use")), "{why}");
    server.close().await;
    let other = || builder().data(directory.path()).network("production", "orders");
    let why = timeout(LONG, async {
        loop {
            let why = refused(other()).await;
            if !why.to_string().contains("in use") {
                break why;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let why = why.await.unwrap().to_string();
    assert!(why.contains("orders") && why.contains("default") && why.contains("data directory of"), "{why}");
}

#[tokio::test]
async fn a_directory_that_is_no_servers_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    let why = refused(builder().data(&file)).await;
    assert!(matches!(why, ServerError::Data(_)), "{why}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused_before_anything_starts() {
    let times = super::ServerTimes { eviction: Duration::from_millis(900), ..short() };
    let why = refused(builder().in_memory().times(times)).await;
    assert!(matches!(&why, ServerError::Times(why) if why.what == "eviction"), "{why}");
    let why = refused(builder().in_memory().peers(["10.0.0.1"])).await;
    assert!(matches!(why, ServerError::Peer(_)), "{why}");
    let why = refused(builder().in_memory().bind(":0").peers(["10.0.0.1:7500", "10.0.0.2:7500"])).await;
    assert!(matches!(&why, ServerError::NoAddress { .. }) && why.to_string().contains("advertise"), "{why}");
    let many: Vec<String> = (1..=40).map(|n| format!("10.0.0.{n}:7500")).collect();
    let why = refused(builder().in_memory().peers(many)).await;
    assert!(matches!(&why, ServerError::Log(text) if text.contains("servers")), "{why}");
}

#[tokio::test]
async fn a_server_that_lost_its_disk_lets_nobody_in_before_an_operator_says_so() {
    let lost = alone().await;
    let mut node = Node::start().await;
    node.join(&lost.address().to_string()).await;
    lost.close().await;
    let fresh = builder().in_memory().start().await.unwrap();
    timeout(LONG, fresh.leads()).await.unwrap();
    node.go_to(&fresh.address().to_string()).await;
    node.hello();
    let refused = |_: &Node, word: &ToNode| match word {
        ToNode::Refused { why, .. } => Some(why.clone()),
        _ => None,
    };
    assert_eq!(node.until(refused).await, Refusal::AnotherHistory);
    let mut other = Node::start().await;
    other.go_to(&fresh.address().to_string()).await;
    other.hello();
    assert!(other.until(refused).await.to_string().contains("karere rendezvous recover"));
    let contact = other.messenger.contact(fresh.address().to_string()).await.unwrap();
    let recover = crate::rendezvous::words::Ask::Recover;
    let told = other.messenger.request(&recover, contact.id(), LONG).await.unwrap();
    assert_eq!(told, crate::rendezvous::words::Told::Done);
    let (joined, view) = (node.member.joined, node.view());
    node.hello();
    other.hello();
    node.until_copy(|node| node.members.len() == 2).await;
    assert_eq!(node.member.joined, joined, "it kept its place");
    assert!(node.view().generation > view.generation);
    fresh.close().await;
}
