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

/// How messages are sent.
enum How {
    /// Each sender waits until its message was handled: so many that no actor's window is ever full.
    KeptUp,
    /// As fast as they find room anywhere: then who is quicker at the moment gets more, or it would wait for who is slower.
    Flooded,
}

pub(crate) async fn run(quick: bool) {
    measure(quick, &How::KeptUp).await;
    measure(quick, &How::Flooded).await;
}

async fn measure(quick: bool, how: &How) {
    let messages: u64 = if quick { 100_000 } else { 1_000_000 };
    let (senders, name) = match how {
        How::KeptUp => (500, "kept up with"),
        How::Flooded => (16, "flooded"),
    };
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
    for _ in 0..senders {
        let (hub, waits) = (sender.hub(), matches!(how, How::KeptUp));
        sending.spawn(async move {
            for _ in 0..messages / senders {
                if waits {
                    hub.send(Job).tracked().unwrap().handled().await.unwrap();
                } else {
                    hub.send(Job).await.unwrap();
                }
            }
        });
    }
    while sending.join_next().await.is_some() {}
    while sender.open() != (0, 0, 0) || total(&counts[..]) < messages / senders * senders {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = from.elapsed();
    let mean = total(&counts[..]) as f64 / ACTORS as f64;
    let off = counts
        .iter()
        .map(|count| (count.load(Ordering::Relaxed) as f64 - mean).abs() / mean)
        .fold(0.0, f64::max);
    println!(
        "fair: {} messages to {ACTORS} actors on {ACTORS} nodes, {name}, in {took:.1?} ({:.0}/s): largest deviation from the mean {:.3} %",
        total(&counts[..]),
        total(&counts[..]) as f64 / took.as_secs_f64(),
        off * 100.0
    );
}

fn total(counts: &[AtomicU64]) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}
