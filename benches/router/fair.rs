//! Five redundant actors on five nodes, and messages from a sixth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use karere::{Kind, Message};
use serde::{Deserialize, Serialize};

use crate::network;

#[derive(Serialize, Deserialize)]
struct Job;
impl Message for Job {
    const KIND: Kind = Kind::new("bench.job", 1);
}

const ACTORS: usize = 5;
const SENDERS: u64 = 16;

pub(crate) async fn run(quick: bool) {
    let messages: u64 = if quick { 100_000 } else { 1_000_000 };
    let (_messengers, nodes) = network::of(ACTORS + 1).await;
    let counts: Arc<[AtomicU64; ACTORS]> = Arc::default();
    let mut hosts = Vec::new();
    for (at, node) in nodes[..ACTORS].iter().enumerate() {
        let counts = Arc::clone(&counts);
        let host = node.host().on(move |_: Job, _| {
            counts[at].fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        });
        hosts.push(host.start().unwrap());
    }
    let sender = &nodes[ACTORS];
    network::knows(sender, ACTORS).await;
    let from = Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let hub = sender.hub();
        sending.spawn(async move {
            for _ in 0..messages / SENDERS {
                hub.send(Job).await.unwrap();
            }
        });
    }
    while sending.join_next().await.is_some() {}
    while sender.open() != (0, 0, 0) || total(&counts[..]) < messages / SENDERS * SENDERS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = from.elapsed();
    let mean = total(&counts[..]) as f64 / ACTORS as f64;
    let off = counts
        .iter()
        .map(|count| (count.load(Ordering::Relaxed) as f64 - mean).abs() / mean)
        .fold(0.0, f64::max);
    println!(
        "fair: {} messages to {ACTORS} actors on {ACTORS} nodes in {took:.1?} ({:.0}/s): largest deviation from the mean {:.3} %",
        total(&counts[..]),
        total(&counts[..]) as f64 / took.as_secs_f64(),
        off * 100.0
    );
}

fn total(counts: &[AtomicU64]) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}
