//! When acknowledgements go, and what they may say.

use std::time::Duration;

use super::super::*;
use super::pair::{A, B, NORMAL, Pair};
use crate::limits::{ACK_DELAY, ACK_SHARE, CREDIT_BYTES, KIB};
use crate::wire::Frame;
use crate::wire::StreamResume;

const MILLI: Duration = Duration::from_millis(1);

/// Linked, and nothing more to be said.
fn quiet() -> Pair {
    let mut pair = Pair::linked();
    pair.settle();
    pair
}

#[test]
fn an_acknowledgement_goes_alone_after_20_ms() {
    let mut pair = quiet();
    pair.push(A, NORMAL, 100);
    pair.write_and_carry(A);
    assert_eq!(pair.sides[B].session.poll_timeout(), Some(pair.now + ACK_DELAY));
    pair.advance(ACK_DELAY - MILLI);
    assert_eq!(pair.write(B), []);
    pair.advance(MILLI);
    assert!(matches!(pair.write(B)[..], [Frame::Ack(_)]));
    assert_eq!(pair.sides[B].session.poll_timeout(), None);
    assert_eq!(
        pair.sides[A].session.accounts().acked,
        0,
        "acknowledged when it comes, not when it is written"
    );
    pair.carry(B);
    assert_eq!(pair.sides[A].session.accounts().acked, 1);
}

#[test]
fn a_written_message_is_pending_until_its_acknowledgement_comes() {
    let mut pair = quiet();
    let tag = pair.push(A, NORMAL, 100);
    pair.write(A);
    assert_eq!((pair.sides[A].end_of(tag), pair.sides[A].pending()), (None, 1));
    pair.carry(A);
    assert_eq!(pair.sides[A].end_of(tag), None);
    pair.settle();
    assert_eq!((pair.sides[A].end_of(tag), pair.sides[A].pending()), (Some(Ok(())), 0));
    assert_eq!(pair.sides[A].handled_of(tag), Some(Ok(())));
}

#[test]
fn nothing_is_acknowledged_that_has_not_come_whole() {
    let mut pair = quiet();
    let tag = pair.push(A, NORMAL, 100);
    pair.write(A);
    let all = pair.sides[A].pipe.len();
    pair.carry_some(A, all - 1);
    pair.settle_side(B);
    assert_eq!(pair.sides[A].end_of(tag), None);
    assert!(pair.sides[B].session.resume_points().iter().all(|point| point.next_expected == Seq(1)));
}

#[test]
fn a_quarter_of_the_credit_is_acknowledged_at_once() {
    let mut pair = quiet();
    pair.sides[B].slow = true;
    let quarter = (CREDIT_BYTES / ACK_SHARE) as usize;
    pair.push(A, NORMAL, quarter / 4);
    pair.write_and_carry(A);
    assert_eq!(pair.write(B), []);
    pair.push_many(3, A, NORMAL, quarter / 4);
    pair.write_and_carry(A);
    assert!(matches!(pair.write(B)[..], [Frame::Ack(_)]));
}

#[test]
fn a_due_write_carries_the_acknowledgement_first() {
    let mut pair = quiet();
    pair.push(A, NORMAL, 100);
    pair.write_and_carry(A);
    pair.push(B, NORMAL, 100);
    assert!(matches!(pair.write(B)[..], [Frame::Ack(_), Frame::Batch(_)]));
    pair.finish();
}

#[test]
fn an_acknowledgement_is_said_once() {
    let mut pair = quiet();
    pair.push(A, NORMAL, 100);
    pair.settle();
    pair.advance(10 * ACK_DELAY);
    assert_eq!(pair.write(B), []);
}

#[test]
fn a_duplicate_batch_is_dropped_and_acknowledged_again() {
    let mut pair = quiet();
    pair.push(A, NORMAL, 100);
    let frames = pair.write(A);
    pair.settle();
    let now = pair.now;
    pair.sides[B].handle_frame(now, frames[0].clone()).unwrap();
    pair.take_events();
    assert_eq!(pair.sides[B].tags(), [1]);
    assert_eq!(pair.sides[B].session.accounts().duplicates, 1);
    assert!(matches!(pair.write(B)[..], [Frame::Ack(_)]), "at once: the first one was lost");
    assert_eq!(pair.write(B), []);
    pair.finish();
}

#[test]
fn only_record_bytes_accepted_anew_count_as_accepted() {
    let mut pair = quiet();
    pair.push(A, NORMAL, 100);
    let frames = pair.write(A);
    pair.settle();
    let before = pair.sides[B].session.accounts().bytes_accepted;
    let now = pair.now;
    pair.sides[B].handle_frame(now, frames[0].clone()).unwrap();
    assert_eq!(pair.sides[B].session.accounts().bytes_accepted, before);
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_is_a_protocol_error_and_nothing_is_applied() {
    let mut pair = quiet();
    let tag = pair.push(A, NORMAL, 100);
    pair.write(A);
    pair.push(A, NORMAL, 100);
    let credit = 100 * CREDIT_BYTES;
    let ack = StreamAck { stream: NORMAL, accepted: Seq(2), handled: Seq(2), credit };
    let left = pair.sides[A].session.streams().next().unwrap().credit_bytes;
    let refused = pair.sides[A].session.handle_acks(&[ack]);
    assert_eq!(refused, Err(ProtocolError::AckBeyondSent { acked: Seq(2), sent: Seq(1) }));
    assert_eq!(pair.sides[A].end_of(tag), None);
    assert_eq!(pair.sides[A].session.streams().next().unwrap().credit_bytes, left, "no credit either");
    assert_eq!(pair.sides[A].session.accounts(), Accounts { bytes_written: 140, ..Accounts::default() });
    pair.finish();
}

#[test]
fn an_old_acknowledgement_takes_nothing_back() {
    let mut pair = quiet();
    pair.push(A, NORMAL, 100);
    pair.settle();
    let before = (pair.sides[A].session.accounts(), pair.sides[A].session.streams().next());
    let old = StreamAck { stream: NORMAL, accepted: Seq(0), handled: Seq(0), credit: 64 * KIB as u64 };
    pair.sides[A].session.handle_acks(&[old]).unwrap();
    assert_eq!((pair.sides[A].session.accounts(), pair.sides[A].session.streams().next()), before);
}

#[test]
fn a_batch_is_kept_whole_until_its_last_record_is_acknowledged() {
    let mut pair = quiet();
    pair.push_many(3, A, NORMAL, 100);
    pair.write(A);
    let types = PeerTypes::new(&pair.sides[B].types(), |_| false);
    let inside = StreamAck { stream: NORMAL, accepted: Seq(2), handled: Seq(0), credit: CREDIT_BYTES };
    let resume = StreamResume { stream: NORMAL, next_expected: Seq(3), credit: CREDIT_BYTES };
    let session = &mut pair.sides[A].session;
    session.handle_acks(&[inside]).unwrap();
    assert_eq!((session.accounts().acked, session.queued_and_pending()), (0, (3, 3)));
    session.handle_link_down();
    session.handle_link_up(&[resume], CREDIT_BYTES).unwrap();
    session.handle_types(types);
    let mut out = Transmit::default();
    session.poll_transmit(pair.now, &mut out);
    assert_eq!(
        session.accounts().resent,
        3,
        "a resume inside a batch repeats it, the receiver skips what it has"
    );
    assert_eq!([1, 2, 3].map(|tag| pair.sides[A].end_of(tag)), [Some(Ok(())), Some(Ok(())), None]);
}
