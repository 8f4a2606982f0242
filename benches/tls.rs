//! `cargo bench --bench tls`: throughput under mutual TLS 1.3 as a ratio to plain, measured in the same run. Only ratios
//! count. `-- --quick` measures less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use karere::{Kind, Messenger, Raw, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const LOAD: Kind = Kind::new("bench.load", 1).open();
const WARM: Kind = Kind::new("bench.warm", 1).open();
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, volume) = if quick { (3, 96 << 20) } else { (7, 512 << 20) };
    let tls = settings();
    println!("one sender, one receiver, a thread each; medians of {rounds} interleaved rounds");
    println!("{:>9} {:>16} {:>16} {:>8}", "size", "plain msg/s", "TLS msg/s", "ratio");
    for size in [64, 1024, 64 * 1024] {
        let count = (volume / size).min(1_000_000) as u64;
        let pairs: Vec<_> = (0..rounds)
            .map(|_| (throughput(None, size, count), throughput(Some(&tls), size, count)))
            .collect();
        let plain = median(pairs.iter().map(|(plain, _)| *plain).collect());
        let under = median(pairs.iter().map(|(_, tls)| *tls).collect());
        let ratio = median(pairs.iter().map(|(plain, tls)| tls / plain).collect());
        println!("{size:>9} {plain:>16.0} {under:>16.0} {ratio:>8.2}");
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// One certificate for both.
fn settings() -> Tls {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let secret = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&secret).expect("an authority").pem();
    let issuer = Issuer::new(params, secret);
    let params = CertificateParams::new(vec!["bench".to_owned(), "127.0.0.1".to_owned()]);
    let secret = KeyPair::generate().expect("a key");
    let own = params.expect("parameters").signed_by(&secret, &issuer).expect("a certificate").pem();
    Tls::from_pem(authority.as_bytes(), own.as_bytes(), secret.serialize_pem().as_bytes()).expect("settings")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn with(tls: Option<&Tls>) -> karere::Builder {
    match tls {
        Some(tls) => Messenger::builder().name("bench").tls(tls.clone()),
        None => Messenger::builder().name("bench"),
    }
}

fn throughput(tls: Option<&Tls>, size: usize, count: u64) -> f64 {
    let seen = Arc::new(AtomicU64::new(0));
    let (done, all) = std::sync::mpsc::sync_channel(1);
    let (address_is, address) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = with(tls).bind("127.0.0.1:0");
    let receiver = thread::spawn(move || {
        runtime().block_on(async move {
            let messenger = server.start().await.expect("started");
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
    let (start, end) = runtime().block_on(async {
        let messenger = with(tls).start().await.expect("started");
        let contact = messenger.contact(&address).await.expect("met");
        let to = contact.id();
        let message = Raw::new(LOAD, Bytes::from(vec![7; size]));
        // The link is up before the clock starts.
        let warm = Raw::new(WARM, Bytes::new());
        let _not_understood = messenger.send_with_receipt(&warm, to).expect("queued").acked().await;
        let start = Instant::now();
        for _ in 0..count {
            if !messenger.send(&message, [to]).expect("sent").is_complete() {
                let report = messenger.send_wait(&message, [to], PATIENCE).await.expect("sent");
                assert!(report.is_complete(), "no room within {PATIENCE:?}: {report:?}");
            }
        }
        let end = tokio::task::spawn_blocking(move || all.recv_timeout(PATIENCE).expect("all arrive"));
        let end = end.await.expect("joined");
        messenger.close().await;
        (start, end)
    });
    drop(stop);
    receiver.join().expect("the server");
    count as f64 / (end - start).as_secs_f64()
}
