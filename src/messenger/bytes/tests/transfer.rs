//! Bytes arrive whole, and windows hold.

use std::sync::Arc;
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::*;
use crate::limits::{BYTE_STREAMS_MAX, BYTES_RECORD_MAX, BYTES_WINDOW};

const LEN: usize = 3 * BYTES_WINDOW as usize + 12_345;

/// Writes a pattern in pieces of random size and ends; meanwhile reads another to its end.
async fn exchange(stream: ByteStream, ours: u64, theirs: u64, len: usize) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let mut random = fastrand::Rng::with_seed(ours);
        let mut at = 0;
        while at < len {
            let most = if random.bool() { 64 } else { 100_000 };
            let piece = random.usize(1..=most).min(len - at);
            writer.write_all(&pattern(ours, at as u64, piece)).await.unwrap();
            at += piece;
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let mut random = fastrand::Rng::with_seed(theirs);
        let mut at = 0;
        loop {
            let mut bytes = vec![0; random.usize(1..=50_000)];
            let count = reader.read(&mut bytes).await.unwrap();
            if count == 0 {
                break;
            }
            assert!(bytes[..count] == pattern(theirs, at as u64, count), "bytes from {at} on");
            at += count;
        }
        assert_eq!(at, len);
    };
    tokio::join!(write, read);
}

async fn duplex(pair: Pair) {
    let (_tasks, mut accept) = pair.run();
    let ours = pair.sides[0].open("duplex", Class::Normal).unwrap();
    let theirs = accept.recv().await.unwrap();
    assert_eq!((ours.name(), theirs.name()), ("duplex", "duplex"));
    tokio::join!(exchange(ours, 1, 2, LEN), exchange(theirs, 2, 1, LEN));
    assert_eq!((pair.sides[0].len(), pair.sides[1].len()), (0, 0));
}

#[tokio::test]
async fn duplex_data_of_any_sizes_arrives_intact() {
    let pair = Pair::new(5);
    assert_eq!(pair.sides[0].peer(), member(2));
    duplex(pair).await;
}

#[tokio::test]
async fn a_port_of_one_message_is_enough() {
    duplex(Pair::new(1)).await;
}

#[tokio::test]
async fn a_stream_with_oneself_has_two_ends() {
    duplex(Pair::with_oneself(3)).await;
}

/// Races that one thread does not have; the deadline is for a wake-up that is lost.
async fn on_threads(pair: Pair) {
    const STREAMS: usize = 6;
    let (_tasks, mut accept) = pair.run();
    let mut ends = JoinSet::new();
    for _ in 0..STREAMS {
        ends.spawn(duplex_some(pair.clone()));
    }
    let all = async {
        for _ in 0..STREAMS {
            ends.spawn(exchange(accept.recv().await.unwrap(), 2, 1, LEN));
        }
        while let Some(end) = ends.join_next().await {
            end.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("everything arrives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_do_not_lose_a_wake_up() {
    on_threads(Pair::new(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_do_not_lose_a_wake_up_with_oneself() {
    on_threads(Pair::with_oneself(2)).await;
}

async fn duplex_some(pair: Pair) {
    let stream = loop {
        match pair.sides[0].open("", Class::Normal) {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    exchange(stream, 1, 2, LEN).await;
}

#[tokio::test]
async fn copy_moves_a_whole_stream() {
    let pair = Pair::new(4);
    let (_tasks, mut accept) = pair.run();
    let mut ours = pair.sides[0].open("", Class::Bulk).unwrap();
    let mut theirs = accept.recv().await.unwrap();
    let echo = async {
        let (mut reader, mut writer) = tokio::io::split(&mut theirs);
        let bytes = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        bytes
    };
    let sent = pattern(7, 0, LEN);
    let talk = async {
        let (mut reader, mut writer) = tokio::io::split(&mut ours);
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, count) = tokio::join!(write, reader.read_to_end(&mut received));
        count.unwrap();
        received
    };
    let (copied, received) = tokio::join!(echo, talk);
    assert_eq!(copied, LEN as u64);
    assert!(received == sent);
}

#[tokio::test]
async fn a_thousand_streams_at_once_arrive_intact() {
    let pair = Pair::new(64);
    let (_tasks, mut accept) = pair.run();
    let mut ends = JoinSet::new();
    for n in 0..1000 {
        let mut opened = pair.sides[n % 2].open(&n.to_string(), Class::Normal);
        while opened.is_err() {
            tokio::task::yield_now().await; // The port is full.
            opened = pair.sides[n % 2].open(&n.to_string(), Class::Normal);
        }
        let n = n as u64;
        ends.spawn(exchange(opened.unwrap(), 2 * n, 2 * n + 1, 5_000 + 3 * n as usize));
    }
    for _ in 0..1000 {
        let stream = accept.recv().await.unwrap();
        let n: u64 = stream.name().parse().unwrap();
        ends.spawn(exchange(stream, 2 * n + 1, 2 * n, 5_000 + 3 * n as usize));
    }
    while let Some(end) = ends.join_next().await {
        end.unwrap();
    }
    assert_eq!((pair.sides[0].len(), pair.sides[1].len()), (0, 0));
}

/// Writes until the window is used up.
fn fill(pair: &Pair, stream: &mut ByteStream, waker: &Waker) -> u64 {
    let mut written = 0;
    while let Poll::Ready(result) = write_with(stream, waker, &pattern(0, written, BYTES_RECORD_MAX + 1)) {
        written += result.unwrap() as u64;
        pair.settle();
    }
    written
}

#[test]
fn a_reader_that_does_not_read_stops_its_writer_at_the_window_and_nobody_else() {
    let pair = Pair::new(4);
    let (mut ours, mut theirs) = pair.connect("slow");
    let (mut other, mut other_end) = pair.connect("quick");
    let flag = Arc::new(Flag::default());
    assert_eq!(fill(&pair, &mut ours, &Waker::from(Arc::clone(&flag))), BYTES_WINDOW);

    for round in 0..100 {
        let piece = pattern(round, 0, BYTES_RECORD_MAX);
        assert_eq!(ready(write(&mut other, &piece)).unwrap(), piece.len());
        pair.settle();
        assert_eq!(ready(read(&mut other_end, piece.len())).unwrap(), piece, "the other stream goes on");
        pair.settle();
    }
    assert!(!flag.woken());

    let mut bytes = 0;
    while bytes < BYTES_WINDOW / 4 {
        assert!(!flag.woken(), "an update after a quarter of the window, not before");
        let piece = ready(read(&mut theirs, 10_000)).unwrap();
        assert_eq!(piece, pattern(0, bytes, piece.len()));
        bytes += piece.len() as u64;
        pair.settle();
    }
    assert!(flag.woken());
    assert_eq!(fill(&pair, &mut ours, Waker::noop()), bytes);
}

#[test]
fn one_write_is_one_record_at_most() {
    let pair = Pair::new(4);
    let (mut ours, _theirs) = pair.connect("");
    assert_eq!(ready(write(&mut ours, &[0; 3 * BYTES_RECORD_MAX])).unwrap(), BYTES_RECORD_MAX);
    assert_eq!(ready(write(&mut ours, &[])).unwrap(), 0);
    assert_eq!(pair.lanes[0].len(), 1);
}

#[test]
fn small_pieces_are_kept_together() {
    let pair = Pair::new(4);
    let (mut ours, mut theirs) = pair.connect("");
    for at in 0..1000 {
        assert_eq!(ready(write(&mut ours, &pattern(1, at, 1))).unwrap(), 1);
        pair.settle();
    }
    assert_eq!(ready(read(&mut theirs, 2000)).unwrap(), pattern(1, 0, 1000));
}

#[test]
fn all_messages_of_a_stream_travel_in_its_class() {
    let pair = Pair::new(100);
    let mut ours = pair.sides[0].open("bulk", Class::Bulk).unwrap();
    assert!(write(&mut ours, b"1").is_ready() && shutdown(&mut ours).is_ready());
    drop(ours);
    let classes: Vec<_> = pair.lanes[0].queue.lock().messages.iter().map(|message| message.0).collect();
    assert_eq!(classes, [Class::Bulk; 4], "open, data, end, abort");
}

#[test]
fn streams_beyond_the_limit_are_refused_on_both_sides() {
    let pair = Pair::new(2 * BYTE_STREAMS_MAX);
    let held: Vec<_> =
        (0..BYTE_STREAMS_MAX).map(|_| pair.sides[0].open("", Class::Normal).unwrap()).collect();
    let accepted = pair.settle();
    assert_eq!(accepted.len(), BYTE_STREAMS_MAX);
    let most = BYTE_STREAMS_MAX;
    assert_eq!(pair.sides[0].open("", Class::Normal).unwrap_err(), super::super::OpenError::TooMany { most });

    let open = message(u64::MAX, true, &Content::Open { window: 1, name: String::new() });
    assert!(pair.sides[1].handle_message(1, Class::Normal, open).is_none());
    let [(head, Content::Abort { text, .. })] = &pair.lanes[1].contents()[..] else { panic!("one abort") };
    assert_eq!((head.id, head.from_opener, text.as_str()), (u64::MAX, false, "too many byte streams"));
    drop(held);
    pair.settle();
    drop(accepted);
    assert_eq!((pair.sides[0].len(), pair.sides[1].len()), (0, 0));
    assert!(pair.sides[0].open("", Class::Normal).is_ok());
}

#[test]
fn a_name_that_is_too_long_is_refused() {
    let pair = Pair::new(1);
    let error = pair.sides[0].open(&"n".repeat(256), Class::Normal).unwrap_err();
    assert_eq!(error, super::super::OpenError::NameTooLong { bytes: 256, most: 255 });
    assert!(pair.sides[0].open(&"n".repeat(255), Class::Normal).is_ok());
}
