//! A network of actors: nodes begin in any order. On real sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use karere::router::{Node, StaticList};
use karere::{Kind, Member, Message, Messenger, View, ViewId, Views};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Job(u64);

impl Message for Job {
    const KIND: Kind = Kind::new("begins.job", 1);
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One host of `Job`.
fn host(node: &Node) -> karere::router::Host {
    node.host().on(|Job(_), _| std::future::ready(Ok(()))).start().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_begins_after_others_told_it_of_their_routes_learns_them_all_the_same() {
    let late = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let early = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let address = |of: &Messenger| of.local_address().unwrap().to_string();
    let list = StaticList::new([address(&late)]);
    let node = Node::builder().without_views().source(list).start(&early).unwrap();
    let _host = host(&node);
    eventually("told, and not understood", || early.stats().total().not_sent > 0).await;
    let list = StaticList::new([address(&early)]);
    let late_node = Node::builder().without_views().source(list).start(&late).unwrap();
    eventually("known to who began late", || late_node.external_routes().len() == 1).await;
    // In any order: who began first hears of who came late.
    let _host = host(&late_node);
    eventually("known to who began first", || node.external_routes().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_begins_after_the_view_was_installed_learns_what_members_told_before() {
    let start = || Messenger::builder().bind("127.0.0.1:0").views(Views::Agreed).start();
    let (late, early) = (start().await.unwrap(), start().await.unwrap());
    let id = ViewId { generation: 1, number: 1 };
    let members: Vec<_> =
        [&late, &early].map(|one| Member { joined: Some(id), ..one.member() }).into_iter().collect();
    for one in [&late, &early] {
        let _change = one.install_view(View::new(id, members.clone())).unwrap();
    }
    let node = Node::builder().start(&early).unwrap();
    let _host = host(&node);
    eventually("told, and not understood", || early.stats().total().not_sent > 0).await;
    let late_node = Node::builder().start(&late).unwrap();
    eventually("known to who began late", || late_node.external_routes().len() == 1).await;
}
