//! What a new link repeats, and what it must not.

use super::super::*;
use super::pair::{A, B, NORMAL, Pair};
use crate::limits::{CREDIT_BYTES, CREDIT_BYTES_MIN, KIB};
use crate::wire::Frame;
use crate::wire::StreamResume;

/// The first numbers of the batches among these frames.
fn firsts(frames: &[Frame]) -> Vec<u64> {
    let first = |frame: &Frame| if let Frame::Batch(batch) = frame { Some(batch.first.0) } else { None };
    frames.iter().filter_map(first).collect()
}

#[test]
fn replays_only_the_unacknowledged_suffix_after_a_reconnect() {
    let mut pair = Pair::linked();
    for _ in 0..3 {
        pair.push(A, NORMAL, 100);
        assert_eq!(pair.write(A).len(), 1);
    }
    let one = pair.sides[A].pipe.len() / 3;
    pair.carry_some(A, 2 * one - 1);
    pair.cut();
    pair.link();
    assert_eq!(pair.sides[A].session.accounts().acked, 1, "the hello acknowledges");
    assert_eq!(firsts(&pair.write(A)), [2, 3]);
    assert_eq!(pair.sides[A].session.accounts().resent, 2);
    pair.finish();
    assert_eq!(pair.sides[B].session.accounts().duplicates, 0);
    assert_eq!(pair.sides[B].tags(), [1, 2, 3]);
}

#[test]
fn new_messages_go_behind_what_is_repeated() {
    let mut pair = Pair::linked();
    pair.push(A, NORMAL, 100);
    pair.write(A);
    pair.cut();
    pair.push(A, NORMAL, 100);
    pair.link();
    assert_eq!(firsts(&pair.write(A)), [1, 2]);
    pair.finish();
}

#[test]
fn a_resume_below_the_acknowledged_cursor_resends_nothing_acknowledged() {
    let mut pair = Pair::linked();
    pair.push(A, NORMAL, 100);
    pair.settle();
    pair.push(A, NORMAL, 100);
    pair.write(A);
    pair.cut();
    let types = PeerTypes::new(&pair.sides[B].types(), |_| false);
    let low = StreamResume { stream: NORMAL, next_expected: Seq(1), credit: CREDIT_BYTES };
    let session = &mut pair.sides[A].session;
    session.handle_link_up(&[low], CREDIT_BYTES).unwrap();
    session.handle_types(types);
    assert_eq!(session.accounts().acked, 1);
    assert_eq!(firsts(&pair.write(A)), [2]);
}

#[test]
fn a_next_expected_beyond_what_was_written_is_refused() {
    let mut pair = Pair::linked();
    pair.push(A, NORMAL, 100);
    pair.write(A);
    pair.push(A, NORMAL, 100);
    pair.cut();
    let beyond = StreamResume { stream: NORMAL, next_expected: Seq(3), credit: CREDIT_BYTES };
    let refused = pair.sides[A].session.handle_link_up(&[beyond], CREDIT_BYTES);
    assert_eq!(refused, Err(ProtocolError::AckBeyondSent { acked: Seq(2), sent: Seq(1) }));
    assert_eq!(pair.sides[A].session.accounts().acked, 0);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [1, 2]);
}

#[test]
fn five_lost_acknowledgements_still_bring_unacked_to_0() {
    let mut pair = Pair::linked();
    for _ in 0..5 {
        pair.push(A, NORMAL, 1_000);
        pair.write_and_carry(A);
        pair.advance(crate::limits::ACK_DELAY);
        assert!(matches!(pair.write(B)[..], [Frame::Ack(_)]));
        // Cut with the acknowledgement in the pipe: it is lost.
        pair.cut();
        assert!(pair.sides[A].session.streams().any(|figures| figures.unacked_bytes > 0));
        pair.link();
    }
    pair.settle();
    assert!(
        pair.sides[A]
            .session
            .streams()
            .all(|figures| figures.unacked_bytes == 0 && figures.oldest_unacked.is_none())
    );
    assert_eq!(pair.sides[A].session.accounts().acked, 5);
    pair.finish();
}

#[test]
fn what_was_handled_without_a_link_is_told_on_the_next() {
    let mut pair = Pair::linked();
    pair.sides[B].slow = true;
    let tag = pair.push(A, NORMAL, 100);
    pair.settle();
    assert_eq!((pair.sides[A].end_of(tag), pair.sides[A].handled_of(tag)), (Some(Ok(())), None));
    pair.cut();
    pair.handle(B);
    pair.link();
    pair.settle();
    assert_eq!(
        pair.sides[A].handled_of(tag),
        Some(Ok(())),
        "the hello does not say so, an acknowledgement must"
    );
}

#[test]
fn credit_given_after_the_hello_was_written_is_told() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    pair.push_many(8, A, NORMAL, 40 * KIB);
    pair.settle();
    assert!(!pair.sides[A].session.is_drained(), "the credit is used up");
    pair.dial(B);
    while !pair.sides[B].held.is_empty() {
        pair.handle(B);
    }
    pair.accept();
    pair.complete();
    pair.finish();
}

#[test]
fn nothing_but_acknowledgements_is_written_before_the_types_came() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    pair.push(A, NORMAL, 100);
    pair.dial(A);
    pair.accept();
    pair.complete();
    assert_eq!(firsts(&pair.write(A)), [0; 0]);
    pair.carry(B);
    assert_eq!(firsts(&pair.write(A)), [1]);
    pair.finish();
}

#[test]
fn a_hello_that_says_too_little_delivers_nothing_twice() {
    let mut pair = Pair::linked();
    pair.push(A, NORMAL, 100);
    pair.write(A);
    pair.dial_early(B, usize::MAX);
    assert_eq!(pair.sides[B].tags(), [1], "it came on the old link, after the hello was written");
    pair.link();
    assert_eq!(firsts(&pair.write(A)), [1]);
    pair.finish();
    assert_eq!((pair.sides[B].tags(), pair.sides[B].session.accounts().duplicates), (vec![1], 1));
}
