use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::*;
use crate::faults::{Fault, Plan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_new_connections_and_leaves_the_others_alone() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    bench.proxy.inject(Fault::Refuse { ms: 60_000 });
    bench.turns_away().await;
    bench.turns_away().await;
    passes(&mut client, &mut server).await;
    assert_eq!(bench.proxy.counts().refused, 2);
    bench.proxy.heal();
    let (mut client, mut server) = bench.pair().await;
    passes(&mut client, &mut server).await;
    // It ends by itself too.
    bench.proxy.inject(Fault::Refuse { ms: 30 });
    let again = async {
        loop {
            let Ok(mut client) = bench.try_client().await else { continue };
            let accepted = tokio::time::timeout(Duration::from_millis(50), bench.target.accept()).await;
            if let Ok(Ok((mut server, _))) = accepted {
                return passes(&mut client, &mut server).await;
            }
        }
    };
    within(again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_silent_ones_make_room_and_live_ones_do_not() {
    let bench = Bench::new(Plan { connections_max: 3, ..Plan::default() }).await;
    let mut silent = Vec::new();
    for count in 1..=3 {
        silent.push(bench.pair().await);
        bench.eventually(|counts| counts.connections == count).await;
        bench.proxy.inject(Fault::Silence { drain: false });
        bench.eventually(|counts| counts.held == count).await;
    }
    let mut live = bench.pair().await;
    // The first is gone, the second is still there.
    closes(&mut silent[0].0).await;
    sees_nothing(&mut silent[1].0).await;
    let more = [bench.pair().await, bench.pair().await];
    bench.turns_away().await;
    passes(&mut live.0, &mut live.1).await;
    let counts = bench.proxy.counts();
    assert_eq!((counts.live, counts.held, counts.evicted, counts.turned_away), (3, 0, 3, 1));
    drop(more);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_proxy_closes_everything() {
    let bench = Bench::new(Plan::default()).await;
    let (mut held, _held_server) = bench.pair().await;
    bench.proxy.inject(Fault::Silence { drain: false });
    bench.eventually(|counts| counts.held == 1).await;
    let (mut client, mut server) = bench.pair().await;
    passes(&mut client, &mut server).await;
    let (address, mut events) = (bench.proxy.address(), bench.proxy.events());
    drop(bench.proxy);
    for stream in [&mut held, &mut client, &mut server] {
        closes(stream).await;
    }
    assert_eq!(within(events.next()).await, None);
    assert!(within(TcpStream::connect(address)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_target_resets_and_a_new_one_takes_over() {
    let bench = Bench::new(Plan::default()).await;
    let gone = TcpListener::bind(ANY).await.unwrap();
    bench.proxy.set_target(gone.local_addr().unwrap());
    drop(gone);
    bench.turns_away().await;
    bench.eventually(|counts| counts.unreachable == 1 && counts.connections == 0).await;
    bench.proxy.set_target(bench.target.local_addr().unwrap());
    let (mut client, mut server) = bench.pair().await;
    passes(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_listener_loses_the_oldest_events_and_knows_how_many() {
    let bench = Bench::new(Plan { events_len: 4, ..Plan::default() }).await;
    let mut events = bench.proxy.events();
    let _pair = bench.pair().await;
    for count in 1..=20 {
        bench.proxy.inject(Fault::Delay { ms: count });
        bench.eventually(|counts| counts.delays == count).await;
    }
    let mut got = Vec::new();
    while let Some(event) = events.try_next() {
        assert_eq!(event.connection, 1);
        got.push(event.fault);
    }
    assert_eq!(got, [17, 18, 19, 20].map(|ms| Fault::Delay { ms }));
    assert_eq!(events.missed(), 16);
}

/// Kilobytes of this process that are resident.
fn resident_kb() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

/// `cargo test --release -- --ignored --nocapture holds_little`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; needs a process of its own"]
async fn holds_little_memory_for_each_connection() {
    let bench = Bench::new(Plan::default()).await;
    let mut pairs = vec![bench.pair().await];
    let start = resident_kb();
    for _ in 0..150 {
        let (mut client, mut server) = bench.pair().await;
        passes(&mut client, &mut server).await;
        pairs.push((client, server));
    }
    let idle = resident_kb() - start;
    let bytes = noise(1_000_000);
    let mut got = vec![0; bytes.len()];
    for (client, server) in &mut pairs {
        let (wrote, read) =
            within(async { tokio::join!(client.write_all(&bytes), server.read_exact(&mut got)) }).await;
        assert!(wrote.is_ok() && read.is_ok());
        let (wrote, read) =
            within(async { tokio::join!(server.write_all(&bytes), client.read_exact(&mut got)) }).await;
        assert!(wrote.is_ok() && read.is_ok());
    }
    let busy = resident_kb() - start;
    bench.proxy.inject(Fault::Silence { drain: false });
    bench.eventually(|counts| counts.held == 151).await;
    let held = resident_kb() - start;
    println!("KiB for 150 connections with both far ends: idle {idle}, busy {busy}, held {held}");
    assert!(busy < 150 * 300 && held < busy / 4);
}
