//! Datagrams: at once or never, and nothing is owed for them.

use crate::session::Gate;
use std::time::Duration;

use super::super::*;
use super::net::Told;
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::{NORMAL, fallback, stream};
use super::solo::Solo;
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_QUEUE_BYTES, DATAGRAM_QUEUE_MAX, MIB};
use crate::wire::frame::encode_datagram;
use crate::wire::record::{self, RecordHeader};
use crate::wire::{Class, Protocol};

/// For members of a view only.
const MEMBERS: StreamId = StreamId::new(Protocol::APPLICATION, Class::Normal, false);
const SECOND: Duration = Duration::from_secs(1);

fn outbound(stream: StreamId, tag: u32, bytes: usize, expires: Option<Instant>) -> Outbound {
    let frame = encode_datagram(stream, tag, 1, &vec![tag as u8; bytes], BodyCheck::Crc);
    Outbound { frame, stream, hash: tag, version: 1, body_bytes: bytes, expires }
}

fn push(peer: &Peer, now: Instant, tag: u32, bytes: usize) -> Result<bool, Dropped> {
    peer.datagrams().push(now, outbound(NORMAL, tag, bytes, Some(now + SECOND)))
}

/// The tags of what came.
fn came(pair: &Pair, side: usize) -> Vec<u32> {
    let tag = |datagram: &Datagram| {
        assert_eq!(datagram.stream, NORMAL);
        let record = record::take(&mut datagram.record.clone()).unwrap();
        assert!(record.body.iter().all(|byte| *byte == record.header.hash as u8));
        record.header.hash
    };
    pair.sides[side].datagrams.iter().map(tag).collect()
}

fn linked_solo() -> (Solo, LinkId) {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    solo.write();
    (solo, link)
}

fn sent(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| matches!(frame, Frame::Datagram(_))).count()
}

#[test]
fn a_datagram_arrives_once_and_is_in_no_book() {
    let mut pair = Pair::linked();
    let now = pair.now;
    for tag in 1..=9 {
        assert_eq!(push(pair.peer(A), now, tag, 100), Ok(tag == 1), "the first of several wakes the peer");
    }
    assert_eq!(pair.peer(A).datagrams().stats().waiting, 9);
    pair.settle();
    assert_eq!(came(&pair, B), (1..=9).collect::<Vec<_>>());
    let (sent, got) = (pair.peer(A).datagrams().stats(), pair.peer(B).datagrams().stats());
    assert_eq!((sent.given(), sent.sent, got.received), (9, 9, 9));
    assert_eq!(pair.peer(A).session().queued_and_pending(), (0, 0));
    assert!(pair.peer(A).session().is_drained(), "nothing is owed");
}

#[test]
fn acknowledgements_go_before_datagrams_and_datagrams_before_batches() {
    let (mut solo, link) = linked_solo();
    for _ in 0..20 {
        drop(super::side::push(solo.peer.session().intake(), stream(Class::Urgent), 1, MIB / 4).unwrap());
    }
    push(&solo.peer, solo.now, 7, 20).unwrap();
    solo.frame(link, Frame::Ping { nonce: 1, heard_millis: 0 });
    solo.frame(link, Frame::Batch(super::errors::batch(NORMAL, 1, 3)));
    let frames = solo.write();
    let as_said =
        matches!(&frames[..], [Frame::Pong { .. }, Frame::Ack(_), Frame::Datagram(_), Frame::Batch(_), ..]);
    assert!(as_said, "{frames:?}");
}

#[test]
fn a_datagram_takes_acknowledgements_along() {
    let (mut solo, link) = linked_solo();
    solo.frame(link, Frame::Batch(super::errors::batch(NORMAL, 1, 3)));
    assert_eq!(solo.write(), [], "the acknowledgement waits for company");
    push(&solo.peer, solo.now, 7, 20).unwrap();
    assert!(matches!(&solo.write()[..], [Frame::Ack(_), Frame::Datagram(_)]));
}

#[test]
fn without_a_link_a_datagram_is_dropped_and_counted() {
    let mut solo = Solo::new();
    for tag in 0..3 {
        assert_eq!(push(&solo.peer, solo.now, tag, 10), Err(Dropped::NoLink));
    }
    assert_eq!(solo.peer.datagrams().stats().no_link, 3);
    assert_eq!(solo.dial_within(SECOND * 60), None, "and makes no link");
}

#[test]
fn nothing_is_sent_again_after_a_break() {
    let mut pair = Pair::linked();
    let now = pair.now;
    push(pair.peer(A), now, 1, 10).unwrap();
    pair.poll();
    pair.break_link(Told::Both);
    assert_eq!(push(pair.peer(A), now, 2, 10), Err(Dropped::NoLink));
    pair.settle();
    assert!(pair.same_link().is_some());
    assert!(came(&pair, B).is_empty(), "the first was under way, the second had no link");
    let now = pair.now;
    push(pair.peer(A), now, 3, 10).unwrap();
    pair.settle();
    assert_eq!(came(&pair, B), [3]);
    let stats = pair.peer(A).datagrams().stats();
    assert_eq!((stats.given(), stats.sent, stats.no_link), (3, 2, 1));
}

#[test]
fn what_waits_when_the_link_goes_is_dropped_and_counted() {
    let (mut solo, link) = linked_solo();
    push(&solo.peer, solo.now, 1, 10).unwrap();
    push(&solo.peer, solo.now, 2, 10).unwrap();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    solo.take_outputs();
    let stats = solo.peer.datagrams().stats();
    assert_eq!((stats.given(), stats.no_link, stats.waiting), (2, 2, 0));
    let (link, hello) = solo.dial();
    let answer = solo.hello((hello.generation, hello.attempt), 1, 1);
    assert!(solo.reply(link, FirstBytes::Answer(Box::new(answer))));
    solo.types(link);
    assert_eq!(sent(&solo.write()), 0);
}

#[test]
fn a_full_queue_drops_the_newest_but_the_expired_ones_first() {
    let (mut solo, _) = linked_solo();
    let short = solo.now + Duration::from_millis(5);
    let datagrams = Arc::clone(solo.peer.datagrams());
    for tag in 0..DATAGRAM_QUEUE_MAX as u32 {
        let expires = if tag % 4 == 1 { short } else { solo.now + SECOND };
        datagrams.push(solo.now, outbound(NORMAL, tag, 10, Some(expires))).unwrap();
    }
    assert_eq!(push(&solo.peer, solo.now, 999, 10), Err(Dropped::Full));
    let (expired, rest) = (DATAGRAM_QUEUE_MAX as u64 / 4, DATAGRAM_QUEUE_MAX as u64 * 3 / 4);
    solo.now = short;
    assert_eq!(push(&solo.peer, solo.now, 1000, 10), Ok(false));
    let stats = datagrams.stats();
    assert_eq!((stats.full, stats.expired, stats.waiting), (1, expired, rest + 1));
    assert_eq!(sent(&solo.write()) as u64, rest + 1);
    assert_eq!(datagrams.stats().given(), DATAGRAM_QUEUE_MAX as u64 + 2);
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let (mut solo, _) = linked_solo();
    let body = DATAGRAM_BYTES_MAX - record::HEADER_BYTES;
    let mut taken = 0;
    while push(&solo.peer, solo.now, 1, body).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, DATAGRAM_QUEUE_BYTES / (DATAGRAM_BYTES_MAX + 28), "two of the largest");
    assert_eq!(sent(&solo.write()), taken);
    assert_eq!(push(&solo.peer, solo.now, 1, body), Ok(true), "and there is room again");
}

#[test]
fn what_is_expired_is_not_written() {
    let (mut solo, _) = linked_solo();
    for (tag, millis) in [(1, 10), (2, 11), (3, 0)] {
        let expires = Some(solo.now + Duration::from_millis(millis));
        solo.peer.datagrams().push(solo.now, outbound(NORMAL, tag, 1, expires)).unwrap();
    }
    solo.peer.datagrams().push(solo.now, outbound(NORMAL, 4, 1, None)).unwrap();
    solo.now += Duration::from_millis(10);
    assert_eq!(sent(&solo.write()), 2, "the time is over at its end");
    let stats = solo.peer.datagrams().stats();
    assert_eq!((stats.given(), stats.expired, stats.sent), (4, 2, 2));
}

#[test]
fn a_datagram_waits_until_the_peer_has_said_what_it_takes() {
    let mut solo = Solo::contact();
    let link = solo.link();
    push(&solo.peer, solo.now, 1, 10).unwrap();
    assert_eq!(sent(&solo.write()), 0);
    solo.types(link);
    assert_eq!(sent(&solo.write()), 1);
}

#[test]
fn what_the_peer_does_not_take_is_not_sent_and_counted() {
    let mut solo = Solo::contact();
    let link = solo.link();
    let entry = |hash, open| TypeEntry { hash, version: 1, open, any: false, ..fallback() };
    solo.frame(link, Frame::Types(vec![entry(1, true), entry(2, false)]));
    solo.write();
    let now = solo.now;
    let push = |stream, tag| solo.peer.datagrams().push(now, outbound(stream, tag, 1, None)).map(drop);
    // Unknown; open; not open, on either stream, while no view is shared.
    for (stream, tag) in [(NORMAL, 3), (NORMAL, 1), (NORMAL, 2), (MEMBERS, 2), (MEMBERS, 1)] {
        push(stream, tag).unwrap();
    }
    assert_eq!(sent(&solo.write()), 1);
    let stats = solo.peer.datagrams().stats();
    assert_eq!((stats.given(), stats.sent, stats.not_taken), (5, 1, 4));

    solo.peer.session.set_gate(solo.now, Gate::Open).unwrap();
    solo.peer.datagrams().push(now, outbound(MEMBERS, 2, 1, None)).unwrap();
    assert_eq!(sent(&solo.write()), 1, "both are in one view now");
}

#[test]
fn one_larger_than_the_peer_takes_is_not_sent() {
    let (mut solo, _) = linked_solo();
    solo.peer.session.set_peer_message_bytes(100);
    push(&solo.peer, solo.now, 1, 100).unwrap();
    push(&solo.peer, solo.now, 2, 101).unwrap();
    assert_eq!(sent(&solo.write()), 1);
    assert_eq!(solo.peer.datagrams().stats().not_taken, 1);
}

#[test]
fn a_strangers_datagram_of_a_members_type_is_dropped_and_counted() {
    let (mut solo, link) = linked_solo();
    let datagram = |stream| {
        let record = RecordHeader { length: 0, flags: record::WHOLE, version: 1, hash: 1 }.encode().to_vec();
        Frame::Datagram(Datagram { stream, record: record.into() })
    };
    let handed_on =
        |solo: &Solo| solo.outputs.iter().filter(|output| matches!(output, PeerOutput::Datagram(_))).count();
    solo.frame(link, datagram(MEMBERS));
    let stats = solo.peer.datagrams().stats();
    assert_eq!((handed_on(&solo), stats.received, stats.not_admitted), (0, 1, 1));
    solo.frame(link, datagram(NORMAL));
    assert_eq!(handed_on(&solo), 1);
    solo.peer.session.set_gate(solo.now, Gate::Open).unwrap();
    solo.frame(link, datagram(MEMBERS));
    assert_eq!(handed_on(&solo), 2);
}

#[test]
fn what_is_not_one_whole_message_is_passed_over_and_costs_no_link() {
    let (mut solo, link) = linked_solo();
    let record = |flags, length| RecordHeader { length, flags, version: 1, hash: 1 }.encode().to_vec();
    let wrong = [
        Vec::new(),
        record(record::WHOLE, 0)[..11].to_vec(),
        record(record::WHOLE, 1),
        [record(record::WHOLE, 0), vec![1]].concat(),
        record(record::WHOLE, 0).repeat(2),
        record(record::FIRST, 0),
        record(record::LAST, 0),
        record(record::WHOLE | record::VOID, 0),
        record(record::WHOLE | 0x0100, 0),
        record(record::WHOLE | record::EXTENDED, 0),
    ];
    let count = wrong.len() as u64;
    for bytes in wrong {
        solo.frame(link, Frame::Datagram(Datagram { stream: NORMAL, record: bytes.into() }));
    }
    let stats = solo.peer.datagrams().stats();
    assert_eq!((stats.received, stats.malformed), (count, count));
    assert!(!solo.outputs.iter().any(|output| matches!(output, PeerOutput::Datagram(_))));
    assert!(solo.peer.is_live(link));
}

#[test]
fn who_leaves_takes_no_more_datagrams_and_writes_none_behind_its_goodbye() {
    let (mut solo, _) = linked_solo();
    push(&solo.peer, solo.now, 1, 10).unwrap();
    solo.peer.leave();
    assert_eq!(push(&solo.peer, solo.now, 2, 10), Err(Dropped::NoLink));
    assert!(matches!(&solo.write()[..], [Frame::Datagram(_), Frame::Goodbye { .. }]));

    let mut solo = Solo::contact();
    let link = solo.link();
    push(&solo.peer, solo.now, 1, 10).unwrap();
    solo.peer.leave();
    assert!(matches!(solo.write().last(), Some(Frame::Goodbye { .. })), "what it takes is not known yet");
    solo.types(link);
    assert_eq!(solo.write(), []);
    assert_eq!(solo.peer.datagrams().stats().no_link, 1);
}

#[test]
fn a_peer_that_has_ended_takes_and_counts_none() {
    let (mut solo, _) = linked_solo();
    push(&solo.peer, solo.now, 1, 10).unwrap();
    solo.peer.end(Cause::Closed);
    assert_eq!(push(&solo.peer, solo.now, 2, 10), Err(Dropped::Ended));
    let stats = solo.peer.datagrams().stats();
    assert_eq!((stats.given(), stats.no_link, stats.waiting), (1, 1, 0), "what waited is counted");
}
