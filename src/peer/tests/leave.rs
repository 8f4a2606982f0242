//! Leaving: rule 20.

use std::time::Duration;

use super::super::*;
use super::net::{Door, Fate, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::NORMAL;
use super::solo::Solo;
use crate::limits::{LIVENESS, RESUME_LEASE};
use crate::session::{Lost, Receipt};
use crate::wire::{BodyCheck, Seq, StreamAck};

const SECOND: Duration = Duration::from_secs(1);

fn leave(pair: &mut Pair, side: usize) {
    pair.peer(side).leave();
    pair.poll();
}

fn left(pair: &Pair) -> bool {
    !pair.has_peer(A)
}

fn accepted(accepted: u64) -> Frame {
    let (accepted, handled) = (Seq(accepted), Seq(0));
    Frame::Ack(vec![StreamAck { stream: NORMAL, accepted, handled, credit: 1 << 20 }])
}

#[test]
fn r20_leaving_drains_says_goodbye_and_ends_when_it_is_confirmed() {
    let mut pair = Pair::linked();
    pair.sides[B].slow = true;
    let tags: Vec<_> = (0..40).map(|_| pair.send(A, 30_000)).collect();
    leave(&mut pair, A);
    assert_eq!(pair.send_on(A, NORMAL, 1), None, "no new messages");
    pair.run(SECOND);
    assert!(pair.has_peer(A), "not before all is acknowledged");
    pair.sides[B].slow = false;
    pair.run(SECOND);
    assert!(!pair.has_peer(A) && !pair.has_peer(B));
    pair.check_ends(true);
    assert_eq!(pair.sides[B].tags(), tags);
    assert_eq!(
        (&pair.sides[A].overs[..], &pair.sides[B].overs[..]),
        (&[Cause::Closed][..], &[Cause::Departed][..])
    );
    assert!(matches!(pair.sides[B].farewells[..], [Frame::Goodbye { confirmed: true, .. }]));
    pair.run(SECOND * 20);
    assert_eq!(pair.conns.len(), 1, "nothing after it");
}

#[test]
fn r20_a_goodbye_waits_for_the_last_acknowledgement() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    drop(solo.send());
    solo.peer.leave();
    let says_goodbye = |frames: Vec<Frame>| frames.iter().any(|frame| matches!(frame, Frame::Goodbye { .. }));
    assert!(!says_goodbye(solo.write()));
    solo.frame(link, accepted(1));
    let last = vec![(NORMAL, Seq(1))];
    assert_eq!(solo.write().last(), Some(&Frame::Goodbye { last, confirmed: false }));
    solo.frame(link, Frame::Goodbye { last: Vec::new(), confirmed: true });
    assert!(solo.peer.is_over());
}

#[test]
fn r20_leaving_while_the_link_is_down_redials_first() {
    let mut pair = Pair::linked();
    pair.net.doors[B] = Door::Shut;
    pair.break_link(Told::Both);
    let tag = pair.send(A, 10);
    leave(&mut pair, A);
    pair.run(SECOND);
    assert!(pair.has_peer(A));
    pair.net.doors[B] = Door::Open;
    pair.run_until(SECOND * 6, "it left", left);
    pair.settle();
    assert_eq!((pair.end_of(tag), pair.sides[B].tags()), (Some(Ok(())), vec![tag]));
    assert_eq!(pair.sides[B].overs, [Cause::Departed]);
}

#[test]
fn r20_leaving_with_nothing_to_say_redials_for_the_goodbye() {
    let mut pair = Pair::linked();
    pair.send(A, 10);
    pair.settle();
    pair.break_link(Told::Both);
    leave(&mut pair, A);
    pair.run_until(SECOND, "it left", left);
    pair.settle();
    assert_eq!(pair.sides[B].overs, [Cause::Departed], "not only by its lease");
}

#[test]
fn r20_who_met_nobody_leaves_at_once() {
    let mut pair = Pair::contact();
    pair.net.doors[B] = Door::Nowhere;
    pair.run(SECOND);
    leave(&mut pair, A);
    assert!(left(&pair));
}

#[test]
fn r20_a_break_anywhere_in_a_goodbye_ends_it_all_the_same() {
    let said = {
        let mut pair = Pair::linked();
        leave(&mut pair, A);
        pair.settle();
        pair.conns[0].carried
    };
    let before = Pair::linked().conns[0].carried;
    for told in [Told::Both, Told::Nobody, Told::Only(A), Told::Only(B)] {
        for bytes in before..=said {
            let mut pair = Pair::linked();
            pair.conns[0].set_fate(Fate::Break { bytes, told });
            leave(&mut pair, A);
            pair.run_until(LIVENESS + SECOND, "it left", left);
            pair.run_until(LIVENESS + SECOND, "it was left", |pair| !pair.has_peer(B));
            pair.run(SECOND * 10);
            assert!(pair.conns.len() <= 2 && left(&pair), "after {bytes}");
        }
    }
}

#[test]
fn r20_who_cannot_dial_is_left_by_a_break_in_its_goodbye_too() {
    let said = {
        let mut pair = Pair::linked();
        leave(&mut pair, B);
        pair.settle();
        pair.conns[0].carried
    };
    let before = Pair::linked().conns[0].carried;
    for bytes in before..=said {
        let mut pair = Pair::linked();
        pair.conns[0].set_fate(Fate::Break { bytes, told: Told::Both });
        leave(&mut pair, B);
        let took = pair.run_until(RESUME_LEASE + SECOND, "it left", |pair| !pair.has_peer(B));
        // Only a lost confirmation makes it wait: who has read the goodbye does not dial again.
        assert!(took < SECOND || pair.sides[A].overs == [Cause::Departed], "after {bytes}: {took:?}");
    }
}

#[test]
fn r20_what_came_before_a_goodbye_is_acknowledged_before_it() {
    let mut pair = Pair::linked();
    let tag = pair.send(B, 10);
    // It has just arrived, and its acknowledgement is not due yet.
    pair.run(Duration::from_millis(1));
    assert_eq!((pair.sides[A].tags(), pair.end_of(tag)), (vec![tag], None));
    leave(&mut pair, A);
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Ok(())));
}

#[test]
fn r20_both_leaving_at_once_both_end() {
    let mut pair = Pair::linked();
    pair.add_contact(B);
    pair.send(A, 10);
    pair.send(B, 10);
    leave(&mut pair, A);
    leave(&mut pair, B);
    pair.settle();
    assert!(!pair.has_peer(A) && !pair.has_peer(B));
    pair.check_ends(false);
    pair.run(SECOND * 10);
    assert_eq!(pair.conns.len(), 1);
}

#[test]
fn r20_who_leaves_too_loses_nothing_by_the_goodbye_of_one_who_has_drained() {
    for (messages, bytes) in [(1, 10), (40, 30_000)] {
        let mut pair = Pair::linked();
        pair.sides[B].slow = messages > 1;
        let tags: Vec<_> = (0..messages).map(|_| pair.send(A, bytes)).collect();
        // What A wrote and the goodbye of B, which has nothing to drain, cross.
        leave(&mut pair, B);
        leave(&mut pair, A);
        pair.settle();
        assert_eq!(pair.has_peer(A), messages > 1, "it ends when it has drained");
        pair.sides[B].slow = false;
        pair.settle();
        assert!(!pair.has_peer(A) && !pair.has_peer(B));
        pair.check_ends(true);
        assert_eq!(pair.sides[B].tags(), tags);
        pair.run(SECOND * 20);
        assert_eq!(pair.conns.len(), 1, "nothing after it");
    }
}

#[test]
fn r20_what_crosses_a_goodbye_is_not_in_doubt_and_what_was_not_written_is_not_sent() {
    for stays in [A, B] {
        let mut pair = Pair::linked();
        pair.sides[1 - stays].slow = true;
        // Credit is used up in the middle of the second.
        let first = pair.send(stays, 170_000);
        let large = pair.send(stays, 170_000);
        pair.run(Duration::from_millis(100));
        let waits = pair.send(stays, 10);
        assert_eq!((pair.end_of(large), pair.end_of(waits)), (None, None));
        leave(&mut pair, 1 - stays);
        pair.run(Duration::from_millis(100));
        let departed = Lost::NotSent(Cause::Departed);
        assert_eq!(pair.end_of(waits), Some(Err(departed)), "at once");
        assert_eq!(pair.send_on(stays, NORMAL, 1), None, "no new messages");
        assert!(pair.has_peer(stays), "the rest of what was begun goes on");
        pair.sides[1 - stays].slow = false;
        pair.settle();
        assert_eq!((pair.end_of(first), pair.end_of(large)), (Some(Ok(())), Some(Ok(()))));
        assert!(!pair.has_peer(A) && !pair.has_peer(B));
        assert_eq!(pair.sides[stays].overs, [Cause::Departed]);
        assert_eq!(pair.sides[1 - stays].tags(), [first, large]);
        pair.run(SECOND * 20);
        assert_eq!(pair.conns.len(), 1, "nothing after it");
    }
}

#[test]
fn r20_who_stays_is_not_held_by_a_break_anywhere_while_the_other_leaves() {
    let crossing = |pair: &mut Pair| {
        pair.add_contact(B);
        pair.send(A, 10);
        leave(pair, B);
    };
    let before = Pair::linked().conns[0].carried;
    let said = {
        let mut pair = Pair::linked();
        crossing(&mut pair);
        pair.settle();
        pair.check_ends(true);
        pair.conns[0].carried
    };
    for told in [Told::Both, Told::Nobody, Told::Only(A), Told::Only(B)] {
        for bytes in before..=said {
            let mut pair = Pair::linked();
            pair.conns[0].set_fate(Fate::Break { bytes, told });
            crossing(&mut pair);
            let gone = |pair: &Pair| !pair.has_peer(A) && !pair.has_peer(B);
            pair.run_until((LIVENESS + SECOND) * 2, "both are over", gone);
            pair.check_ends(false);
            pair.run(SECOND * 10);
            assert!(pair.conns.len() <= 3 && gone(&pair), "after {bytes}");
        }
    }
}

/// It stays, one of its messages is not acknowledged, and the other says goodbye.
fn is_left_while_it_waits() -> (Solo, LinkId, Receipt) {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    let receipt = solo.send();
    solo.write();
    solo.frame(link, Frame::Goodbye { last: Vec::new(), confirmed: false });
    assert!(!solo.peer.is_over() && receipt.now().is_none());
    assert_eq!(solo.write(), [], "no confirmation yet");
    (solo, link, receipt)
}

#[test]
fn r20_who_is_left_waits_on_this_link_only_and_not_behind_the_others_end() {
    let in_doubt = Some(Err(Lost::Indeterminate(Cause::Departed)));
    let (mut solo, link, receipt) = is_left_while_it_waits();
    solo.frame(link, Frame::Close { code: Code::Closing, text: String::new() });
    assert!(solo.peer.is_over());
    assert_eq!((receipt.now(), solo.peer.gone()), (in_doubt, Some(Gone::Departed)));

    let (mut solo, link, receipt) = is_left_while_it_waits();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    assert!(solo.peer.is_over());
    assert_eq!((receipt.now(), solo.peer.gone()), (in_doubt, Some(Gone::Departed)));

    let (mut solo, link, receipt) = is_left_while_it_waits();
    solo.frame(link, accepted(1));
    assert!(solo.peer.is_over());
    assert_eq!((receipt.now(), solo.peer.gone()), (Some(Ok(())), Some(Gone::Departed)));
}

#[test]
fn r20_a_break_anywhere_while_both_leave_loses_nothing_either() {
    let both_leave = |pair: &mut Pair| {
        pair.add_contact(B);
        pair.send(A, 10);
        leave(pair, B);
        leave(pair, A);
    };
    let before = Pair::linked().conns[0].carried;
    let said = {
        let mut pair = Pair::linked();
        both_leave(&mut pair);
        pair.settle();
        pair.conns[0].carried
    };
    for told in [Told::Both, Told::Nobody, Told::Only(A), Told::Only(B)] {
        for bytes in before..=said {
            let mut pair = Pair::linked();
            pair.conns[0].set_fate(Fate::Break { bytes, told });
            both_leave(&mut pair);
            let gone = |pair: &Pair| !pair.has_peer(A) && !pair.has_peer(B);
            pair.run_until((LIVENESS + SECOND) * 2, "both left", gone);
            pair.check_ends(true);
            pair.run(SECOND * 10);
            assert!(pair.conns.len() <= 3 && gone(&pair), "after {bytes}");
        }
    }
}

/// It leaves, one of its messages is not acknowledged, and the other says goodbye.
fn hears_a_goodbye_while_it_drains() -> (Solo, LinkId, Receipt) {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    let receipt = solo.send();
    solo.write();
    solo.peer.leave();
    solo.frame(link, Frame::Goodbye { last: Vec::new(), confirmed: false });
    assert!(!solo.peer.is_over() && receipt.now().is_none());
    assert_eq!(solo.write(), [], "neither a goodbye nor a confirmation");
    (solo, link, receipt)
}

#[test]
fn r20_a_goodbye_that_comes_while_one_drains_is_confirmed_with_the_last_acknowledgement() {
    let (mut solo, link, receipt) = hears_a_goodbye_while_it_drains();
    solo.frame(link, accepted(1));
    assert!(solo.peer.is_over());
    assert_eq!(receipt.now(), Some(Ok(())));
    assert_eq!(solo.peer.gone(), Some(Gone::Departed));
    let confirmed = |output: &PeerOutput| {
        let words = frame::encode(&Frame::Goodbye { last: Vec::new(), confirmed: true }, BodyCheck::Crc);
        matches!(output, PeerOutput::Close { farewell: Some(farewell), .. } if *farewell == words)
    };
    assert_eq!(solo.outputs.iter().filter(|output| confirmed(output)).count(), 1);
}

#[test]
fn r20_a_goodbye_counts_no_more_when_its_link_is_lost() {
    let (mut solo, link, receipt) = hears_a_goodbye_while_it_drains();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let link = solo.link();
    solo.types(link);
    assert!(solo.write().iter().any(|frame| matches!(frame, Frame::Batch(_))), "it drains again");
    solo.frame(link, accepted(1));
    assert_eq!(receipt.now(), Some(Ok(())));
    let last = vec![(NORMAL, Seq(1))];
    assert_eq!(solo.write().last(), Some(&Frame::Goodbye { last, confirmed: false }));
    assert!(!solo.peer.is_over());
    // The other says it again too; one of the two is enough.
    solo.frame(link, Frame::Goodbye { last: Vec::new(), confirmed: false });
    assert!(solo.peer.is_over());
}

#[test]
fn r20_nobody_drains_to_one_whose_time_is_over_behind_its_goodbye() {
    let (mut solo, link, receipt) = hears_a_goodbye_while_it_drains();
    solo.frame(link, Frame::Close { code: Code::Closing, text: String::new() });
    assert!(solo.peer.is_over());
    assert_eq!(receipt.now(), Some(Err(Lost::Indeterminate(Cause::Departed))));
}

#[test]
fn r20_whose_time_is_over_is_not_waited_for_with_nothing_outstanding() {
    let mut pair = Pair::linked();
    // It could dial, and nobody is there any more.
    pair.add_contact(B);
    pair.sides[B].slow = true;
    (0..40).for_each(|_| _ = pair.send(A, 30_000));
    leave(&mut pair, B);
    leave(&mut pair, A);
    pair.settle();
    assert!(pair.has_peer(A) && pair.has_peer(B), "A drains, and B has said goodbye");
    pair.peer(A).end(Cause::Closed);
    pair.settle();
    assert!(!pair.has_peer(B), "it does not wait for its own deadline too");
    pair.check_ends(false);
    pair.run(SECOND * 20);
    assert_eq!(pair.conns.len(), 1, "and dials nobody");
}

#[test]
fn r20_a_deadline_ends_what_cannot_be_drained() {
    let mut pair = Pair::linked();
    let written = pair.send(A, 10);
    pair.net.doors[B] = Door::Shut;
    pair.break_link(Told::Both);
    let unwritten = pair.send(A, 10);
    leave(&mut pair, A);
    pair.run(SECOND * 10);
    pair.peer(A).end(Cause::Closed);
    pair.poll();
    assert_eq!(pair.end_of(written), Some(Err(Lost::Indeterminate(Cause::Closed))));
    assert_eq!(pair.end_of(unwritten), Some(Err(Lost::NotSent(Cause::Closed))));
}

#[test]
fn r20_session_unknown_ends_a_leave_with_nothing_outstanding() {
    let mut pair = Pair::linked();
    pair.forget(B);
    pair.break_link(Told::Both);
    leave(&mut pair, A);
    pair.run_until(LIVENESS + SECOND, "it left", left);
    pair.settle();
    assert!(!pair.has_peer(B), "nothing was bound there");
}
