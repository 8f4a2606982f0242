//! Parts of a session alone, at their edges: batches, quarantine, books, types.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::super::batch::Batch;
use super::super::quarantine::{Quarantine, QuarantineRoom};
use super::super::*;
use super::pair::{A, B, NORMAL, Pair};
use crate::limits::{BATCH_BYTES, CREDIT_BYTES_MIN, QUARANTINE_PROCESS_BYTES};
use crate::wire::frame::{self, BODY_CRC_BYTES, HEADER_BYTES as FRAME_HEADER_BYTES};
use crate::wire::record::{self, HEADER_BYTES};
use crate::wire::{BodyCheck, Protocol, TypeEntry};

fn batch_of(bodies: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    bodies.iter().for_each(|body| batch.push(7, 1, body, None));
    batch
}

#[test]
fn a_batch_takes_records_to_the_byte() {
    let batch = batch_of(&[b"first"]);
    let used = FRAME_HEADER_BYTES + HEADER_BYTES + 5;
    let left = BATCH_BYTES - used - HEADER_BYTES;
    assert!(batch.has_room(left) && !batch.has_room(left + 1));
    let mut batch = Batch::in_buffer(BytesMut::with_capacity(512));
    batch.push(7, 1, b"first", None);
    // What the frame needs at its end counts as well.
    let left = 512 - used - HEADER_BYTES - BODY_CRC_BYTES;
    assert!(batch.takes(left) && !batch.takes(left + 1));
    assert!(!batch.would_grow(left) && batch.would_grow(left + 1));
}

#[test]
fn a_batch_that_moves_into_a_larger_buffer_keeps_what_it_has() {
    let mut batch = batch_of(&[b"first"]);
    assert!(batch.would_grow(5000));
    let mut larger = BytesMut::with_capacity(16 * 1024);
    larger.extend_from_slice(b"of somebody else");
    batch.move_to(larger);
    assert!(!batch.would_grow(5000));
    batch.push(9, 2, &[2; 5000], None);
    assert_eq!(batch.first_type(), Some((7, 1)));
    let mut tickets = Vec::new();
    let sent = batch.stamp(NORMAL, Seq(1), BodyCheck::Crc, &mut tickets);
    let mut records = sent.parts[0].slice(FRAME_HEADER_BYTES..);
    assert_eq!(record::take(&mut records).unwrap().body, b"first"[..]);
    assert_eq!(record::take(&mut records).unwrap().body, vec![2; 5000]);
    assert_eq!(records.len(), BODY_CRC_BYTES);
}

#[test]
fn only_a_large_buffer_that_nobody_reads_is_used_again() {
    let stamp = |bytes: usize| {
        let mut batch = Batch::in_buffer(BytesMut::with_capacity(bytes));
        batch.push(7, 1, b"x", None);
        batch.stamp(NORMAL, Seq(1), BodyCheck::Crc, &mut Vec::new())
    };
    assert!(stamp(BATCH_BYTES + 64).into_buffer().is_some());
    assert!(stamp(512).into_buffer().is_none(), "small");
    let sent = stamp(BATCH_BYTES + 64);
    let reader = sent.parts[0].clone();
    assert!(sent.into_buffer().is_none(), "still read");
    drop(reader);
}

fn quarantine() -> (Quarantine, QuarantineRoom) {
    let room = QuarantineRoom::default();
    (Quarantine::new(Duration::from_secs(30), room.clone()), room)
}

fn held(first: u64, count: u32, bytes: usize) -> frame::Batch {
    frame::Batch { stream: NORMAL, first: Seq(first), count, records: vec![first as u8; bytes].into() }
}

#[test]
fn quarantine_holds_one_batch_after_another_and_gives_each_once() {
    let (mut quarantine, _) = quarantine();
    let (now, none) = (Instant::now(), Seq::NONE);
    for batch in [held(1, 2, 60_000), held(3, 1, 60_000), held(4, 3, 60_000)] {
        quarantine.hold(now, &batch, none).unwrap();
    }
    quarantine.hold(now, &held(3, 2, 60_000), none).unwrap();
    assert_eq!(quarantine.bytes(), 180_000, "what comes again is held already");
    let gap = quarantine.hold(now, &held(8, 1, 10), none);
    assert!(matches!(gap, Err(ProtocolError::Gap { expected: Seq(7), .. })), "{gap:?}");
    let released: Vec<_> = quarantine.release().iter().map(|batch| (batch.first.0, batch.count)).collect();
    assert_eq!(released, [(1, 2), (3, 1), (4, 3)]);
    assert_eq!(quarantine.bytes(), 0);
}

#[test]
fn quarantine_does_not_keep_the_buffer_that_was_read_into() {
    let (mut quarantine, _) = quarantine();
    let read = Bytes::from(vec![7; 100_000]);
    let batch = frame::Batch { records: read.slice(..100), ..held(1, 1, 0) };
    quarantine.hold(Instant::now(), &batch, Seq::NONE).unwrap();
    drop(batch);
    assert!(read.is_unique(), "nobody else holds it");
}

#[test]
fn a_quarantine_that_goes_gives_its_room_back() {
    let (mut first, room) = quarantine();
    first.hold(Instant::now(), &held(1, 1, 60_000), Seq::NONE).unwrap();
    let mut others = Vec::new();
    let fill = |others: &mut Vec<Quarantine>| {
        others.clear();
        loop {
            let mut other = Quarantine::new(Duration::from_secs(30), room.clone());
            let holds = other.hold(Instant::now(), &held(1, 1, 60_000), Seq::NONE).is_ok();
            others.push(other);
            if !holds {
                return others.len() - 1;
            }
        }
    };
    let most = QUARANTINE_PROCESS_BYTES / 60_000;
    assert_eq!(fill(&mut others), most - 1);
    drop(first);
    assert_eq!(fill(&mut others), most, "the first one's as well, and those of the others before");
}

#[test]
fn sums_add_every_account() {
    let one = Accounts {
        acked: 1,
        not_sent: 2,
        indeterminate: 3,
        resent: 4,
        duplicates: 5,
        handled: 6,
        bytes_written: 7,
        bytes_accepted: 8,
    };
    let mut sum = one;
    sum.add(&one);
    let twice = Accounts {
        acked: 2,
        not_sent: 4,
        indeterminate: 6,
        resent: 8,
        duplicates: 10,
        handled: 12,
        bytes_written: 14,
        bytes_accepted: 16,
    };
    assert_eq!(sum, twice);
}

#[test]
fn a_type_that_turns_out_to_have_another_name_here_is_not_sent_any_more() {
    let entry = |hash, name: &str| TypeEntry {
        protocol: Protocol::APPLICATION,
        hash,
        version: 1,
        open: true,
        any: false,
        name: name.to_owned(),
    };
    let mut types = PeerTypes::new(&[entry(1, "bank.balance"), entry(2, "bank.cents")], |_| false);
    types.note_sent(1, "bank.balance");
    types.note_sent(2, "weather.report");
    types.note_sent(3, "unknown there");
    assert_eq!(types.judge(NORMAL, 1, 1, false), Ok(()));
    assert_eq!(types.judge(NORMAL, 2, 1, false), Err(Cause::NotUnderstood));
}

#[test]
fn what_the_peer_takes_at_most_is_known_and_what_waited_for_credit_stays_counted() {
    let second = Duration::from_secs(1);
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.sides[A].session.set_peer_message_bytes(12_345);
    assert_eq!(pair.sides[A].session.peer_message_bytes(), 12_345);
    pair.sides[A].session.set_peer_message_bytes(u64::MAX);
    pair.link();
    pair.sides[B].slow = true;
    pair.push_many(1_000, A, NORMAL, 1_000);
    pair.settle();
    pair.advance(second);
    pair.sides[B].slow = false;
    pair.handle(B);
    pair.settle();
    let blocked = |pair: &Pair| pair.sides[A].session.streams().map(|figures| figures.blocked).max();
    let before = blocked(&pair);
    assert!(before >= Some(second));
    pair.restart(A, Cause::SessionLost);
    assert!(blocked(&pair) >= before, "a new session does not forget it");
}
