//! One server: who comes, who goes, what they handle.

use std::time::Duration;

use tokio::time::timeout;

use super::node::{Node, route};
use super::{LONG, alone};
use crate::rendezvous::server::Server;
use crate::rendezvous::state::Why;
use crate::rendezvous::words::{Ask, Report, ToNode, ToServer, Told};

#[tokio::test]
async fn a_server_without_peers_leads_and_lets_nodes_in_who_hear_of_each_other() {
    let server = alone().await;
    let address = server.address().to_string();
    let (mut first, mut second) = (Node::start().await, Node::start().await);
    first.join(&address).await;
    second.join(&address).await;
    assert_eq!(second.members.len(), 2);
    first.until_copy(|node| node.members.len() == 2).await;
    assert_eq!(first.view(), second.view());
    assert_eq!(first.members, second.members);
    assert!(first.members.values().all(|member| member.joined.is_some()));
    server.close().await;
}

#[tokio::test]
async fn who_leaves_is_gone_for_the_others_at_once_and_who_is_killed_after_the_eviction_time() {
    let server = alone().await;
    let address = server.address().to_string();
    let (mut one, mut two, mut three) = (Node::start().await, Node::start().await, Node::start().await);
    for node in [&mut one, &mut two, &mut three] {
        node.join(&address).await;
    }
    one.until_copy(|node| node.members.len() == 3).await;
    let before = std::time::Instant::now();
    two.say(&ToServer::Leave);
    let farewell = |_: &Node, word: &ToNode| matches!(word, ToNode::Farewell { .. }).then_some(());
    two.until(farewell).await;
    one.until_copy(|node| node.members.len() == 2).await;
    let graceful = before.elapsed();
    assert!(graceful < super::short().eviction / 2, "{graceful:?}");
    assert_eq!(one.left.last(), Some(&(two.id(), Why::Left)));

    // Killed: nothing is said any more, and the other one says so.
    let before = std::time::Instant::now();
    let gone = three.id();
    three.messenger.close().await;
    one.say(&ToServer::Report { of: gone, what: Report::Lost });
    while one.members.contains_key(&gone) {
        if let ToNode::Probe { member, .. } = one.next().await {
            one.say(&ToServer::Probed { member, answered: false });
        }
    }
    let killed = before.elapsed();
    assert!(killed >= super::short().eviction - super::short().ping * 2, "{killed:?}");
    assert_eq!(one.left.last(), Some(&(gone, Why::Silent)));
    server.close().await;
}

#[tokio::test]
async fn a_slow_node_holds_up_nobody_and_is_told_all_of_it_in_the_end() {
    let server = alone().await;
    let address = server.address().to_string();
    let (mut quick, mut slow) = (Node::start().await, Node::start().await);
    quick.join(&address).await;
    slow.join(&address).await;
    quick.until_copy(|node| node.members.len() == 2).await;
    // The slow one takes nothing in meanwhile: its handler's channel, its credit and its queue fill up.
    const CHANGES: u64 = 1_500;
    let partition = vec![0_u8; 200];
    for n in 0..CHANGES {
        let mut one = route("quick.takes");
        one.key = one.key.in_partition([n.to_be_bytes().as_slice(), &partition].concat());
        let add = (0..20).map(|host| crate::router::Route { host, ..one.clone() }).collect();
        let word = ToServer::Routes { from: n, to: n + 1, add, remove: vec![one] };
        let to = quick.server();
        let report = quick.messenger.send_wait(&word, [to], LONG).await.unwrap();
        assert!(report.is_complete());
    }
    let id = quick.id();
    timeout(LONG * 3, quick.until_copy(|node| node.routes[&id].len() as u64 == CHANGES * 20)).await.unwrap();
    timeout(LONG * 3, slow.until_copy(|node| node.routes[&id].len() as u64 == CHANGES * 20)).await.unwrap();
    server.close().await;
}

#[tokio::test]
async fn tools_are_told_what_there_is_and_an_operator_takes_a_member_out() {
    let server = alone().await;
    let address = server.address().to_string();
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    one.join(&address).await;
    two.join(&address).await;
    one.say(&ToServer::Routes { from: 0, to: 1, add: vec![route("one.takes")], remove: vec![] });
    two.until_copy(|node| node.routes.values().flatten().count() == 1).await;
    let contact = two.messenger.contact(&address).await.unwrap();
    let ask = |ask: Ask| {
        let (messenger, id) = (two.messenger.clone(), contact.id());
        async move { messenger.request(&ask, id, LONG).await.unwrap() }
    };
    let told = ask(Ask::Network).await;
    assert_eq!(told, Told::Network { environment: "development".into(), network: "default".into() });
    let Told::Members { members, term, view, .. } = ask(Ask::Members).await else { panic!() };
    assert_eq!(
        (members.len(), view, term),
        (2, two.view(), crate::rendezvous::words::term_in(two.known.term))
    );
    let Told::Routes { routes, next: None, .. } = ask(Ask::Routes { after: None }).await else { panic!() };
    assert_eq!(routes.iter().map(|(_, routes)| routes.len()).sum::<usize>(), 1);
    let Told::Servers(servers) = ask(Ask::Servers).await else { panic!() };
    assert_eq!(servers.leader, Some(servers.this));
    assert_eq!(servers.servers[0].address, address);
    assert!(servers.standing.contains("leads"));
    // In pieces.
    let mut snapshot = Vec::new();
    loop {
        let told = ask(Ask::Snapshot { offset: snapshot.len() as u64 }).await;
        let Told::Snapshot { total, piece } = told else { panic!("{told:?}") };
        snapshot.extend_from_slice(&piece);
        if snapshot.len() as u64 == total {
            break;
        }
        assert!(!piece.is_empty());
    }
    assert!(!snapshot.is_empty());
    assert_eq!(ask(Ask::Evict { member: one.id() }).await, Told::Done);
    let evicted = |_: &Node, word: &ToNode| match word {
        ToNode::Evicted { why, .. } => Some(*why),
        _ => None,
    };
    assert_eq!(one.until(evicted).await, Some(Why::Removed));
    two.until_copy(|node| node.members.len() == 1).await;
    server.close().await;
}

#[tokio::test]
async fn a_server_and_a_node_live_in_one_process_and_both_end() {
    let server = alone().await;
    let mut node = Node::start().await;
    node.join(&server.address().to_string()).await;
    let ping = timeout(LONG, node.pings.recv()).await.unwrap().unwrap();
    assert_eq!(ping.term, node.known.term);
    let standing = server.standing();
    timeout(LONG, server.close()).await.unwrap();
    drop(standing);
    timeout(LONG, node.messenger.close()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_messenger_and_frees_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let builder = Server::builder().data(directory.path()).bind("127.0.0.1:0").times(super::short());
        builder.timeouts(super::timeouts()).start()
    };
    let server = start().await.unwrap();
    let address = server.local_address().unwrap();
    timeout(LONG, server.leads()).await.unwrap();
    drop(server);
    let again = timeout(LONG, async {
        loop {
            match start().await {
                Ok(server) => break server,
                Err(why) => {
                    assert!(why.to_string().contains("in use"), "{why}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    });
    let again = again.await.expect("the data directory is free");
    let free = timeout(LONG, async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    free.await.expect("nobody listens any more");
    timeout(LONG, again.leads()).await.unwrap();
    again.close().await;
}

#[tokio::test]
async fn a_member_that_lives_and_is_evicted_is_told_so_and_comes_again_as_another() {
    let server = alone().await;
    let address = server.address().to_string();
    let (mut witness, mut mute) = (Node::start().await, Node::start().await);
    witness.join(&address).await;
    mute.join(&address).await;
    let before = mute.id();
    mute.answers(false);
    let judging = async {
        while witness.left.is_empty() {
            if let ToNode::Probe { member, .. } = witness.next().await {
                witness.say(&ToServer::Probed { member, answered: false });
            }
        }
    };
    let evicted = |_: &Node, word: &ToNode| match word {
        ToNode::Evicted { why, .. } => Some(*why),
        _ => None,
    };
    let ((), why) = tokio::join!(judging, mute.until(evicted));
    assert_eq!(why, Some(Why::Silent));
    mute.answers(true);
    mute.reincarnate();
    assert_ne!(mute.id(), before);
    mute.join(&address).await;
    witness.until_copy(|node| node.members.len() == 2).await;
    assert!(!witness.members.contains_key(&before));
    server.close().await;
}
