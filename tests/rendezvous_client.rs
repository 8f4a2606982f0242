//! Nodes that have nothing but the addresses of the rendezvous, over sockets, against the real servers.

#![cfg(feature = "rendezvous")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod quick;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{eventually, ms, secs, within};
use karere::Messenger;
use karere::rendezvous::{
    JoinError, Joined, LeaseError, OnFrozen, Rendezvous, Server, ServerStanding, Standing,
};
use karere::router::Node;
use quick::{Answer, Hello, LONG, addresses, leader, quick, serve, times};

async fn server_at(bind: &str, peers: &[String]) -> Server {
    let builder = Server::builder().in_memory().bind(bind).times(times()).timeouts(quick());
    builder.network("development", "orders").peers(peers).start().await.unwrap()
}

async fn alone() -> Server {
    let server = server_at("127.0.0.1:0", &[]).await;
    within(LONG, server.leads()).await;
    server
}

/// Three servers, the leader first.
async fn three() -> Vec<Server> {
    let addresses = addresses(&["127.0.0.1"; 3]);
    let mut servers = Vec::new();
    for address in &addresses {
        servers.push(server_at(address, &addresses).await);
    }
    let at = leader(&servers).await;
    servers.swap(0, at);
    servers
}

fn list(servers: &[Server]) -> Vec<String> {
    servers.iter().map(|server| server.address().to_string()).collect()
}

async fn join(servers: &[Server]) -> Joined {
    let builder = Node::joining(list(servers)).silence(ms(600)).frozen_after(ms(600));
    within(LONG, builder.messenger(Messenger::builder().timeouts(quick())).start()).await.unwrap()
}

fn routes(node: &Joined) -> usize {
    node.external_routes().len()
}

fn members(node: &Joined) -> usize {
    node.rendezvous().members().len()
}

#[tokio::test]
async fn three_nodes_join_by_one_address_and_their_routes_come_and_go_everywhere() {
    let server = [alone().await];
    let nodes = [join(&server).await, join(&server).await, join(&server).await];
    eventually(LONG, || nodes.iter().all(|node| members(node) == 3)).await;
    let views: Vec<_> = nodes.iter().map(|node| node.rendezvous().view().unwrap().id()).collect();
    assert!(views.iter().all(|view| *view == views[0]), "{views:?}");

    let (host, second) = (serve(&nodes[0]), serve(&nodes[1]));
    within(LONG, nodes[0].registered()).await.unwrap();
    within(LONG, nodes[1].registered()).await.unwrap();
    eventually(LONG, || routes(&nodes[2]) == 2).await;
    let asked = nodes[2].hub().request(Hello(7)).callback::<Answer>().deadline(secs(10)).await;
    assert_eq!(asked.unwrap(), Answer(7));
    host.stop();
    eventually(LONG, || routes(&nodes[2]) == 1 && routes(&nodes[1]) == 0).await;
    second.stop();
    eventually(LONG, || routes(&nodes[2]) == 0).await;
    // Whoever comes later gets them as well.
    let _again = serve(&nodes[0]);
    within(LONG, nodes[0].registered()).await.unwrap();
    let late = join(&server).await;
    eventually(LONG, || routes(&late) == 1).await;
}

// BEHAVIOURS 42.
#[tokio::test]
async fn a_graceful_stop_is_withdrawn_everywhere_at_once_and_a_crash_after_the_failure_timeout() {
    let server = [alone().await];
    let nodes = [join(&server).await, join(&server).await, join(&server).await];
    let _hosts = [serve(&nodes[0]), serve(&nodes[1])];
    eventually(LONG, || members(&nodes[2]) == 3 && routes(&nodes[2]) == 2).await;

    let [leaves, crashes, stays] = nodes;
    let begin = Instant::now();
    within(LONG, leaves.leave(secs(10))).await;
    eventually(LONG, || members(&stays) == 2 && members(&crashes) == 2 && routes(&stays) == 1).await;
    let took = begin.elapsed();
    assert!(took < ms(1_400), "at once, not by the failure timeout: {took:?}");
    assert_eq!(*leaves.rendezvous().standing().borrow(), Standing::Left);

    let begin = Instant::now();
    crashes.messenger().close().await;
    eventually(LONG, || members(&stays) == 1 && routes(&stays) == 0).await;
    let took = begin.elapsed();
    assert!(took > ms(1_000), "not before it was missed: {took:?}");
}

// BEHAVIOURS 41, over sockets; as decided in src/rendezvous/client/core/tests/claims.rs.
#[tokio::test]
async fn nodes_find_the_leader_by_any_server_and_the_next_one_when_it_is_gone() {
    let mut servers = three().await;
    // By one that does not lead: it says where the leader is.
    let follower = std::slice::from_ref(&servers[2]);
    let builder = Node::joining(list(follower)).messenger(Messenger::builder().timeouts(quick()));
    let by_follower = within(LONG, builder.start()).await.unwrap();
    let nodes = [join(&servers).await, join(&servers).await];
    let _host = serve(&nodes[0]);
    within(LONG, nodes[0].registered()).await.unwrap();
    let ids: Vec<_> = nodes.iter().map(|node| node.id()).collect();
    eventually(LONG, || members(&nodes[0]) == 3).await;

    servers.remove(0).close().await;
    leader(&servers).await;
    let _more = serve(&nodes[1]);
    within(LONG, nodes[1].registered()).await.unwrap();
    eventually(LONG, || routes(&by_follower) == 2).await;
    assert_eq!(nodes.iter().map(|node| node.id()).collect::<Vec<_>>(), ids, "no healthy member was dropped");
    let late = join(&servers).await;
    eventually(LONG, || members(&nodes[0]) == 4 && routes(&late) == 2).await;
}

#[tokio::test]
async fn without_any_server_nodes_go_on_and_say_that_they_are_frozen() {
    let server = alone().await;
    let servers = [server];
    let (one, two) = (join(&servers).await, join(&servers).await);
    let _host = serve(&one);
    eventually(LONG, || routes(&two) == 1).await;
    let [server] = servers;
    server.close().await;
    let frozen = |node: &Joined| matches!(*node.rendezvous().standing().borrow(), Standing::Frozen { .. });
    eventually(LONG, || frozen(&one) && frozen(&two)).await;
    for number in 0..20 {
        let asked = two.hub().request(Hello(number)).callback::<Answer>().deadline(secs(10)).await;
        assert_eq!(asked.unwrap(), Answer(number));
    }
    assert_eq!(members(&two), 2, "the view is what it was");
    // It ends within its time all the same.
    let begin = Instant::now();
    within(LONG, two.leave(secs(2))).await;
    assert!(begin.elapsed() < secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_node_that_is_to_stop_when_frozen_does() {
    let server = alone().await;
    let builder = Node::joining(server.address().to_string()).silence(ms(300)).frozen_after(ms(300));
    let node = within(LONG, builder.on_frozen(OnFrozen::Stop(ms(800))).start()).await.unwrap();
    server.close().await;
    let mut standing = node.rendezvous().standing();
    within(LONG, standing.wait_for(|standing| *standing == Standing::Left)).await.unwrap();
    let closed = || node.messenger().send(&Hello(1), [node.id()]).is_err();
    eventually(LONG, closed).await;
}

#[tokio::test]
async fn a_lease_has_one_holder_and_goes_on_to_the_next_with_a_higher_token() {
    let server = [alone().await];
    let (one, two) = (join(&server).await, join(&server).await);
    let lease = within(LONG, one.rendezvous().acquire("leader")).await.unwrap();
    assert!(!lease.is_lost());
    let held = within(LONG, two.rendezvous().try_acquire("leader")).await.unwrap_err();
    assert_eq!(held, LeaseError::Held(one.id()));
    let waiting = two.rendezvous().clone();
    let next = tokio::spawn(async move { waiting.acquire("leader").await });
    // A want that is dropped is none.
    let dropped = tokio::time::timeout(ms(50), one.rendezvous().acquire("leader")).await;
    assert!(dropped.is_err());
    let token = lease.token();
    drop(lease);
    let next = within(LONG, next).await.unwrap().unwrap();
    assert!(next.token() > token);
    // Its holder crashes: the lease ends with its membership.
    let third = one.rendezvous().clone();
    let third = tokio::spawn(async move { third.acquire("leader").await });
    two.messenger().close().await;
    within(LONG, next.lost()).await;
    let third = within(LONG, third).await.unwrap().unwrap();
    assert!(third.token() > next.token());
}

#[tokio::test]
async fn what_is_wrong_with_joining_is_said() {
    let bad = Node::join("rdv1:7500,rdv2:port").await.unwrap_err();
    assert!(bad.to_string().contains("rdv2:port"), "{bad}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begin = Instant::now();
    let error = Node::joining(nobody.to_string()).give_up(ms(700)).start().await.unwrap_err();
    assert!(
        matches!(&error, JoinError::NoServer { address, .. } if *address == nobody.to_string()),
        "{error}"
    );
    assert!(begin.elapsed() < secs(5));

    let server = alone().await;
    let address = server.address().to_string();
    let wrong = Node::joining(address.as_str()).environment("production").start().await.unwrap_err();
    assert!(
        matches!(&wrong, JoinError::Refused(why) if why.contains("production") && why.contains("development")),
        "{wrong}"
    );
    let wrong = Node::joining(address.as_str()).network("stock").start().await.unwrap_err();
    assert!(
        matches!(&wrong, JoinError::Refused(why) if why.contains("stock") && why.contains("orders")),
        "{wrong}"
    );
    let frozen = |silence, after| {
        let built = Rendezvous::builder(address.as_str()).silence(silence).frozen_after(after).build();
        built.unwrap_err().to_string()
    };
    assert!(frozen(secs(2), secs(1)).contains("must not be below silence"));
    assert!(frozen(secs(2), Duration::MAX).contains("at most a year"));
    let stop = Rendezvous::builder(address.as_str()).on_frozen(OnFrozen::Stop(Duration::MAX)).build();
    assert!(stop.unwrap_err().to_string().contains("on_frozen"));
    let silence = Rendezvous::builder(address).on_frozen(OnFrozen::Stop(ms(20))).build().unwrap_err();
    assert!(silence.to_string().contains("frozen_after"), "{silence}");
}

#[tokio::test]
async fn a_node_advertises_the_address_by_which_it_reaches_the_server_and_the_port_that_was_bound() {
    let server = [alone().await];
    let node = join(&server).await;
    let bound = node.messenger().local_address().unwrap();
    assert!(bound.ip().is_unspecified(), "every address is listened to");
    let endpoints: Vec<String> =
        node.messenger().member().endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, [format!("127.0.0.1:{}", bound.port())]);
    let flags = Node::joining(list(&server)).bind("127.0.0.1:0").advertise("node.example:0").start();
    let flags = within(LONG, flags).await.unwrap();
    let port = flags.messenger().local_address().unwrap().port();
    assert_eq!(flags.messenger().member().endpoints[0].to_string(), format!("node.example:{port}"));
}

#[tokio::test]
async fn only_a_server_lets_in_who_does_not_know_the_network_s_name() {
    let server = [alone().await];
    let node = join(&server).await;
    let stranger = Messenger::builder().any_network("development").start().await.unwrap();
    assert!(stranger.contact_once(server[0].address().to_string()).await.is_ok());
    let port = node.messenger().local_address().unwrap().port();
    let refused = stranger.contact_once(format!("127.0.0.1:{port}")).await.unwrap_err().to_string();
    assert!(refused.contains("`orders`") && refused.contains("only servers"), "{refused}");
}

#[tokio::test]
async fn who_brings_messenger_and_rendezvous_joins_with_them() {
    let server = alone().await;
    let rendezvous = Rendezvous::builder([server.address().to_string()]).build().unwrap();
    let messenger =
        Messenger::builder().bind("127.0.0.1:0").network("development", "orders").start().await.unwrap();
    let node = within(LONG, Node::builder().join(&messenger, &rendezvous)).await.unwrap();
    assert_eq!(node.id(), messenger.id());
    // Membership without a router.
    let bare = Rendezvous::builder(server.address().to_string()).build().unwrap();
    let other =
        Messenger::builder().bind("127.0.0.1:0").network("development", "orders").start().await.unwrap();
    bare.start(&other).unwrap();
    assert_eq!(within(LONG, bare.joined()).await.unwrap().id, other.id());
    eventually(LONG, || messenger.view().is_some_and(|view| view.contains(other.id()))).await;
    assert!(bare.start(&other).is_err(), "once a messenger");
    within(LONG, bare.leave(secs(5))).await;
    eventually(LONG, || messenger.view().is_some_and(|view| !view.contains(other.id()))).await;
}

#[tokio::test]
async fn the_last_handle_ends_it_and_nothing_keeps_the_messenger() {
    let server = [alone().await];
    let (stays, goes) = (join(&server).await, join(&server).await);
    eventually(LONG, || members(&stays) == 2).await;
    let (port, task) = (goes.messenger().local_address().unwrap().port(), goes.rendezvous().standing());
    drop(goes);
    eventually(LONG, || members(&stays) == 1).await;
    assert!(TcpListener::bind(("0.0.0.0", port)).is_ok(), "its port is free");
    drop(task);
    assert!(matches!(&*server[0].standing().borrow(), ServerStanding::Leads { .. }));
}
