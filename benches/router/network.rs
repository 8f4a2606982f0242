//! Nodes of one view, in one process.

use std::time::Duration;

use karere::router::Node;
use karere::{Member, Messenger, View, ViewId};

/// So many nodes, each with its messenger.
pub(crate) async fn of(count: usize) -> (Vec<Messenger>, Vec<Node>) {
    let mut messengers = Vec::new();
    for _ in 0..count {
        messengers.push(Messenger::builder().bind("127.0.0.1:0").start().await.unwrap());
    }
    let nodes = messengers.iter().map(|messenger| Node::builder().start(messenger).unwrap()).collect();
    let id = ViewId { generation: 1, number: 1 };
    let members: Vec<_> =
        messengers.iter().map(|messenger| Member { joined: Some(id), ..messenger.member() }).collect();
    for messenger in &messengers {
        let _change = messenger.install_view(View::new(id, members.clone())).unwrap();
    }
    (messengers, nodes)
}

/// Until a node knows so many routes of others.
pub(crate) async fn knows(node: &Node, routes: usize) {
    while node.external_routes().len() < routes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
