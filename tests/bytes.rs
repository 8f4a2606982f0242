//! Byte streams over sessions: T35.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(feature = "faults")]

mod common;

use std::io::ErrorKind;

use common::*;
use karere::faults::{Fault, Pace, Plan, Schedule};
use karere::{ByteStream, Messenger, OpenError, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Writes `ours`, ends, and reads to the end, both at the same time.
async fn exchange(stream: ByteStream, ours: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        writer.write_all(&ours).await?;
        writer.shutdown().await
    };
    let read = async {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.map(|_| got)
    };
    let (wrote, got) = tokio::join!(write, read);
    wrote?;
    got
}

fn stream_error(error: &std::io::Error) -> &StreamError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplex_bytes_arrive_intact_over_resets() {
    let server = server(patient()).await;
    let schedule = Schedule { reset_every_ms: Some(Pace::from(5..=40).at_most(40)), ..Schedule::default() };
    let proxy = proxy_with(&server, Plan::new(5, schedule));
    let client = client(patient()).await;
    let contact = client.contact(proxy.address().to_string()).await.unwrap();
    // As long as it takes to see some resets.
    let mut rounds = 0;
    while proxy.counts().resets < 10 || rounds < 2 {
        let (up, down) = (pattern(rounds, 3_000_000), pattern(rounds + 1000, 2_000_000));
        let ours = client.open_stream(contact.id(), "duplex").await.unwrap();
        let theirs = within(LONG, server.accept_stream()).await.unwrap();
        assert_eq!((theirs.name(), theirs.peer(), ours.peer()), ("duplex", client.member().id, contact.id()));
        let both = async { tokio::join!(exchange(ours, up.clone()), exchange(theirs, down.clone())) };
        let (got_down, got_up) = within(secs(20), both).await;
        assert!(got_down.unwrap() == down && got_up.unwrap() == up);
        rounds += 1;
    }
    assert!(client.stats().total().links >= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once_arrive_intact() {
    /// Below the backlog of those that nobody has accepted yet.
    const STREAMS: u64 = 100;
    let server = server(patient()).await;
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let mut ends = JoinSet::new();
    let accepts = {
        let server = server.clone();
        tokio::spawn(async move {
            let mut ends = JoinSet::new();
            for _ in 0..STREAMS {
                let stream = server.accept_stream().await.unwrap();
                let seed: u64 = stream.name().parse().unwrap();
                ends.spawn(async move {
                    let got = exchange(stream, pattern(seed + STREAMS, 30_000)).await.unwrap();
                    assert!(got == pattern(seed, 40_000));
                });
            }
            ends.join_all().await;
        })
    };
    for seed in 0..STREAMS {
        let stream = client.open_stream(contact.id(), &seed.to_string()).await.unwrap();
        ends.spawn(async move {
            let got = exchange(stream, pattern(seed, 40_000)).await.unwrap();
            assert!(got == pattern(seed + STREAMS, 30_000));
        });
    }
    within(LONG, ends.join_all()).await;
    within(LONG, accepts).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_is_told_with_its_reason_and_the_session_goes_on() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let mut ours = client.open_stream(contact.id(), "a").await.unwrap();
    let mut theirs = within(LONG, server.accept_stream()).await.unwrap();
    ours.write_all(b"some").await.unwrap();
    theirs.read_exact(&mut [0; 4]).await.unwrap();
    ours.abort("enough");
    let error = within(LONG, theirs.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(*stream_error(&error), StreamError::Aborted { reason: "enough".to_owned() });
    assert_eq!(theirs.write_all(b"more").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    // Dropped is aborted.
    let mut ours = client.open_stream(contact.id(), "b").await.unwrap();
    drop(within(LONG, server.accept_stream()).await.unwrap());
    let error = within(LONG, ours.read_u8()).await.unwrap_err();
    assert_eq!(*stream_error(&error), StreamError::Aborted { reason: "dropped".to_owned() });
    within(LONG, receipt_for(&client, contact.id(), 0).await.handled()).await.unwrap();
    got.are_exactly(1, LONG).await;
    assert_eq!(client.stats().total().links, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_stops_its_own_writer_only() {
    let server = server(patient()).await;
    let got = Collected::by(&server);
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let mut slow = client.open_stream(contact.id(), "slow").await.unwrap();
    let mut slow_end = within(LONG, server.accept_stream()).await.unwrap();
    let mut written = 0;
    while let Ok(wrote) = tokio::time::timeout(ms(300), slow.write(&[7; 10_000])).await {
        written += wrote.unwrap();
    }
    assert_eq!(written, 512 * 1024, "the window");
    let quick = client.open_stream(contact.id(), "quick").await.unwrap();
    let quick_end = within(LONG, server.accept_stream()).await.unwrap();
    let body = pattern(9, 5_000_000);
    let both = async { tokio::join!(exchange(quick, body.clone()), exchange(quick_end, Vec::new())) };
    let (_, read) = within(LONG, both).await;
    assert!(read.unwrap() == body);
    send_all(&client, contact.id(), 0..1000).await;
    got.are_exactly(1000, LONG).await;
    // It goes on when it is read.
    let (wrote, read) = within(LONG, async {
        let mut all = vec![0; written + 100_000];
        tokio::join!(slow.write_all(&[7; 100_000]), slow_end.read_exact(&mut all))
    })
    .await;
    wrote.unwrap();
    assert_eq!(read.unwrap(), written + 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_session_aborts_its_streams_and_no_tail_is_sent_to_the_next() {
    let first = server(patient()).await;
    let proxy = proxy_to(&first);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let mut ours = client.open_stream(contact.id(), "lost").await.unwrap();
    let mut theirs = within(LONG, first.accept_stream()).await.unwrap();
    ours.write_all(b"head").await.unwrap();
    theirs.read_exact(&mut [0; 4]).await.unwrap();
    // Another process takes the first one's place.
    let second = server(patient()).await;
    proxy.set_target(address(&second));
    proxy.inject(Fault::Refuse { ms: 200 });
    proxy.inject(Fault::Reset);
    ours.write_all(b"tail").await.unwrap();
    let error = within(LONG, ours.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(stream_error(&error), StreamError::SessionLost(_)), "{error}");
    assert_eq!(ours.write_all(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually(LONG, || contact.id() == second.member().id).await;
    // The next session has streams of its own, and the first thing that comes is the head of a new one.
    let ours = client.open_stream(contact.id(), "next").await.unwrap();
    let theirs = within(LONG, second.accept_stream()).await.unwrap();
    assert_eq!(theirs.name(), "next");
    let (got, sent) =
        within(LONG, async { tokio::join!(exchange(theirs, Vec::new()), exchange(ours, b"new".to_vec())) })
            .await;
    assert_eq!((got.unwrap(), sent.unwrap()), (b"new".to_vec(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_streams_on_both_sides() {
    let server = server(patient()).await;
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let mut ours = client.open_stream(contact.id(), "x").await.unwrap();
    let mut theirs = within(LONG, server.accept_stream()).await.unwrap();
    ours.write_all(b"x").await.unwrap();
    within(secs(3), client.close()).await;
    assert_eq!(within(LONG, ours.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut rest = Vec::new();
    let error = within(LONG, theirs.read_to_end(&mut rest)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let open = client.open_stream(contact.id(), "y").await.unwrap_err();
    assert!(matches!(open, OpenError::Absent | OpenError::Closed(_)), "{open:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_waits_for_room() {
    let server = server(patient()).await;
    let _got = Collected::by(&server);
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let id = contact.id();
    proxy.inject(Fault::Refuse { ms: 300 });
    proxy.inject(Fault::Reset);
    eventually(LONG, || !is_connected(&client, id)).await;
    while client.send(&Number(0), [id]).unwrap().is_complete() {}
    let mut opening = {
        let client = client.clone();
        tokio::spawn(async move { client.open_stream(id, "waits").await })
    };
    assert!(tokio::time::timeout(ms(50), &mut opening).await.is_err(), "the queue is full");
    let _ours = within(LONG, opening).await.unwrap().unwrap();
    assert_eq!(within(LONG, server.accept_stream()).await.unwrap().name(), "waits");
}

#[tokio::test]
async fn nobody_to_open_a_stream_to_is_an_error() {
    let client: Messenger = client(patient()).await;
    let stranger = server(patient()).await.member().id;
    assert_eq!(client.open_stream(stranger, "x").await.unwrap_err(), OpenError::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_delivers_what_streams_have_sent() {
    let server = server(patient()).await;
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let mut ours = client.open_stream(contact.id(), "last words").await.unwrap();
    let body = pattern(4, 300_000);
    ours.write_all(&body).await.unwrap();
    ours.shutdown().await.unwrap();
    within(secs(5), client.leave(secs(4))).await;
    let mut theirs = within(LONG, server.accept_stream()).await.unwrap();
    let mut got = Vec::new();
    within(LONG, theirs.read_to_end(&mut got)).await.unwrap();
    assert!(got == body);
}
