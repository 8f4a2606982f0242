//! Full, closed and talkative ports.

use std::sync::{Arc, OnceLock};
use std::task::Waker;

use super::*;
use crate::limits::{BYTES_RECORD_MAX, BYTES_WINDOW};
use crate::messenger::bytes::OpenError;

/// A connected pair whose acceptor has no room at all.
fn stuck() -> (Pair, ByteStream, ByteStream) {
    let pair = Pair::new(64);
    let (ours, theirs) = pair.connect("");
    pair.lanes[1].set_capacity(0);
    (pair, ours, theirs)
}

fn room(pair: &Pair) {
    pair.lanes[1].set_capacity(64);
    assert!(pair.sides[1].needs_retry());
    pair.sides[1].retry();
    assert!(!pair.sides[1].needs_retry());
}

#[test]
fn a_full_port_stops_the_writer_until_there_is_room() {
    let pair = Pair::new(2);
    let (mut ours, _theirs) = pair.connect("");
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    assert!(write_with(&mut ours, &waker, b"1").is_ready() && write_with(&mut ours, &waker, b"2").is_ready());
    assert!(write_with(&mut ours, &waker, b"3").is_pending());
    pair.deliver(0);
    assert!(flag.woken());
    assert!(write_with(&mut ours, &waker, b"3").is_ready());
}

#[test]
fn an_end_survives_a_full_port() {
    let (pair, mut ours, mut theirs) = stuck();
    let flag = Arc::new(Flag::default());
    assert!(shutdown_with(&mut theirs, &Waker::from(Arc::clone(&flag))).is_pending());
    assert!(shutdown_with(&mut theirs, &Waker::from(Arc::clone(&flag))).is_pending());
    assert!(!flag.woken());
    room(&pair);
    assert!(flag.woken());
    ready(shutdown(&mut theirs)).unwrap();
    assert_eq!(pair.lanes[1].len(), 1, "one end, not two");
    pair.settle();
    assert_eq!(ready(read(&mut ours, 1)).unwrap(), b"");
}

#[test]
fn an_end_survives_its_handle_if_the_other_direction_is_over() {
    let (pair, mut ours, mut theirs) = stuck();
    assert!(shutdown(&mut ours).is_ready());
    pair.settle();
    assert!(shutdown(&mut theirs).is_pending());
    drop(theirs);
    room(&pair);
    pair.settle();
    assert_eq!(ready(read(&mut ours, 1)).unwrap(), b"", "ended, not aborted");
}

#[test]
fn an_abort_survives_a_full_port_and_overrules_an_end() {
    let (pair, mut ours, mut theirs) = stuck();
    assert!(shutdown(&mut theirs).is_pending());
    theirs.abort("enough");
    assert_eq!(pair.sides[1].len(), 0);
    room(&pair);
    assert_eq!(pair.lanes[1].len(), 1);
    pair.settle();
    assert_eq!(failure(read(&mut ours, 1)), aborted("enough"));
}

#[test]
fn a_window_survives_a_full_port_and_the_newest_counts() {
    let (pair, mut ours, mut theirs) = stuck();
    for _ in 0..BYTES_WINDOW / BYTES_RECORD_MAX as u64 {
        assert!(write(&mut ours, &[1; BYTES_RECORD_MAX]).is_ready());
        pair.settle();
    }
    assert!(write(&mut ours, b"x").is_pending());
    while let Poll::Ready(bytes) = read(&mut theirs, BYTES_RECORD_MAX) {
        bytes.unwrap();
    }
    room(&pair);
    let limit = 2 * BYTES_WINDOW;
    assert_eq!(pair.lanes[1].contents(), [(Head { id: 1, from_opener: false }, Content::Window { limit })]);
}

#[test]
fn a_refusal_survives_a_full_port_unless_the_opener_gave_up() {
    let (pair, _ours, theirs) = stuck();
    drop(theirs); // Refuses.
    assert!(pair.sides[1].needs_retry());
    let gave_up = message(1, true, &Content::Abort { code: 1, text: String::new() });
    pair.sides[1].handle_message(1, Class::Normal, gave_up);
    assert!(!pair.sides[1].needs_retry());
}

#[test]
fn the_next_operation_of_any_handle_retries() {
    let (pair, _ours, mut theirs) = stuck();
    let (_ours2, theirs2) = {
        pair.lanes[1].set_capacity(64);
        let ends = pair.connect("second");
        pair.lanes[1].set_capacity(0);
        ends
    };
    drop(theirs2);
    pair.lanes[1].set_capacity(64);
    assert!(read(&mut theirs, 1).is_pending());
    assert_eq!(pair.lanes[1].len(), 1, "the abort of the other one");
}

#[test]
fn a_full_or_closed_port_opens_nothing() {
    let pair = Pair::new(0);
    assert_eq!(pair.sides[0].open("", Class::Normal).unwrap_err(), OpenError::Full);
    pair.lanes[0].close(Cause::Closed);
    assert_eq!(pair.sides[0].open("", Class::Normal).unwrap_err(), OpenError::Closed(Cause::Closed));
    assert_eq!(pair.sides[0].len(), 0);
}

#[test]
fn a_closed_port_fails_the_stream_that_uses_it() {
    let pair = Pair::new(8);
    let (mut ours, mut theirs) = pair.connect("");
    pair.lanes.iter().for_each(|lane| lane.close(Cause::Departed));
    assert_eq!(failure(write(&mut ours, b"x")), lost(Cause::Departed));
    assert_eq!(failure(read(&mut ours, 1)), lost(Cause::Departed));
    assert_eq!(failure(shutdown(&mut theirs)), lost(Cause::Departed));
    drop((ours, theirs));
    assert!(pair.sides.iter().all(|side| !side.needs_retry()));
}

/// Does something to the streams from inside `push`.
#[derive(Debug, Default)]
struct Talkative {
    streams: OnceLock<Arc<Streams>>,
    action: Mutex<Option<Action>>,
    taken: Mutex<Vec<Content>>,
    full: AtomicBool,
}

#[derive(Debug)]
enum Action {
    /// The session ends, and the next takes the message.
    SessionOver,
    /// There is room after all, but only after the answer `Full`.
    RoomAfterFull,
    /// The peer's answer is faster than `push`.
    Answer(Bytes),
    /// The peer says this while the port has no room.
    AnswerAndFull(Bytes),
}

impl Port for Talkative {
    fn push(&self, _: Class, body: Bytes, _: Option<&Waker>) -> Result<(), PushError> {
        let streams = self.streams.get().unwrap();
        let action = self.action.lock().take();
        match action {
            Some(Action::SessionOver) => streams.session_over(Cause::SessionLost, 1, None),
            Some(Action::RoomAfterFull) => {
                self.full.store(false, Ordering::SeqCst);
                assert!(streams.needs_retry(), "while it is pushed");
                streams.retry();
                return Err(PushError::Full);
            }
            Some(Action::Answer(body)) => assert!(streams.handle_message(1, Class::Normal, body).is_none()),
            Some(Action::AnswerAndFull(body)) => {
                assert!(streams.handle_message(1, Class::Normal, body).is_none());
                return Err(PushError::Full);
            }
            None => {}
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(PushError::Full);
        }
        self.taken.lock().push(decode(body).unwrap().1);
        Ok(())
    }
}

fn talkative() -> (Arc<Talkative>, Arc<Streams>) {
    let port = Arc::new(Talkative::default());
    let streams = Streams::new(member(1), Arc::clone(&port) as Arc<dyn Port>);
    port.streams.set(Arc::clone(&streams)).unwrap();
    (port, streams)
}

#[test]
fn an_open_that_slips_into_the_next_session_is_aborted_there() {
    let (port, streams) = talkative();
    *port.action.lock() = Some(Action::SessionOver);
    let error = streams.open("", Class::Normal).unwrap_err();
    assert_eq!(error, OpenError::Closed(Cause::SessionLost));
    let taken = port.taken.lock();
    assert!(matches!(&taken[..], [Content::Open { .. }, Content::Abort { .. }]), "{taken:?}");
}

#[test]
fn room_that_comes_while_a_control_message_is_pushed_is_not_missed() {
    let (port, streams) = talkative();
    let mut stream = streams.open("", Class::Normal).unwrap();
    port.full.store(true, Ordering::SeqCst);
    *port.action.lock() = Some(Action::RoomAfterFull);
    ready(shutdown(&mut stream)).unwrap();
    assert!(!streams.needs_retry());
}

#[test]
fn an_answer_from_inside_push_does_not_deadlock() {
    let (port, streams) = talkative();
    let answer = |content| Some(Action::Answer(message(1, false, &content)));
    *port.action.lock() = answer(Content::Window { limit: 1 << 40 });
    let mut stream = streams.open("", Class::Normal).unwrap();
    *port.action.lock() = answer(Content::Data(Bytes::from_static(b"quick")));
    assert_eq!(ready(write(&mut stream, b"x")).unwrap(), 1);
    assert_eq!(ready(read(&mut stream, 100)).unwrap(), b"quick");
    *port.action.lock() = answer(Content::End { total: 5 });
    ready(shutdown(&mut stream)).unwrap();
    assert_eq!(ready(read(&mut stream, 100)).unwrap(), b"");
    *port.action.lock() = Some(Action::SessionOver);
    drop(stream);
    assert_eq!(port.taken.lock().len(), 3, "open, data, end");
}

#[test]
fn a_writer_does_not_sleep_on_a_stream_that_failed_while_the_port_was_full() {
    let (port, streams) = talkative();
    let mut stream = streams.open("", Class::Normal).unwrap();
    let abort = message(1, false, &Content::Abort { code: 2, text: "no".to_owned() });
    *port.action.lock() = Some(Action::AnswerAndFull(abort));
    assert_eq!(failure(write(&mut stream, b"x")), aborted("no"));
}
