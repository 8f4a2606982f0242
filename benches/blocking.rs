//! `cargo bench --bench blocking`: what the blocking API costs beside the async one, as ratios measured in the same run,
//! the three ways in turn. One sender, one receiver, raw messages, all guarantees on.
//!
//! `async`: two threads, each with a runtime that sends or handles. `receiver` and `handler`: the blocking API, whose
//! messengers have a thread of their own beside the one that sends and the one that takes: four threads. `-- --quick`
//! measures less. The last line is JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use karere::{Kind, MemberId, Messenger, Raw, blocking};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const LOAD: Kind = Kind::new("bench.load", 1).open();
const WARM: Kind = Kind::new("bench.warm", 1).open();
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the receiver's channel.
const CAPACITY: usize = 4096;

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    // `cargo test --benches` only wants to know that it runs.
    if has("--test") {
        return;
    }
    let (rounds, volume) = if has("--quick") { (3, 96 << 20) } else { (9, 768 << 20) };
    println!("one sender, one receiver; medians of {rounds} interleaved rounds");
    println!(
        "{:>6} {:>14} {:>16} {:>6} {:>16} {:>6}",
        "size", "async msg/s", "receiver msg/s", "ratio", "handler msg/s", "ratio"
    );
    let mut lines = Vec::new();
    for size in [64, 1024] {
        let count = (volume / size) as u64;
        let figures: Vec<[f64; 3]> = (0..rounds)
            .map(|_| {
                [
                    asynchronous(size, count),
                    blocking_pair(size, count, take),
                    blocking_pair(size, count, handle),
                ]
            })
            .collect();
        let of = |figure: &dyn Fn(&[f64; 3]) -> f64| median(figures.iter().map(figure).collect());
        let rates = [0, 1, 2].map(|which| of(&|figures| figures[which]));
        let ratios = [1, 2].map(|which| of(&|figures| figures[which] / figures[0]));
        println!(
            "{size:>6} {:>14.0} {:>16.0} {:>6.2} {:>16.0} {:>6.2}",
            rates[0], rates[1], ratios[0], rates[2], ratios[1]
        );
        lines.push(format!(
            r#"{{"size":{size},"async":{:.0},"receiver":{:.0},"handler":{:.0},"receiver_ratio":{:.3},"handler_ratio":{:.3}}}"#,
            rates[0], rates[1], rates[2], ratios[0], ratios[1]
        ));
    }
    println!(r#"{{"bench":"blocking","rounds":{rounds},"sizes":[{}]}}"#, lines.join(","));
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn message(size: usize) -> Raw {
    Raw::new(LOAD, Bytes::from(vec![7; size]))
}

// ---- the async API ----

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn asynchronous(size: usize, count: u64) -> f64 {
    let (done, all) = sync_channel(1);
    let (address_is, address) = sync_channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let receiver = thread::spawn(move || {
        runtime().block_on(async move {
            let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.expect("started");
            let seen = Arc::new(AtomicU64::new(0));
            messenger
                .add_raw_handler(LOAD, move |_from, message| {
                    std::hint::black_box(message.bytes().first());
                    if seen.fetch_add(1, Ordering::Relaxed) + 1 == count {
                        done.send(Instant::now()).expect("waited for");
                    }
                    std::future::ready(())
                })
                .expect("one handler");
            address_is.send(messenger.local_address().expect("bound").to_string()).expect("asked");
            let _dropped = stopped.await;
            messenger.close().await;
        });
    });
    let address = address.recv().expect("an address");
    let took = runtime().block_on(async {
        let messenger = Messenger::builder().start().await.expect("started");
        let contact = messenger.contact(&address).await.expect("met");
        let to = contact.id();
        // The link is up before the clock starts.
        let warm = Raw::new(WARM, Bytes::new());
        let _not_understood = messenger.send_with_receipt(&warm, to).expect("queued").acked().await;
        let message = message(size);
        let start = Instant::now();
        for _ in 0..count {
            let report = messenger.send_wait(&message, [to], PATIENCE).await.expect("sent");
            assert!(report.is_complete());
        }
        let end = tokio::task::spawn_blocking(move || all.recv_timeout(PATIENCE).expect("all arrive"));
        let end = end.await.expect("joined");
        messenger.close().await;
        end - start
    });
    drop(stop);
    receiver.join().expect("the receiver");
    count as f64 / took.as_secs_f64()
}

// ---- the blocking API ----

type SetUp = fn(&blocking::Messenger, u64, SyncSender<Instant>);

fn take(messenger: &blocking::Messenger, count: u64, done: SyncSender<Instant>) {
    let messages = messenger.raw_receiver(LOAD, CAPACITY).expect("one receiver");
    thread::spawn(move || {
        for received in messages.iter().take(count as usize) {
            std::hint::black_box(received.message.bytes().first());
        }
        done.send(Instant::now()).expect("waited for");
    });
}

fn handle(messenger: &blocking::Messenger, count: u64, done: SyncSender<Instant>) {
    let mut seen = 0;
    let handler = move |_from: MemberId, message: Raw| {
        std::hint::black_box(message.bytes().first());
        seen += 1;
        if seen == count {
            done.send(Instant::now()).expect("waited for");
        }
    };
    messenger.add_raw_handler(LOAD, handler).expect("one handler");
}

fn blocking_pair(size: usize, count: u64, set_up: SetUp) -> f64 {
    let server = blocking::Messenger::builder().bind("127.0.0.1:0").start_blocking().expect("started");
    let (done, all) = sync_channel(1);
    set_up(&server, count, done);
    let messenger = blocking::Messenger::builder().start_blocking().expect("started");
    let address = server.local_address().expect("bound").to_string();
    let contact = messenger.contact(address).expect("met");
    let to = contact.id();
    let warm = Raw::new(WARM, Bytes::new());
    let _not_understood = messenger.send_with_receipt(&warm, to).expect("queued").acked(PATIENCE);
    let message = message(size);
    let start = Instant::now();
    for _ in 0..count {
        let report = messenger.send_wait(&message, [to], PATIENCE).expect("sent");
        assert!(report.is_complete());
    }
    let end = all.recv_timeout(PATIENCE).expect("all arrive");
    messenger.close();
    server.close();
    count as f64 / (end - start).as_secs_f64()
}
