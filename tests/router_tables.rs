//! A network of actors: any node tells any other what it knows of routes. On real sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use karere::router::{FlowError, Host, Node, Scope, StaticList, Tables};
use karere::{Kind, Limits, Member, MemberId, Message, Messenger, View, ViewId, Views};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
struct Job(u64);

impl Message for Job {
    const KIND: Kind = Kind::new("tables.job", 1);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Done(u64);

impl Message for Done {
    const KIND: Kind = Kind::new("tables.done", 1);
}

async fn eventually(is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "it does not become so");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn install(messengers: &[&Messenger], others: &[Member]) {
    let id = ViewId { generation: 1, number: 1 };
    let members = messengers.iter().map(|one| one.member()).chain(others.iter().cloned());
    let members: Vec<_> = members.map(|member| Member { joined: Some(id), ..member }).collect();
    for one in messengers {
        let _change = one.install_view(View::new(id, members.clone())).unwrap();
    }
}

/// A host of so many partitions, and one that is local.
fn host(node: &Node, partitions: u32) -> Host {
    let mut host = node.host();
    for at in 0..partitions {
        host = host.partition(at.to_le_bytes().to_vec()).on(|Job(_), _| std::future::ready(Ok(())));
    }
    let local = host.local().partition(b"local".to_vec());
    local.on(|Job(_), _| std::future::ready(Ok(()))).start().unwrap()
}

async fn asked(node: &Node, of: MemberId) -> Result<Tables, FlowError> {
    timeout(LONG, node.tables_of(of)).await.unwrap()
}

async fn pair(builder: impl Fn() -> karere::Builder) -> [(Messenger, Node); 2] {
    let mut pair = Vec::new();
    for _ in 0..2 {
        let messenger = builder().bind("127.0.0.1:0").start().await.unwrap();
        let node = Node::builder().start(&messenger).unwrap();
        pair.push((messenger, node));
    }
    pair.try_into().unwrap()
}

#[tokio::test]
async fn any_node_tells_its_tables_also_to_one_that_has_no_link_to_it_yet() {
    let [(one, asks), (other, tells)] = pair(Messenger::builder).await;
    let _host = host(&tells, 3);
    install(&[&one, &other], &[]);
    assert!(!one.is_linked(other.id()), "nothing was sent yet");
    let tables = asked(&asks, other.id()).await.unwrap();
    let own: BTreeSet<String> = tables.internal.iter().map(|(key, ..)| key.to_string()).collect();
    assert_eq!(own, tells.internal_routes().iter().map(|(key, ..)| key.to_string()).collect());
    let local: Vec<_> = tables.internal.iter().filter(|(.., scope)| *scope == Scope::Local).collect();
    assert_eq!(local.len(), 1);
    assert!(local[0].0.partition() == b"local" && tables.external.is_empty() && tables.left_out == 0);
    // What this node announces stands in the other's external table, and the own tables are told alike.
    let _host = host(&asks, 1);
    eventually(|| tells.external_routes().len() == 1).await;
    let tables = asked(&asks, other.id()).await.unwrap();
    assert_eq!(tables.external, tells.external_routes());
    assert_eq!(tables.external[0].1.node, one.id());
    let own = asked(&asks, one.id()).await.unwrap();
    assert_eq!((own.internal.len(), own.external.len()), (2, asks.external_routes().len()));
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn long_tables_come_whole_though_messages_must_be_short() {
    let short = || Messenger::builder().limits(Limits { message_bytes: 64 * 1024, ..Limits::default() });
    let [(one, asks), (other, tells)] = pair(short).await;
    let _host = host(&tells, 5_000);
    let tables = {
        install(&[&one, &other], &[]);
        asked(&asks, other.id()).await.unwrap()
    };
    let keys: BTreeSet<String> = tables.internal.iter().map(|(key, ..)| key.to_string()).collect();
    assert_eq!((keys.len(), tables.internal.len(), tables.left_out), (5_001, 5_001, 0));
    one.close().await;
    other.close().await;
}

#[cfg(feature = "faults")]
#[tokio::test]
async fn long_tables_have_one_time_for_all_of_their_parts() {
    use karere::faults::{Plan, Proxy};

    let [(one, asks), (other, tells)] = pair(Messenger::builder).await;
    let _host = host(&tells, 5_000);
    // Each of the nine parts takes 300 ms at least, there and back.
    let there = other.local_address().unwrap();
    let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), there, Plan::default()).unwrap();
    proxy.set_delay(Some(Duration::from_millis(150)));
    install(&[&one], &[Member { endpoints: vec![proxy.address().into()], ..other.member() }]);
    install(&[&other], &[one.member()]);
    let (began, time) = (Instant::now(), Duration::from_secs(2));
    let asking = asks.tables_of(other.id()).deadline(time);
    assert_eq!(timeout(LONG, asking).await.unwrap(), Err(FlowError::Deadline));
    assert!(began.elapsed() >= time);
    proxy.set_delay(None);
    assert_eq!(asked(&asks, other.id()).await.unwrap().internal.len(), 5_001);
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn without_views_a_node_tells_its_tables_as_well() {
    let mut messengers = Vec::new();
    for _ in 0..2 {
        messengers.push(Messenger::builder().bind("127.0.0.1:0").views(Views::None).start().await.unwrap());
    }
    let list: Vec<_> = messengers.iter().map(|one| one.member().endpoints[0].to_string()).collect();
    let started = messengers.into_iter().map(|messenger| {
        let source = StaticList::new(list.clone());
        let node = Node::builder().without_views().source(source).start(&messenger).unwrap();
        (messenger, node)
    });
    let nodes: Vec<_> = started.collect();
    let _host = host(&nodes[0].1, 2);
    eventually(|| nodes[1].1.external_routes().len() == 2).await;
    let tables = asked(&nodes[1].1, nodes[0].0.id()).await.unwrap();
    assert_eq!(tables.internal.len(), 3);
    for (messenger, _) in nodes {
        messenger.close().await;
    }
}

#[tokio::test]
async fn whoever_does_not_tell_its_tables_ends_the_question_in_time() {
    let [(one, asks), (other, tells)] = pair(Messenger::builder).await;
    let ghost = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let nobody = ghost.member();
    ghost.close().await;
    let plain = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    assert!(matches!(asked(&asks, other.id()).await, Err(FlowError::Unroutable(_))), "no view holds it");
    install(&[&one, &other, &plain], std::slice::from_ref(&nobody));
    assert!(matches!(asked(&asks, plain.id()).await, Err(FlowError::Unroutable(_))), "it has no router");
    // Nobody answers there.
    let began = Instant::now();
    let asking = asks.tables_of(nobody.id).deadline(Duration::from_millis(100));
    assert_eq!(timeout(LONG, asking).await.unwrap(), Err(FlowError::Deadline));
    assert!(began.elapsed() >= Duration::from_millis(100));
    // Its router is closed, then it departs.
    tells.close();
    assert!(matches!(asked(&asks, other.id()).await, Err(FlowError::Unroutable(_))), "its router is closed");
    let (waiting, view) = (tokio::spawn(asks.tables_of(nobody.id).into_future()), one.view().unwrap());
    tokio::task::yield_now().await;
    let id = ViewId { generation: 1, number: 2 };
    let stay = view.members().iter().filter(|member| member.id != nobody.id).cloned();
    let _change = one.install_view(View::new(id, stay.collect::<Vec<_>>())).unwrap();
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap(), Err(FlowError::Departed(nobody.id)));
    asks.close();
    assert_eq!(asked(&asks, other.id()).await, Err(FlowError::Closed));
    for messenger in [one, other, plain] {
        messenger.close().await;
    }
}

#[tokio::test]
async fn without_views_a_node_that_becomes_another_is_known_by_that_and_gets_its_answers() {
    let mut nodes = Vec::new();
    let mut list = Vec::new();
    let mut messengers = Vec::new();
    for _ in 0..2 {
        let messenger = Messenger::builder().bind("127.0.0.1:0").views(Views::None).start().await.unwrap();
        list.push(messenger.member().endpoints[0].to_string());
        messengers.push(messenger);
    }
    for messenger in messengers {
        let source = StaticList::new(list.clone());
        nodes.push((Node::builder().without_views().source(source).start(&messenger).unwrap(), messenger));
    }
    let [(asks, one), (tells, other)] = nodes.try_into().unwrap();
    let answer = |Job(number), _| std::future::ready(Ok(Done(number)));
    let _host = tells.host().on(answer).start().unwrap();
    let was = one.id();
    eventually(|| asks.external_routes().len() == 1).await;
    let me = one.reincarnate().unwrap().id;
    assert_ne!(me, was);
    // Until all know it, the answer goes to whom it was.
    let end = Instant::now() + LONG;
    loop {
        let asking = asks.hub().request(Job(7)).callback::<Done>().deadline(Duration::from_millis(500));
        match timeout(LONG, asking.into_future()).await.unwrap() {
            Ok(done) => break assert_eq!((done, asks.id()), (Done(7), me)),
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
    one.close().await;
    other.close().await;
}
