//! The rendezvous server as its users see it, over real sockets. What nodes and servers say to each other is tested beside the server
//! (`src/rendezvous/server/tests`), with nodes whose every word is scripted.
#![cfg(feature = "rendezvous")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::TcpListener;
use std::time::Duration;

use karere::Timeouts;
use karere::rendezvous::{Server, ServerBuilder, ServerError, ServerStanding, ServerTimes};
use tokio::time::timeout;

/// Nothing that is waited for takes so long.
const LONG: Duration = Duration::from_secs(30);

fn times() -> ServerTimes {
    let millis = Duration::from_millis;
    ServerTimes {
        ping: millis(100),
        eviction: millis(1_500),
        probe: millis(200),
        settle: millis(100),
        ..ServerTimes::default()
    }
}

fn builder() -> ServerBuilder {
    let timeouts = Timeouts {
        ping: Duration::from_millis(300),
        liveness: Duration::from_secs(1),
        ..Timeouts::default()
    };
    Server::builder().bind("127.0.0.1:0").times(times()).timeouts(timeouts)
}

/// Addresses that were free a moment ago.
fn addresses(count: usize) -> Vec<String> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|one| one.local_addr().unwrap().to_string()).collect()
}

async fn leading(servers: &[Server]) -> usize {
    timeout(LONG, async {
        loop {
            let leads = |server: &Server| server.standing().borrow().leads();
            if let Some(at) = servers.iter().position(leads) {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("one of them leads")
}

#[tokio::test]
async fn a_single_server_leads_without_any_configuration_of_a_cluster() {
    let server = builder().in_memory().start().await.unwrap();
    timeout(LONG, server.leads()).await.unwrap();
    assert_eq!(server.address().address(), server.local_address());
    timeout(LONG, server.close()).await.unwrap();
}

#[tokio::test]
async fn two_in_one_process_are_two_networks() {
    let one = builder().in_memory().network("production", "orders").start().await.unwrap();
    let two = builder().in_memory().network("production", "parts").start().await.unwrap();
    timeout(LONG, one.leads()).await.unwrap();
    timeout(LONG, two.leads()).await.unwrap();
    assert_ne!(one.address(), two.address());
    one.close().await;
    two.leave(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_one_leads_and_when_it_is_closed_another_does() {
    let addresses = addresses(3);
    let mut servers = Vec::new();
    for address in &addresses {
        servers.push(builder().in_memory().bind(address).peers(&addresses).start().await.unwrap());
    }
    let leader = leading(&servers).await;
    let first = servers.remove(leader);
    let address = first.address().to_string();
    for server in &servers {
        let mut standing = server.standing();
        let follows = |now: &ServerStanding| matches!(now, ServerStanding::Follows { leader: Some(of), .. } if *of == address);
        timeout(LONG, standing.wait_for(follows)).await.unwrap().unwrap();
    }
    first.close().await;
    leading(&servers).await;
    for server in servers {
        server.close().await;
    }
}

#[tokio::test]
async fn a_server_of_a_cluster_that_is_not_there_says_whom_it_waits_for() {
    let addresses = addresses(3);
    let server = builder().in_memory().bind(&addresses[0]).peers(&addresses).start().await.unwrap();
    let text = server.standing().borrow().to_string();
    assert!(text.contains(&addresses[1]) && text.contains(&addresses[2]), "{text}");
    server.close().await;
}

#[tokio::test]
async fn an_address_in_use_is_refused_with_the_address() {
    let server = builder().in_memory().start().await.unwrap();
    let address = server.address().to_string();
    let why = builder().in_memory().bind(&address).start().await.map(drop).unwrap_err();
    assert!(matches!(why, ServerError::Start(_)) && why.to_string().contains(&address), "{why}");
    server.close().await;
}
