//! Waiting for room: whoever waits is woken, whatever makes the room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::super::budget::NoRoom;
use super::super::*;
use super::pair::{A, NORMAL, Pair};
use crate::limits::CREDIT_BYTES;

#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Calls {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

const LITTLE: BudgetLimits =
    BudgetLimits { process_bytes: 1_000_000, reserve_bytes: 10_000, queue_bytes: 200_000 };

/// A full destination and somebody who waits for its room.
fn full(linked: bool) -> (Pair, Arc<Calls>) {
    let mut pair = Pair::with(CREDIT_BYTES, LITTLE);
    if linked {
        pair.link();
    }
    let no_room = loop {
        match pair.try_push(A, NORMAL, 1_000, true) {
            Ok(_) => {}
            Err(Refused::Full(no_room)) => break no_room,
            Err(Refused::Closed(cause)) => panic!("{cause}"),
        }
    };
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(Arc::clone(&calls));
    pair.sides[A].session.intake().lock().wake_at_room(&waker, no_room);
    (pair, calls)
}

#[test]
fn who_waits_for_room_is_woken_by_an_acknowledgement() {
    let (mut pair, calls) = full(true);
    pair.write_and_carry(A);
    assert_eq!(calls.count(), 0);
    pair.settle();
    assert_eq!(calls.count(), 1, "once; who still waits registers again");
    assert!(pair.try_push(A, NORMAL, 1_000, true).is_ok());
}

#[test]
fn who_waits_for_room_is_woken_by_the_close() {
    let (mut pair, calls) = full(false);
    pair.sides[A].session.intake().lock().close(Cause::Closed);
    assert_eq!(calls.count(), 1);
    assert_eq!(pair.try_push(A, NORMAL, 1, true), Err(Refused::Closed(Cause::Closed)));
}

#[test]
fn who_waits_for_room_is_woken_by_the_end() {
    let (mut pair, calls) = full(false);
    pair.sides[A].session.end(Cause::Departed);
    assert_eq!(calls.count(), 1);
}

#[test]
fn who_waits_for_room_is_woken_by_the_link() {
    let (mut pair, calls) = full(false);
    pair.link();
    assert_eq!(calls.count(), 1);
    assert!(pair.try_push(A, NORMAL, 1_000, true).is_ok(), "the shared part is there with the link");
}

#[test]
fn what_is_refused_is_not_counted_and_costs_nothing() {
    let (mut pair, _calls) = full(true);
    let before = (pair.sides[A].session.queued_and_pending(), pair.sides[A].cost());
    assert!(pair.try_push(A, NORMAL, 1_000, false).is_err());
    assert_eq!((pair.sides[A].session.queued_and_pending(), pair.sides[A].cost()), before);
}

#[test]
fn replies_have_room_when_the_queue_is_full() {
    let (pair, _calls) = full(true);
    let body = Body::Slice(&[0; 100]);
    let reply = Outgoing { stream: NORMAL, hash: 0, version: 1, body, reply: &|| true };
    let pushed = pair.sides[A].session.intake().lock().push(reply, None);
    assert!(pushed.is_ok());
}

#[test]
fn who_waits_for_the_process_is_woken_when_another_destination_goes() {
    let limits = BudgetLimits { process_bytes: 40_000, reserve_bytes: 10_000, queue_bytes: 40_000 };
    let budget = Arc::new(Budget::new(limits));
    let intake = || Intake::new(Account::new(Arc::clone(&budget)), Arc::new(Buffers::default()));
    let (mut waiting, other, _third) = (intake(), intake(), intake());
    waiting.set_link_up(true);
    let out =
        |body| Outgoing { stream: NORMAL, hash: 0, version: 1, body: Body::Slice(body), reply: &|| false };
    let body = [0; 1_000];
    while waiting.push(out(&body), None).is_ok() {}
    assert_eq!(waiting.push(out(&body), None), Err(Refused::Full(NoRoom::Process)));
    let calls = Arc::new(Calls::default());
    waiting.wake_at_room(&Waker::from(Arc::clone(&calls)), NoRoom::Process);
    drop(other);
    assert_eq!(calls.count(), 1, "its reserve is shared now");
    assert!(waiting.push(out(&body), None).is_ok());
}

#[test]
fn who_waits_for_room_is_woken_when_something_smaller_takes_a_larger_ones_place() {
    let mut pair = Pair::with(CREDIT_BYTES, LITTLE);
    pair.push_keyed(7, A, NORMAL, 3_000);
    let no_room = loop {
        match pair.try_push(A, NORMAL, 1_000, true) {
            Ok(_) => {}
            Err(Refused::Full(no_room)) => break no_room,
            Err(Refused::Closed(cause)) => panic!("{cause}"),
        }
    };
    let calls = Arc::new(Calls::default());
    pair.sides[A].session.intake().lock().wake_at_room(&Waker::from(Arc::clone(&calls)), no_room);
    pair.push_keyed(7, A, NORMAL, 10);
    assert_eq!(calls.count(), 1);
    assert!(pair.try_push(A, NORMAL, 1_000, true).is_ok());
}
