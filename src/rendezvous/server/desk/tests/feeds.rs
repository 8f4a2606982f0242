//! What changes is told to everybody once, in order, whatever the others do.

use super::hall::{Hall, id, route, routes};
use crate::rendezvous::server::desk::config::VERSIONS_MAX;
use crate::rendezvous::state::{Op, encode};
use crate::rendezvous::words::ToNode;

fn parts(hall: &Hall, n: u64) -> usize {
    hall.heard_by(n).into_iter().filter(|word| matches!(word, ToNode::Everything { .. })).count()
}

/// Routes of a member, many of them.
fn many(hall: &mut Hall, n: u64, from: u64, to: u64) {
    for change in from..to {
        let add = (0..200).map(|host| route(u32::try_from(change).unwrap() * 200 + host)).collect();
        let op = Op::Routes { member: id(n), from: change, to: change + 1, add, remove: Vec::new() };
        hall.apply(&encode(&[op]));
    }
}

#[test]
fn a_node_without_room_holds_up_nobody_else_and_misses_nothing() {
    let mut hall = Hall::with([1, 2, 3]);
    hall.full.insert(id(2), None);
    for n in 0..40 {
        hall.hears(1, routes(n, n + 1, [u32::try_from(n).unwrap()]));
    }
    assert!(hall.is_current(1) && hall.is_current(3) && !hall.is_current(2));
    assert!(hall.heard_by(2).is_empty());
    hall.room(id(2));
    assert!(hall.is_current(2));
}

#[test]
fn what_answers_a_node_goes_before_what_changed_also_when_another_is_told_of_it_first() {
    let mut hall = Hall::with([1, 2, 3]);
    hall.apply(&encode(&[Op::Routes { member: id(3), from: 0, to: 1, add: vec![route(1)], remove: vec![] }]));
    hall.desk.handle_applied(hall.now, &hall.state);
    hall.hello(2);
    let heard = hall.heard_by(2);
    assert!(matches!(heard[..], [ToNode::Welcome { .. }, ToNode::Change { .. }, ..]), "{heard:?}");
    assert!(hall.is_current(1) && hall.is_current(2));
}

#[test]
fn a_change_is_said_once_for_all_who_are_at_the_same_place() {
    let mut hall = Hall::with(1..=20);
    hall.apply(&encode(&[Op::Routes { member: id(1), from: 0, to: 1, add: vec![route(1)], remove: vec![] }]));
    hall.desk.handle_applied(hall.now, &hall.state);
    let mut sayings = Vec::new();
    while let Some(saying) = hall.desk.poll_send(hall.now, &hall.state) {
        sayings.push(saying);
    }
    let changes: Vec<_> =
        sayings.iter().filter(|saying| matches!(saying.what, ToNode::Change { .. })).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].to.len(), 20);
}

#[test]
fn who_is_behind_what_is_kept_is_told_everything() {
    let mut hall = Hall::with([1, 2]);
    hall.full.insert(id(2), None);
    many(&mut hall, 1, 0, 1);
    hall.pump();
    // More than is kept.
    for change in 1..4_200 {
        let op =
            Op::Routes { member: id(1), from: change, to: change + 1, add: vec![route(7)], remove: vec![] };
        hall.apply(&encode(&[op]));
    }
    hall.said.clear();
    hall.room(id(2));
    assert_eq!(parts(&hall, 2), 1);
    assert!(hall.is_current(1) && hall.is_current(2));
}

#[test]
fn everything_comes_in_parts_and_is_encoded_once_for_many() {
    let mut hall = Hall::with([1]);
    many(&mut hall, 1, 0, 200);
    hall.pump();
    for n in 2..=9 {
        hall.full.insert(id(n), None);
        hall.hello(n);
    }
    hall.pump();
    for n in 2..=9 {
        hall.room(id(n));
        assert!(parts(&hall, n) > 1, "in parts");
        assert!(hall.is_current(n));
    }
    assert!(hall.desk.versions.len() <= VERSIONS_MAX);
}

#[test]
fn slow_readers_of_old_versions_begin_again_and_no_more_versions_are_kept() {
    let mut hall = Hall::with([1]);
    many(&mut hall, 1, 0, 200);
    hall.pump();
    let readers = 2..=2 + VERSIONS_MAX as u64 * 2;
    for n in readers.clone() {
        hall.full.insert(id(n), None);
        hall.hello(n);
        // Welcome, and the first part of everything as it is now; the next part waits.
        hall.room_for_one(id(n));
        hall.room_for_one(id(n));
        assert!(hall.desk.versions.len() <= VERSIONS_MAX);
    }
    for n in readers {
        hall.room(id(n));
        assert!(hall.is_current(n), "{n}");
    }
}

#[test]
fn nothing_is_kept_of_everything_once_it_was_read() {
    let mut hall = Hall::with([1, 2, 3]);
    hall.advance(super::hall::PING * 2);
    assert_eq!(hall.desk.versions.len(), 0);
}
