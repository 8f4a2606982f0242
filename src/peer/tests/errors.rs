//! What a misbehaving link does, how redials are paced, and types: rules 18 and 19, "precedes any Batch".

use std::time::Duration;

use super::super::*;
use super::net::Told;
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::{CREDIT, NORMAL, fallback};
use super::solo::Solo;
use crate::limits::{REDIAL_MAX, REDIAL_MIN};
use crate::session::Lost;
use crate::wire::frame::Batch;
use crate::wire::record::{RecordHeader, WHOLE};
use crate::wire::{DecodeError, Seq, StreamAck};

/// A batch of empty messages.
pub(super) fn batch(stream: StreamId, first: u64, count: u32) -> Batch {
    let record = RecordHeader { length: 0, flags: WHOLE, version: 1, hash: 1 }.encode();
    let records = record.repeat(count as usize).into();
    Batch { stream, first: Seq(first), count, records }
}

fn ack(accepted: u64) -> Frame {
    Frame::Ack(vec![StreamAck { stream: NORMAL, accepted: Seq(accepted), handled: Seq(0), credit: CREDIT }])
}

/// The session of a peer that has written a record which is not acknowledged.
fn with_one_written() -> (Solo, LinkId, crate::session::Receipt) {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    let receipt = solo.send();
    solo.write();
    (solo, link, receipt)
}

fn farewell(solo: &Solo) -> Option<Frame> {
    let farewell = |output: &PeerOutput| match output {
        PeerOutput::Close { farewell, .. } => farewell.clone(),
        _ => None,
    };
    let bytes = solo.outputs.iter().rev().find_map(farewell)?;
    let mut reader = crate::link::FrameReader::default();
    reader.buffer().extend_from_slice(&bytes);
    reader.next().unwrap()
}

#[test]
fn r18_a_protocol_error_closes_the_link_with_its_code_and_the_session_survives() {
    let gap = Frame::Batch(batch(NORMAL, 5, 1));
    let early = Frame::Goodbye { last: vec![(NORMAL, Seq(4))], confirmed: false };
    for wrong in [gap, early, ack(2)] {
        let (mut solo, link, receipt) = with_one_written();
        solo.frame(link, wrong.clone());
        assert!(matches!(farewell(&solo), Some(Frame::Close { code: Code::Malformed, .. })), "{wrong:?}");
        assert_eq!((solo.closed(), solo.peer.live_link(), receipt.now()), (vec![link], None, None));
        let (_, hello) = solo.dial();
        assert_eq!((hello.epoch, hello.your_epoch), (Epoch(1), Epoch(1)), "the same session");
    }
}

#[test]
fn r18_bytes_that_changed_on_the_way_say_so() {
    let (mut solo, link, _) = with_one_written();
    let crc = DecodeError::Crc { what: "frame header", found: 1, computed: 2 };
    solo.peer.handle_link_end(solo.now, link, LinkEnd::Protocol(crc.into()));
    solo.take_outputs();
    assert!(matches!(farewell(&solo), Some(Frame::Close { code: Code::Corrupt, .. })));
    let corrupt = PeerEvent::Disconnected { peer: solo.peer.id(), reason: Disconnect::Corrupt };
    assert!(solo.events().contains(&corrupt));
}

#[test]
fn r18_three_errors_in_a_row_are_misbehaving_once_and_the_longest_back_off() {
    let mut solo = Solo::contact();
    let stuck =
        |solo: &Solo| solo.events().iter().filter(|e| matches!(e, PeerEvent::Misbehaving { .. })).count();
    for errors in 1..6 {
        let link = solo.link();
        solo.frame(link, ack(7));
        assert_eq!(stuck(&solo), usize::from(errors >= 3), "after {errors}");
        let from = solo.now;
        let (_, _) = solo.dial();
        let waited = solo.now - from;
        if errors >= 3 {
            assert!(waited >= REDIAL_MAX / 2 && waited <= REDIAL_MAX, "{waited:?} after {errors}");
        } else {
            assert!(waited <= REDIAL_MIN * 4, "{waited:?} after {errors}");
        }
        solo.advance(crate::limits::HELLO);
    }
}

#[test]
fn r18_progress_between_errors_is_not_in_a_row() {
    let (mut solo, mut link, _) = with_one_written();
    for done in 1..6 {
        solo.frame(link, ack(done));
        solo.frame(link, ack(99));
        assert!(!solo.events().iter().any(|event| matches!(event, PeerEvent::Misbehaving { .. })));
        let (dial, hello) = solo.dial();
        let answer = solo.hello((hello.generation, hello.attempt), 1, 1);
        let answer = solo.expecting(answer, NORMAL, done + 1);
        assert!(solo.reply(dial, FirstBytes::Answer(Box::new(answer))));
        link = dial;
        solo.types(link);
        drop(solo.send());
        solo.write();
    }
}

#[test]
fn r18_r19_progress_that_only_the_next_hello_tells_counts_as_well() {
    let (mut solo, mut link, _) = with_one_written();
    for done in 1..8 {
        // Arrived and not acknowledged, because the link fails each time; the next hello says so.
        solo.frame(link, ack(99));
        assert!(!solo.events().iter().any(|event| matches!(event, PeerEvent::Misbehaving { .. })), "{done}");
        let from = solo.now;
        let (dial, hello) = solo.dial();
        assert!(solo.now - from <= REDIAL_MIN, "{:?} after {done}", solo.now - from);
        let answer = solo.hello((hello.generation, hello.attempt), 1, 1);
        let answer = solo.expecting(answer, NORMAL, done + 1);
        assert!(solo.reply(dial, FirstBytes::Answer(Box::new(answer))));
        link = dial;
        solo.types(link);
        drop(solo.send());
        solo.write();
    }
}

#[test]
fn r19_redials_double_and_start_again_when_an_acknowledgement_advances() {
    let (mut solo, link, _) = with_one_written();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let from = solo.now;
        let (dial, _) = solo.dial();
        waits.push(solo.now - from);
        solo.peer.handle_dial_failed(solo.now, dial);
    }
    assert!(waits[0] <= REDIAL_MIN, "{waits:?}");
    for (at, wait) in waits.iter().enumerate().skip(1) {
        let step = (REDIAL_MIN * (1 << at)).min(REDIAL_MAX);
        assert!(*wait >= step / 2 && *wait <= step, "{waits:?}");
    }
    let (link, hello) = solo.dial();
    let answer = solo.hello((hello.generation, hello.attempt), 1, 1);
    assert!(solo.reply(link, FirstBytes::Answer(Box::new(answer))));
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let from = solo.now;
    let (link, hello) = solo.dial();
    assert!(solo.now - from >= REDIAL_MAX / 2, "a link alone is no progress");
    let answer = solo.hello((hello.generation, hello.attempt), 1, 1);
    assert!(solo.reply(link, FirstBytes::Answer(Box::new(answer))));
    solo.frame(link, ack(1));
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let from = solo.now;
    solo.dial();
    assert!(solo.now - from <= REDIAL_MIN);
}

#[test]
fn a_batch_before_the_types_is_an_error() {
    let mut solo = Solo::new();
    let (link, _) = solo.accept(&solo.hello((1, 1), 1, 0)).unwrap();
    solo.frame(link, Frame::Batch(batch(NORMAL, 1, 1)));
    assert_eq!((solo.peer.live_link(), solo.closed()), (None, vec![link]));
    let (link, answer) = solo.accept(&solo.hello((2, 1), 1, 1)).unwrap();
    assert!(answer.streams.iter().all(|point| point.next_expected == Seq(1)), "nothing was taken");
    solo.types(link);
    solo.frame(link, Frame::Batch(batch(NORMAL, 1, 1)));
    assert!(solo.peer.is_live(link));
}

#[test]
fn a_link_says_its_types_first_and_no_batch_before_it_knows_the_others() {
    let mut solo = Solo::contact();
    drop(solo.send());
    let mut link = solo.link();
    for generation in 2..5 {
        assert!(matches!(solo.write()[..], [Frame::Types(_)]), "what an earlier link said is not enough");
        solo.types(link);
        assert!(matches!(solo.write()[..], [Frame::Batch(_)]));
        (link, _) = solo.accept(&solo.hello((generation, 1), 1, 1)).unwrap();
    }
}

#[test]
fn a_type_that_the_peer_does_not_know_is_not_sent_and_says_so() {
    let mut pair = Pair::new(CREDIT);
    let known = TypeEntry { any: false, hash: 2, version: 1, name: "known".into(), ..fallback() };
    pair.sides[B].types = Arc::new(vec![known.clone()]);
    pair.add_contact(A);
    for _ in 0..3 {
        pair.send(A, 10);
    }
    pair.settle();
    let refused = Some(Err(Lost::NotSent(Cause::NotUnderstood)));
    assert_eq!([1, 2, 3].map(|tag| pair.end_of(tag)), [refused, Some(Ok(())), refused]);
    let entries = vec![known, TypeEntry { hash: 4, ..fallback() }];
    pair.sides[B].types = Arc::new(entries.clone());
    pair.peer(B).set_types(Arc::new(entries));
    pair.settle();
    let tag = pair.send(A, 10);
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Ok(())), "types that come later count from then on");
    pair.finish(Duration::from_secs(1), false);
}

#[test]
fn types_are_said_on_each_link_anew() {
    let mut pair = Pair::linked();
    for _ in 0..3 {
        pair.break_link(Told::Both);
        pair.send(A, 10);
        pair.send(B, 10);
        pair.finish(Duration::from_secs(1), true);
    }
}
