//! `cargo bench`: throughput and latency as ratios to framed raw TCP, measured in the same run. Only ratios count: this
//! is a shared machine, and absolute figures vary by a factor of two between runs.
//!
//! `framed` is the ceiling for any message protocol: length-prefixed messages, batched into 64 KiB writes, parsed by
//! the receiver, nothing else. karere runs with all guarantees on: sequence numbers, checksums, credit, both
//! acknowledgements, handlers. Each side has one thread. `-- --quick` measures less, `-- --only BYTES`
//! one size and the round trips, `-- --profile` karere's throughput alone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use karere::{Kind, Messenger, Raw, SendError};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};

const LOAD: Kind = Kind::new("bench.load", 1).open();
const PING: Kind = Kind::new("bench.ping", 1).open();
const PONG: Kind = Kind::new("bench.pong", 1).open();
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of one write of `framed`, and of one read.
const BATCH: usize = 64 * 1024;
const READ: usize = 256 * 1024;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let rounds = if quick { 3 } else { 7 };
    let volume: usize = if quick { 96 << 20 } else { 512 << 20 };
    // For a profiler: karere's throughput alone.
    let profile = std::env::args().any(|arg| arg == "--profile");
    let ceiling = |size, count| if profile { f64::NAN } else { framed(size, count) };
    println!("one sender, one receiver, a thread each; medians of {rounds} interleaved rounds");
    println!("{:>9} {:>16} {:>16} {:>8}", "size", "framed msg/s", "karere msg/s", "ratio");
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1).and_then(|size| size.parse().ok());
    let sizes = [64, 256, 1024, 16 * 1024, 64 * 1024, 1024 * 1024];
    for size in sizes.into_iter().filter(|size| only.is_none_or(|only: usize| only == *size)) {
        let count = (volume / size).min(if quick { 1_000_000 } else { 6_000_000 }) as u64;
        let mut pairs: Vec<(f64, f64)> =
            (0..rounds).map(|_| (ceiling(size, count), karere_throughput(size, count))).collect();
        let ratio = median(pairs.iter().map(|(framed, karere)| karere / framed).collect());
        let (framed, karere) = (take(&mut pairs, |pair| pair.0), take(&mut pairs, |pair| pair.1));
        println!("{size:>9} {framed:>16.0} {karere:>16.0} {ratio:>8.2}");
    }
    if profile {
        return;
    }
    let trips = if quick { 5_000 } else { 20_000 };
    println!("\nround trip of 64 B, {trips} a round; p50 / p99 in microseconds");
    let mut pairs: Vec<((f64, f64), (f64, f64))> =
        (0..rounds).map(|_| (raw_trips(trips), karere_trips(trips))).collect();
    let ratio = median(pairs.iter().map(|(raw, karere)| karere.0 / raw.0).collect());
    let raw = (take(&mut pairs, |p| p.0.0), take(&mut pairs, |p| p.0.1));
    let karere = (take(&mut pairs, |p| p.1.0), take(&mut pairs, |p| p.1.1));
    println!(
        "raw {:.1} / {:.1}   karere {:.1} / {:.1}   ratio of p50 {ratio:.2}",
        raw.0, raw.1, karere.0, karere.1
    );
}

fn take<T>(pairs: &mut [T], figure: impl Fn(&T) -> f64) -> f64 {
    median(pairs.iter().map(figure).collect())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

// ---- framed ----

fn framed(size: usize, count: u64) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a sender");
        stream.set_nodelay(true).expect("no delay");
        parse(&mut stream, count);
        Instant::now()
    });
    let mut stream = TcpStream::connect(address).expect("a receiver");
    stream.set_nodelay(true).expect("no delay");
    let body = vec![7_u8; size];
    let mut batch = Vec::with_capacity(BATCH + size + 4);
    let start = Instant::now();
    for _ in 0..count {
        batch.extend_from_slice(&(size as u32).to_le_bytes());
        batch.extend_from_slice(&body);
        if batch.len() >= BATCH {
            stream.write_all(&batch).expect("written");
            batch.clear();
        }
    }
    stream.write_all(&batch).expect("written");
    let end = receiver.join().expect("the receiver");
    count as f64 / (end - start).as_secs_f64()
}

/// Counts messages, touching the first byte of each.
fn parse(stream: &mut TcpStream, count: u64) {
    let mut buffer = vec![0_u8; READ];
    let (mut start, mut end, mut seen, mut sum) = (0, 0, 0, 0_u64);
    while seen < count {
        if start > 0 {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
        }
        if end == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        end += stream.read(&mut buffer[end..]).expect("read");
        while let Some(head) = buffer[start..end].first_chunk::<4>() {
            let length = u32::from_le_bytes(*head) as usize;
            let Some(body) = buffer[start + 4..end].get(..length) else { break };
            sum += u64::from(body[0]);
            start += 4 + length;
            seen += 1;
        }
    }
    std::hint::black_box(sum);
}

// ---- karere ----

/// A messenger on a thread of its own, until the returned sender is dropped.
fn server(
    set_up: impl FnOnce(&Messenger) + Send + 'static,
) -> (String, oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (address_is, address) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("receiver".to_owned()).spawn(move || {
        runtime().block_on(async move {
            let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.expect("started");
            set_up(&messenger);
            address_is.send(messenger.local_address().expect("bound").to_string()).expect("asked");
            let _dropped = stopped.await;
            messenger.close().await;
        });
    });
    let thread = thread.expect("a thread");
    (address.recv().expect("an address"), stop, thread)
}

fn karere_throughput(size: usize, count: u64) -> f64 {
    let seen = Arc::new(AtomicU64::new(0));
    let (done, all) = std::sync::mpsc::sync_channel(1);
    let (address, stop, thread) = server(move |messenger| {
        messenger
            .add_raw_handler(LOAD, move |_from, message| {
                std::hint::black_box(message.bytes().first());
                if seen.fetch_add(1, Ordering::Relaxed) + 1 == count {
                    done.send(Instant::now()).expect("waited for");
                }
                std::future::ready(())
            })
            .expect("one handler");
    });
    let (start, end) = runtime().block_on(async {
        let messenger = Messenger::builder().start().await.expect("started");
        let contact = messenger.contact(&address).await.expect("met");
        let to = contact.id();
        let message = Raw::new(LOAD, Bytes::from(vec![7; size]));
        // The link is up before the clock starts, as it is for `framed`.
        let warm = Raw::new(PING, Bytes::new());
        let _not_understood = messenger.send_with_receipt(&warm, to).expect("queued").acked().await;
        let start = Instant::now();
        for _ in 0..count {
            let report = messenger.send(&message, [to]).expect("sent");
            if !report.is_complete() {
                wait(&messenger, &message, to).await;
            }
        }
        let end = tokio::task::spawn_blocking(move || all.recv_timeout(PATIENCE).expect("all arrive"));
        let end = end.await.expect("joined");
        messenger.close().await;
        (start, end)
    });
    drop(stop);
    thread.join().expect("the server");
    count as f64 / (end - start).as_secs_f64()
}

async fn wait(messenger: &Messenger, message: &Raw, to: karere::MemberId) {
    let report = messenger.send_wait(message, [to], PATIENCE).await.expect("sent");
    assert!(report.is_complete(), "no room within {PATIENCE:?}: {report:?}");
}

// ---- round trips ----

fn percentiles(mut trips: Vec<Duration>) -> (f64, f64) {
    trips.sort();
    let at = |share: f64| trips[((trips.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.99))
}

fn raw_trips(trips: usize) -> (f64, f64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_nodelay(true).expect("no delay");
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).expect("written");
        }
    });
    let mut stream = TcpStream::connect(address).expect("an echo");
    stream.set_nodelay(true).expect("no delay");
    let mut buffer = [7; 64];
    let times = (0..trips).map(|_| {
        let start = Instant::now();
        stream.write_all(&buffer).expect("written");
        stream.read_exact(&mut buffer).expect("read");
        start.elapsed()
    });
    let times = times.collect();
    drop(stream);
    echo.join().expect("the echo");
    percentiles(times)
}

fn karere_trips(trips: usize) -> (f64, f64) {
    let (address, stop, thread) = server(|messenger| {
        let answer = messenger.clone();
        messenger
            .add_raw_handler(PING, move |from, message| {
                let reply = Raw::new(PONG, message.into_bytes());
                let sent = answer.send(&reply, [from]);
                assert!(sent.is_ok_and(|report| report.is_complete()));
                std::future::ready(())
            })
            .expect("one handler");
    });
    let times = runtime().block_on(async {
        let messenger = Messenger::builder().start().await.expect("started");
        let came = Arc::new(Notify::new());
        let note = Arc::clone(&came);
        messenger
            .add_raw_handler(PONG, move |_from, _message| {
                note.notify_one();
                std::future::ready(())
            })
            .expect("one handler");
        let contact = messenger.contact(&address).await.expect("met");
        let message = Raw::new(PING, Bytes::from(vec![7; 64]));
        let mut times = Vec::with_capacity(trips);
        for _ in 0..trips {
            let start = Instant::now();
            match messenger.send(&message, [contact.id()]) {
                Ok(report) => assert!(report.is_complete()),
                Err(SendError::Closed(by)) => panic!("closed: {by}"),
                Err(error) => panic!("{error}"),
            }
            came.notified().await;
            times.push(start.elapsed());
        }
        messenger.close().await;
        times
    });
    drop(stop);
    thread.join().expect("the server");
    percentiles(times)
}
