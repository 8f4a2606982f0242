//! Messages of every size keep their order, and small ones share a frame.

use super::super::*;
use super::pair::{A, B, MESSAGE_MAX, NORMAL, Pair};
use crate::limits::{CHUNK_BYTES, KIB, OWN_FRAME_BYTES};
use crate::wire::Frame;
use crate::wire::frame::encode_control;

#[test]
fn small_big_small_arrive_in_this_order() {
    let mut pair = Pair::linked();
    for bytes in [10, 300 * KIB, 10, 20 * KIB, 10] {
        pair.push(A, NORMAL, bytes);
    }
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_message_without_a_body_arrives() {
    let mut pair = Pair::linked();
    pair.push_many(3, A, NORMAL, 0);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [1, 2, 3]);
    assert_eq!(pair.sides[A].session.accounts().acked, 3);
}

#[test]
fn sizes_around_every_limit_arrive() {
    let mut pair = Pair::linked();
    for limit in [OWN_FRAME_BYTES, CHUNK_BYTES, 2 * CHUNK_BYTES] {
        for bytes in limit - 1..=limit + 1 {
            pair.push(A, NORMAL, bytes);
        }
    }
    pair.push(A, NORMAL, MESSAGE_MAX);
    pair.finish();
    assert_eq!(pair.sides[B].got.len(), 10);
}

#[test]
fn small_messages_share_a_frame() {
    let mut pair = Pair::linked();
    pair.push_many(100, A, NORMAL, 100);
    let frames = pair.write(A);
    assert!(matches!(&frames[..], [Frame::Batch(batch)] if batch.count == 100), "{frames:?}");
    pair.finish();
}

#[test]
fn both_directions_do_not_disturb_each_other() {
    let mut pair = Pair::linked();
    for at in 0..50 {
        pair.push(at % 2, NORMAL, at * 3_000);
    }
    pair.finish();
    assert_eq!((pair.sides[A].got.len(), pair.sides[B].got.len()), (25, 25));
}

#[test]
fn a_goodbye_is_good_only_when_all_before_it_came() {
    let mut pair = Pair::linked();
    pair.push(A, NORMAL, 10);
    pair.write(A);
    let last = pair.sides[A].session.last_sent();
    assert_eq!(last, [(NORMAL, Seq(1))]);
    let early = ProtocolError::EarlyGoodbye { stream: NORMAL, last: Seq(1), accepted: Seq(0) };
    assert_eq!(pair.sides[B].session.check_goodbye(&last), Err(early));
    pair.carry(A);
    assert_eq!(pair.sides[B].session.check_goodbye(&last), Ok(()));
}

#[test]
fn what_is_written_is_what_the_wire_encodes() {
    let mut pair = Pair::linked();
    for bytes in [0, 10, 1_000, OWN_FRAME_BYTES, CHUNK_BYTES + 1] {
        pair.push(A, NORMAL, bytes);
    }
    let frames = pair.write(A);
    let encoded: Vec<u8> = frames.iter().flat_map(encode_control).collect();
    assert!(pair.sides[A].pipe == encoded, "the golden bytes of batches hold for sessions, too");
    pair.finish();
}
