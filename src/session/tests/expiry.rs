//! Time to live: what waits too long ends exactly then, whatever it waits for, and leaves no gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::super::*;
use super::pair::{A, B, NORMAL, Pair, ROOMY, stream};
use crate::limits::{CREDIT_BYTES, CREDIT_BYTES_MIN, KIB};
use crate::wire::Class;

const EXPIRED: Option<Result<(), Lost>> = Some(Err(Lost::NotSent(Cause::Expired)));
const TIME: Duration = Duration::from_millis(700);
const TICK: Duration = Duration::from_nanos(1);

/// A pair whose one side has used up the credit of the normal stream, with all of it written.
fn blocked() -> Pair {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    while !pair.sides[A].session.streams().any(|figures| figures.blocked_since.is_some()) {
        pair.push(A, NORMAL, 1000);
        pair.write_and_carry(A);
    }
    pair.settle();
    pair
}

/// Whatever `pair` waits for: both messages with this time end when it is over and not before, and their room comes back.
fn end_when_their_time_is_over(mut pair: Pair) {
    let before = (pair.sides[A].cost(), pair.sides[A].pending());
    let end = pair.now + TIME;
    let large = pair.push_for(TIME, A, NORMAL, 300 * KIB);
    let small = pair.push_for(TIME, A, NORMAL, 10);
    pair.write(A);
    pair.sleep_until(A, end - TICK);
    pair.write(A);
    assert_eq!((pair.sides[A].end_of(large), pair.sides[A].end_of(small)), (None, None));
    pair.sleep_until(A, end);
    assert_eq!((pair.sides[A].end_of(large), pair.sides[A].end_of(small)), (EXPIRED, EXPIRED));
    assert_eq!((pair.sides[A].cost(), pair.sides[A].pending()), before, "their room comes back then");
    assert_eq!(pair.sides[A].session.accounts().not_sent, 2);
    assert_eq!(pair.sides[A].session.poll_timeout(), None);
    pair.finish();
    assert!(!pair.sides[B].tags().contains(&large) && !pair.sides[B].tags().contains(&small));
}

#[test]
fn messages_expire_exactly_when_there_is_no_link() {
    end_when_their_time_is_over(Pair::with_credit(CREDIT_BYTES));
}

#[test]
fn messages_expire_exactly_when_there_is_no_credit() {
    end_when_their_time_is_over(blocked());
}

#[test]
fn messages_expire_exactly_when_the_link_went() {
    let mut pair = blocked();
    pair.cut();
    end_when_their_time_is_over(pair);
}

#[test]
fn messages_expire_exactly_when_types_were_not_told() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    for _ in 0..3 {
        pair.step_link(A);
    }
    end_when_their_time_is_over(pair);
}

#[test]
fn what_is_over_when_a_link_comes_is_not_sent() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    let old = pair.push_for(TIME, A, NORMAL, 10);
    let young = pair.push_for(TIME + TICK, A, NORMAL, 10);
    pair.advance(TIME);
    pair.finish();
    assert_eq!((pair.sides[A].end_of(old), pair.sides[A].end_of(young)), (EXPIRED, Some(Ok(()))));
    assert_eq!(pair.sides[B].tags(), [young]);
}

#[test]
fn what_was_written_in_time_is_not_touched() {
    let mut pair = Pair::linked();
    let small = pair.push_for(TIME, A, NORMAL, 10);
    let large = pair.push_for(TIME, A, NORMAL, 200 * KIB);
    while !pair.write(A).is_empty() {}
    pair.cut();
    pair.advance(TIME * 2);
    pair.sleep_until(A, pair.now);
    assert_eq!((pair.sides[A].end_of(small), pair.sides[A].end_of(large)), (None, None));
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [small, large]);
}

#[test]
fn a_large_message_whose_head_was_written_does_not_expire() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].stingy = true;
    let large = pair.push_for(TIME, A, NORMAL, 1000 * KIB);
    pair.write_and_carry(A);
    let end = pair.now + TIME;
    pair.sleep_until(A, end);
    assert_eq!(pair.sides[A].end_of(large), None);
    pair.finish();
    assert_eq!((pair.sides[A].end_of(large), pair.sides[B].tags()), (Some(Ok(())), vec![large]));
}

#[test]
fn a_time_of_zero_is_over_at_once_and_costs_nothing() {
    let mut pair = Pair::linked();
    let stays = pair.push(A, NORMAL, 10);
    let before = pair.sides[A].cost();
    let tag = pair.push_for(Duration::ZERO, A, NORMAL, 10);
    assert_eq!((pair.sides[A].end_of(tag), pair.sides[A].cost()), (EXPIRED, before));
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [stays]);
}

#[test]
fn the_expired_leave_no_gap_between_the_others() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    let mut stay = Vec::new();
    for number in 0..1500_u64 {
        match number % 3 {
            0 => stay.push(pair.push(A, NORMAL, 20)),
            1 => drop(pair.push_for(TIME + Duration::from_micros(number % 7), A, NORMAL, 30)),
            _ => stay.push(pair.push_for(TIME * 2, A, NORMAL, 5_000 * (number % 50 / 49) as usize)),
        }
    }
    let (end, cost) = (pair.now + TIME, pair.sides[A].cost());
    pair.sleep_until(A, end - TICK);
    assert_eq!(pair.sides[A].cost(), cost);
    pair.sleep_until(A, end + Duration::from_micros(7));
    assert_eq!(pair.sides[A].pending(), 1000);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), stay);
    let last = pair.sides[A].session.last_sent();
    assert_eq!(last, [(NORMAL, crate::wire::Seq(1000))], "numbers are given to what is sent alone");
}

#[test]
fn expiry_outlives_the_session() {
    let mut pair = blocked();
    let lost = pair.push_for(TIME, A, NORMAL, 10);
    let kept = pair.push_for(TIME * 3, A, NORMAL, 10);
    pair.restart(A, Cause::SessionLost);
    assert_eq!(pair.sides[A].end_of(lost), None, "it was not written, so it goes on in the next");
    pair.sleep_until(A, pair.now + TIME);
    assert_eq!(pair.sides[A].end_of(lost), EXPIRED);
    pair.finish();
    assert_eq!(pair.sides[A].end_of(kept), Some(Ok(())));
}

#[test]
fn at_the_end_what_has_a_time_to_live_ends_as_the_rest() {
    let mut pair = blocked();
    let tag = pair.push_for(TIME, A, NORMAL, 10);
    pair.sides[A].session.end(Cause::Departed);
    assert_eq!(pair.sides[A].end_of(tag), Some(Err(Lost::NotSent(Cause::Departed))));
    assert_eq!(pair.sides[A].session.poll_timeout(), None);
    pair.sides[A].check();
}

#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_for_room_is_woken_by_an_expiry() {
    let little = BudgetLimits { process_bytes: 1_000_000, reserve_bytes: 10_000, queue_bytes: 200_000 };
    let mut pair = Pair::with(CREDIT_BYTES, little);
    let terms = Terms { expires: Some(pair.now + TIME), key: None };
    let no_room = loop {
        match pair.try_push_under(A, NORMAL, 1_000, true, terms) {
            Ok(_) => {}
            Err(Refused::Full(no_room)) => break no_room,
            Err(Refused::Closed(cause)) => panic!("{cause}"),
        }
    };
    let calls = Arc::new(Calls::default());
    pair.sides[A].session.intake().lock().wake_at_room(&Waker::from(Arc::clone(&calls)), no_room);
    pair.sleep_until(A, pair.now + TIME - TICK);
    assert_eq!(calls.0.load(Ordering::Relaxed), 0);
    pair.sleep_until(A, pair.now + TICK);
    assert_eq!(calls.0.load(Ordering::Relaxed), 1);
    assert_eq!(pair.sides[A].cost(), 0);
    assert!(pair.try_push(A, NORMAL, 1_000, true).is_ok());
}

#[test]
fn the_session_is_woken_for_an_earlier_end() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    let mut wakes = |millis| {
        let terms = Terms { expires: Some(pair.now + Duration::from_millis(millis)), key: None };
        pair.try_push_under(A, NORMAL, 10, true, terms).unwrap().1
    };
    assert_eq!([wakes(50), wakes(60), wakes(50), wakes(40), wakes(45)], [true, false, false, true, false]);
}

#[test]
fn what_a_higher_class_overtakes_can_still_expire() {
    let mut pair = Pair::with(CREDIT_BYTES, ROOMY);
    pair.link();
    let bulk = pair.push_for(TIME, A, stream(Class::Bulk), 10);
    pair.push_many(400, A, stream(Class::Urgent), 2_000);
    pair.write(A);
    let end = pair.now + TIME;
    pair.sleep_until(A, end);
    assert_eq!(pair.sides[A].end_of(bulk), EXPIRED);
    pair.finish();
}

#[test]
fn waiting_for_credit_is_seen_of_what_may_expire() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    pair.sides[B].slow = true;
    for _ in 0..200 {
        pair.push_for(TIME, A, NORMAL, 1000);
    }
    pair.settle_side(B);
    while !pair.write(A).is_empty() {}
    let figures = pair.sides[A].session.streams().next().unwrap();
    assert_eq!(figures.blocked_since, Some(pair.now));
    let end = pair.now + TIME;
    pair.sleep_until(A, end);
    pair.write(A);
    let figures = pair.sides[A].session.streams().next().unwrap();
    assert_eq!((figures.blocked_since, figures.blocked), (None, TIME), "nothing waits any more");
}

#[test]
fn types_and_sizes_are_judged_as_ever() {
    let mut pair = Pair::with_credit(CREDIT_BYTES);
    let tags: Vec<u32> = (0..10).map(|_| pair.push_for(TIME, A, NORMAL, 10)).collect();
    pair.sides[B].refuses.insert(tags[4]);
    pair.finish();
    assert_eq!(pair.sides[A].end_of(tags[4]), Some(Err(Lost::NotSent(Cause::NotUnderstood))));
    assert_eq!(pair.sides[B].tags().len(), 9);
}
