//! A network of actors, on real sockets. Seed 001; shared/BEHAVIOURS.md 28-40.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use karere::router::{Failed, FlowError, Node};
use karere::{Kind, Member, Message, Messenger, View, ViewId};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

macro_rules! message {
    ($($name:ident = $kind:literal),* $(,)?) => { $(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct $name(u64);
        impl Message for $name {
            const KIND: Kind = Kind::new($kind, 1);
        }
    )* };
}

message!(Ask = "router.ask", Between = "router.between", Answer = "router.answer", Other = "router.other");

struct Cluster {
    messengers: Vec<Messenger>,
    nodes: Vec<Node>,
    number: u64,
}

impl Cluster {
    async fn of(size: usize) -> Self {
        Self::with(size, |_| Node::builder()).await
    }

    async fn with(size: usize, builder: impl Fn(usize) -> karere::router::NodeBuilder) -> Self {
        let (mut messengers, mut nodes) = (Vec::new(), Vec::new());
        for at in 0..size {
            let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
            nodes.push(builder(at).start(&messenger).unwrap());
            messengers.push(messenger);
        }
        let mut cluster = Self { messengers, nodes, number: 0 };
        cluster.install(|_| true);
        cluster
    }

    /// A view of those that stay, for those that stay.
    fn install(&mut self, stays: impl Fn(usize) -> bool) {
        self.number += 1;
        let id = ViewId { generation: 1, number: self.number };
        let there = |at: &usize| stays(*at);
        let members: Vec<Member> = (0..self.messengers.len())
            .filter(there)
            .map(|at| self.messengers[at].member())
            .map(|member| Member { joined: member.joined.or(Some(id)), ..member })
            .collect();
        for at in (0..self.messengers.len()).filter(there) {
            let _change = self.messengers[at].install_view(View::new(id, members.clone())).unwrap();
        }
    }

    /// Until this node knows so many routes of others.
    async fn knows(&self, at: usize, routes: usize) {
        eventually(|| self.nodes[at].external_routes().len() == routes).await;
    }
}

async fn eventually(is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "it does not become so");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_home_over_actors_on_other_nodes() {
    let cluster = Cluster::of(3).await;
    let _first = cluster.nodes[1].host().on(|Ask(n), _| async move { Ok(Between(n + 1)) }).start().unwrap();
    let _second =
        cluster.nodes[2].host().on(|Between(n), _| async move { Ok(Answer(n * 10)) }).start().unwrap();
    cluster.knows(0, 2).await;
    cluster.knows(1, 1).await;
    let hub = cluster.nodes[0].hub();
    for n in 0..100 {
        let Answer(answer) = timeout(LONG, hub.request(Ask(n)).callback::<Answer>()).await.unwrap().unwrap();
        assert_eq!(answer, (n + 1) * 10);
    }
    assert_eq!(cluster.nodes[0].open(), (0, 0, 0));
}

#[tokio::test]
async fn a_failure_a_panic_and_nobody_are_told_to_the_caller() {
    let cluster = Cluster::of(2).await;
    let _host = cluster.nodes[1]
        .host()
        .on(|Ask(n), _| async move {
            assert!(n != 13, "thirteen");
            Err::<(), _>(Failed::new("no luck"))
        })
        .start()
        .unwrap();
    cluster.knows(0, 1).await;
    let hub = cluster.nodes[0].hub();
    let failed = timeout(LONG, hub.request(Ask(1)).callback::<Answer>()).await.unwrap();
    assert_eq!(failed, Err(FlowError::Handler("no luck".to_owned())));
    let panicked = timeout(LONG, hub.request(Ask(13)).callback::<Answer>()).await.unwrap();
    assert!(matches!(panicked, Err(FlowError::Handler(text)) if text.contains("thirteen")));
    let nobody = timeout(LONG, hub.request(Other(1)).callback::<Answer>()).await.unwrap();
    assert_eq!(nobody, Err(FlowError::Unroutable("router.other/1".to_owned())));
}
