//! No thread outlives its blocking messenger. Alone in its process, because it counts threads.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, Number, Word, ms, secs};
use karere::blocking::Messenger;
use karere::{Kind, Message};
use serde::{Deserialize, Deserializer, Serialize};

/// Names of the threads that are a messenger's.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name any more.
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("karere")).collect()
}

/// A thread that has said its end is the system's for a moment more.
#[track_caller]
fn are_left_within(deadline: Duration, left: &[&str]) {
    let start = Instant::now();
    while threads() != left {
        assert!(start.elapsed() < deadline, "after {deadline:?} not {left:?}: {:?}", threads());
        thread::sleep(ms(1));
    }
}

#[track_caller]
fn all_gone_within(deadline: Duration) {
    are_left_within(deadline, &[]);
}

fn server() -> Messenger {
    Messenger::builder().bind("127.0.0.1:0").start_blocking().unwrap()
}

/// Two that talk, with a handler, a receiver that is full, and a listener.
fn busy() -> (Messenger, Messenger) {
    let (receiving, sending) = (server(), Messenger::builder().start_blocking().unwrap());
    receiving.add_handler(|_from, Number(_)| {}).unwrap();
    let words = receiving.receiver::<Word>(1).unwrap();
    let events = receiving.events();
    let contact = sending.contact(receiving.local_address().unwrap().to_string()).unwrap();
    for n in 0..10 {
        sending.send_with_receipt(&Number(n), contact.id()).unwrap().handled(LONG).unwrap();
        drop(sending.send_with_receipt(&Word("a".repeat(1000)), contact.id()).unwrap());
        drop(words.recv_timeout(LONG).unwrap());
    }
    assert!(events.try_recv().is_ok());
    (receiving, sending)
}

/// Decoded, it is the last one that holds its messenger.
struct Last(#[allow(dead_code, reason = "held")] Option<Messenger>);

static HELD: Mutex<Option<Messenger>> = Mutex::new(None);

impl Serialize for Last {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(0)
    }
}

impl<'de> Deserialize<'de> for Last {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer)?;
        Ok(Self(HELD.lock().unwrap().take()))
    }
}

impl Message for Last {
    const KIND: Kind = Kind::new("test.last", 1).open();
}

#[test]
fn no_thread_outlives_its_messenger() {
    assert_eq!(threads(), Vec::<String>::new());
    static PANICS: AtomicU64 = AtomicU64::new(0);
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        show(panic);
    }));

    // Dropped without a word.
    let (receiving, sending) = busy();
    assert_eq!(threads().len(), 3, "{:?}", threads());
    let another = sending.clone();
    drop(sending);
    assert_eq!(threads().len(), 3, "a clone is left");
    let start = Instant::now();
    drop((receiving, another));
    assert!(start.elapsed() < secs(4), "{:?}", start.elapsed());
    all_gone_within(secs(1));

    // Closed: handlers end, the runtime waits for the last clone.
    let (receiving, sending) = busy();
    receiving.close();
    sending.leave(LONG);
    are_left_within(secs(1), &["karere", "karere"]);
    drop((receiving, sending));
    all_gone_within(secs(1));

    // A handler that was refused leaves nothing.
    let messenger = server();
    messenger.add_handler(|_from, Number(_)| {}).unwrap();
    messenger.add_handler(|_from, Number(_)| {}).unwrap_err();
    let start = Instant::now();
    while threads().len() > 2 {
        assert!(start.elapsed() < LONG, "{:?}", threads());
    }
    drop(messenger);
    all_gone_within(secs(1));

    // A messenger that cannot start leaves nothing.
    Messenger::builder().bind("no address").start_blocking().unwrap_err();
    all_gone_within(secs(1));

    // A handler that holds a clone, closed by hand; one that closes and drops it last, on its own thread.
    let (receiving, sending) = (server(), Messenger::builder().start_blocking().unwrap());
    let held = receiving.clone();
    receiving.add_handler(move |_from, Number(_)| held.close()).unwrap();
    let contact = sending.contact(receiving.local_address().unwrap().to_string()).unwrap();
    drop(receiving);
    assert_eq!(sending.send(&Number(1), [contact.id()]).unwrap().queued, 1);
    let start = Instant::now();
    while threads().len() > 1 {
        assert!(start.elapsed() < LONG, "{:?}", threads());
        thread::sleep(ms(1));
    }
    drop(sending);
    all_gone_within(secs(1));

    // The last clone is dropped on the runtime's own thread.
    let (receiving, sending) = (server(), Messenger::builder().start_blocking().unwrap());
    drop(receiving.receiver::<Last>(1).unwrap());
    let contact = sending.contact(receiving.local_address().unwrap().to_string()).unwrap();
    *HELD.lock().unwrap() = Some(receiving);
    assert_eq!(sending.send(&Last(None), [contact.id()]).unwrap().queued, 1);
    let start = Instant::now();
    while threads().len() > 1 {
        assert!(start.elapsed() < LONG, "{:?}", threads());
        thread::sleep(ms(1));
    }
    drop(sending);
    all_gone_within(secs(1));
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "nothing ended by a panic");
}
