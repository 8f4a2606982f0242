//! Three nodes; a price goes to every actor that wants it, once each: `cargo run --example broadcast`, with `-- --rendezvous LIST` over
//! rendezvous servers instead of by the nodes' addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use karere::router::Host;
use karere::{Kind, Message, Messenger};
use serde::{Deserialize, Serialize};

#[path = "shared/network.rs"]
mod network;

#[derive(Serialize, Deserialize)]
struct PriceChanged {
    cents: u64,
}
impl Message for PriceChanged {
    const KIND: Kind = Kind::new("prices.changed", 1);
}

const PRICES: u64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut messengers = Vec::new();
    for _ in 0..3 {
        messengers.push(Messenger::builder().bind("127.0.0.1:0").start().await?);
    }
    let addresses = messengers.iter().filter_map(Messenger::local_address);
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    let mut nodes = Vec::new();
    for messenger in &messengers {
        nodes.push(network::node(messenger, addresses.clone()).await?);
    }

    // One actor on the first node, two on the second, one on the third.
    let heard: Arc<[AtomicU64; 4]> = Arc::default();
    let mut hosts: Vec<Host> = Vec::new();
    for (actor, node) in [(0, 0), (1, 1), (2, 1), (3, 2)] {
        let heard = Arc::clone(&heard);
        let host = nodes[node].host().on(move |price: PriceChanged, _| {
            heard[actor].fetch_add(price.cents, Ordering::Relaxed);
            async { Ok(()) }
        });
        hosts.push(host.start()?);
    }
    let within = Instant::now() + Duration::from_secs(10);
    let all = |is_so: &dyn Fn() -> bool| -> Result<(), &'static str> {
        (Instant::now() < within || is_so()).then_some(()).ok_or("it takes too long")
    };
    while nodes[0].external_routes().len() < 3 {
        all(&|| false)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let hub = nodes[0].hub();
    for cents in 1..=PRICES {
        hub.broadcast(PriceChanged { cents }).await?;
    }
    let expected = PRICES * (PRICES + 1) / 2;
    let complete = || heard.iter().all(|sum| sum.load(Ordering::Relaxed) >= expected);
    while !complete() {
        all(&complete)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for (actor, sum) in heard.iter().enumerate() {
        println!("actor {actor} heard prices of {} cents in all", sum.load(Ordering::Relaxed));
        assert_eq!(sum.load(Ordering::Relaxed), expected, "each price once");
    }
    for messenger in messengers {
        messenger.close().await;
    }
    Ok(())
}
