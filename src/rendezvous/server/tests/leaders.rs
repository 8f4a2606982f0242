//! Leaders that go, and come back.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::node::{Node, route};
use crate::rendezvous::words::{Ask, ToNode, ToServer, Told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_speaks_and_the_others_send_nodes_there() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let mut node = Node::start().await;
    for at in (0..3).filter(|at| *at != leader) {
        node.go_to(&cluster.addresses[at]).await;
        node.hello();
        let word = node.next().await;
        let ToNode::NotLeader { leader: Some(to), .. } = word else { panic!("{word:?}") };
        assert_eq!(to, cluster.addresses[leader]);
    }
    node.join(&cluster.addresses[leader]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_closed_nodes_are_welcomed_by_the_next_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let (mut first, mut second) = (Node::start().await, Node::start().await);
    let leader = cluster.leader().await;
    first.join(&cluster.addresses[leader]).await;
    second.join(&cluster.addresses[leader]).await;
    first.say(&ToServer::Routes { from: 0, to: 1, add: vec![route("first.takes")], remove: vec![] });
    let registered = |_: &Node, word: &ToNode| match word {
        ToNode::Registered { changes, refused: None, .. } => Some(*changes),
        _ => None,
    };
    assert_eq!(first.until(registered).await, 1);
    let (view, term, cluster_id) = (first.view(), first.known.term, first.cluster());
    let joined = first.member.joined;

    let closed = Instant::now();
    cluster.close(leader).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    println!("next leader after {:?}", closed.elapsed());
    for node in [&mut first, &mut second] {
        node.join(&cluster.addresses[next]).await;
        assert!(node.known.term > term, "a leader has a term of its own");
        assert_eq!(node.cluster(), cluster_id);
    }
    assert_eq!(first.member.joined, joined, "it kept its place");
    assert_eq!(first.view(), view, "nobody came or went");
    second.until_copy(|node| node.routes.values().flatten().count() == 1).await;
    // And it goes on.
    second.say(&ToServer::Routes { from: 0, to: 1, add: vec![route("second.takes")], remove: vec![] });
    first.until_copy(|node| node.routes.values().flatten().count() == 2).await;

    // The old one comes back with its disk, and follows.
    cluster.start(leader).await;
    assert_eq!(cluster.leader().await, next);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_down_comes_back_with_all_it_knew() {
    let mut cluster = Cluster::of(3).await;
    let mut node = Node::start().await;
    let leader = cluster.leader().await;
    node.join(&cluster.addresses[leader]).await;
    node.say(&ToServer::Routes { from: 0, to: 1, add: vec![route("node.takes")], remove: vec![] });
    node.until_copy(|node| node.routes.values().flatten().count() == 1).await;
    let (view, joined, term) = (node.view(), node.member.joined, node.known.term);
    for at in 0..3 {
        cluster.close(at).await;
    }
    for at in 0..3 {
        cluster.start(at).await;
    }
    let leader = cluster.leader().await;
    // One that comes meanwhile, and one that was there.
    let mut newcomer = Node::start().await;
    newcomer.join(&cluster.addresses[leader]).await;
    node.join(&cluster.addresses[leader]).await;
    // The same server may lead on in the term that its disk knows; never an earlier one.
    assert!(node.known.term >= term);
    assert_eq!(node.member.joined, joined);
    node.until_copy(|node| node.members.len() == 2).await;
    assert!(node.view() > view);
    assert_eq!(newcomer.routes[&node.id()].len(), 1, "what was registered is known");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_falls_silent_says_so_and_changes_nothing() {
    let mut cluster = Cluster::of(3).await;
    let mut node = Node::start().await;
    let leader = cluster.leader().await;
    node.join(&cluster.addresses[leader]).await;
    let address = cluster.addresses[leader].clone();
    // The servers but the leader are gone: its lease ends, and it says nothing more.
    for at in (0..3).filter(|at| *at != leader) {
        cluster.close(at).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let stands = cluster.servers[leader].as_ref().unwrap().standing().borrow().clone();
    assert!(!stands.leads(), "{stands}");
    while node.pings.try_recv().is_ok() {}
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(node.pings.try_recv().is_err(), "no majority, no ping");
    node.hello();
    let no = |_: &Node, word: &ToNode| {
        matches!(word, ToNode::Later { .. } | ToNode::NotLeader { .. }).then_some(())
    };
    node.until(no).await;
    // A tool is still told what it knows, and that nothing can be changed.
    let contact = node.messenger.contact(&address).await.unwrap();
    let ask = |ask: Ask| {
        let (messenger, id) = (node.messenger.clone(), contact.id());
        async move { messenger.request(&ask, id, Duration::from_secs(5)).await.unwrap() }
    };
    let Told::Members { members, .. } = ask(Ask::Members).await else { panic!() };
    assert_eq!(members.len(), 1);
    let Told::Servers(servers) = ask(Ask::Servers).await else { panic!() };
    assert_eq!(servers.leader, None, "nobody is said to lead who may not speak");
    assert!(!servers.standing.contains("leads"), "{}", servers.standing);
    let told = ask(Ask::Evict { member: node.id() }).await;
    assert!(matches!(told, Told::Failed(_) | Told::NotLeader { .. }), "{told:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_while_nobody_led_is_told_as_soon_as_there_is_a_leader() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let (mut first, mut second) = (Node::start().await, Node::start().await);
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    first.go_to(&cluster.addresses[others[0]]).await;
    second.go_to(&cluster.addresses[others[1]]).await;
    cluster.close(leader).await;
    let gone = cluster.addresses[leader].clone();
    for node in [&first, &second] {
        node.hello();
    }
    // One of the two is asked by nobody again, and calls its node; the other one sends its node there.
    let mut called = 0;
    for node in [&mut first, &mut second] {
        let next = |_: &Node, word: &ToNode| match word {
            ToNode::NotLeader { leader: Some(to), .. } if *to != gone => Some(Some(to.clone())),
            ToNode::Later { .. } => Some(None),
            _ => None,
        };
        match node.until(next).await {
            Some(to) => assert!(others.iter().any(|at| cluster.addresses[*at] == to)),
            None => called += 1,
        }
    }
    assert_eq!(called, 1);
    cluster.end().await;
}
