//! What a peer may not do, and what it does not understand. A refused frame changes nothing.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::*;
use super::pair::{A, B, MESSAGE_MAX, NORMAL, Pair};
use crate::limits::{CREDIT_BYTES, CREDIT_BYTES_MIN, KIB};
use crate::wire::Frame;
use crate::wire::Protocol;
use crate::wire::record::{EXTENDED, FIRST, LAST, RecordHeader, WHOLE, total_extension};

/// A record with its flags; a first chunk states its total.
fn record(flags: u16, hash: u32, body: &[u8], total: Option<u64>) -> Vec<u8> {
    let extension = total.map_or(Vec::new(), |total| total_extension(total).to_vec());
    let flags = if total.is_some() { flags | EXTENDED } else { flags };
    let length = (extension.len() + body.len()) as u32;
    let header = RecordHeader { length, flags, version: 1, hash };
    [&header.encode()[..], &extension, body].concat()
}

fn batch(first: u64, records: &[Vec<u8>]) -> WireBatch {
    let count = records.len() as u32;
    WireBatch { stream: NORMAL, first: Seq(first), count, records: Bytes::from(records.concat()) }
}

/// Hands a batch to B.
fn offer(pair: &mut Pair, batch: &WireBatch) -> Result<(), ProtocolError> {
    let now = pair.now;
    let done = pair.sides[B].session.handle_batch(now, batch);
    pair.take_events();
    done
}

fn whole(hash: u32, bytes: usize) -> Vec<u8> {
    record(WHOLE, hash, &super::side::body(hash, bytes), None)
}

#[test]
fn a_gap_is_a_protocol_error() {
    let mut pair = Pair::linked();
    offer(&mut pair, &batch(1, &[whole(1, 10)])).unwrap();
    let gap = ProtocolError::Gap { stream: NORMAL, found: Seq(3), expected: Seq(2) };
    assert_eq!(offer(&mut pair, &batch(3, &[whole(2, 10)])), Err(gap));
    assert_eq!(pair.sides[B].tags(), [1]);
    offer(&mut pair, &batch(2, &[whole(2, 10)])).unwrap();
    assert_eq!(pair.sides[B].tags(), [1, 2]);
}

#[test]
fn a_batch_that_begins_before_what_is_expected_is_taken_from_there() {
    let mut pair = Pair::linked();
    offer(&mut pair, &batch(1, &[whole(1, 10), whole(2, 10)])).unwrap();
    offer(&mut pair, &batch(2, &[whole(2, 10), whole(3, 10), whole(4, 0)])).unwrap();
    assert_eq!(pair.sides[B].tags(), [1, 2, 3, 4]);
    assert_eq!(pair.sides[B].session.accounts().duplicates, 1);
}

#[test]
fn beyond_credit_is_refused() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    let half = CREDIT_BYTES_MIN as usize / 2;
    offer(&mut pair, &batch(1, &[whole(1, half - 12)])).unwrap();
    offer(&mut pair, &batch(2, &[whole(2, half - 12)])).unwrap();
    let beyond = ProtocolError::BeyondCredit {
        stream: NORMAL,
        offset: CREDIT_BYTES_MIN + 12,
        credit: CREDIT_BYTES_MIN,
    };
    assert_eq!(offer(&mut pair, &batch(3, &[whole(3, 0)])), Err(beyond));
    assert_eq!(pair.sides[B].tags(), [1, 2]);
    pair.handle(B);
    offer(&mut pair, &batch(3, &[whole(3, 0)])).unwrap();
    assert_eq!(pair.sides[B].tags(), [1, 2, 3]);
}

#[test]
fn what_is_repeated_needs_no_credit() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    let all = batch(1, &[whole(1, CREDIT_BYTES_MIN as usize - 12)]);
    offer(&mut pair, &all).unwrap();
    offer(&mut pair, &all).unwrap();
    assert_eq!(pair.sides[B].tags(), [1]);
}

#[test]
fn a_batch_that_holds_more_or_less_than_it_says_is_refused_whole() {
    let mut pair = Pair::linked();
    let good = batch(1, &[whole(1, 10), whole(2, 10)]);
    for count in [1, 3, 8_192] {
        assert!(offer(&mut pair, &WireBatch { count, ..good.clone() }).is_err(), "{count}");
    }
    assert_eq!(pair.sides[B].got, []);
    offer(&mut pair, &good).unwrap();
    assert_eq!(pair.sides[B].tags(), [1, 2]);
}

#[test]
fn a_record_whose_extension_is_broken_is_refused_before_it_counts() {
    let mut pair = Pair::linked();
    let broken = [&b"\xff"[..], b"\xff\xff", b"\x04\x00\x07\x80\x00\x00"];
    for extension in broken {
        let error =
            offer(&mut pair, &batch(1, &[whole(1, 10), record(WHOLE | EXTENDED, 2, extension, None)]));
        assert!(matches!(error, Err(ProtocolError::Decode(_))), "{extension:x?}: {error:?}");
    }
    assert_eq!(pair.sides[B].got, []);
    offer(&mut pair, &batch(1, &[whole(1, 10), whole(2, 10)])).unwrap();
    assert_eq!(pair.sides[B].tags(), [1, 2]);
}

#[test]
fn chunks_that_make_no_message_are_refused() {
    for wrong in [
        vec![record(0, 1, &[0; 10], None)],
        vec![record(LAST, 1, &[0; 10], None)],
        vec![record(FIRST, 1, &[0; 10], None)],
        vec![record(FIRST, 1, &[0; 10], Some(5))],
        vec![record(FIRST, 1, &[0; 10], Some(10))],
        vec![record(FIRST, 1, &[0; 10], Some(MESSAGE_MAX as u64 + 1))],
        vec![record(FIRST, 1, &[0; 10], Some(u64::MAX))],
        vec![record(FIRST, 1, &[0; 10], Some(20)), whole(2, 10)],
    ] {
        let mut pair = Pair::linked();
        assert!(offer(&mut pair, &batch(1, &wrong)).is_err(), "{wrong:?}");
        assert_eq!(pair.sides[B].asked, []);
        offer(&mut pair, &batch(1, &[whole(1, 10)])).expect("what was refused left nothing behind");
        assert_eq!(pair.sides[B].tags(), [1]);
    }
}

#[test]
fn a_refused_chunk_leaves_the_message_under_way_as_it_was() {
    let body = super::side::body(1, 30);
    for wrong in [
        record(0, 1, &[0; 30], None),
        record(LAST, 1, &[0; 10], None),
        record(0, 1, &[0; 20], None),
        record(LAST, 2, &[0; 20], None),
        record(FIRST, 1, &[0; 10], Some(30)),
        whole(2, 10),
    ] {
        let mut pair = Pair::linked();
        offer(&mut pair, &batch(1, &[record(FIRST, 1, &body[..10], Some(30))])).unwrap();
        assert!(offer(&mut pair, &batch(2, &[wrong])).is_err());
        offer(&mut pair, &batch(2, &[record(LAST, 1, &body[10..], None)])).unwrap();
        assert_eq!(pair.sides[B].tags(), [1]);
    }
}

#[test]
fn an_unknown_type_is_not_sent_and_its_neighbours_arrive() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    pair.sides[B].refuses.insert(2);
    let tags = [pair.push(A, NORMAL, 10), pair.push(A, NORMAL, 10), pair.push(A, NORMAL, 10)];
    pair.link();
    let frames = pair.write(A);
    assert!(matches!(&frames[..], [Frame::Batch(batch)] if batch.count == 2), "one frame, without a gap");
    pair.finish();
    let refused = Some(Err(Lost::NotSent(Cause::NotUnderstood)));
    assert_eq!(tags.map(|tag| pair.sides[A].end_of(tag)), [Some(Ok(())), refused, Some(Ok(()))]);
    assert_eq!(pair.sides[B].tags(), [1, 3]);
}

#[test]
fn one_of_many_types_is_found_among_its_neighbours() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    pair.sides[B].refuses.insert(40);
    pair.push_many(80, A, NORMAL, 10);
    pair.link();
    pair.finish();
    assert_eq!(pair.sides[A].session.accounts().not_sent, 1);
    assert_eq!(pair.sides[B].got.len(), 79);
}

#[test]
fn a_large_message_of_an_unknown_type_is_not_sent_at_all() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    pair.sides[B].refuses.insert(1);
    let tag = pair.push(A, NORMAL, 300 * KIB);
    pair.link();
    assert_eq!(pair.write(A), []);
    assert_eq!(pair.sides[A].end_of(tag), Some(Err(Lost::NotSent(Cause::NotUnderstood))));
    pair.finish();
}

#[test]
fn a_message_larger_than_the_peer_takes_is_not_sent_and_its_neighbours_are() {
    let mut pair = Pair::linked();
    pair.sides[A].session.set_peer_message_bytes(200 * KIB as u64);
    let before = pair.push(A, NORMAL, 200 * KIB);
    let large = pair.push(A, NORMAL, 200 * KIB + 1);
    let after = pair.push(A, NORMAL, 10);
    pair.finish();
    assert_eq!(pair.sides[A].end_of(large), Some(Err(Lost::NotSent(Cause::TooLarge))));
    assert_eq!(pair.sides[B].tags(), [before, after]);
}

#[test]
fn a_message_whose_head_was_written_is_sent_to_its_end_though_it_is_too_large_now() {
    let mut pair = Pair::linked();
    let tag = pair.push(A, NORMAL, 900 * KIB);
    pair.write_and_carry(A);
    pair.sides[A].session.set_peer_message_bytes(KIB as u64);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [tag]);
}

#[test]
fn a_message_whose_head_was_written_is_sent_to_its_end_though_its_type_is_refused_now() {
    let mut pair = Pair::linked();
    let tag = pair.push(A, NORMAL, 900 * KIB);
    pair.write_and_carry(A);
    pair.cut();
    pair.sides[B].refuses.insert(tag);
    pair.link();
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [tag]);
}

#[test]
fn a_type_that_is_not_open_needs_a_common_view() {
    let mut pair = Pair::linked();
    let closed = StreamId::new(Protocol::APPLICATION, crate::wire::Class::Normal, false);
    let outside = pair.push(A, closed, 10);
    pair.write(A);
    assert_eq!(pair.sides[A].end_of(outside), Some(Err(Lost::NotSent(Cause::NotAdmitted))));
    pair.sides[A].session.set_gate(pair.now, Gate::Open).unwrap();
    pair.sides[B].session.set_gate(pair.now, Gate::Open).unwrap();
    let inside = pair.push(A, closed, 10);
    pair.finish();
    assert_eq!(pair.sides[A].end_of(inside), Some(Ok(())));
}

/// Records as a peer without manners might write them.
fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let total =
        prop_oneof![2 => Just(None), 1 => (0..100u64).prop_map(Some), 1 => any::<u64>().prop_map(Some)];
    let flags = prop_oneof![4 => 0..4u16, 1 => any::<u16>()];
    let record = (flags, 0..3u32, prop::collection::vec(any::<u8>(), 0..50), total)
        .prop_map(|(flags, hash, body, total)| record(flags, hash, &body, total));
    prop::collection::vec(prop_oneof![9 => record, 1 => prop::collection::vec(any::<u8>(), 0..30)], 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_refused_batch_never_panics_and_changes_nothing(
        batches in prop::collection::vec((records(), 0..3u64, 0..3u32), 1..20),
    ) {
        let mut pair = Pair::linked();
        let session = &mut pair.sides[B].session;
        for (records, back, more) in batches {
            let next = session.resume_points().first().map_or(1, |point| point.next_expected.0);
            let mut batch = batch((next + 1).saturating_sub(back).max(1), &records);
            batch.count += more;
            let before = (session.resume_points(), session.accounts());
            if session.handle_batch(pair.now, &batch).is_err() {
                let mut after = session.resume_points();
                // Only a stream that nobody spoke of before may be known now.
                after.retain(|point| !before.0.is_empty() || point.next_expected != Seq(1));
                prop_assert_eq!((after, session.accounts()), before);
                prop_assert!(session.poll_event().is_none());
            }
            while session.poll_event().is_some() {}
        }
    }
}
