//! One server: who comes, who goes, what they handle.

use std::time::Duration;

use tokio::time::timeout;

use super::node::{Node, route};
use super::{LONG, alone};
use crate::rendezvous::state::Why;
use crate::rendezvous::words::{ToNode, ToServer};

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
