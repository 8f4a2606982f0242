//! A rendezvous with quick times, and what its nodes say to each other.

use std::net::TcpListener;
use std::time::Duration;

use karere::rendezvous::{Joined, Server, ServerTimes};
use karere::router::Host;
use karere::{Kind, Message, Timeouts};
use serde::{Deserialize, Serialize};

use crate::common::{eventually, ms};

pub(crate) const LONG: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello(pub(crate) u64);
impl Message for Hello {
    const KIND: Kind = Kind::new("test.hello", 1);
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) u64);
impl Message for Answer {
    const KIND: Kind = Kind::new("test.answer", 1);
}

pub(crate) fn times() -> ServerTimes {
    let (ping, eviction, probe, settle) = (ms(100), ms(1_500), ms(200), ms(100));
    ServerTimes { ping, eviction, probe, settle, ..ServerTimes::default() }
}

pub(crate) fn quick() -> Timeouts {
    let second = ms(1_000);
    Timeouts { ping: ms(300), liveness: second, unreachable: second, connect: second, ..Timeouts::default() }
}

/// Addresses at these hosts that were free a moment ago.
pub(crate) fn addresses(hosts: &[&str]) -> Vec<String> {
    let held: Vec<TcpListener> =
        hosts.iter().map(|host| TcpListener::bind(format!("{host}:0")).unwrap()).collect();
    held.iter().map(|held| held.local_addr().unwrap().to_string()).collect()
}

/// Which of them leads, as soon as one does.
pub(crate) async fn leader(servers: &[Server]) -> usize {
    let found = || servers.iter().position(|server| server.standing().borrow().leads());
    eventually(LONG, || found().is_some()).await;
    found().unwrap()
}

/// A host that answers [`Hello`].
pub(crate) fn serve(node: &Joined) -> Host {
    node.host().on(|Hello(number), _| async move { Ok(Answer(number)) }).start().unwrap()
}
