//! A slow actor among quick ones: requests to quick ones at a fixed rate, with and without messages for the slow one.

use std::time::{Duration, Instant};

use karere::router::Hub;
use karere::{Kind, Message};
use serde::{Deserialize, Serialize};

use crate::network;

#[derive(Serialize, Deserialize)]
struct Quick(u64);
impl Message for Quick {
    const KIND: Kind = Kind::new("bench.quick", 1);
}
#[derive(Serialize, Deserialize)]
struct Done(u64);
impl Message for Done {
    const KIND: Kind = Kind::new("bench.done", 1);
}
#[derive(Serialize, Deserialize)]
struct Slow(Vec<u8>);
impl Message for Slow {
    const KIND: Kind = Kind::new("bench.slow", 1);
}

/// Requests a second.
const RATE: u64 = 2_000;

fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0 / 1e6
}

/// Round trips at a fixed rate, from when each was due: p50 and p99 in us.
async fn measure(hub: &Hub, time: Duration) -> (f64, f64) {
    let count = (time.as_secs_f64() * RATE as f64) as u64;
    let begin = tokio::time::Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..count {
        let due = begin + Duration::from_micros(n * 1_000_000 / RATE);
        tokio::time::sleep_until(due).await;
        let hub = hub.clone();
        let from = Instant::now();
        asking.spawn(async move {
            let answer = hub.request(Quick(n)).callback::<Done>().await.unwrap();
            assert_eq!(answer.0, n);
            from.elapsed().as_nanos() as f64 / 1e3
        });
    }
    let mut trips = Vec::new();
    while let Some(trip) = asking.join_next().await {
        trips.push(trip.unwrap());
    }
    trips.sort_by(f64::total_cmp);
    (trips[trips.len() / 2], trips[trips.len() * 99 / 100])
}

pub(crate) async fn run(quick: bool) {
    let (rounds, time) = if quick { (3, Duration::from_millis(500)) } else { (7, Duration::from_secs(3)) };
    let (_messengers, nodes) = network::of(2).await;
    let _quick = nodes[1].host().concurrency(4).on(|Quick(n), _| async move { Ok(Done(n)) }).start().unwrap();
    let _slow = nodes[1]
        .host()
        .on(|_: Slow, _| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        })
        .start()
        .unwrap();
    network::knows(&nodes[0], 2).await;
    let hub = nodes[0].hub();
    let _warm = measure(&hub, time / 4).await;
    let (mut p50, mut p99, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = Default::default();
    for _ in 0..rounds {
        let without = measure(&hub, time).await;
        // As many as it takes, and more wait.
        let flood: Vec<_> = (0..8)
            .map(|_| {
                let hub = hub.clone();
                tokio::spawn(async move {
                    loop {
                        hub.send(Slow(vec![7; 1024])).time_to_live(Duration::from_secs(600)).await.unwrap();
                    }
                })
            })
            .collect();
        let with = measure(&hub, time).await;
        memory.push(resident());
        flood.iter().for_each(tokio::task::JoinHandle::abort);
        p50.push(with.0 / without.0);
        p99.push(with.1 / without.1);
        last = (without, with);
    }
    p50.sort_by(f64::total_cmp);
    p99.sort_by(f64::total_cmp);
    let ((a, b), (c, d)): ((f64, f64), (f64, f64)) = last;
    println!(
        "slow: beside a flooded slow actor p50 {:.2}, p99 {:.2} of without, medians of {rounds} ({a:.0}/{b:.0} us without, {c:.0}/{d:.0} with); memory {:.1} MB after the first round, {:.1} after the last",
        p50[rounds / 2],
        p99[rounds / 2],
        memory[0],
        memory[rounds - 1],
    );
}
