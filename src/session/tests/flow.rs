//! Credit and reservations: nothing beyond what was granted, and never a deadlock.

use std::sync::Arc;

use super::super::*;
use super::pair::{A, B, NORMAL, Pair, stream};
use crate::limits::{CREDIT_BYTES, CREDIT_BYTES_MIN, KIB};
use crate::wire::Class;

const LARGE: usize = CREDIT_BYTES as usize * 6 / 5;

#[test]
fn a_sender_stops_at_the_credit_and_goes_on_when_handlers_do() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    pair.push_many(1_000, A, NORMAL, 1_000);
    pair.settle();
    let got = pair.sides[B].got.len();
    assert!((129..=129).contains(&got), "{got}: as many as fit into the credit, to the record");
    assert_eq!(pair.sides[A].session.accounts().acked, got as u64, "acknowledged, though not handled");
    pair.handle(B);
    pair.settle();
    assert!(pair.sides[B].got.len() > got);
    pair.finish();
    assert_eq!(pair.sides[B].got.len(), 1_000);
}

#[test]
fn the_time_for_which_a_stream_waits_for_credit_is_counted() {
    let second = std::time::Duration::from_secs(1);
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    pair.push_many(1_000, A, NORMAL, 1_000);
    pair.settle();
    assert!(pair.sides[A].session.streams().all(|figures| figures.blocked_since.is_some()));
    pair.advance(second);
    pair.sides[B].slow = false;
    pair.handle(B);
    pair.finish();
    let waited: Vec<_> = pair.sides[A].session.streams().map(|figures| figures.blocked).collect();
    assert!(matches!(waited[..], [blocked] if blocked >= second && blocked < 2 * second), "{waited:?}");
    assert!(pair.sides[A].session.streams().all(|figures| figures.blocked_since.is_none()));
}

#[test]
fn a_slow_stream_does_not_hold_up_the_others() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    pair.push_many(8, A, NORMAL, 50 * KIB);
    pair.settle();
    let other = pair.push(A, stream(Class::Bulk), 1_000);
    pair.settle();
    assert_eq!(pair.sides[A].end_of(other), Some(Ok(())));
    pair.finish();
}

#[test]
fn a_stream_that_waits_for_credit_keeps_no_other_from_waking_the_session() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    pair.push_many(8, A, NORMAL, 50 * KIB);
    pair.settle();
    assert!(!pair.push_wakes(A, NORMAL, 10), "it waits for credit, whatever is added");
    let (urgent, bulk) = (stream(Class::Urgent), stream(Class::Bulk));
    assert!(pair.push_wakes(A, urgent, 10) && pair.push_wakes(A, bulk, 50 * KIB));
    assert!(!pair.push_wakes(A, urgent, 10), "woken already");
    pair.settle();
    let terms = Terms { expires: None, key: Some(1) };
    assert!(pair.try_push_under(A, urgent, 10, true, terms).unwrap().1, "also under terms");
    pair.finish();
}

#[test]
fn a_message_of_more_than_the_credit_passes() {
    let mut pair = Pair::linked();
    let tag = pair.push(A, NORMAL, LARGE);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [tag]);
}

#[test]
fn a_large_message_stops_at_the_credit_until_its_memory_is_reserved() {
    let mut pair = Pair::linked();
    pair.sides[B].stingy = true;
    pair.push(A, NORMAL, LARGE);
    pair.settle();
    assert_eq!(pair.sides[B].asked.iter().map(|(.., bytes)| *bytes).collect::<Vec<_>>(), [LARGE as u64]);
    assert!(pair.sides[B].session.accounts().bytes_accepted <= CREDIT_BYTES);
    assert_eq!(pair.sides[B].got, []);
    pair.grant(B);
    pair.settle();
    assert_eq!(pair.sides[B].tags(), [1]);
    assert_eq!(Arc::strong_count(&pair.sides[B].permits), 1, "given back with the delivery");
}

#[test]
fn two_large_messages_wait_for_their_reservations_without_a_deadlock() {
    let mut pair = Pair::linked();
    pair.sides[B].stingy = true;
    pair.push(A, NORMAL, LARGE);
    pair.push(A, stream(Class::Bulk), LARGE);
    let small = pair.push(A, stream(Class::Urgent), 10);
    pair.settle();
    assert_eq!(pair.sides[B].tags(), [small], "others pass meanwhile");
    assert_eq!(pair.sides[B].asked.len(), 2);
    pair.grant(B);
    pair.settle();
    assert_eq!(pair.sides[B].got.len(), 2);
    pair.grant(B);
    pair.settle();
    assert_eq!(pair.sides[B].got.len(), 3);
    pair.finish();
}

#[test]
fn a_large_message_survives_a_reconnect_in_its_middle() {
    let mut pair = Pair::linked();
    pair.sides[B].stingy = true;
    pair.push(A, NORMAL, LARGE);
    pair.write_and_carry(A);
    pair.write(A);
    pair.carry_some(A, 100_000);
    pair.cut();
    pair.grant(B);
    pair.link();
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [1]);
}

#[test]
fn a_reservation_of_an_earlier_epoch_is_given_back_at_once() {
    let mut pair = Pair::linked();
    pair.sides[B].stingy = true;
    pair.push(A, NORMAL, LARGE);
    pair.settle();
    pair.restart(B, Cause::SessionLost);
    pair.link();
    let again = pair.push(A, NORMAL, LARGE);
    pair.settle();
    assert_eq!(pair.sides[B].asked.len(), 2);
    pair.grant(B);
    pair.settle();
    assert_eq!((pair.sides[B].got.len(), Arc::strong_count(&pair.sides[B].permits)), (0, 1));
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [again]);
    assert_eq!(pair.sides[A].session.accounts().indeterminate, 1);
}
