//! What is refused, and what is said of it.

use std::time::Duration;

use tokio::time::timeout;

use super::node::{Node, route};
use super::{LONG, alone, short, timeouts};
use crate::rendezvous::raft::Disk;
use crate::rendezvous::server::{Server, ServerBuilder, ServerError, ServerStanding};
use crate::rendezvous::words::{Refusal, ToNode, ToServer};
use crate::{ContactError, Messenger};

fn builder() -> ServerBuilder {
    Server::builder().bind("127.0.0.1:0").times(short()).timeouts(timeouts())
}

async fn refused(builder: ServerBuilder) -> ServerError {
    builder.start().await.map(drop).expect_err("refused")
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
    assert!(why.contains("orders") && why.contains("default") && why.contains("belongs to network"), "{why}");
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

/// A disk in memory that is full from some moment on.
#[derive(Debug)]
struct Filling {
    memory: redb::backends::InMemoryBackend,
    full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Filling {
    fn check(&self) -> std::io::Result<()> {
        let full = self.full.load(std::sync::atomic::Ordering::Relaxed);
        if full { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl redb::StorageBackend for Filling {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_server_which_says_what_to_do_and_acknowledges_nothing_more() {
    let full = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let disk = Filling { memory: redb::backends::InMemoryBackend::new(), full: full.clone() };
    let server = builder().on_disk(Disk::of_backend(disk)).start().await.unwrap();
    timeout(LONG, server.leads()).await.unwrap();
    let mut node = Node::start().await;
    node.join(&server.address().to_string()).await;
    full.store(true, std::sync::atomic::Ordering::Relaxed);
    node.say(&ToServer::Routes { from: 0, to: 1, add: vec![route("node.takes")], remove: vec![] });
    let mut standing = server.standing();
    let stopped = standing.wait_for(|now| matches!(now, ServerStanding::Stopped { .. }));
    let text = timeout(LONG, stopped).await.unwrap().unwrap().to_string();
    assert!(text.contains("full") && text.contains("make room"), "{text}");
    node.hello();
    let sent_on = |_: &Node, word: &ToNode| match word {
        ToNode::NotLeader { leader, .. } => Some(leader.clone()),
        ToNode::Registered { .. } => panic!("nothing was registered"),
        _ => None,
    };
    assert_eq!(node.until(sent_on).await, None);
    server.close().await;
}

#[tokio::test]
async fn a_damaged_data_directory_is_refused_and_the_text_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = builder().data(directory.path()).start().await.unwrap();
    timeout(LONG, server.leads()).await.unwrap();
    let mut node = Node::start().await;
    node.join(&server.address().to_string()).await;
    server.close().await;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(64).step_by(7).for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&path, bytes).unwrap();
    }
    let why = timeout(LONG, async {
        loop {
            let why = refused(builder().data(directory.path())).await;
            if !why.to_string().contains("in use") {
                break why;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let why = why.await.unwrap();
    let text = why.to_string();
    assert!(
        matches!(why, ServerError::Data(_)) && text.contains("damaged") && text.contains("move it away"),
        "{text}"
    );
}
