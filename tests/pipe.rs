//! `karere listen` and `karere send`, as real processes.
#![cfg(feature = "cli")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Ended, Karere, bytes};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    received: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let received = dir.path().join("received");
        fs::create_dir(&received).expect("a directory");
        Place { dir, received }
    }

    fn file(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, data).expect("a file");
        path
    }

    fn received(&self, name: &str) -> Vec<u8> {
        fs::read(self.received.join(name)).expect("a received file")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.received).expect("a directory");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn listen(&self, options: &str) -> Karere {
        Karere::start(&format!("listen --bind 127.0.0.1:0 --json {options} --out-dir"), &[&self.received])
    }
}

fn listen(options: &str) -> Karere {
    Karere::start(&format!("listen --bind 127.0.0.1:0 {options}"), &[])
}

fn send(to: &Karere, options: &str, file: &Path) -> Ended {
    Karere::start(&format!("send {options} {}", to.address()), &[file]).end()
}

/// A sender with open input that has sent this much already.
fn begin(to: &Karere, data: &[u8]) -> Karere {
    let mut sender = Karere::start(&format!("send --progress-json --json {}", to.address()), &[]);
    sender.write(data);
    sender
        .stderr
        .line("all of it handed over", |line| (number(line, "bytes")? >= data.len() as u64).then_some(()));
    sender
}

fn number(line: &str, field: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get(field)?.as_u64()
}

#[test]
fn a_file_arrives_under_its_name_with_all_its_bytes() {
    let place = Place::new();
    let data = bytes(9_000_001, 1);
    let file = place.file("some file.bin", &data);
    let listener = place.listen("--once");
    let sent = send(&listener, "--json", &file).with(0).json();
    let received = listener.end().with(0).json();
    assert!(place.received("some file.bin") == data);
    assert_eq!(sent["bytes"], 9_000_001);
    assert_eq!(sent["ok"], true);
    assert_eq!(sent["messages"], sent["acked"]);
    assert_eq!(sent["sha256"], received["sha256"]);
    for nothing in ["not_sent", "indeterminate", "pending", "resent", "reconnects"] {
        assert_eq!(sent[nothing], 0, "{nothing}: {sent}");
    }
}

#[test]
fn empty_input_arrives_as_nothing() {
    let listener = listen("--once");
    let sender = Karere::start(&format!("send {}", listener.address()), &[]);
    sender.end().with(0);
    assert!(listener.end().with(0).stdout.is_empty());
}

#[test]
fn files_of_the_same_name_do_not_overwrite_each_other() {
    let place = Place::new();
    let listener = place.listen("");
    for text in ["one", "two", "three"] {
        let file = place.file("name.txt", text.as_bytes());
        send(&listener, "", &file).with(0);
    }
    assert_eq!(place.names(), ["name-1.txt", "name-2.txt", "name.txt"]);
    assert_eq!(place.received("name-2.txt"), b"three");
    listener.signal("TERM");
    listener.end().with(0);
}

#[test]
fn every_byte_arrives_through_a_proxy_that_resets_cuts_and_flips() {
    let place = Place::new();
    let data = bytes(24 << 20, 2);
    let file = place.file("data", &data);
    let listener = place.listen("--once");
    let faults = "--reset-every-ms 150-600 --cut-after-bytes 100000-9000000 --flip-every-bytes 1000000-9000000 \
                  --rate 8000000 --seed 7";
    let mut proxy =
        Karere::start(&format!("proxy --control --json --to {} {faults}", listener.address()), &[]);
    let sent = send(&proxy, "--json", &file).with(0).json();
    listener.end().with(0);
    assert!(place.received("data") == data);
    proxy.end_input();
    let counts = proxy.end().with(0).json();
    for fault in ["resets", "cuts", "flips"] {
        assert!(counts[fault].as_u64() > Some(0), "{counts}");
    }
    assert!(sent["reconnects"].as_u64() > Some(0) && sent["resent"].as_u64() > Some(0), "{sent}");
    assert_eq!(sent["receiver"]["doubled"], 0);
    assert_eq!(sent["receiver"]["reordered"], 0);
}

#[test]
fn a_connection_that_falls_silent_for_ever_is_replaced() {
    let place = Place::new();
    let data = bytes(12 << 20, 3);
    let file = place.file("data", &data);
    let listener = place.listen("--once");
    let to = listener.address();
    let options = "--silence-every-ms 500-500x1 --rate 6000000";
    let proxy = Karere::start(&format!("proxy --control --json --to {to} {options}"), &[]);
    let sent = send(&proxy, "--json", &file).with(0).json();
    listener.end().with(0);
    assert!(place.received("data") == data);
    assert_eq!(proxy.end().with(0).json()["silences"], 1);
    assert!(sent["reconnects"].as_u64() > Some(0), "{sent}");
}

#[test]
fn another_network_is_refused_with_both_names_and_does_not_count() {
    let place = Place::new();
    let file = place.file("data", b"hello");
    let listener = place.listen("--once --network orders");
    let refused = send(&listener, "--network payments", &file).with(1);
    for part in ["orders", "payments", "error:", "try:"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    send(&listener, "--network orders", &file).with(0);
    listener.end().with(0);
    assert_eq!(place.names(), ["data"]);
}

#[test]
fn garbage_on_the_port_does_not_count_as_a_stream() {
    let place = Place::new();
    let listener = place.listen("--once");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", b"KRRE\x08\x00\x00\x00", b""] {
        let mut stream = TcpStream::connect(listener.address()).expect("it listens");
        stream.write_all(garbage).expect("it takes bytes");
    }
    let file = place.file("data", b"hello");
    send(&listener, "", &file).with(0);
    listener.end().with(0);
    assert_eq!(place.received("data"), b"hello");
}

#[test]
fn a_stream_that_its_sender_gives_up_leaves_no_file_and_does_not_count() {
    let place = Place::new();
    let listener = place.listen("--once");
    let mut quitter = begin(&listener, &bytes(300_000, 4));
    quitter.signal("INT");
    let ended = quitter.end_with_input_open().with(1);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    let error = |line: &str| line.contains("interrupted").then_some(());
    listener.stdout.line("the failed stream", error);
    let file = place.file("data", b"hello");
    send(&listener, "", &file).with(0);
    listener.end().with(0);
    assert_eq!(place.names(), ["data"]);
}

#[test]
fn two_senders_to_standard_output_come_one_after_the_other() {
    let listener = listen("");
    let (first, second) = (bytes(3_000_000, 5), bytes(2_000_000, 6));
    let (head, tail) = first.split_at(1_000_000);
    let mut one = begin(&listener, head);
    listener.stdout.wait_for("the first sender's data", |said, _| (said.len() == head.len()).then_some(()));
    let mut two = Karere::start(&format!("send --progress-json {}", listener.address()), &[]);
    two.write(&second[..200_000]);
    two.stderr.line("the second sender has sent", |line| (number(line, "bytes")? >= 200_000).then_some(()));
    one.write(tail);
    one.end().with(0);
    two.write(&second[200_000..]);
    two.end().with(0);
    listener.signal("TERM");
    assert!(listener.end().with(0).stdout == [first, second].concat());
}

#[test]
fn a_closed_pipe_at_the_receiver_is_an_error_at_the_sender() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let listener = Karere::start_with("listen --bind 127.0.0.1:0", &[], Stdio::from(writer));
    let place = Place::new();
    let ended = send(&listener, "--json", &place.file("data", &bytes(5_000_000, 7))).with(1);
    assert!(ended.stderr.contains("Broken pipe"), "{}", ended.stderr);
    assert_eq!(ended.json()["ok"], false);
    assert!(listener.end().with(1).stderr.contains("standard output is closed"));
}

#[test]
fn a_full_disk_at_the_receiver_is_an_error_at_the_sender() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: there is no /dev/full here");
        return;
    };
    let listener = Karere::start_with("listen --bind 127.0.0.1:0 --once", &[], Stdio::from(full));
    let place = Place::new();
    let ended = send(&listener, "", &place.file("data", &bytes(5_000_000, 8))).with(1);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
    // Small enough to be all under way before the disk is found full.
    let ended = send(&listener, "", &place.file("data", b"hello")).with(1);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
}

#[test]
fn a_failed_stream_is_taken_back_from_a_file_at_standard_output() {
    let place = Place::new();
    let out = place.dir.path().join("out");
    let stdout = fs::File::create(&out).expect("a file");
    let listener = Karere::start_with("listen --bind 127.0.0.1:0 --once", &[], Stdio::from(stdout));
    let mut quitter = begin(&listener, &bytes(300_000, 9));
    quitter.signal("TERM");
    // The end of its input might be faster than the signal, and then the stream is complete.
    quitter.end_with_input_open().with(1);
    send(&listener, "", &place.file("data", b"hello")).with(0);
    listener.end().with(0);
    assert_eq!(fs::read(out).expect("a file"), b"hello");
}

#[test]
fn a_receiver_killed_in_mid_stream_ends_the_sender_and_its_heir_gets_nothing_of_it() {
    let mut old = listen("");
    let address = old.address();
    let mut sender = begin(&old, &bytes(1_000_000, 10));
    sender.stderr.line("something acknowledged", |line| (number(line, "acked")? > 0).then_some(()));
    old.kill();
    let again = format!("listen --once --bind {address}");
    let heir = Karere::start(&again, &[]);
    assert_eq!(heir.address(), address);
    let found = Instant::now();
    // Its input stays open, and nothing comes on it.
    let ended = sender.end_with_input_open().with(3);
    assert!(found.elapsed() < Duration::from_secs(20), "{:?}", found.elapsed());
    assert!(ended.stderr.contains("indeterminate"), "{}", ended.stderr);
    let summary = ended.json();
    assert_eq!((summary["ok"].as_bool(), summary["code"].as_u64()), (Some(false), Some(3)));
    let count = |field: &str| summary[field].as_u64().expect("a number");
    assert_eq!(count("messages"), count("acked") + count("not_sent") + count("indeterminate"));
    let place = Place::new();
    send(&heir, "", &place.file("data", b"new")).with(0);
    assert_eq!(heir.end().with(0).stdout, b"new");
}

#[test]
fn a_receiver_that_is_stopped_tells_its_senders() {
    let place = Place::new();
    let listener = place.listen("");
    let mut sender = begin(&listener, &bytes(300_000, 11));
    listener.signal("INT");
    let ended = sender.end_with_input_open().with(1);
    assert!(ended.stderr.contains("the receiver was stopped"), "{}", ended.stderr);
    listener.end().with(1);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn errors_say_what_to_do_and_wrong_usage_has_its_own_code() {
    let listener = listen("");
    let taken = Karere::start(&format!("listen --bind {}", listener.address()), &[]).end().with(1);
    for part in ["error: cannot bind", "\n  by:   another process", "\n  try:  --bind 127.0.0.1:0"] {
        assert!(taken.stderr.contains(part), "{}", taken.stderr);
    }
    Karere::start("listen", &[]).end().with(2);
    Karere::start("send --timeout never 127.0.0.1:1", &[]).end().with(2);
    let nobody = Karere::start("send --timeout 0.3 --json 127.0.0.1:1", &[]).end().with(1);
    assert!(nobody.stderr.contains("nothing was sent"), "{}", nobody.stderr);
    assert_eq!(nobody.json()["ok"], false);
    let missing = Karere::start("send 127.0.0.1:1 /no/such/file", &[]).end().with(1);
    assert!(missing.stderr.contains("/no/such/file"), "{}", missing.stderr);
}

#[test]
fn the_demo_balances_its_books() {
    let ended = Karere::start("demo --seconds 1 --size 16777216 --json --seed 3", &[]).end().with(0);
    let books = ended.json();
    assert_eq!((books["ok"].as_bool(), &books["sent"]), (Some(true), &books["delivered"]));
    for nothing in ["lost", "duplicated", "reordered", "indeterminate"] {
        assert_eq!(books[nothing], 0, "{books}");
    }
    for kind in ["reset", "cut", "flip", "silence", "one_way", "delay", "rate"] {
        assert!(books["faults"][kind].as_u64() > Some(0), "{books}");
    }
}
