//! Which link stays, and when another is dialled: rules 8-11, 13 and 17, liveness.

use std::time::Duration;

use super::super::*;
use super::net::{Door, Fate, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::CREDIT;
use crate::limits::{HELLO, LIVENESS, REDIAL_MIN};
use crate::wire::first::Code;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_link_lost_inside_a_frame_replays_it_once() {
    let mut pair = Pair::linked();
    let tag = pair.send(A, 3000);
    let more = pair.send(A, 30);
    let conn = pair.same_link().unwrap();
    let fate = Fate::Break { bytes: pair.conns[conn].carried + 1500, told: Told::Both };
    pair.conns[conn].set_fate(fate);
    let took = pair.finish(SECOND, true);
    assert!(took <= REDIAL_MIN + Duration::from_millis(50), "{took:?}");
    assert_eq!(pair.sides[B].tags(), [tag, more]);
    assert!(pair.accounts(A).resent >= 1);
}

#[test]
fn r13_what_arrived_is_not_sent_again_though_its_acknowledgement_was_lost() {
    let mut pair = Pair::linked();
    pair.send(A, 100);
    pair.run(Duration::from_millis(1));
    assert_eq!(pair.sides[B].tags(), [1]);
    pair.break_link(Told::Both);
    pair.finish(SECOND, true);
    assert_eq!((pair.accounts(A).resent, pair.accounts(B).duplicates), (0, 0), "next expected said so");
}

#[test]
fn r8_r9_both_dialling_at_once_end_with_the_same_link() {
    for offset in 0..12 {
        for (there, back) in [(1, 1), (1, 4), (4, 1), (3, 3)] {
            let mut pair = Pair::new(CREDIT);
            pair.net.delays = [Duration::from_millis(there), Duration::from_millis(back)];
            let (early, late) = if offset % 2 == 0 { (A, B) } else { (B, A) };
            pair.add_contact(early);
            pair.run(Duration::from_millis(offset / 2));
            pair.add_contact(late);
            pair.send(early, 10);
            pair.send(late, 10);
            let took = pair.finish(SECOND, true);
            assert!(took < Duration::from_millis(50), "no wait decides it: {took:?}");
            pair.run(HELLO * 2);
            assert!(pair.conns.len() <= 2, "nobody dials again");
            assert_eq!(pair.conns.iter().filter(|conn| !conn.is_done()).count(), 1, "the other is closed");
        }
    }
}

#[test]
fn r9_an_old_link_that_never_dies_at_one_side_is_replaced_at_once() {
    for told in [A, B] {
        let mut pair = Pair::linked();
        pair.add_contact(B);
        pair.break_link(Told::Only(told));
        pair.send(told, 10);
        pair.send(1 - told, 10);
        let took = pair.finish(SECOND, true);
        assert!(took <= REDIAL_MIN + Duration::from_millis(50), "{took:?}, told {told}");
    }
}

#[test]
fn r10_adopting_a_link_closes_the_old_one_with_a_word() {
    let mut pair = Pair::linked();
    pair.break_link(Told::Only(A));
    pair.finish(SECOND, true);
    assert!(pair.conns[0].is_done());
    assert!(matches!(pair.sides[B].farewells[..], [Frame::Close { code: Code::Superseded, .. }]));
    let superseded = PeerEvent::Disconnected { peer: pair.id(A), reason: Disconnect::Superseded };
    assert!(pair.sides[B].events.contains(&superseded));
}

#[test]
fn a_silent_link_is_replaced_within_liveness_and_a_second_without_loss() {
    let mut pair = Pair::linked();
    pair.run(SECOND * 7);
    assert_eq!(pair.conns.len(), 1, "pings keep an idle link");
    pair.send(A, 10);
    pair.break_link(Told::Nobody);
    pair.send(A, 10);
    pair.send(B, 10);
    let took = pair.finish(LIVENESS + SECOND, true);
    assert!(took + Duration::from_millis(1500) >= LIVENESS, "not before it is dead: {took:?}");
}

#[test]
fn r11_duplicate_is_waited_out_at_least_a_handshake_and_within_bounds() {
    // B's hello goes nowhere, and its dial outranks A's hellos for as long as it is pending.
    let mut pair = Pair::new(CREDIT);
    pair.net.doors[A] = Door::Mute;
    pair.add_contact(B);
    pair.run(Duration::from_millis(10));
    pair.add_contact(A);
    pair.run(Duration::from_millis(10));
    assert_eq!(pair.sides[A].dials.len(), 1);
    pair.run_until(HELLO * 2, "dials again", |pair| pair.sides[A].dials.len() == 2);
    let waited = pair.sides[A].dials[1] - pair.sides[A].dials[0];
    assert!(waited >= HELLO && waited <= HELLO * 3 / 2 + Duration::from_millis(10), "{waited:?}");
}

#[test]
fn r11_a_link_from_the_other_side_ends_the_wait_after_duplicate() {
    let mut pair = Pair::new(CREDIT);
    pair.net.doors[A] = Door::Mute;
    pair.add_contact(B);
    pair.run(Duration::from_millis(10));
    pair.add_contact(A);
    pair.run(Duration::from_millis(10));
    pair.net.doors[A] = Door::Open;
    pair.finish(HELLO + Duration::from_millis(100), true);
    pair.run(HELLO * 2);
    assert_eq!(pair.sides[A].dials.len(), 1, "a link is there");
}

#[test]
fn r9_a_dial_that_has_not_said_hello_does_not_keep_the_other_side_out() {
    let mut pair = Pair::new(CREDIT);
    pair.net.doors[A] = Door::Nowhere;
    pair.add_contact(A);
    pair.add_contact(B);
    pair.send(A, 10);
    pair.send(B, 10);
    pair.finish(Duration::from_millis(200), true);
}
