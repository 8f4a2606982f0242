//! Out of file descriptors: T31. A real process with a low limit of them.
#![cfg(all(feature = "cli", unix))]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Karere, bytes};

/// Room for the listener itself, a sender, and a few more.
const DESCRIPTORS: u32 = 40;

#[test]
fn accepting_pauses_without_descriptors_a_running_stream_does_not_notice_and_newcomers_follow_when_there_are_some()
 {
    let listener = Karere::start_with_descriptors(DESCRIPTORS, "listen --bind 127.0.0.1:0", &[]);
    let target = listener.address();
    let data = bytes(3 << 20, 31);
    let (head, tail) = data.split_at(1 << 20);
    let mut running = Karere::start(&format!("send --json {target}"), &[]);
    running.write(head);
    let came =
        |count: usize| listener.stdout.wait_for("the bytes", |said, _| (said.len() >= count).then_some(()));
    came(head.len());
    // More than it can take; the rest wait in the kernel and come up whenever one goes.
    let crowd: Vec<_> = (0..200).map(|_| TcpStream::connect(target).expect("the kernel takes it")).collect();
    let pauses = |line: &str| line.contains("cannot accept").then_some(());
    listener.stderr.line("that it pauses", pauses);
    let start = Instant::now();
    running.write(tail);
    came(data.len());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}: it does not wait for the crowd",
        start.elapsed()
    );
    drop(crowd);
    // Another finds the door open, while the first is still there.
    let mut second = Karere::start(&format!("send --json {target}"), &[]);
    second.write(b"and this");
    let sent = running.end().with(0).json();
    assert_eq!((&sent["reconnects"], &sent["resent"]), (&0.into(), &0.into()), "{sent}");
    second.end().with(0);
    came(data.len() + 8);
    listener.signal("TERM");
    let out = listener.end().with(0).stdout;
    assert!(out == [&data[..], b"and this"].concat());
}
