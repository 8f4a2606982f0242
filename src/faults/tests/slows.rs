use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::harness::*;
use crate::faults::{DelaySpells, Fault, Plan, Rate, Schedule};

/// Bytes of the time they were sent at, in microseconds, arrive in order and not before the delay; the
/// longest.
async fn stamps(bench: &Bench, stamps: usize, least: Duration) -> Duration {
    let (mut client, mut server) = bench.pair().await;
    let start = Instant::now();
    let sends = tokio::spawn(async move {
        for _ in 0..stamps {
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap();
            within(client.write_all(&micros.to_be_bytes())).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        client
    });
    let (mut last, mut longest) = (0, Duration::ZERO);
    for _ in 0..stamps {
        let sent = within(server.read_u64()).await.unwrap();
        assert!(sent >= last);
        last = sent;
        let took = start.elapsed() - Duration::from_micros(sent);
        assert!(took >= least, "{took:?}");
        longest = longest.max(took);
    }
    sends.await.unwrap();
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delay_is_added_with_the_order_kept() {
    let plan = Plan { delay_ms: Some(80), ..Plan::default() };
    let bench = Bench::new(plan).await;
    // A grain of the timers earlier at most.
    let longest = stamps(&bench, 100, Duration::from_millis(78)).await;
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    assert_eq!(bench.proxy.counts().delays, 1);
    bench.proxy.set_delay(None);
    let (mut client, mut server) = bench.pair().await;
    let start = Instant::now();
    for _ in 0..20 {
        passes(&mut client, &mut server).await;
    }
    assert!(start.elapsed() < Duration::from_millis(800));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_through_a_delay_arrives_whole() {
    let bench = Bench::new(Plan { delay_ms: Some(10), ..Plan::default() }).await;
    let (mut client, mut server) = bench.pair().await;
    let bytes = noise(2_000_000);
    let sent = bytes.clone();
    let sends = tokio::spawn(async move { within(client.write_all(&sent)).await });
    let mut got = vec![0; bytes.len()];
    // Changes on the way do no harm.
    for (round, part) in got.chunks_mut(200_000).enumerate() {
        within(server.read_exact(part)).await.unwrap();
        bench.proxy.inject(Fault::Delay { ms: [0, 30, 5][round % 3] });
    }
    assert!(got == bytes);
    sends.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_held_within_a_quarter() {
    for (bytes_per_second, buffer_bytes) in [(200_000, 4096), (5_000_000, 65_536)] {
        let rate = Rate { bytes_per_second, buffer_bytes };
        let bench = Bench::new(Plan { rate: Some(rate), ..Plan::default() }).await;
        let (mut client, mut server) = bench.pair().await;
        let sends = tokio::spawn(async move { client.write_all(&vec![7; 50_000_000]).await });
        // The start, with its credit, does not count.
        let mut part = vec![0; usize::try_from(bytes_per_second).unwrap() / 10];
        within(server.read_exact(&mut part)).await.unwrap();
        let start = Instant::now();
        for _ in 0..10 {
            within(server.read_exact(&mut part)).await.unwrap();
        }
        let took = start.elapsed().as_secs_f64();
        assert!((0.75..=1.25).contains(&took), "{took}");
        assert_eq!(bench.proxy.counts().rates, 1);
        // Lifted, the rest goes through at once.
        bench.proxy.set_rate(None);
        let start = Instant::now();
        let mut rest = vec![0; 1_000_000];
        within(server.read_exact(&mut rest)).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(500) + Duration::from_secs(1) / 10);
        sends.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_takes_nothing_from_a_rate() {
    // 50 KB are on the way at any time: more than may wait.
    let rate = Rate { bytes_per_second: 500_000, buffer_bytes: 16_384 };
    let bench = Bench::new(Plan { rate: Some(rate), delay_ms: Some(100), ..Plan::default() }).await;
    let (mut client, mut server) = bench.pair().await;
    let sends = tokio::spawn(async move { client.write_all(&vec![7; 10_000_000]).await });
    let mut part = vec![0; 100_000];
    within(server.read_exact(&mut part)).await.unwrap();
    let start = Instant::now();
    for _ in 0..5 {
        within(server.read_exact(&mut part)).await.unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    assert!((0.75..=1.25).contains(&took), "{took}");
    sends.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_rate_holds_little_in_the_proxy() {
    let rate = Rate { bytes_per_second: 1000, buffer_bytes: 4096 };
    let bench = Bench::new(Plan { rate: Some(rate), ..Plan::default() }).await;
    let (client, _server) = bench.pair().await;
    socket2::SockRef::from(&client).set_send_buffer_size(4096).unwrap();
    let mut taken = 0;
    // Until nothing more is taken for a while.
    while tokio::time::timeout(Duration::from_millis(100), client.writable()).await.is_ok() {
        taken += client.try_write(&[0; 512]).unwrap_or(0);
        assert!(taken < 100_000, "{taken}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spells_of_delay_come_and_go_and_healing_ends_them() {
    let delays =
        DelaySpells { every_ms: (20..=30).into(), lasts_ms: (20..=30).into(), delay_ms: (5..=10).into() };
    let bench = Bench::new(Plan::new(1, Schedule { delays: Some(delays), ..Schedule::default() })).await;
    let (mut client, mut server) = bench.pair().await;
    while bench.proxy.counts().delays < 5 {
        passes(&mut client, &mut server).await;
    }
    bench.proxy.heal();
    let before = bench.proxy.counts().delays;
    // Longer than any interval.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.proxy.counts().delays, before);
}

/// `cargo test --release -- --ignored --nocapture forwards_at`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; needs a release build and a quiet machine"]
async fn forwards_at_more_than_500_megabytes_a_second() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    let total = 4_000_000_000_usize;
    let start = Instant::now();
    let sends = tokio::spawn(async move {
        let chunk = vec![7; 262_144];
        let mut left = total;
        while left > 0 {
            let len = left.min(chunk.len());
            client.write_all(&chunk[..len]).await.unwrap();
            left -= len;
        }
    });
    let (mut chunk, mut got) = (vec![0; 262_144], 0);
    while got < total {
        got += within(server.read(&mut chunk)).await.unwrap();
    }
    sends.await.unwrap();
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s");
    assert!(rate > 500.0);
}
