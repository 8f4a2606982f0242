//! Requests, datagrams, probes and flush from threads: T26 with T27 to T30. No runtime of the test's own.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use karere::blocking::Messenger;
use karere::{Class, Kind, Member, MemberId, Message, Request, RequestError, View, ViewId};
use serde::{Deserialize, Serialize};

const LONG: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Double(u64);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Doubled(u64);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vote(u64);

impl Message for Double {
    const KIND: Kind = Kind::new("test.double", 1);
}
impl Message for Doubled {
    const KIND: Kind = Kind::new("test.doubled", 1);
}
impl Request for Double {
    type Reply = Doubled;
}
impl Message for Vote {
    const KIND: Kind = Kind::new("test.vote", 1);
}

fn pair() -> [Messenger; 2] {
    let start = || Messenger::builder().bind("127.0.0.1:0").start_blocking().unwrap();
    let all = [start(), start()];
    let id = ViewId { generation: 1, number: 1 };
    let joined = |member: Member| Member { joined: Some(id), ..member };
    let view = View::new(id, all.iter().map(|one| joined(one.member())));
    for one in &all {
        let change = one.install_view(view.clone()).unwrap();
        assert_eq!(change.joined.len(), 2);
    }
    all
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn threads_ask_and_threads_answer() {
    let [one, two] = pair();
    two.add_request_handler(|_, Double(number)| match number {
        13 => Err("unlucky".to_owned()),
        66 => panic!("it is a test"),
        number => Ok(Doubled(2 * number)),
    })
    .unwrap();
    let ask = |number| one.request(&Double(number), two.id(), LONG);
    // The handler came after the views; its type may still be on its way.
    eventually("the type is known", || ask(1) == Ok(Doubled(2)));
    let all: Vec<_> = (0..8)
        .map(|thread: u64| {
            let (one, to) = (one.clone(), two.id());
            std::thread::spawn(move || {
                for number in 0..200 {
                    let number = 1000 * (thread + 1) + number;
                    assert_eq!(one.request(&Double(number), to, LONG), Ok(Doubled(2 * number)));
                }
            })
        })
        .collect();
    all.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(ask(13), Err(RequestError::Handler("unlucky".to_owned())));
    assert_eq!(ask(66), Err(RequestError::Panicked));
    assert_eq!(two.stats().handler_panics, 1);
    assert_eq!(ask(4), Ok(Doubled(8)), "and it goes on");
    let duplicate = two.add_request_handler(|_, Double(_)| Ok(Doubled(0)));
    assert!(duplicate.is_err());
    two.close();
    // The view still holds it, so the request waits for it, for as long as it may.
    assert_eq!(one.request(&Double(5), two.id(), Duration::from_millis(100)), Err(RequestError::Timeout));
    one.close();
}

#[test]
fn a_request_fails_at_once_when_the_view_removes_the_member() {
    let [one, two] = pair();
    let (hold, held) = crossbeam_channel::bounded::<()>(0);
    two.add_request_handler(move |_, Double(_)| {
        let _until_the_end = held.recv();
        Ok(Doubled(0))
    })
    .unwrap();
    let (asking, to) = (one.clone(), two.id());
    let waiting = std::thread::spawn(move || asking.request(&Double(1), to, Duration::from_secs(60)));
    eventually("it is asked", || two.stats().peers.iter().any(|peer| peer.is_connected));
    let alone = View::new(ViewId { generation: 1, number: 2 }, [one.member()]);
    let start = Instant::now();
    assert_eq!(one.install_view(alone).unwrap().left, [to]);
    assert!(waiting.join().unwrap().is_err());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(hold);
}

#[test]
fn datagrams_probes_and_flush_work_from_threads() {
    let [one, two] = pair();
    let votes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&votes);
    two.add_handler(move |_: MemberId, Vote(number)| {
        count.fetch_add(number, Ordering::SeqCst);
    })
    .unwrap();
    one.preconnect([two.id()]);
    let report = one.probe([two.id(), one.id()], LONG);
    assert!(report.is_complete(), "{report:?}");
    eventually("a datagram comes", || {
        let _dropped_perhaps = one.datagram(&Vote(1), two.id(), LONG).unwrap();
        votes.load(Ordering::SeqCst) > 0
    });
    let before = votes.load(Ordering::SeqCst);
    for _ in 0..100 {
        assert!(one.send_wait(&Vote(1_000_000), [two.id()], LONG).unwrap().is_complete());
    }
    let flushed = two.wait_handled(&one.digest(), LONG);
    assert!(flushed.is_complete(), "{flushed:?}");
    assert!(votes.load(Ordering::SeqCst) >= before + 100 * 1_000_000);
    // What is over before it is written is never sent.
    let receipt = one.class(Class::Bulk).expires_in(Duration::ZERO).send_with_receipt(&Vote(0), two.id());
    assert!(receipt.unwrap().acked(LONG).is_err());
}
