//! A whole network under mutual TLS, over IPv4 and IPv6: servers, nodes, a leader that dies, and who may change what.

#![cfg(all(feature = "rendezvous", feature = "tls"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod authority;
mod common;
mod quick;

use std::net::{SocketAddr, TcpListener};

use authority::Authority;
use common::{eventually, ms, secs, within};
use karere::rendezvous::{Admin, AdminError, Joined, Server, ServerBuilder, ServerError};
use karere::router::Node;
use karere::{Messenger, Tls};
use quick::{Answer, Hello, LONG, addresses, leader, quick, serve, times};

/// A certificate for a name, and for all addresses of this machine that tests use.
fn shows(authority: &Authority, name: &str) -> Tls {
    authority.issue(&[name, "127.0.0.1", "::1"]).tls(&[authority])
}

fn server(authority: Option<&Authority>, name: &str, bind: &str) -> ServerBuilder {
    let builder = Server::builder().in_memory().bind(bind).name(name).times(times()).timeouts(quick());
    match authority {
        Some(authority) => builder.tls(shows(authority, name)),
        None => builder,
    }
}

async fn node(authority: Option<&Authority>, name: &str, servers: &[String]) -> Joined {
    let messenger = Messenger::builder().name(name).timeouts(quick());
    let messenger = match authority {
        Some(authority) => messenger.tls(shows(authority, name)),
        None => messenger,
    };
    let builder = Node::joining(servers.to_vec()).silence(ms(600)).frozen_after(ms(600));
    within(LONG, builder.messenger(messenger).start()).await.unwrap()
}

/// Whether this machine has IPv6; says so if not.
fn has_v6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: [::1] cannot be bound on this machine");
    }
    has
}

/// Three servers at these hosts; two nodes join, know each other's routes and speak; the leader goes, and nobody but new routes notices.
async fn lives_through_its_leader(authority: Option<&Authority>, hosts: [&str; 3]) {
    let addresses = addresses(&hosts);
    let mut servers = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let builder = server(authority, &format!("rdv{at}"), address).peers(&addresses);
        servers.push(builder.start().await.unwrap());
    }
    leader(&servers).await;
    let nodes = [node(authority, "one", &addresses).await, node(authority, "two", &addresses).await];
    let ids = nodes.each_ref().map(|node| node.id());
    let _first = serve(&nodes[0]);
    within(LONG, nodes[0].registered()).await.unwrap();
    eventually(LONG, || nodes[1].external_routes().len() == 1).await;
    let ask = |number| nodes[1].hub().request(Hello(number)).callback::<Answer>().deadline(secs(10));
    assert_eq!(ask(7).await.unwrap(), Answer(7));

    let gone = leader(&servers).await;
    servers.remove(gone).close().await;
    let _second = serve(&nodes[1]);
    within(LONG, nodes[1].registered()).await.unwrap();
    eventually(LONG, || nodes[0].external_routes().len() == 1).await;
    assert_eq!(ask(8).await.unwrap(), Answer(8));
    assert_eq!(nodes.each_ref().map(|node| node.id()), ids, "nobody was evicted");
    for node in nodes {
        within(LONG, node.leave(secs(5))).await;
    }
    for server in servers {
        server.close().await;
    }
}

#[tokio::test]
async fn a_network_under_tls_lives_through_its_leader() {
    lives_through_its_leader(Some(&Authority::new()), ["127.0.0.1"; 3]).await;
}

#[tokio::test]
async fn a_network_over_ipv6_lives_through_its_leader_with_and_without_tls() {
    if has_v6() {
        lives_through_its_leader(None, ["[::1]"; 3]).await;
        lives_through_its_leader(Some(&Authority::new()), ["[::1]"; 3]).await;
    }
}

#[tokio::test]
async fn servers_over_ipv4_and_ipv6_are_one_cluster() {
    if has_v6() {
        lives_through_its_leader(Some(&Authority::new()), ["127.0.0.1", "[::1]", "[::1]"]).await;
    }
}

#[tokio::test]
async fn a_server_of_any_address_alone_is_reached_by_both() {
    if has_v6() {
        let server = server(None, "rdv", "[::]:0").start().await.unwrap();
        let port = server.local_address().unwrap().port();
        let by_v4 = node(None, "four", &[format!("127.0.0.1:{port}")]).await;
        let by_v6 = node(None, "six", &[format!("[::1]:{port}")]).await;
        let known = |node: &Joined| node.rendezvous().members().len() == 2;
        eventually(LONG, || known(&by_v4) && known(&by_v6)).await;
        let at = |node: &Joined| node.messenger().member().endpoints[0].to_string();
        let at = [at(&by_v4), at(&by_v6)].map(|at| at.rsplit_once(':').unwrap().0.to_owned());
        assert_eq!(at, ["127.0.0.1", "[::1]"]);
    }
}

async fn tool(tls: Option<Tls>, name: &str, server: &Server) -> (Messenger, Admin) {
    let builder = Messenger::builder().name(name);
    let messenger = tls.into_iter().fold(builder, karere::Builder::tls).start().await.unwrap();
    let admin = Admin::new(&messenger, server.address().to_string()).unwrap();
    (messenger, admin)
}

#[tokio::test]
async fn only_names_that_may_change_a_cluster_and_the_others_are_told_who_may() {
    let authority = Authority::new();
    let server = server(Some(&authority), "rdv", "127.0.0.1:0").admins(["ops", "ci"]).start().await.unwrap();
    within(LONG, server.leads()).await;
    let member = node(Some(&authority), "member", &[server.address().to_string()]).await;
    let (messenger, guest) = tool(Some(shows(&authority, "guest")), "guest", &server).await;
    assert_eq!(guest.members().await.unwrap().members.len(), 1, "all may look");
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9)).to_string();
    let refusals = [
        guest.evict(member.id()).await.unwrap_err(),
        guest.recover().await.unwrap_err(),
        guest.add_server(nowhere).await.unwrap_err(),
        guest.remove_server("1").await.unwrap_err(),
        guest.snapshot(|_| panic!("nothing is given away")).await.unwrap_err(),
    ];
    for refusal in refusals {
        let text = refusal.to_string();
        assert!(matches!(refusal, AdminError::Denied { .. }), "{text}");
        assert!(
            ["`guest`", "ci, ops", "nothing has changed"].iter().all(|part| text.contains(part)),
            "{text}"
        );
    }
    assert_eq!(guest.members().await.unwrap().members.len(), 1);
    messenger.close().await;
    let (messenger, ops) = tool(Some(shows(&authority, "ops")), "ops", &server).await;
    assert!(ops.snapshot(|_| Ok(())).await.unwrap() > 0);
    ops.evict(member.id()).await.unwrap();
    messenger.close().await;
    // A name that the certificate is not for gets nowhere.
    let liar = Messenger::builder().name("ops").tls(shows(&authority, "guest")).start().await;
    assert!(liar.is_err());
}

#[tokio::test]
async fn names_that_nothing_proves_are_refused_at_the_start_and_without_names_all_may() {
    let error = server(None, "rdv", "127.0.0.1:0").admins(["ops"]).start().await.unwrap_err();
    assert!(matches!(error, ServerError::NothingProves) && error.to_string().contains("TLS"), "{error}");
    let server = server(None, "rdv", "127.0.0.1:0").start().await.unwrap();
    within(LONG, server.leads()).await;
    let (_messenger, anybody) = tool(None, "", &server).await;
    assert!(anybody.snapshot(|_| Ok(())).await.unwrap() > 0);
}
