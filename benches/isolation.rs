//! `cargo bench --bench isolation`: what one silent receiver costs the other nine. Its queue is full and the process's
//! cap is reached; beside it runs the same without it, interleaved. `-- --quick` measures less.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use karere::faults::{Fault, Plan, Proxy};
use karere::{Contact, Kind, Limits, MemberId, Messenger, Raw, Timeouts};
use parking_lot::Mutex;

const LOAD: Kind = Kind::new("bench.isolation", 1).open();
const BODY: usize = 256;
const OTHERS: usize = 9;
const PATIENCE: Duration = Duration::from_secs(30);
/// Small, so that all run into it: the silent one is full because of the cap, not of a limit of its own, and so are the
/// others whenever they wait.
const PROCESS: usize = 4 << 20;

/// Nine receivers on a thread of their own, and perhaps a silent one behind a proxy.
struct Field {
    sender: Messenger,
    contacts: Vec<Contact>,
    silent: Option<(Contact, Proxy)>,
    seen: Arc<AtomicU64>,
    delays: Arc<Mutex<Vec<u64>>>,
    base: Instant,
    receivers: tokio::runtime::Runtime,
    _held: Vec<Messenger>,
}

/// A silent link must stay: nothing here may declare it dead.
fn patient() -> Timeouts {
    Timeouts {
        liveness: Duration::from_secs(600),
        resume_lease: Duration::from_secs(600),
        ..Timeouts::default()
    }
}

async fn field(with_silent: bool) -> Field {
    let receivers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (seen, delays) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let base = Instant::now();
    let limits = Limits {
        process_bytes: PROCESS,
        queue_bytes: PROCESS,
        message_bytes: PROCESS / 2,
        reassembly_bytes: PROCESS / 2,
        ..Limits::default()
    };
    let sender = Messenger::builder().timeouts(patient()).limits(limits).start().await.expect("started");
    let (mut contacts, mut held) = (Vec::new(), Vec::new());
    for _ in 0..OTHERS {
        let (messenger, address) = receiver(&receivers, &seen, &delays, base).await;
        contacts.push(sender.contact(address).await.expect("met"));
        held.push(messenger);
    }
    let mut silent = None;
    if with_silent {
        let (messenger, address) = receiver(&receivers, &seen, &delays, base).await;
        let target = address.parse().expect("an address");
        let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), target, Plan::default()).expect("a proxy");
        let contact = sender.contact(proxy.address().to_string()).await.expect("met");
        let first = Raw::new(LOAD, Bytes::from(vec![0; BODY]));
        sender.send_with_receipt(&first, contact.id()).expect("queued").handled().await.expect("handled");
        proxy.inject(Fault::Silence { drain: false });
        let before = seen.load(Ordering::SeqCst);
        while sender.send(&first, [contact.id()]).expect("sent").is_complete() {
            tokio::task::yield_now().await;
        }
        // Until even what the link took is written and nothing moves any more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        while sender.send(&first, [contact.id()]).expect("sent").is_complete() {}
        assert_eq!(seen.load(Ordering::SeqCst), before, "it is silent");
        silent = Some((contact, proxy));
        held.push(messenger);
    }
    Field { sender, contacts, silent, seen, delays, base, receivers, _held: held }
}

async fn receiver(
    runtime: &tokio::runtime::Runtime,
    seen: &Arc<AtomicU64>,
    delays: &Arc<Mutex<Vec<u64>>>,
    base: Instant,
) -> (Messenger, String) {
    let (seen, delays) = (Arc::clone(seen), Arc::clone(delays));
    let started = runtime.spawn(async move {
        let builder = Messenger::builder().bind("127.0.0.1:0").timeouts(patient());
        let messenger = builder.start().await.expect("started");
        let count = move |_from: MemberId, message: Raw| {
            seen.fetch_add(1, Ordering::Relaxed);
            if let Some(sent) = message.bytes().first_chunk::<8>().map(|stamp| u64::from_le_bytes(*stamp))
                && sent > 0
            {
                let now = u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
                delays.lock().push(now.saturating_sub(sent));
            }
            ready(())
        };
        messenger.add_raw_handler(LOAD, count).expect("one handler");
        messenger
    });
    let messenger = started.await.expect("started");
    let address = messenger.local_address().expect("bound").to_string();
    (messenger, address)
}

impl Field {
    /// Sends to all ten; the silent one is reported full and cannot be waited for, the others are.
    async fn send(&self, message: &Raw) {
        let others = self.contacts.iter().map(Contact::id);
        let silent = self.silent.iter().map(|(contact, _)| contact.id());
        let report = self.sender.send(message, silent.chain(others)).expect("sent");
        let stuck = self.silent.as_ref().map(|(contact, _)| contact.id());
        let full: Vec<_> = report.full.into_iter().filter(|id| Some(*id) != stuck).collect();
        if !full.is_empty() {
            let report = self.sender.send_wait(message, full, PATIENCE).await.expect("sent");
            assert!(report.is_complete(), "{report:?}");
        }
    }

    async fn arrived(&self, count: u64) {
        let end = Instant::now() + PATIENCE;
        while self.seen.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < end, "all arrive");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Messages a second, all receivers together.
    async fn throughput(&self, rounds: u64) -> f64 {
        let message = Raw::new(LOAD, Bytes::from(vec![0; BODY]));
        let before = self.seen.load(Ordering::SeqCst);
        let start = Instant::now();
        for _ in 0..rounds {
            self.send(&message).await;
        }
        let count = rounds * OTHERS as u64;
        self.arrived(before + count).await;
        count as f64 / start.elapsed().as_secs_f64()
    }

    /// The 99th percentile of the one-way delay at so many messages a second in all, in microseconds.
    async fn p99(&self, rate: f64, time: Duration) -> f64 {
        self.delays.lock().clear();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        let start = Instant::now();
        let before = self.seen.load(Ordering::SeqCst);
        let mut sent = 0;
        while start.elapsed() < time {
            tick.tick().await;
            let due = (start.elapsed().as_secs_f64() * rate / OTHERS as f64) as u64;
            while sent < due {
                let mut body = vec![0; BODY];
                let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
                body[..8].copy_from_slice(&now.to_le_bytes());
                self.send(&Raw::new(LOAD, body.into())).await;
                sent += 1;
            }
        }
        self.arrived(before + sent * OTHERS as u64).await;
        let mut delays = std::mem::take(&mut *self.delays.lock());
        delays.sort_unstable();
        delays[delays.len() * 99 / 100] as f64 / 1e3
    }

    async fn end(self) {
        self.sender.close().await;
        if let Some((_, proxy)) = self.silent {
            proxy.stop().await;
        }
        self.receivers.shutdown_background();
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (pairs, rounds, time) = if quick { (3, 50_000, 1) } else { (7, 200_000, 3) };
    let time = Duration::from_secs(time);
    println!(
        "one sender, {OTHERS} receivers of {BODY} B, beside a tenth that is silent, full up to the process cap"
    );
    println!(
        "{:>14} {:>14} {:>7} {:>10} {:>10} {:>7}",
        "without msg/s", "with msg/s", "ratio", "p99 us", "p99 us", "ratio"
    );
    let (mut throughputs, mut delays) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (without, with) = (field(false).await, field(true).await);
        let a = without.throughput(rounds).await;
        let b = with.throughput(rounds).await;
        let books = with.sender.stats();
        let held: usize = books.peers.iter().map(|peer| peer.queue_bytes).sum();
        let rate = a / 5.0;
        let c = without.p99(rate, time).await;
        let d = with.p99(rate, time).await;
        println!(
            "{a:>14.0} {b:>14.0} {:>7.2} {c:>10.0} {d:>10.0} {:>7.2}   held {held} of {PROCESS}",
            b / a,
            d / c
        );
        throughputs.push(b / a);
        delays.push(d / c);
        without.end().await;
        with.end().await;
    }
    println!("median of {pairs}: throughput {:.2}, p99 {:.2}", median(throughputs), median(delays));
}
