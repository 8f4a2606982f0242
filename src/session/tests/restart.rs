//! The end of a session, with another to follow or none: what was written is in doubt, the rest is not.

use super::super::*;
use super::pair::{A, B, NORMAL, Pair, stream};
use crate::limits::{CREDIT_BYTES_MIN, KIB};
use crate::wire::Class;
use crate::wire::Frame;
use crate::wire::Protocol;

const IN_DOUBT: Option<Result<(), Lost>> = Some(Err(Lost::Indeterminate(Cause::SessionLost)));
const ACKED: Option<Result<(), Lost>> = Some(Ok(()));

#[test]
fn what_was_written_is_indeterminate_and_the_rest_starts_at_1() {
    let mut pair = Pair::linked();
    let acked = pair.push(A, NORMAL, 10);
    pair.settle();
    let written = pair.push(A, NORMAL, 10);
    pair.write(A);
    let waiting = pair.push(A, NORMAL, 10);
    pair.restart(A, Cause::SessionLost);
    assert_eq!([acked, written, waiting].map(|tag| pair.sides[A].end_of(tag)), [ACKED, IN_DOUBT, None]);
    pair.link();
    let frames = pair.write(A);
    assert!(matches!(&frames[..], [Frame::Batch(batch)] if batch.first == Seq(1) && batch.count == 1));
    pair.finish();
    assert_eq!(pair.sides[A].end_of(waiting), ACKED);
    assert_eq!(pair.sides[B].tags(), [acked, waiting]);
}

#[test]
fn the_receiver_begins_anew_as_well() {
    let mut pair = Pair::linked();
    pair.push(B, NORMAL, 10);
    pair.settle();
    let written = pair.push(B, NORMAL, 10);
    pair.write(B);
    let waiting = pair.push(B, NORMAL, 10);
    pair.restart(A, Cause::SessionLost);
    pair.finish();
    assert_eq!([written, waiting].map(|tag| pair.sides[B].end_of(tag)), [IN_DOUBT, ACKED]);
}

#[test]
fn a_message_of_which_only_the_head_was_written_is_indeterminate_and_its_tail_is_never_sent() {
    let mut pair = Pair::linked();
    let large = pair.push(A, NORMAL, 900 * KIB);
    let after = pair.push(A, NORMAL, 10);
    pair.write(A);
    assert!(
        pair.sides[A]
            .session
            .streams()
            .next()
            .is_some_and(|figures| figures.unacked_bytes < 900 * KIB as u64)
    );
    pair.restart(A, Cause::SessionLost);
    assert_eq!([large, after].map(|tag| pair.sides[A].end_of(tag)), [IN_DOUBT, None]);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [after]);
    assert_eq!(pair.sides[A].session.accounts().indeterminate, 1);
}

#[test]
fn a_tail_is_never_sent_either_when_its_head_was_acknowledged() {
    let mut pair = Pair::linked();
    let large = pair.push(A, NORMAL, 900 * KIB);
    let after = pair.push(A, NORMAL, 10);
    pair.write_and_carry(A);
    pair.settle_side(B);
    assert!(
        pair.sides[A].session.streams().all(|figures| figures.unacked_bytes == 0),
        "the head is acknowledged"
    );
    pair.restart(A, Cause::SessionLost);
    assert_eq!([large, after].map(|tag| pair.sides[A].end_of(tag)), [IN_DOUBT, None]);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [after]);
}

#[test]
fn a_tail_that_waits_for_credit_is_never_sent_either() {
    let mut pair = Pair::with_credit(CREDIT_BYTES_MIN);
    pair.link();
    (pair.sides[B].slow, pair.sides[B].stingy) = (true, true);
    let large = pair.push(A, NORMAL, 900 * KIB);
    pair.settle();
    assert!(pair.sides[A].session.streams().any(|figures| figures.blocked_since.is_some()));
    pair.restart(A, Cause::SessionLost);
    assert_eq!(pair.sides[A].end_of(large), IN_DOUBT);
    assert!(pair.sides[A].session.is_drained());
    pair.finish();
}

#[test]
fn a_large_message_of_which_nothing_was_written_is_sent_whole() {
    let mut pair = Pair::linked();
    pair.push(A, NORMAL, 10);
    pair.settle();
    let large = pair.push(A, NORMAL, 900 * KIB);
    pair.restart(A, Cause::SessionLost);
    pair.finish();
    assert_eq!(pair.sides[A].end_of(large), ACKED);
}

#[test]
fn what_a_byte_stream_had_not_written_is_purged_at_a_restart() {
    let mut pair = Pair::linked();
    let bytes = StreamId::new(Protocol::BYTES, Class::Normal, true);
    let written = pair.push(A, bytes, 10);
    pair.write(A);
    let unwritten = pair.push(A, bytes, 10);
    let message = pair.push(A, NORMAL, 10);
    pair.restart(A, Cause::SessionLost);
    let purged = Some(Err(Lost::NotSent(Cause::SessionLost)));
    assert_eq!([written, unwritten, message].map(|tag| pair.sides[A].end_of(tag)), [IN_DOUBT, purged, None]);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [message]);
}

#[test]
fn handled_reports_of_an_earlier_epoch_give_no_credit() {
    let mut pair = Pair::linked();
    pair.sides[B].slow = true;
    pair.push(A, NORMAL, 50_000);
    pair.settle();
    pair.restart(A, Cause::SessionLost);
    pair.link();
    pair.push(A, NORMAL, 10);
    pair.settle();
    let before = pair.sides[B].session.resume_points();
    pair.handle(B);
    assert_eq!(pair.sides[B].session.resume_points(), before);
    assert_eq!(pair.sides[B].session.accounts().handled, 1, "it is counted all the same");
    pair.handle(B);
    assert!(pair.sides[B].session.resume_points()[0].credit > before[0].credit);
    pair.finish();
}

#[test]
fn who_waits_for_the_handler_learns_of_the_restart() {
    let mut pair = Pair::linked();
    pair.sides[B].slow = true;
    let tag = pair.push(A, NORMAL, 10);
    pair.settle();
    assert_eq!(pair.sides[A].handled_of(tag), None);
    pair.restart(A, Cause::SessionLost);
    assert_eq!((pair.sides[A].end_of(tag), pair.sides[A].handled_of(tag)), (ACKED, IN_DOUBT));
}

#[test]
fn two_restarts_in_a_row_keep_what_waits() {
    let mut pair = Pair::linked();
    let tag = pair.push(A, stream(Class::Bulk), 10);
    pair.restart(A, Cause::SessionLost);
    pair.restart(A, Cause::SessionLost);
    pair.restart(B, Cause::SessionLost);
    pair.finish();
    assert_eq!(pair.sides[B].tags(), [tag]);
}

#[test]
fn the_end_resolves_everything() {
    let mut pair = Pair::linked();
    let acked = pair.push(A, NORMAL, 10);
    pair.settle();
    let written = pair.push(A, NORMAL, 10);
    pair.write(A);
    let large = pair.push(A, stream(Class::Urgent), 900 * KIB);
    pair.write(A);
    let waiting = pair.push(A, stream(Class::Bulk), 10);
    pair.cut();
    pair.sides[A].session.end(Cause::Departed);
    pair.take_events();
    let in_doubt = Some(Err(Lost::Indeterminate(Cause::Departed)));
    let unsent = Some(Err(Lost::NotSent(Cause::Departed)));
    let ends = [acked, written, large, waiting].map(|tag| pair.sides[A].end_of(tag));
    assert_eq!(ends, [ACKED, in_doubt, in_doubt, unsent]);
    assert_eq!((pair.sides[A].pending(), pair.sides[A].cost()), (0, 0));
    assert_eq!(pair.try_push(A, NORMAL, 10, true), Err(Refused::Closed(Cause::Departed)));
}
