//! Strangers at the door: T25.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::*;
use karere::{Messenger, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Writes, ends, and reads what comes back.
async fn say(target: SocketAddr, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(target).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    if end {
        stream.shutdown().await.unwrap();
    }
    let mut reply = Vec::new();
    let _reset = within(LONG, stream.read_to_end(&mut reply)).await;
    reply
}

/// A running stream of numbers, to see that nobody is in its way.
struct Stream {
    server: Messenger,
    client: Messenger,
    got: Collected,
    contact: karere::Contact,
    sent: u64,
}

impl Stream {
    async fn new(timeouts: Timeouts) -> Self {
        let server = server(timeouts).await;
        let got = Collected::by(&server);
        let client = client(patient()).await;
        let contact = contact(&client, &server).await;
        Self { server, client, got, contact, sent: 0 }
    }

    async fn goes_on(&mut self) {
        send_all(&self.client, self.contact.id(), self.sent..self.sent + 100).await;
        self.sent += 100;
        self.got.are_exactly(self.sent, LONG).await;
        assert_eq!(self.client.stats().total().links, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_protocols_and_garbage_are_refused_and_effect_nobody() {
    let mut stream = Stream::new(quick()).await;
    let target = address(&stream.server);
    let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 1, 2, 3];
    let noise = pattern(5, 40_000);
    let oversize = [&b"KRRE"[..], &u32::MAX.to_le_bytes(), &[1, 0, 1, 0, 1]].concat();
    let too_large = [&b"KRRE"[..], &20_000u32.to_le_bytes(), &[1, 0, 1, 0, 1]].concat();
    let empty = [&b"KRRE"[..], &0u32.to_le_bytes()].concat();
    let bad_crc = [&b"KRRE"[..], &9u32.to_le_bytes(), &[1, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    let strangers: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &tls,
        &noise,
        &oversize,
        &too_large,
        &empty,
        &bad_crc,
    ];
    for (at, bytes) in strangers.iter().enumerate() {
        let start = Instant::now();
        let reply = say(target, bytes, false).await;
        assert_eq!(reply, b"", "a foreign protocol gets no answer it could misunderstand: {at}");
        assert!(start.elapsed() < ms(900), "refused at once, not by a deadline: {at}");
        eventually(LONG, || stream.server.stats().refused_connections == at as u64 + 1).await;
        stream.goes_on().await;
    }
    assert_eq!(stream.server.stats().peers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_hello_and_a_slow_one_are_ended_by_the_deadline() {
    let mut stream = Stream::new(Timeouts { hello: ms(400), ..quick() }).await;
    let target = address(&stream.server);
    // Ends in the middle, or before the first byte: at once.
    for half in [&b""[..], b"K", b"KRRE", b"KRRE\x40\0\0\0\x01\0\x01\0\x01"] {
        let before = stream.server.stats().refused_connections;
        say(target, half, true).await;
        eventually(LONG, || stream.server.stats().refused_connections == before + 1).await;
    }
    // Says nothing more: at the deadline.
    let before = stream.server.stats().refused_connections;
    let start = Instant::now();
    say(target, b"KRRE\x40\0\0\0\x01\0", false).await;
    assert!(start.elapsed() >= ms(300) && start.elapsed() < secs(3), "{:?}", start.elapsed());
    // A byte now and then does not keep it open.
    let mut slow = TcpStream::connect(target).await.unwrap();
    let start = Instant::now();
    let drip = async {
        for byte in b"KRRE\x40\0\0\0\x01\0\x01\0\x01".iter().chain(std::iter::repeat(&0)) {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(ms(50)).await;
        }
    };
    within(LONG, drip).await;
    assert!(start.elapsed() < secs(2), "{:?}", start.elapsed());
    eventually(LONG, || stream.server.stats().refused_connections == before + 2).await;
    stream.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_of_another_version_is_told_ours() {
    let server = server(Timeouts::default()).await;
    let mut hello = [&b"KRRE"[..], &9u32.to_le_bytes(), &[9, 0, 12, 0, 1]].concat();
    let crc = crc32c::crc32c(&hello);
    hello.extend_from_slice(&crc.to_le_bytes());
    let reply = say(address(&server), &hello, true).await;
    assert_eq!(reply.get(..4), Some(&b"KRRE"[..]));
    assert_eq!(reply.get(12), Some(&3), "a refusal");
    assert!(String::from_utf8_lossy(&reply).contains("9-12"), "it names both ranges");
    eventually(LONG, || server.stats().refused_connections == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_one_address_keeps_no_honest_dial_out() {
    let mut stream = Stream::new(Timeouts { hello: secs(3), ..patient() }).await;
    let target = address(&stream.server);
    // Many more silent connections than one address may have in a handshake, and more come all the time.
    let flood = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            if let Ok(connection) = TcpStream::connect(target).await {
                held.push_back(connection);
            }
            if held.len() > 400 {
                held.pop_front();
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    });
    eventually(LONG, || stream.server.stats().refused_connections > 100).await;
    for _ in 0..5 {
        let honest = client(patient()).await;
        let start = Instant::now();
        let contact = within(LONG, honest.contact(target.to_string())).await.unwrap();
        within(LONG, receipt_for(&honest, contact.id(), 0).await.acked()).await.unwrap();
        assert!(start.elapsed() < secs(1), "{:?}", start.elapsed());
        honest.close().await;
    }
    let before = stream.got.from(stream.client.member().id).len();
    send_all(&stream.client, stream.contact.id(), 0..100).await;
    let me = stream.client.member().id;
    eventually(secs(1), || stream.got.from(me).len() == before + 100).await;
    flood.abort();
    stream.sent = 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_connect_and_go_leave_nothing_behind() {
    let mut stream = Stream::new(patient()).await;
    let target = address(&stream.server);
    for _ in 0..500 {
        drop(TcpStream::connect(target).await.unwrap());
    }
    eventually(LONG, || stream.server.stats().refused_connections == 500).await;
    stream.goes_on().await;
    assert_eq!(stream.server.stats().peers.len(), 1);
}
