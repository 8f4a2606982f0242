//! Ends, aborts, drops and the loss of the session.

use std::io::ErrorKind;
use std::sync::Arc;
use std::task::Waker;

use super::*;

#[test]
fn each_direction_ends_by_itself() {
    for opener_ends_first in [true, false] {
        let pair = Pair::new(8);
        let (ours, theirs) = pair.connect("");
        let (mut first, mut second) = if opener_ends_first { (ours, theirs) } else { (theirs, ours) };
        assert!(write(&mut first, b"last words").is_ready());
        ready(shutdown(&mut first)).unwrap();
        ready(shutdown(&mut first)).unwrap();
        pair.settle();
        assert_eq!(ready(read(&mut second, 100)).unwrap(), b"last words");
        assert_eq!(ready(read(&mut second, 100)).unwrap(), b"", "the end");
        assert_eq!(failure(write(&mut first, b"more")), (ErrorKind::BrokenPipe, StreamError::Ended));

        assert!(write(&mut second, b"an answer").is_ready());
        ready(shutdown(&mut second)).unwrap();
        pair.settle();
        assert_eq!(ready(read(&mut first, 100)).unwrap(), b"an answer");
        assert_eq!(ready(read(&mut first, 100)).unwrap(), b"");
    }
}

#[test]
fn a_stream_dropped_after_both_ends_says_nothing() {
    let pair = Pair::new(8);
    let (mut ours, mut theirs) = pair.connect("");
    assert!(shutdown(&mut ours).is_ready() && write(&mut theirs, b"unread").is_ready());
    assert!(shutdown(&mut theirs).is_ready());
    pair.settle();
    drop((ours, theirs));
    assert_eq!((pair.lanes[0].len(), pair.lanes[1].len()), (0, 0));
    assert_eq!((pair.sides[0].len(), pair.sides[1].len()), (0, 0));
}

#[test]
fn a_stream_dropped_unfinished_is_aborted() {
    for opener_drops in [true, false] {
        let pair = Pair::new(8);
        let (ours, theirs) = pair.connect("");
        let (dropped, mut kept) = if opener_drops { (ours, theirs) } else { (theirs, ours) };
        let flag = Arc::new(Flag::default());
        assert!(read_with(&mut kept, &Waker::from(Arc::clone(&flag)), 1).is_pending());
        drop(dropped);
        pair.settle();
        assert!(flag.woken());
        assert_eq!(failure(read(&mut kept, 1)), aborted("dropped"));
        assert_eq!(failure(write(&mut kept, b"x")), aborted("dropped"));
        assert_eq!(failure(shutdown(&mut kept)), aborted("dropped"));
    }
}

#[test]
fn an_abort_reaches_the_peer_with_its_reason() {
    for opener_aborts in [true, false] {
        let pair = Pair::new(8);
        let (ours, theirs) = pair.connect("");
        let (mut aborting, mut kept) = if opener_aborts { (ours, theirs) } else { (theirs, ours) };
        assert!(write(&mut aborting, b"half a thought").is_ready());
        aborting.abort("disk full");
        pair.settle();
        assert_eq!(failure(read(&mut kept, 1)), aborted("disk full"), "half is not given out");
        let error = ready(write(&mut kept, b"x")).unwrap_err();
        assert!(error.to_string().contains("disk full"), "{error}");
        drop(kept);
        assert_eq!((pair.lanes[0].len(), pair.lanes[1].len()), (0, 0), "an abort is not answered");
    }
}

#[test]
fn what_was_ended_before_an_abort_is_read_to_its_end() {
    let pair = Pair::new(8);
    let (mut ours, mut theirs) = pair.connect("");
    assert!(write(&mut ours, b"whole").is_ready() && shutdown(&mut ours).is_ready());
    drop(ours);
    pair.settle();
    assert_eq!(ready(read(&mut theirs, 3)).unwrap(), b"who");
    assert_eq!(ready(read(&mut theirs, 3)).unwrap(), b"le");
    assert_eq!(ready(read(&mut theirs, 3)).unwrap(), b"");
    assert_eq!(failure(write(&mut theirs, b"x")), aborted("dropped"));
}

#[test]
fn the_loss_of_the_session_fails_both_ends_and_nothing_is_sent_after() {
    let pair = Pair::new(4);
    let (mut ours, mut theirs) = pair.connect("");
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    assert!(read_with(&mut ours, &Waker::from(Arc::clone(&flags[0])), 1).is_pending());
    assert!(write(&mut ours, b"under way").is_ready());
    pair.settle();
    assert!(write(&mut theirs, b"x").is_ready() && write(&mut theirs, b"x").is_ready());
    assert!(write(&mut theirs, b"x").is_ready() && write(&mut theirs, b"x").is_ready());
    assert!(shutdown_with(&mut theirs, &Waker::from(Arc::clone(&flags[1]))).is_pending(), "no room");
    pair.session_over(Cause::SessionLost, Some(2));
    pair.lanes.iter().for_each(|lane| lane.queue.lock().messages.clear());

    assert!(flags.iter().all(|flag| flag.woken()));
    for end in [&mut ours, &mut theirs] {
        assert_eq!(failure(read(end, 100)), lost(Cause::SessionLost));
        assert_eq!(failure(shutdown(end)), lost(Cause::SessionLost));
    }
    assert_eq!(failure(write(&mut ours, b"tail")), lost(Cause::SessionLost));
    drop((ours, theirs));
    pair.sides.iter().for_each(|side| side.retry());
    assert!(pair.sides.iter().all(|side| !side.needs_retry() && side.len() == 0));
    assert_eq!((pair.lanes[0].len(), pair.lanes[1].len()), (0, 0));
}

#[test]
fn what_was_received_whole_survives_the_session() {
    let pair = Pair::new(4);
    let (mut ours, mut theirs) = pair.connect("");
    assert!(write(&mut ours, b"whole").is_ready() && shutdown(&mut ours).is_ready());
    pair.settle();
    pair.session_over(Cause::Departed, None);
    assert_eq!(ready(read(&mut theirs, 100)).unwrap(), b"whole");
    assert_eq!(ready(read(&mut theirs, 100)).unwrap(), b"");
    assert_eq!(failure(write(&mut theirs, b"x")), lost(Cause::Departed));
    assert_eq!(failure(read(&mut ours, 1)), lost(Cause::Departed));
}

#[test]
fn messages_of_an_earlier_session_are_ignored() {
    let mut pair = Pair::new(8);
    let (ours, _theirs) = pair.connect("old");
    let late = pair.sides[0].open("late", Class::Normal).unwrap();
    pair.session_over(Cause::SessionLost, Some(2));
    assert!(pair.settle().is_empty(), "opened in the session before");
    assert_eq!(pair.sides[1].len(), 0);

    pair.epoch = 2;
    drop((ours, late));
    let (_ours, mut theirs) = pair.connect("new");
    let Content::Data(bytes) = Content::Data(Bytes::from_static(b"late")) else { unreachable!() };
    let data = message(3, true, &Content::Data(bytes));
    pair.sides[1].handle_message(1, Class::Normal, data.clone());
    assert!(read(&mut theirs, 10).is_pending(), "data of epoch 1");
    pair.sides[1].handle_message(2, Class::Normal, data);
    assert_eq!(ready(read(&mut theirs, 10)).unwrap(), b"late");
}

#[test]
fn without_a_next_epoch_those_up_to_the_known_one_are_over() {
    let pair = Pair::new(8);
    let (_ours, _theirs) = pair.connect("");
    pair.session_over(Cause::SessionLost, None);
    let open = message(1, true, &Content::Open { window: 1, name: String::new() });
    assert!(pair.sides[1].handle_message(1, Class::Normal, open.clone()).is_none());
    assert!(
        pair.sides[1].handle_message(9, Class::Normal, open).is_some(),
        "the id is free in a new session"
    );
}

#[test]
fn the_first_message_of_a_session_that_is_over_opens_nothing() {
    let pair = Pair::new(8);
    pair.session_over(Cause::Departed, None);
    let open = message(1, true, &Content::Open { window: 1, name: "late".into() });
    assert!(pair.sides[1].handle_message(1, Class::Normal, open.clone()).is_none(), "nobody would end it");
    assert_eq!(pair.sides[1].len(), 0);
    assert!(pair.sides[1].handle_message(2, Class::Normal, open).is_some(), "another session");
}

#[test]
fn a_message_of_a_later_session_ends_the_one_before() {
    let pair = Pair::new(8);
    let (_ours, mut theirs) = pair.connect("");
    let open = message(1, true, &Content::Open { window: 1, name: "again".into() });
    let mut again = pair.sides[1].handle_message(2, Class::Normal, open).unwrap();
    assert_eq!(failure(read(&mut theirs, 1)), lost(Cause::SessionLost));
    pair.sides[1].session_over(Cause::SessionLost, 1, Some(2));
    assert!(read(&mut again, 1).is_pending(), "told twice of the same session");
    pair.sides[1].session_over(Cause::Departed, 2, None);
    assert_eq!(failure(read(&mut again, 1)), lost(Cause::Departed));
}

/// Messages that no honest peer sends, to an accepted stream of id 1, after "abc" from the opener.
fn fault(class: Class, bad: &[Content]) -> (io::Error, Vec<(Head, Content)>) {
    let pair = Pair::new(8);
    let (mut ours, mut theirs) = pair.connect("");
    let (_other, mut other_end) = pair.connect("innocent");
    assert!(write(&mut ours, b"abc").is_ready());
    pair.settle();
    for content in bad {
        assert!(pair.sides[1].handle_message(1, class, message(1, true, content)).is_none());
    }
    let mut error = read(&mut theirs, 100);
    while let Poll::Ready(Ok(bytes)) = &error {
        if bytes.is_empty() {
            error = write(&mut theirs, b"x").map_ok(|_| Vec::new());
            break;
        }
        error = read(&mut theirs, 100);
    }
    assert!(read(&mut other_end, 1).is_pending(), "the others live");
    (ready(error).unwrap_err(), pair.lanes[1].contents())
}

#[test]
fn a_peers_fault_aborts_that_stream_and_tells_both_sides_why() {
    use crate::limits::BYTES_WINDOW;
    let data = |len: usize| Content::Data(vec![0; len].into());
    let end = |total| Content::End { total };
    let open = Content::Open { window: 0, name: String::new() };
    for (bad, text) in [
        (vec![data(BYTES_WINDOW as usize - 2)], "data up to byte 524289, the window ends at 524288"),
        (vec![end(2)], "an end after 2 bytes, 3 were received"),
        (vec![end(4)], "an end after 4 bytes, 3 were received"),
        (vec![end(3), data(1)], "data or an end after the end"),
        (vec![end(3), end(3)], "data or an end after the end"),
        (vec![open], "opened with an id that is in use"),
    ] {
        let (error, said) = fault(Class::Normal, &bad);
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{text}");
        assert!(error.to_string().contains(text), "{error}");
        let [(head, Content::Abort { code: 4, text: told })] = &said[..] else { panic!("{said:?}") };
        assert_eq!((head.id, head.from_opener, told.as_str()), (1, false, text));
    }
    let (error, _) = fault(Class::Urgent, &[data(1)]);
    assert!(error.to_string().contains("in class Urgent of a byte stream in class Normal"), "{error}");
}

#[test]
fn a_malformed_message_aborts_the_stream_it_names() {
    let pair = Pair::new(8);
    let (_ours, mut theirs) = pair.connect("");
    let bad = Bytes::from_static(&[0x83, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert!(pair.sides[1].handle_message(1, Class::Normal, bad).is_none());
    assert_eq!(ready(read(&mut theirs, 1)).unwrap_err().kind(), ErrorKind::InvalidData);
    let open = Bytes::from_static(&[0x81, 9, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert!(pair.sides[1].handle_message(1, Class::Normal, open).is_none());
    let ids: Vec<_> = pair.lanes[1].contents().iter().map(|(head, _)| head.id).collect();
    assert_eq!(ids, [1, 9], "who opens waits for an answer");
    assert!(pair.sides[1].handle_message(1, Class::Normal, Bytes::new()).is_none());
}

#[test]
fn an_open_from_the_side_that_accepts_takes_no_place_of_our_own_streams() {
    let pair = Pair::new(8);
    let open = message(1, false, &Content::Open { window: 9, name: "intruder".into() });
    assert!(pair.sides[0].handle_message(1, Class::Normal, open).is_none());
    assert_eq!((pair.lanes[0].len(), pair.sides[0].len()), (0, 0), "nobody waits for an answer");
    let (mut ours, mut theirs) = pair.connect("first");
    assert_eq!(ready(write(&mut ours, b"abc")).unwrap(), 3);
    pair.settle();
    assert_eq!(ready(read(&mut theirs, 9)).unwrap(), b"abc");
    drop((ours, theirs));
    pair.settle();
    assert_eq!((pair.sides[0].len(), pair.sides[1].len()), (0, 0));
}

#[test]
fn messages_for_unknown_streams_are_ignored() {
    let pair = Pair::new(8);
    for content in [
        Content::Data(Bytes::from_static(b"x")),
        Content::Window { limit: 1 },
        Content::End { total: 1 },
        Content::Abort { code: 1, text: String::new() },
    ] {
        for from_opener in [true, false] {
            assert!(
                pair.sides[1].handle_message(1, Class::Normal, message(7, from_opener, &content)).is_none()
            );
        }
    }
    assert_eq!((pair.lanes[1].len(), pair.sides[1].len()), (0, 0));
}
