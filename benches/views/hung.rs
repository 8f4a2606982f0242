//! A handler that never returns: what it costs the other streams of the same sender, and other senders. Beside it the
//! same without it, interleaved.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use karere::{Class, Kind, Limits, MemberId, Message, Messenger, Raw, Request, Timeouts};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::field::{PATIENCE, start, until, view};
use crate::report::Report;

const COUNTED: Kind = Kind::new("bench.views.counted", 1);
const HANGS: Kind = Kind::new("bench.views.hangs", 1);
const BODY: usize = 256;
/// Requests under way at a time.
const ASKERS: usize = 32;
/// Of what is without, and of what is with, in turns.
const SLICE: Duration = Duration::from_millis(50);
/// At least so much of what there is without a handler that hangs.
const LEAST: f64 = 0.9;

#[derive(Serialize, Deserialize)]
struct Echo(u64);

impl Message for Echo {
    const KIND: Kind = Kind::new("bench.views.echo", 1);
}

impl Request for Echo {
    type Reply = Echo;
}

struct Field {
    receiver: Messenger,
    sender: Messenger,
    other: Messenger,
    /// Messages handled, and bytes of streams read.
    seen: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum What {
    Class(Class),
    Requests,
    Datagrams,
    Bytes,
    Pings,
    Other,
}

const ALL: [(What, &str, &str); 7] = [
    (What::Pings, "hung: probes of the link", "1/s"),
    (What::Class(Class::Urgent), "hung: same sender, urgent", "msg/s"),
    (What::Class(Class::Bulk), "hung: same sender, bulk", "msg/s"),
    (What::Requests, "hung: same sender, requests", "1/s"),
    (What::Datagrams, "hung: same sender, datagrams", "1/s"),
    (What::Bytes, "hung: same sender, byte stream", "KiB/s"),
    (What::Other, "hung: another sender", "msg/s"),
];

pub(crate) async fn measure(report: &mut Report, outside: &Handle, quick: bool) {
    let (rounds, quads) = if quick { (3, 2) } else { (7, 8) };
    let (without, with) = (Field::start(outside).await, Field::start(outside).await);
    with.hang().await;
    report.section(&format!(
        "hung: a handler of the normal class never returns, and its sender's credit is used up; {rounds} rounds of {} \
         slices of {SLICE:?}",
        4 * quads
    ));
    println!("{:<34} {:>6} {:>11} {:>11} {:>6}  (each round)", "", "", "without", "with", "ratio");
    for (what, figure, unit) in ALL {
        let mut pairs = Vec::new();
        without.rate(what, SLICE).await;
        with.rate(what, SLICE).await;
        for _ in 0..rounds {
            // What drifts, drifts for both.
            let (mut a, mut b) = (0.0, 0.0);
            for _ in 0..quads {
                a += without.rate(what, SLICE).await;
                b += with.rate(what, SLICE).await + with.rate(what, SLICE).await;
                a += without.rate(what, SLICE).await;
            }
            let slices = f64::from(2 * quads);
            pairs.push((a / slices, b / slices));
        }
        report.ratio(figure, unit, &pairs, LEAST);
    }
    with.is_hung();
    without.end().await;
    with.end().await;
}

impl Field {
    async fn start(outside: &Handle) -> Self {
        let inside = Handle::current();
        let member = async |at: &Handle| start(at, Limits::default(), Timeouts::default()).await;
        let (receiver, sender, other) = (member(outside).await, member(&inside).await, member(&inside).await);
        let (seen, read) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let count = Arc::clone(&seen);
        let counted = move |_from: MemberId, _message: Raw| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        };
        receiver.add_raw_handler(COUNTED, counted).expect("one handler");
        receiver.add_raw_handler(HANGS, |_from, _message| pending::<()>()).expect("one handler");
        let echo = |_from, Echo(number)| std::future::ready(Ok(Echo(number)));
        receiver.add_request_handler(echo).expect("one handler");
        outside.spawn(drain(receiver.clone(), Arc::clone(&read)));
        let three = || [&receiver, &sender, &other].map(Messenger::member);
        for messenger in [&receiver, &sender, &other] {
            drop(messenger.install_view(view(1, three())).expect("newer"));
        }
        for messenger in [&sender, &other] {
            messenger.preconnect([receiver.id()]);
            until("a link", || messenger.stats().peers.iter().any(|peer| peer.is_connected)).await;
        }
        Self { receiver, sender, other, seen, read }
    }

    /// Until something waits for credit.
    async fn hang(&self) {
        let hangs = Raw::new(HANGS, Bytes::from(vec![0; BODY]));
        until("credit is used up", || {
            for _ in 0..100 {
                let report = self.sender.send(&hangs, [self.receiver.id()]).expect("sent");
                assert!(report.is_complete(), "the credit is used up before the queue is full");
            }
            self.is_blocked()
        })
        .await;
    }

    fn is_blocked(&self) -> bool {
        let stats = self.sender.stats();
        stats.peers.iter().flat_map(|peer| &peer.streams).any(|stream| stream.is_blocked)
    }

    fn is_hung(&self) {
        assert!(self.is_blocked(), "its handler still hangs");
    }

    /// So many of it a second.
    async fn rate(&self, what: What, slice: Duration) -> f64 {
        let start = Instant::now();
        let end = start + slice;
        let count = match what {
            What::Class(class) => self.messages(&self.sender, class, end).await,
            What::Other => self.messages(&self.other, Class::Normal, end).await,
            What::Requests => self.requests(end).await,
            What::Datagrams => self.datagrams(end).await,
            What::Bytes => self.bytes(end).await,
            What::Pings => self.pings(end).await,
        };
        count as f64 / start.elapsed().as_secs_f64()
    }

    /// Until all that were sent are handled.
    async fn messages(&self, from: &Messenger, class: Class, end: Instant) -> u64 {
        let message = Raw::new(COUNTED, Bytes::from(vec![0; BODY]));
        let before = self.seen.load(Ordering::Relaxed);
        let mut sent = 0;
        while Instant::now() < end {
            for _ in 0..64 {
                let report = from.class(class).send_wait(&message, [self.receiver.id()], PATIENCE).await;
                assert!(report.expect("sent").is_complete());
                sent += 1;
            }
        }
        until("all are handled", || self.seen.load(Ordering::Relaxed) >= before + sent).await;
        sent
    }

    async fn requests(&self, end: Instant) -> u64 {
        let mut askers = JoinSet::new();
        for _ in 0..ASKERS {
            let (sender, to) = (self.sender.clone(), self.receiver.id());
            askers.spawn(async move {
                let mut count = 0;
                while Instant::now() < end {
                    let Echo(number) = sender.request(&Echo(count), to, PATIENCE).await.expect("a reply");
                    assert_eq!(number, count);
                    count += 1;
                }
                count
            });
        }
        askers.join_all().await.into_iter().sum()
    }

    /// Those that are handled: what is too much is dropped.
    async fn datagrams(&self, end: Instant) -> u64 {
        let message = Raw::new(COUNTED, Bytes::from(vec![0; BODY]));
        let before = self.seen.load(Ordering::Relaxed);
        while Instant::now() < end {
            let report = self.sender.datagram(&message, [self.receiver.id()], PATIENCE).expect("sent");
            assert!(report.no_link.is_empty());
            if !report.full.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        self.seen.load(Ordering::Relaxed) - before
    }

    /// In KiB, as they are read.
    async fn bytes(&self, end: Instant) -> u64 {
        let before = self.read.load(Ordering::Relaxed);
        let mut stream = self.sender.open_stream(self.receiver.id(), "bench").await.expect("open");
        let chunk = vec![7; 32 << 10];
        let mut written = 0;
        while Instant::now() < end {
            stream.write_all(&chunk).await.expect("written");
            written += chunk.len() as u64;
        }
        stream.shutdown().await.expect("ended");
        until("all is read", || self.read.load(Ordering::Relaxed) >= before + written).await;
        written >> 10
    }

    /// One after the other.
    async fn pings(&self, end: Instant) -> u64 {
        let mut count = 0;
        while Instant::now() < end {
            let report = self.sender.probe([self.receiver.id()], PATIENCE).await;
            assert!(report.is_complete(), "{report:?}");
            count += 1;
        }
        count
    }

    async fn end(self) {
        for messenger in [&self.receiver, &self.sender, &self.other] {
            messenger.close().await;
        }
    }
}

/// Reads byte streams to their ends.
async fn drain(receiver: Messenger, read: Arc<AtomicU64>) {
    while let Some(mut stream) = receiver.accept_stream().await {
        let read = Arc::clone(&read);
        tokio::spawn(async move {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                read.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
    }
}
