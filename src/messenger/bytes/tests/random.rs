//! Random operations against a model: what is read is what was written, ends are where they were put, and nobody who
//! could go on sleeps.

use std::sync::Arc;
use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::limits::{BYTES_RECORD_MAX, BYTES_WINDOW};

#[derive(Clone, Debug)]
enum Op {
    Open {
        side: usize,
    },
    Write {
        end: usize,
        len: usize,
    },
    /// Writes, with nothing in the way, until the window is used up.
    Fill {
        end: usize,
    },
    Read {
        end: usize,
        len: usize,
    },
    Shutdown {
        end: usize,
    },
    Drop {
        end: usize,
    },
    Abort {
        end: usize,
    },
    Deliver {
        from: usize,
        count: usize,
    },
    SessionOver,
}

fn op() -> impl Strategy<Value = Op> {
    let end = || 0..64usize;
    prop_oneof![
        12 => (0..2usize).prop_map(|side| Op::Open { side }),
        80 => (end(), 1..70_000usize).prop_map(|(end, len)| Op::Write { end, len }),
        10 => end().prop_map(|end| Op::Fill { end }),
        80 => (end(), 1..70_000usize).prop_map(|(end, len)| Op::Read { end, len }),
        10 => end().prop_map(|end| Op::Shutdown { end }),
        2 => end().prop_map(|end| Op::Drop { end }),
        2 => end().prop_map(|end| Op::Abort { end }),
        80 => (0..2usize, 1..8usize).prop_map(|(from, count)| Op::Deliver { from, count }),
        1 => Just(Op::SessionOver),
    ]
}

/// Messages of few ids, some of which make sense.
fn message_bytes() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..24),
        (0..600_000u64).prop_map(|value| value.to_le_bytes().to_vec()),
    ];
    (0u8..8, any::<bool>(), 0u8..3, rest).prop_map(|(tag, from_opener, id, rest)| {
        let tag = if from_opener { tag | 0x80 } else { tag };
        [&[tag, id, 0, 0, 0, 0, 0, 0, 0], &rest[..]].concat()
    })
}

/// One end, and what its holder knows.
struct End {
    stream: ByteStream,
    /// Tells both directions of all streams apart.
    seed: u64,
    opener: bool,
    session: u64,
    reading: Option<Arc<Flag>>,
    writing: Option<Arc<Flag>>,
    failed: bool,
}

/// One direction: (written, shut down, read).
#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    written: u64,
    ended: bool,
    read: u64,
    read_to_end: bool,
}

struct World {
    pair: Pair,
    ends: Vec<End>,
    /// By stream: from the opener, to the opener.
    directions: Vec<[Direction; 2]>,
    /// An end of it was dropped, aborted, or lost its session.
    broken: Vec<bool>,
}

impl World {
    fn new(capacity: usize, oneself: bool) -> Self {
        let pair = if oneself { Pair::with_oneself(capacity) } else { Pair::new(capacity) };
        Self { pair, ends: Vec::new(), directions: Vec::new(), broken: Vec::new() }
    }

    fn add(&mut self, stream: ByteStream, opener: bool) {
        let seed = stream.name().parse().unwrap();
        let session = self.pair.epoch;
        let (reading, writing) = (None, None);
        self.ends.push(End { stream, seed, opener, session, reading, writing, failed: false });
    }

    fn fail(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.failed = true;
        assert!(self.broken[end.seed as usize], "{:?} failed for no reason", end.stream);
    }

    fn write(&mut self, at: usize, len: usize) {
        let end = &mut self.ends[at];
        let direction = &mut self.directions[end.seed as usize][usize::from(!end.opener)];
        let flag = Arc::new(Flag::default());
        let bytes = pattern(2 * end.seed + u64::from(end.opener), direction.written, len);
        let poll = write_with(&mut end.stream, &Waker::from(Arc::clone(&flag)), &bytes);
        end.writing = poll.is_pending().then_some(flag);
        match poll {
            Poll::Ready(Ok(count)) => {
                direction.written += count as u64;
                assert!(direction.written - direction.read <= BYTES_WINDOW, "beyond the window");
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => assert!(direction.ended),
            Poll::Ready(Err(_)) => self.fail(at),
            Poll::Pending => {}
        }
    }

    fn read(&mut self, at: usize, len: usize) -> bool {
        let end = &mut self.ends[at];
        let direction = &mut self.directions[end.seed as usize][usize::from(end.opener)];
        let flag = Arc::new(Flag::default());
        let poll = read_with(&mut end.stream, &Waker::from(Arc::clone(&flag)), len);
        end.reading = poll.is_pending().then_some(flag);
        match poll {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                assert!(direction.ended, "an end that nobody sent");
                assert_eq!(direction.read, direction.written, "an end before the last byte");
                direction.read_to_end = true;
                false
            }
            Poll::Ready(Ok(bytes)) => {
                let expected = pattern(2 * end.seed + u64::from(!end.opener), direction.read, bytes.len());
                assert!(bytes == expected, "other bytes than were written");
                direction.read += bytes.len() as u64;
                assert!(direction.read <= direction.written);
                true
            }
            Poll::Ready(Err(_)) => {
                self.fail(at);
                false
            }
            Poll::Pending => false,
        }
    }

    fn shutdown(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let flag = Arc::new(Flag::default());
        let poll = shutdown_with(&mut end.stream, &Waker::from(Arc::clone(&flag)));
        end.writing = poll.is_pending().then_some(flag);
        match poll {
            Poll::Ready(Err(_)) => self.fail(at),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.directions[end.seed as usize][usize::from(!end.opener)].ended = true;
            }
        }
    }

    fn end(&self, pick: usize) -> Option<usize> {
        (!self.ends.is_empty()).then(|| pick % self.ends.len())
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Open { side } => {
                let name = self.directions.len().to_string();
                if let Ok(stream) = self.pair.sides[side].open(&name, Class::Normal) {
                    self.directions.push([Direction::default(); 2]);
                    self.broken.push(false);
                    self.add(stream, true);
                }
            }
            Op::Write { end, len } => drop(self.end(end).map(|at| self.write(at, len))),
            Op::Fill { end } => {
                let Some(at) = self.end(end) else { return };
                for _ in 0..=BYTES_WINDOW / BYTES_RECORD_MAX as u64 {
                    self.write(at, BYTES_RECORD_MAX);
                    self.settle();
                }
            }
            Op::Read { end, len } => drop(self.end(end).map(|at| self.read(at, len))),
            Op::Shutdown { end } => drop(self.end(end).map(|at| self.shutdown(at))),
            Op::Drop { end } | Op::Abort { end } => {
                if let Some(at) = self.end(end) {
                    let gone = self.ends.swap_remove(at);
                    self.broken[gone.seed as usize] = true;
                    if matches!(op, Op::Abort { .. }) {
                        gone.stream.abort("random");
                    }
                }
            }
            Op::Deliver { from, count } => {
                for _ in 0..count {
                    let opened = self.pair.deliver(from).flatten();
                    opened.into_iter().for_each(|stream| self.add(stream, false));
                }
            }
            Op::SessionOver => {
                self.pair.epoch += 1;
                self.pair.session_over(Cause::SessionLost, Some(self.pair.epoch));
                self.pair.lanes.iter().for_each(|lane| lane.queue.lock().messages.clear());
                self.broken.iter_mut().for_each(|broken| *broken = true);
            }
        }
        self.nobody_sleeps_who_could_go_on();
    }

    /// Who was told to wait, and not woken, still has to wait.
    fn nobody_sleeps_who_could_go_on(&mut self) {
        for end in &mut self.ends {
            if let Some(flag) = end.reading.clone().filter(|flag| !flag.woken()) {
                let poll = read_with(&mut end.stream, &Waker::from(flag), 1);
                assert!(poll.is_pending(), "{:?} could be read: {poll:?}", end.stream);
            }
            if let Some(flag) = end.writing.clone().filter(|flag| !flag.woken()) {
                let waker = Waker::from(flag);
                let poll = if self.directions[end.seed as usize][usize::from(!end.opener)].ended {
                    shutdown_with(&mut end.stream, &waker).map_ok(|()| 0)
                } else {
                    write_with(&mut end.stream, &waker, b"x")
                };
                assert!(poll.is_pending(), "{:?} could be written: {poll:?}", end.stream);
            }
        }
    }

    fn settle(&mut self) -> bool {
        let opened = self.pair.settle();
        let moved = !opened.is_empty();
        opened.into_iter().for_each(|(_, stream)| self.add(stream, false));
        moved
    }

    /// Delivers and reads until nothing moves; then all that was written has arrived.
    fn finish(mut self) {
        loop {
            let mut moved = self.settle();
            for at in 0..self.ends.len() {
                if !self.ends[at].failed {
                    while self.read(at, 60_000) {
                        moved = true;
                    }
                }
            }
            if !moved && self.pair.lanes.iter().all(|lane| lane.len() == 0) {
                break;
            }
        }
        assert!(self.pair.sides.iter().all(|side| !side.needs_retry()), "room, and something waits");
        for end in &mut self.ends {
            let asleep = end.writing.as_ref().is_some_and(|flag| !flag.woken());
            assert!(!asleep, "{:?} waits, and all was read", end.stream);
            assert!(end.session == self.pair.epoch || self.broken[end.seed as usize]);
        }
        for (at, directions) in self.directions.iter().enumerate() {
            for direction in directions {
                assert!(self.broken[at] || direction.read == direction.written, "{at}: {direction:?}");
                assert!(self.broken[at] || direction.read_to_end == direction.ended, "{at}: {direction:?}");
            }
        }
        self.ends.clear();
        self.pair.settle();
        assert!(self.pair.sides.iter().all(|side| side.len() == 0 && !side.needs_retry()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn any_operations_keep_the_streams_whole(
        capacity in 1..6usize,
        oneself: bool,
        ops in proptest::collection::vec(op(), 1..200),
    ) {
        let mut world = World::new(capacity, oneself);
        ops.into_iter().for_each(|op| world.apply(op));
        world.finish();
    }

    #[test]
    fn no_messages_from_a_peer_panic_or_grow_the_table(
        messages in proptest::collection::vec(message_bytes(), 0..60),
    ) {
        let pair = Pair::new(2);
        let (_ours, _theirs) = pair.connect("");
        let mut accepted = Vec::new();
        for body in messages {
            accepted.extend(pair.sides[1].handle_message(1, Class::Normal, body.into()));
        }
        prop_assert!(pair.sides[1].len() <= 1 + 2 * 3);
    }
}
