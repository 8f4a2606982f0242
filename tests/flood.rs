//! A flood of strangers: T25, the short version of `benches/flood.rs`.

#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(feature = "tls")]
mod authority;
mod common;
mod strangers;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use common::*;
use karere::{Builder, MemberId, Messenger, Raw, Timeouts};
use strangers::{Strangers, Tally, flood, relay};

/// How long a hello may take.
const HELLO_MS: u64 = 1500;
/// Messages a second, and their size: what a small part of a machine can do.
const RATE: u64 = 2000;
const BODY: usize = 1024;

/// Keeps a pace, and says what came.
struct Paced {
    client: Messenger,
    contact: karere::Contact,
    seen: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Paced {
    async fn start(server: &Messenger, with: &impl Fn() -> Builder) -> Self {
        let seen = Arc::<AtomicU64>::default();
        let count = Arc::clone(&seen);
        let note = move |_: MemberId, _: Raw| {
            count.fetch_add(1, Ordering::SeqCst);
            async {}
        };
        server.add_raw_handler(BLOB, note).unwrap();
        let client = with().timeouts(patient()).start().await.unwrap();
        let contact = contact(&client, server).await;
        let (from, to) = (client.clone(), contact.id());
        let task = tokio::spawn(async move {
            let message = Raw::new(BLOB, Bytes::from(vec![7; BODY]));
            let mut tick = tokio::time::interval(ms(5));
            let (start, mut sent) = (Instant::now(), 0);
            loop {
                tick.tick().await;
                let due = start.elapsed().as_millis() as u64 * RATE / 1000;
                while sent < due {
                    let report = from.send_wait(&message, [to], LONG).await.unwrap();
                    assert!(report.is_complete(), "{report:?}");
                    sent += 1;
                }
            }
        });
        Self { client, contact, seen, task }
    }

    /// What comes within a second.
    async fn rate(&self) -> f64 {
        let (before, start) = (self.seen.load(Ordering::SeqCst), Instant::now());
        tokio::time::sleep(secs(1)).await;
        (self.seen.load(Ordering::SeqCst) - before) as f64 / start.elapsed().as_secs_f64()
    }
}

/// `with`: a builder of any member, named `member` if it has a certificate.
async fn stands_a_flood(with: impl Fn() -> Builder, stalled: usize, client_hello: Vec<u8>) {
    let timeouts = Timeouts { hello: ms(HELLO_MS), ..patient() };
    let server = with().bind("127.0.0.1:0").timeouts(timeouts).start().await.unwrap();
    let stream = Paced::start(&server, &with).await;
    let calm = stream.rate().await;
    // So few an address that nobody is pushed out: what ends them is the deadline.
    let strangers = Strangers {
        target: address(&server),
        garbage_a_second: 200,
        slow: 160,
        stalled,
        client_hello,
        addresses: 2,
        again: ms(HELLO_MS),
    };
    let tally = Arc::<Tally>::default();
    let coming = tokio::spawn(flood(strangers, Arc::clone(&tally)));
    let all = 160 + stalled as u64 + 200;
    eventually(LONG, || tally.opened.load(Ordering::SeqCst) >= all).await;
    let elsewhere = relay(address(&server), Ipv4Addr::new(127, 0, 0, 2)).await;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let honest = with().timeouts(patient()).start().await.unwrap();
        let contact = within(LONG, honest.contact(elsewhere.to_string())).await.unwrap();
        let first = Raw::new(BLOB, Bytes::new());
        within(LONG, honest.send_with_receipt(&first, contact.id()).unwrap().acked()).await.unwrap();
        assert!(start.elapsed() < secs(1), "a dial amid the flood takes {:?}", start.elapsed());
        within(LONG, honest.leave(LONG)).await;
        rates.push(stream.rate().await);
    }
    rates.sort_by(f64::total_cmp);
    assert!(rates[1] >= calm * 0.8, "{rates:?} amid the flood, {calm} before");
    assert!(tally.ended.load(Ordering::SeqCst) > 160, "strangers are turned away: {tally:?}");
    coming.abort();
    eventually(LONG, || tally.held.load(Ordering::SeqCst) == 0).await;
    // Nobody was let stay, and nothing is left of them: no peer, no handshake that goes on.
    let longest = tally.longest_ms.load(Ordering::SeqCst);
    assert!(longest < HELLO_MS + 1000, "a stranger stayed for {longest} ms");
    let opened = tally.opened.load(Ordering::SeqCst);
    eventually(LONG, || server.stats().refused_connections >= opened).await;
    assert_eq!(server.stats().peers.len(), 1);
    assert_eq!((links(&stream.client, stream.contact.id()), stream.task.is_finished()), (1, false));
    stream.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_slows_no_stream_and_keeps_no_dial_out() {
    stands_a_flood(Messenger::builder, 0, Vec::new()).await;
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_slows_no_stream_under_tls_and_keeps_no_dial_out() {
    let tls = authority::Authority::new().member("member");
    let with = || Messenger::builder().name("member").tls(tls.clone());
    stands_a_flood(with, 100, strangers::client_hello()).await;
}
