//! Two nodes, two actors, and a message that goes to and fro until somebody has had enough: `cargo run --example ping_pong`, with
//! `-- --rendezvous LIST` over rendezvous servers instead of by the nodes' addresses.

use std::time::{Duration, Instant};

use karere::router::Node;
use karere::{Kind, Message, Messenger};
use serde::{Deserialize, Serialize};

#[path = "shared/network.rs"]
mod network;

#[derive(Serialize, Deserialize)]
struct Ping(u32);
impl Message for Ping {
    const KIND: Kind = Kind::new("table.ping", 1).open();
}
#[derive(Serialize, Deserialize)]
struct Pong(u32);
impl Message for Pong {
    const KIND: Kind = Kind::new("table.pong", 1).open();
}
#[derive(Serialize, Deserialize)]
struct Enough(u32);
impl Message for Enough {
    const KIND: Kind = Kind::new("table.enough", 1).open();
}

/// A node that knows another by its address.
async fn node(
    messenger: &Messenger,
    other: &Messenger,
) -> Result<Node, Box<dyn std::error::Error + Send + Sync>> {
    let address = other.local_address().ok_or("not bound")?.to_string();
    network::node(messenger, [address]).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (here, there) = (
        Messenger::builder().bind("127.0.0.1:0").start().await?,
        Messenger::builder().bind("127.0.0.1:0").start().await?,
    );
    let (one, two) = (node(&here, &there).await?, node(&there, &here).await?);

    // An actor on the first node, and one on the second. Neither knows where the other is.
    let _ping = one.host().on(|Ping(n), _| async move { Ok(Pong(n + 1)) }).start()?;
    let _pong = two
        .host()
        .on(|Pong(n), context| async move {
            // What is sent next decides where the flow goes: home, or on.
            let replies = karere::router::Replies::new();
            Ok(if context.hops() < 20 { replies.and(Ping(n)) } else { replies.and(Enough(n)) })
        })
        .start()?;

    let from = Instant::now();
    let asked = one.hub().request(Ping(0)).callback::<Enough>().deadline(Duration::from_secs(10)).await?;
    println!("{} times over the net and back, in {:?}", asked.0, from.elapsed());
    assert!(asked.0 >= 10, "twenty hops are ten rounds");
    here.leave(Duration::from_secs(5)).await;
    there.close().await;
    Ok(())
}
