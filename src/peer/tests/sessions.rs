//! When a session ends, and what becomes of its messages: rules 1-7, 14 and 16.

use std::time::Duration;

use super::super::*;
use super::net::{Door, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::ROUND_TRIP;
use crate::limits::{LIVENESS, RESUME_LEASE};
use crate::session::Lost;

const SECOND: Duration = Duration::from_secs(1);
const LOST: Option<Result<(), Lost>> = Some(Err(Lost::Indeterminate(Cause::SessionLost)));
const NOT_SENT: Option<Result<(), Lost>> = Some(Err(Lost::NotSent(Cause::SessionLost)));

/// A has written one message that nobody acknowledges, and queued another behind a dead link.
fn one_written_one_not(pair: &mut Pair, then: impl FnOnce(&mut Pair)) -> (u32, u32) {
    let written = pair.send(A, 10);
    then(pair);
    let unwritten = pair.send(A, 10);
    (written, unwritten)
}

#[test]
fn r3_r5_another_process_at_the_address_ends_the_session_with_replaced() {
    for told in [Told::Both, Told::Nobody] {
        let mut pair = Pair::linked();
        let old = pair.id(B);
        let written = pair.send(A, 10);
        pair.restart(B, told);
        let new = pair.id(B);
        // What is written to a dead link nobody was told of counts as written.
        let behind = push_to(&mut pair, old);
        pair.run(LIVENESS + SECOND);
        assert_eq!(pair.end_of(written), LOST);
        let expected = if told == Told::Both { NOT_SENT } else { LOST };
        assert_eq!(behind.now(), expected);
        assert!(pair.sides[A].events.contains(&PeerEvent::Replaced { old, new }));
        assert!(matches!(&pair.sides[A].replaced[..], [(contacts, by)] if contacts.len() == 1 && *by == new));
        assert_eq!(pair.sides[A].overs, [Cause::SessionLost]);
        assert!(pair.sides[A].rooms.is_empty() && pair.sides[B].came.is_empty());
        pair.add_contact(A);
        let tag = pair.send(A, 10);
        pair.finish(SECOND, false);
        assert_eq!(pair.sides[B].tags(), [tag], "nothing meant for the old process came to the new one");
    }
}

fn push_to(pair: &mut Pair, of: MemberId) -> crate::session::Receipt {
    let intake = Arc::clone(pair.sides[A].room(of).peer.session().intake());
    let receipt = super::side::push(&intake, super::side::NORMAL, 1 << 20, 10).unwrap();
    pair.poll();
    receipt
}

#[test]
fn r4_r6_a_peer_that_forgot_loses_what_was_written_and_gets_the_rest() {
    let mut pair = Pair::linked();
    let first = pair.send(A, 10);
    pair.settle();
    let (written, unwritten) = one_written_one_not(&mut pair, |pair| {
        pair.break_link(Told::Both);
        pair.forget(B);
    });
    let epoch = pair.peer(A).session().epoch();
    pair.finish(SECOND, false);
    assert_eq!([first, written, unwritten].map(|tag| pair.end_of(tag)), [Some(Ok(())), LOST, Some(Ok(()))]);
    assert_eq!(pair.sides[B].tags(), [first, unwritten]);
    assert!(pair.sides[A].events.contains(&PeerEvent::SessionLost { peer: pair.id(B) }));
    assert!(pair.peer(A).session().epoch() > epoch, "rule 2");
}

#[test]
fn r4_a_dialler_that_forgot_says_so_by_its_newer_epoch() {
    let mut pair = Pair::linked();
    pair.add_contact(B);
    let written = pair.send(B, 10);
    pair.forget(A);
    let unwritten = pair.send(B, 10);
    let took = pair.finish(SECOND, false);
    assert!(took < Duration::from_millis(100), "the half-open link is no obstacle: {took:?}");
    assert_eq!(pair.end_of(written), LOST);
    // B was told nothing, so it wrote that one to the dead link as well.
    assert_eq!(pair.end_of(unwritten), LOST);
    assert!(pair.sides[B].came.is_empty() && pair.sides[A].came.is_empty());
    assert!(pair.sides[B].events.contains(&PeerEvent::SessionLost { peer: pair.id(A) }));
}

#[test]
fn both_sides_forgetting_again_and_again_meet_at_last() {
    let mut pair = Pair::linked();
    pair.add_contact(B);
    for round in 0..6 {
        pair.forget(round % 2);
        pair.send(A, 10);
        pair.send(B, 10);
        pair.run(Duration::from_millis(round as u64));
        pair.forget(1 - round % 2);
    }
    pair.finish(SECOND, false);
}

#[test]
fn r7_ending_a_session_closes_its_pending_dial() {
    let mut pair = Pair::contact();
    pair.net.doors[B] = Door::Nowhere;
    pair.run(Duration::from_millis(10));
    assert_eq!(pair.conns.len(), 1);
    pair.peer(A).end(Cause::Closed);
    pair.poll();
    assert!(pair.conns[0].ends[A].stage == super::net::Stage::Closed);
    pair.run(SECOND * 10);
    assert_eq!(pair.conns.len(), 1, "and nothing is dialled again");
}

#[test]
fn r16_a_session_that_the_peer_dialled_ends_by_its_lease() {
    let mut pair = Pair::linked();
    let written = pair.send(B, 10);
    pair.net.doors = [Door::Nowhere; 2];
    pair.break_link(Told::Both);
    let unwritten = pair.send(B, 10);
    pair.run(RESUME_LEASE - SECOND);
    assert!(pair.has_peer(B), "never merely because a link died");
    assert_eq!(pair.end_of(written), None);
    pair.run(SECOND);
    assert!(!pair.has_peer(B));
    assert_eq!([pair.end_of(written), pair.end_of(unwritten)], [LOST, NOT_SENT]);
    pair.net.doors = [Door::Open; 2];
    let tag = pair.send(A, 10);
    pair.finish(SECOND * 10, false);
    assert_eq!(pair.end_of(tag), Some(Ok(())));
}

#[test]
fn r16_a_contact_holds_a_session_beyond_the_lease() {
    let mut pair = Pair::linked();
    pair.net.doors = [Door::Shut; 2];
    pair.add_contact(B);
    pair.break_link(Told::Both);
    let tag = pair.send(B, 10);
    pair.run(RESUME_LEASE * 2);
    pair.net.doors = [Door::Open; 2];
    pair.finish(SECOND * 10, true);
    assert_eq!(pair.end_of(tag), Some(Ok(())));
    assert!(pair.sides[B].overs.is_empty());
}

#[test]
fn r16_a_redial_within_the_lease_resumes() {
    let mut pair = Pair::linked();
    pair.net.doors = [Door::Shut; 2];
    pair.break_link(Told::Both);
    let tag = pair.send(B, 10);
    pair.run(RESUME_LEASE - SECOND * 8);
    pair.net.doors = [Door::Open; 2];
    pair.finish(SECOND * 7, true);
    pair.run(RESUME_LEASE * 2);
    assert!(pair.same_link().is_some() && pair.end_of(tag) == Some(Ok(())), "the lease ended with the link");
}

#[test]
fn r16_a_dropped_contact_ends_the_session_on_both_sides() {
    let mut pair = Pair::linked();
    pair.sides[A].slow = true;
    let from_b = pair.send(B, 10);
    pair.settle();
    let from_a = pair.send(A, 10);
    pair.peer(A).remove_contact(ContactId(1));
    pair.run(ROUND_TRIP);
    let closed = Some(Err(Lost::Indeterminate(Cause::Closed)));
    assert_eq!([pair.end_of(from_b), pair.end_of(from_a)], [Some(Ok(())), closed]);
    assert!(!pair.has_peer(A) && !pair.has_peer(B), "the accepting side need not wait for its lease");
    assert!(matches!(pair.sides[A].farewells[..], [Frame::Close { code: Code::Closing, .. }]));
    assert_eq!(pair.sides[B].overs, [Cause::Departed]);
    pair.run(SECOND * 10);
    assert_eq!(pair.conns.len(), 1);
}

#[test]
fn a_dropped_contact_leaves_a_session_that_the_peer_dialled() {
    let mut pair = Pair::linked();
    pair.add_contact(B);
    pair.peer(B).remove_contact(ContactId(1));
    pair.run(SECOND);
    pair.send(A, 10);
    pair.finish(SECOND, true);
}

#[test]
fn r14_removed_is_terminal() {
    let mut solo = super::solo::Solo::contact();
    let link = solo.link();
    solo.types(link);
    let written = solo.send();
    solo.write();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let unwritten = solo.send();
    let (dial, _) = solo.dial();
    let removed = solo.reject(Code::Removed);
    assert!(!solo.reply(dial, removed));
    assert_eq!(written.now(), Some(Err(Lost::Indeterminate(Cause::Departed))));
    assert_eq!(unwritten.now(), Some(Err(Lost::NotSent(Cause::Departed))));
    assert!(solo.peer.is_over());
    assert_eq!(solo.dial_within(RESUME_LEASE * 10), None, "never dial again");
}

#[test]
fn r14_removed_on_a_live_link_is_terminal_too() {
    let mut solo = super::solo::Solo::contact();
    let link = solo.link();
    solo.types(link);
    let written = solo.send();
    solo.write();
    solo.frame(link, Frame::Close { code: Code::Removed, text: String::new() });
    assert_eq!(written.now(), Some(Err(Lost::Indeterminate(Cause::Departed))));
    assert_eq!(solo.dial_within(RESUME_LEASE), None);
    assert_eq!(solo.accept(&solo.hello((9, 1), 1, 1)).unwrap_err().code, Code::SessionUnknown);
}
