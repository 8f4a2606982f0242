//! A network of actors, on real sockets. Seed 001; shared/BEHAVIOURS.md 28-40.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use karere::router::{Context, Failed, FlowError, Hub, MessageKey, Node, RouteError};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_fails_or_panics_after_waiting_is_told_as_well_and_the_next_message_is_handled() {
    let cluster = Cluster::of(2).await;
    let _host = cluster.nodes[1]
        .host()
        .on(|Ask(n), _| async move {
            tokio::task::yield_now().await;
            match n {
                1 => Err(Failed::new("after a while")),
                2 => panic!("after a while"),
                n => Ok(Answer(n)),
            }
        })
        .start()
        .unwrap();
    cluster.knows(0, 1).await;
    let hub = cluster.nodes[0].hub();
    let ask = async |n| timeout(LONG, hub.request(Ask(n)).callback::<Answer>()).await.unwrap();
    assert_eq!(ask(1).await, Err(FlowError::Handler("after a while".to_owned())));
    assert!(matches!(ask(2).await, Err(FlowError::Handler(text)) if text.contains("panicked")));
    assert_eq!(ask(3).await, Ok(Answer(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_host_never_overlaps_with_itself_also_where_it_waits() {
    let cluster = Cluster::of(1).await;
    let (inside, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = |concurrency| {
        let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
        let host = cluster.nodes[0].host().concurrency(concurrency).on(move |Ask(n), _| {
            let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
            async move {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                Ok(Answer(n))
            }
        });
        host.start().unwrap()
    };
    for (concurrency, expected) in [(1, 1..=1), (4, 2..=4)] {
        most.store(0, Ordering::SeqCst);
        let host = start(concurrency);
        let hub = cluster.nodes[0].hub();
        let all: Vec<_> =
            (0..50).map(|n| tokio::spawn(hub.request(Ask(n)).callback::<Answer>().into_future())).collect();
        for one in all {
            timeout(LONG, one).await.unwrap().unwrap().unwrap();
        }
        assert!(
            expected.contains(&most.load(Ordering::SeqCst)),
            "{concurrency}: {}",
            most.load(Ordering::SeqCst)
        );
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_in_the_process_is_never_encoded() {
    /// Says so if somebody encodes it.
    #[derive(Debug, Deserialize)]
    struct Unspeakable;
    impl Serialize for Unspeakable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it was to be encoded"))
        }
    }
    impl Message for Unspeakable {
        const KIND: Kind = Kind::new("router.unspeakable", 1);
    }
    let cluster = Cluster::of(2).await;
    let host = cluster.nodes[0].host().on(|_: Unspeakable, _| async { Ok(Answer(1)) }).start().unwrap();
    let hub = cluster.nodes[0].hub();
    assert_eq!(timeout(LONG, hub.request(Unspeakable).callback::<Answer>()).await.unwrap(), Ok(Answer(1)));
    host.stop();
    let _there = cluster.nodes[1].host().on(|_: Unspeakable, _| async { Ok(Answer(2)) }).start().unwrap();
    cluster.knows(0, 1).await;
    let told = timeout(LONG, hub.request(Unspeakable).callback::<Answer>()).await.unwrap();
    assert!(matches!(&told, Err(FlowError::Encode(_))), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_tells_that_a_host_has_it_and_that_it_was_handled_here_and_there() {
    let cluster = Cluster::of(2).await;
    for at in [0, 1] {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let inner = Arc::clone(&gate);
        let host = cluster.nodes[at].host().on(move |_: Ask, _| {
            let gate = Arc::clone(&inner);
            async move { gate.acquire().await.map(drop).map_err(Failed::from) }
        });
        let host = host.start().unwrap();
        cluster.knows(0, at).await;
        let mut delivery = cluster.nodes[0].hub().send(Ask(1)).tracked().unwrap();
        timeout(LONG, delivery.accepted()).await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(30), delivery.handled()).await.is_err(), "it is not");
        gate.add_permits(1);
        timeout(LONG, delivery.handled()).await.unwrap().unwrap();
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routes_of_a_node_that_a_view_removes_vanish_and_its_callers_are_told() {
    let mut cluster = Cluster::of(3).await;
    let never = |_: Ask, _| async {
        std::future::pending::<()>().await;
        Ok(())
    };
    let _stuck = cluster.nodes[1].host().on(never).start().unwrap();
    let _other = cluster.nodes[2].host().on(|Other(n), _| async move { Ok(Answer(n)) }).start().unwrap();
    cluster.knows(0, 2).await;
    let hub = cluster.nodes[0].hub();
    let waiting = tokio::spawn(hub.request(Ask(1)).callback::<Answer>().into_future());
    let mut sent = hub.send(Ask(2)).tracked().unwrap();
    timeout(LONG, sent.accepted()).await.unwrap().unwrap();
    cluster.install(|at| at != 1);
    let departed = FlowError::Departed(cluster.nodes[1].id());
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap(), Err(departed.clone()));
    assert_eq!(timeout(LONG, sent.handled()).await.unwrap(), Err(departed));
    cluster.knows(0, 1).await;
    assert_eq!(timeout(LONG, hub.request(Other(5)).callback::<Answer>()).await.unwrap(), Ok(Answer(5)));
    assert_eq!(cluster.nodes[0].open(), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_dropped_leaves_nothing_and_its_late_answer_nobody() {
    let cluster = Cluster::of(1).await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let inner = Arc::clone(&gate);
    let host = cluster.nodes[0].host().on(move |Ask(n), _| {
        let gate = Arc::clone(&inner);
        async move {
            gate.acquire().await.map(drop).map_err(Failed::from)?;
            Ok(Answer(n))
        }
    });
    let _host = host.start().unwrap();
    let (one, two) = (cluster.nodes[0].hub(), cluster.nodes[0].hub());
    let dropped = one.request(Ask(1)).callback::<Answer>().into_future();
    assert!(timeout(Duration::from_millis(20), dropped).await.is_err());
    assert_eq!(cluster.nodes[0].open().1, 0, "nobody waits any more");
    let waiting = tokio::spawn(two.request(Ask(2)).callback::<Answer>().into_future());
    gate.add_permits(2);
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap(), Ok(Answer(2)), "its own, not the late one");
    eventually(|| cluster.nodes[0].counts().late == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_delivered_comes_to_the_hook_with_its_cause() {
    let dead = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let hook = Arc::clone(&dead);
    let cluster = Cluster::with(1, |_| {
        let hook = Arc::clone(&hook);
        Node::builder().grace(Duration::from_millis(20)).dead_letters(move |letter| hook.lock().push(letter))
    })
    .await;
    let told = timeout(LONG, cluster.nodes[0].hub().send(Ask(1)).tracked().unwrap().handled()).await.unwrap();
    assert!(matches!(told, Err(FlowError::Unroutable(_))), "{told:?}");
    eventually(|| dead.lock().len() == 1).await;
    let letter = dead.lock().pop().unwrap();
    assert_eq!(letter.key, Some(MessageKey::of::<Ask>()));
    assert_eq!(letter.why, FlowError::Unroutable("router.ask/1".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_in_a_handler_never_wait_and_two_actors_that_flood_each_other_come_to_an_end() {
    const EACH: u64 = 2_000;
    let cluster = Cluster::of(2).await;
    let heard = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let (one, two) = (Arc::clone(&heard), Arc::clone(&heard));
    let _first = cluster.nodes[0]
        .host()
        .on(move |Ask(n), context: Context| {
            one[0].fetch_add(1, Ordering::Relaxed);
            async move {
                context.hub().send(Between(n)).await?;
                Ok(())
            }
        })
        .start()
        .unwrap();
    let _second = cluster.nodes[1]
        .host()
        .on(move |Between(n), context: Context| {
            two[1].fetch_add(1, Ordering::Relaxed);
            async move {
                if n > 0 {
                    context.hub().send(Ask(n - 1)).await?;
                }
                Ok(())
            }
        })
        .start()
        .unwrap();
    cluster.knows(0, 1).await;
    cluster.knows(1, 1).await;
    let (here, there) = (cluster.nodes[0].hub(), cluster.nodes[1].hub());
    let flood = async |hub: &Hub| {
        for _ in 0..EACH {
            hub.send(Ask(2)).await.unwrap();
        }
    };
    timeout(LONG, async { tokio::join!(flood(&here), flood(&there)) }).await.unwrap();
    // Three rounds each.
    eventually(|| heard[1].load(Ordering::Relaxed) == 2 * EACH * 3).await;
    assert_eq!(heard[0].load(Ordering::Relaxed), 2 * EACH * 3);
    eventually(|| cluster.nodes.iter().all(|node| node.open() == (0, 0, 0))).await;
}

#[tokio::test]
async fn a_node_that_is_dropped_lets_its_messenger_go_and_a_closed_one_says_so() {
    let cluster = Cluster::of(1).await;
    let _host = cluster.nodes[0].host().on(|Ask(n), _| async move { Ok(Answer(n)) }).start().unwrap();
    let hub = cluster.nodes[0].hub();
    let waiting = tokio::spawn(hub.request(Other(1)).callback::<Answer>().into_future());
    tokio::task::yield_now().await;
    cluster.nodes[0].close();
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap(), Err(FlowError::Closed));
    assert_eq!(hub.send(Ask(1)).await, Err(FlowError::Closed));
    let refused = cluster.nodes[0].host().on(|Ask(n), _| async move { Ok(Answer(n)) }).start();
    assert!(matches!(refused, Err(RouteError::Closed)));
}
