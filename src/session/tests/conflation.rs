//! Keys: of what waits under one key only the newest stays, at its own place in the order.

use std::time::Duration;

use super::super::*;
use super::pair::{A, B, NORMAL, Pair, stream};
use crate::limits::{CREDIT_BYTES, CREDIT_BYTES_MIN, KIB};
use crate::wire::Class;

const SUPERSEDED: Option<Result<(), Lost>> = Some(Err(Lost::NotSent(Cause::Superseded)));

/// No link yet, so that everything waits.
fn unlinked() -> Pair {
    Pair::with_credit(CREDIT_BYTES)
}

#[test]
fn only_the_newest_of_a_key_is_sent_at_its_own_place() {
    let mut pair = unlinked();
    let old = pair.push_keyed(7, A, NORMAL, 10);
    let between = pair.push(A, NORMAL, 10);
    let other = pair.push_keyed(8, A, NORMAL, 10);
    let new = pair.push_keyed(7, A, NORMAL, 10);
    assert_eq!(pair.sides[A].end_of(old), SUPERSEDED, "at once");
    assert_eq!((pair.sides[A].pending(), pair.sides[A].session.accounts().not_sent), (3, 1));
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [between, other, new]);
    assert_eq!(pair.sides[A].session.last_sent(), [(NORMAL, crate::wire::Seq(3))], "no gap");
}

#[test]
fn a_key_belongs_to_its_stream() {
    let mut pair = unlinked();
    let urgent = pair.push_keyed(7, A, stream(Class::Urgent), 10);
    let normal = pair.push_keyed(7, A, NORMAL, 10);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [urgent, normal]);
}

#[test]
fn what_was_written_is_not_superseded() {
    let mut pair = Pair::linked();
    let first = pair.push_keyed(7, A, NORMAL, 10);
    let large = pair.push_keyed(8, A, NORMAL, 900 * KIB);
    // The head of the large one, and no more than a write.
    pair.write(A);
    let again = pair.push_keyed(7, A, NORMAL, 10);
    let large_again = pair.push_keyed(8, A, NORMAL, 900 * KIB);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [first, large, again, large_again]);
}

#[test]
fn large_messages_are_superseded_as_a_whole() {
    let mut pair = unlinked();
    let before = pair.push(A, NORMAL, 10);
    let sizes = [5 * KIB, 64 * KIB, 200 * KIB, 10, 300 * KIB, 64 * KIB + 1];
    let tags: Vec<u32> = sizes.into_iter().map(|bytes| pair.push_keyed(7, A, NORMAL, bytes)).collect();
    let other = pair.push_keyed(8, A, NORMAL, 150 * KIB);
    let last = pair.push_keyed(7, A, NORMAL, 150 * KIB);
    assert!(tags.iter().all(|tag| pair.sides[A].end_of(*tag) == SUPERSEDED));
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [before, other, last]);
}

#[test]
fn many_updates_of_few_keys_hold_little() {
    for bytes in [0, 60, 4 * KIB, 70 * KIB] {
        let mut pair = unlinked();
        let untracked = |pair: &mut Pair, key| {
            let terms = Terms { expires: Some(pair.now + Duration::from_secs(1)), key: Some(key) };
            pair.try_push_under(A, NORMAL, bytes, false, terms).unwrap();
        };
        (0..10).for_each(|key| untracked(&mut pair, key));
        let cost = pair.sides[A].cost();
        for update in 0..2_000 {
            untracked(&mut pair, update % 10);
            assert_eq!((pair.sides[A].cost(), pair.sides[A].pending()), (cost, 10));
        }
        let held = pair.sides[A].session.intake().lock().held_bytes();
        assert!(held <= cost * 2 + 4 * KIB, "{held} bytes are held for {cost} of charge, {bytes} a body");
        pair.finish();
        assert_eq!(pair.sides[B].tags().len(), 10);
    }
}

#[test]
fn nothing_is_kept_of_keys_that_were_sent() {
    let mut pair = Pair::linked();
    for key in 0..1_500 {
        pair.push_keyed(key, A, NORMAL, 10);
    }
    pair.settle();
    assert_eq!(pair.sides[A].session.intake().lock().held_bytes(), 0);
    assert_eq!(pair.sides[A].cost(), 0);
}

const LITTLE: BudgetLimits =
    BudgetLimits { process_bytes: 100_000, reserve_bytes: 10_000, queue_bytes: 10_000 };

fn keyed(key: u64) -> Terms {
    Terms { expires: None, key: Some(key) }
}

#[test]
fn the_room_of_the_older_one_is_enough_for_the_newer() {
    let mut pair = Pair::with(CREDIT_BYTES, LITTLE);
    let mut key = 0;
    while pair.try_push_under(A, NORMAL, 1_000, true, keyed(key)).is_ok() {
        key += 1;
    }
    assert!(pair.try_push(A, NORMAL, 1_000, true).is_err());
    for key in 0..key {
        assert!(pair.try_push_under(A, NORMAL, 1_000, true, keyed(key)).is_ok());
    }
    assert_eq!(pair.sides[A].pending(), key);
    pair.finish();
}

#[test]
fn a_newer_one_without_room_leaves_the_older_one() {
    let mut pair = Pair::with(CREDIT_BYTES, LITTLE);
    let old = pair.push_keyed(7, A, NORMAL, 10);
    while pair.try_push(A, NORMAL, 500, true).is_ok() {}
    let before = pair.sides[A].cost();
    assert!(pair.try_push_under(A, NORMAL, 3_000, true, keyed(7)).is_err());
    assert_eq!((pair.sides[A].end_of(old), pair.sides[A].cost()), (None, before));
    pair.finish();
    assert_eq!(pair.sides[A].end_of(old), Some(Ok(())));
}

#[test]
fn a_newer_one_whose_time_is_over_takes_the_older_one_along() {
    let mut pair = unlinked();
    let old = pair.push_keyed(7, A, NORMAL, 10);
    let terms = Terms { expires: Some(pair.now), key: Some(7) };
    let (new, _) = pair.try_push_under(A, NORMAL, 10, true, terms).unwrap();
    assert_eq!(pair.sides[A].end_of(old), SUPERSEDED);
    assert_eq!(pair.sides[A].end_of(new), Some(Err(Lost::NotSent(Cause::Expired))));
    assert!(pair.sides[A].session.is_drained() && pair.sides[A].cost() == 0);
}

#[test]
fn a_key_whose_newest_expired_begins_anew() {
    let mut pair = unlinked();
    let terms =
        |pair: &Pair, millis| Terms { expires: Some(pair.now + Duration::from_millis(millis)), key: Some(7) };
    let at = terms(&pair, 10);
    let (first, _) = pair.try_push_under(A, NORMAL, 10, true, at).unwrap();
    let at = terms(&pair, 5);
    let (second, _) = pair.try_push_under(A, NORMAL, 10, true, at).unwrap();
    assert_eq!(pair.sides[A].end_of(first), SUPERSEDED);
    pair.sleep_until(A, pair.now + Duration::from_millis(5));
    assert_eq!(pair.sides[A].end_of(second), Some(Err(Lost::NotSent(Cause::Expired))));
    let third = pair.push_keyed(7, A, NORMAL, 10);
    pair.sleep_until(A, pair.now + Duration::from_millis(100));
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [third]);
}

#[test]
fn what_waits_for_credit_is_superseded() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    for _ in 0..400 {
        pair.push_keyed(7, A, NORMAL, 1_000);
        pair.push(A, NORMAL, 1_000);
        pair.write_and_carry(A);
    }
    let before = pair.sides[A].pending();
    let tags: Vec<u32> = (0..300).map(|_| pair.push_keyed(7, A, NORMAL, 1_000)).collect();
    pair.write(A);
    assert_eq!(pair.sides[A].pending(), before, "one took the place of one");
    pair.finish();
    let sent: Vec<_> = tags.iter().filter(|tag| pair.sides[B].tags().contains(tag)).collect();
    assert_eq!(sent, [tags.last().unwrap()]);
}

#[test]
fn keys_outlive_the_session() {
    let mut pair = unlinked();
    pair.link();
    pair.cut();
    let old = pair.push_keyed(7, A, NORMAL, 10);
    pair.restart(A, Cause::SessionLost);
    let new = pair.push_keyed(7, A, NORMAL, 10);
    assert_eq!(pair.sides[A].end_of(old), SUPERSEDED);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [new]);
}

#[test]
fn what_is_pushed_while_its_elder_is_being_written_does_not_double_it() {
    let mut pair = unlinked();
    let old = pair.push_keyed(7, A, NORMAL, 10);
    let mut taken = Vec::new();
    let intake = std::sync::Arc::clone(pair.sides[A].session.intake());
    // As the session does: it takes, meanwhile somebody sends, and it hands back what found no room on the link.
    intake.lock().take(|_, _| true, |stream, batch| taken.push((stream, batch)));
    let terms = keyed(7);
    let newer = Outgoing { stream: NORMAL, hash: 2, version: 1, body: Body::Slice(&[]), reply: &|| false };
    let pushed = intake.lock().push_under(pair.now, terms, newer, None).unwrap();
    pushed.ended.tell();
    assert_eq!(pair.sides[A].end_of(old), None);
    for (stream, batch) in taken {
        let ended = intake.lock().hand_back(stream, batch);
        ended.tell();
    }
    assert_eq!(pair.sides[A].end_of(old), SUPERSEDED);
    assert_eq!(intake.lock().waiting_messages(), 1);
}
