//! Strict priority between classes, and the bound that keeps it from starving anybody.

use super::super::*;
use super::pair::{A, Pair, stream};
use crate::limits::STARVATION_BYTES;
use crate::limits::{BATCH_BYTES, KIB};
use crate::wire::Class;
use crate::wire::Frame;
use crate::wire::Protocol;

const BODY: usize = 32 * KIB;

/// Keeps `classes` supplied for `writes` writes and tells the classes of the batches in the order written.
fn written(classes: &[Class], writes: usize) -> Vec<Class> {
    let mut pair = Pair::linked();
    let mut written = Vec::new();
    for _ in 0..writes {
        for class in classes {
            // More than one write takes.
            pair.push_many(10, A, stream(*class), BODY);
        }
        for frame in pair.write(A) {
            if let Frame::Batch(batch) = frame {
                written.push(batch.stream.class());
            }
        }
        pair.carry(A);
        pair.settle_side(super::pair::B);
    }
    written
}

#[test]
fn urgent_overtakes_queued_bulk_within_one_batch() {
    let mut pair = Pair::linked();
    pair.push_many(20, A, stream(Class::Bulk), 60 * KIB);
    pair.write_and_carry(A);
    pair.push(A, stream(Class::Urgent), 10);
    let frames = pair.write(A);
    let urgent = frames
        .iter()
        .position(|frame| matches!(frame, Frame::Batch(batch) if batch.stream.class() == Class::Urgent));
    assert!(urgent.is_some_and(|at| at <= 1), "{urgent:?} of {}", frames.len());
    pair.finish();
}

#[test]
fn a_slow_link_gets_one_batch_a_write_whatever_goes_before_it() {
    let mut pair = Pair::linked();
    pair.push_many(20, A, stream(Class::Bulk), 60 * KIB);
    // As many datagrams as may wait, and none.
    for before in [65 * KIB, 0] {
        let mut out = Transmit::default();
        out.push(vec![0; before].into());
        out.set_room(0);
        pair.sides[A].session.poll_transmit(pair.now, &mut out);
        let batch = out.bytes() - before;
        assert!((60 * KIB..BATCH_BYTES + KIB).contains(&batch), "{batch} behind {before}");
    }
}

#[test]
fn normal_goes_before_bulk() {
    let classes = written(&[Class::Bulk, Class::Normal], 1);
    assert!(classes.iter().all(|class| *class == Class::Normal), "{classes:?}");
}

#[test]
fn bulk_is_not_starved() {
    let classes = written(&[Class::Urgent, Class::Bulk], 20);
    let share = STARVATION_BYTES / BATCH_BYTES;
    let bulk = classes.iter().filter(|class| **class == Class::Bulk).count();
    assert!(bulk >= classes.len() / (share + 1) - 1, "{bulk} of {}", classes.len());
    assert!(bulk <= classes.len() / share, "and urgent goes first: {bulk} of {}", classes.len());
}

#[test]
fn the_middle_class_is_not_starved_by_those_around_it() {
    let classes = written(&[Class::Urgent, Class::Normal, Class::Bulk], 40);
    let of = |class| classes.iter().filter(|other| **other == class).count();
    assert!(of(Class::Normal) > 0 && of(Class::Bulk) > 0, "{} and {}", of(Class::Normal), of(Class::Bulk));
    assert!(of(Class::Urgent) > 10 * of(Class::Bulk));
}

#[test]
fn streams_of_one_class_take_turns() {
    let mut pair = Pair::linked();
    let streams = [Protocol(64), Protocol(70)].map(|protocol| StreamId::new(protocol, Class::Normal, true));
    let types = [Protocol(64), Protocol(70)].map(|protocol| crate::wire::TypeEntry {
        protocol,
        hash: 0,
        version: 0,
        open: true,
        any: true,
        name: String::new(),
    });
    pair.sides[A].session.handle_types(PeerTypes::new(&types, |_| false));
    for stream in streams {
        pair.push_many(4, A, stream, BODY);
    }
    let order: Vec<_> = pair
        .write(A)
        .iter()
        .filter_map(|frame| if let Frame::Batch(batch) = frame { Some(batch.stream) } else { None })
        .collect();
    assert!(order.windows(2).all(|two| two[0] != two[1]), "{order:?}");
}
