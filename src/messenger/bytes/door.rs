//! A door for the fuzzer: two sides of byte streams and the queues between them. With an honest peer everything that is
//! read is what was written, and nobody who could go on sleeps; with a hostile one nothing grows and nothing panics.

mod lane;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use super::pattern::pattern;
use super::wire::{decode, encode};
use super::{ByteStream, Port, Streams};
use crate::limits::{BYTE_STREAMS_MAX, BYTES_RECORD_MAX, BYTES_WINDOW};
use crate::member::MemberId;
use crate::session::Cause;
use crate::wire::Class;
use lane::{Flag, Lane};

const OPERATIONS_MAX: usize = 400;
/// The first session; a message of epoch 0 is of one before it.
const FIRST: u64 = 1;

/// One direction of a stream that was opened here, as its two holders see it.
#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    written: u64,
    ended: bool,
    read: u64,
    read_to_end: bool,
}

/// One end, and what its holder knows.
struct End {
    stream: ByteStream,
    /// Which stream it is, if its opener was honest.
    of: Option<usize>,
    opener: bool,
    reading: Option<Arc<Flag>>,
    writing: Option<Arc<Flag>>,
    failed: bool,
}

struct World {
    sides: [Arc<Streams>; 2],
    lanes: [Arc<Lane>; 2],
    ends: Vec<End>,
    /// By stream: from the opener, to the opener.
    directions: Vec<[Direction; 2]>,
    /// An end of it was dropped, aborted, or lost its session.
    broken: Vec<bool>,
    epoch: u64,
    honest: bool,
}

/// A list of operations on two sides, or any messages to them.
pub fn byte_streams(input: &[u8]) {
    let mut source = Bytes::copy_from_slice(input);
    let mode = source.try_get_u8().unwrap_or(0);
    let capacity = 1 + usize::from(mode >> 1 & 7);
    let lanes = [Lane::new(capacity), Lane::new(capacity)];
    let side = |at: usize| {
        let peer = MemberId::from_parts(2 - at as u64, 0);
        Streams::new(peer, Arc::clone(&lanes[at]) as Arc<dyn Port>)
    };
    let mut world = World {
        sides: [side(0), side(1)],
        lanes: lanes.clone(),
        ends: Vec::new(),
        directions: Vec::new(),
        broken: Vec::new(),
        epoch: FIRST,
        honest: mode & 1 == 0,
    };
    for _ in 0..OPERATIONS_MAX {
        let Ok(operation) = source.try_get_u8() else { break };
        world.operate(operation, &mut source);
        world.check();
    }
    world.finish();
}

fn byte(source: &mut Bytes) -> usize {
    source.try_get_u8().unwrap_or(0).into()
}

impl World {
    fn operate(&mut self, operation: u8, source: &mut Bytes) {
        let side = usize::from(operation >> 7);
        match operation & 15 {
            0 => self.open(side, operation >> 4),
            1..=3 => self.on_end(source, |world, at, size| world.write(at, size)),
            4..=6 => self.on_end(source, |world, at, size| {
                world.read(at, size);
            }),
            7 => self.on_end(source, |world, at, _| world.shutdown(at)),
            8 => self.on_end(source, |world, at, size| world.drop_end(at, size & 1 == 0)),
            9..=11 => (0..=operation >> 4 & 7).for_each(|_| self.deliver(side)),
            12 if operation >> 4 & 7 == 0 => self.session_over(),
            12 => self.set_capacity(side, usize::from(operation >> 4 & 7)),
            13 if operation >> 4 & 3 == 0 => self.on_end(source, |world, at, _| world.fill(at)),
            13 => self.deliver(side),
            _ if self.honest => self.deliver(side),
            _ => self.inject(side, operation >> 4 & 7, source),
        }
    }

    /// Does something with one of the ends, and a size.
    fn on_end(&mut self, source: &mut Bytes, act: impl FnOnce(&mut Self, usize, usize)) {
        let (which, size) = (byte(source), byte(source));
        // Small, near a record, or some thousands.
        let size = match size {
            0..=159 => size,
            160..=200 => BYTES_RECORD_MAX - 180 + size,
            _ => size * 256,
        };
        if let Some(at) = which.checked_rem(self.ends.len()) {
            act(self, at, size);
        }
    }

    fn open(&mut self, side: usize, class: u8) {
        let class = [Class::Urgent, Class::Normal, Class::Bulk][usize::from(class & 7) % 3];
        if let Ok(stream) = self.sides[side].open(&self.directions.len().to_string(), class) {
            let of = self.directions.len();
            self.directions.push([Direction::default(); 2]);
            self.broken.push(false);
            self.add(stream, Some(of), true);
        }
    }

    fn add(&mut self, stream: ByteStream, of: Option<usize>, opener: bool) {
        self.ends.push(End { stream, of, opener, reading: None, writing: None, failed: false });
    }

    /// As [`pattern`], of one direction of a stream.
    fn content(of: usize, opener: bool, offset: u64, length: usize) -> Vec<u8> {
        pattern(2 * of as u64 + u64::from(opener), offset, length)
    }

    fn fail(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.failed = true;
        let broken = end.of.is_none_or(|of| self.broken[of]);
        assert!(broken || !self.honest, "{:?} failed for no reason", end.stream);
    }

    fn write(&mut self, at: usize, length: usize) {
        let end = &mut self.ends[at];
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let mut unknown = Direction::default();
        let direction = match end.of {
            Some(of) => &mut self.directions[of][usize::from(!end.opener)],
            None => &mut unknown,
        };
        let bytes = Self::content(end.of.unwrap_or(0), end.opener, direction.written, length);
        let poll = end.stream.poll_write_shared(&mut Context::from_waker(&waker), &bytes);
        end.writing = poll.is_pending().then_some(flag);
        match poll {
            Poll::Ready(Ok(count)) => {
                assert!(count <= length.min(BYTES_RECORD_MAX));
                direction.written += count as u64;
                let open = direction.written - direction.read;
                assert!(open <= BYTES_WINDOW || !self.honest, "{open} bytes beyond the window");
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                assert!(direction.ended || end.of.is_none());
            }
            Poll::Ready(Err(_)) => self.fail(at),
            Poll::Pending => assert!(length > 0),
        }
    }

    /// With nothing in the way, until the window is used up.
    fn fill(&mut self, at: usize) {
        for _ in 0..=BYTES_WINDOW / BYTES_RECORD_MAX as u64 {
            self.write(at, BYTES_RECORD_MAX);
            while self.lanes.iter().any(|lane| lane.len() > 0) {
                self.deliver(0);
                self.deliver(1);
            }
        }
    }

    /// `true`: some bytes came.
    fn read(&mut self, at: usize, most: usize) -> bool {
        let end = &mut self.ends[at];
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let poll = end.stream.poll_read_shared(&mut Context::from_waker(&waker), most.max(1));
        end.reading = poll.is_pending().then_some(flag);
        match poll {
            Poll::Ready(Ok(bytes)) => {
                assert!(bytes.len() <= most.max(1));
                if let Some(of) = end.of.filter(|_| self.honest) {
                    let opener = end.opener;
                    self.note_read(of, opener, &bytes);
                }
                !bytes.is_empty()
            }
            Poll::Ready(Err(_)) => {
                self.fail(at);
                false
            }
            Poll::Pending => false,
        }
    }

    fn note_read(&mut self, of: usize, opener: bool, bytes: &Bytes) {
        let direction = &mut self.directions[of][usize::from(opener)];
        if bytes.is_empty() {
            assert!(direction.ended, "an end that nobody sent");
            assert_eq!(direction.read, direction.written, "an end before the last byte");
            direction.read_to_end = true;
        } else {
            let expected = Self::content(of, !opener, direction.read, bytes.len());
            assert!(*bytes == expected, "other bytes than were written");
            direction.read += bytes.len() as u64;
            assert!(direction.read <= direction.written);
        }
    }

    fn shutdown(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let poll = end.stream.poll_shutdown_shared(&mut Context::from_waker(&waker));
        end.writing = poll.is_pending().then_some(flag);
        match poll {
            Poll::Ready(Err(_)) => self.fail(at),
            Poll::Ready(Ok(())) | Poll::Pending => {
                if let Some(of) = end.of {
                    self.directions[of][usize::from(!end.opener)].ended = true;
                }
            }
        }
    }

    fn drop_end(&mut self, at: usize, abort: bool) {
        let gone = self.ends.swap_remove(at);
        if let Some(of) = gone.of {
            self.broken[of] = true;
        }
        if abort {
            gone.stream.abort("asked for");
        }
    }

    /// One message out of a side's lane; then, as the messenger would, a retry and the wakers.
    fn deliver(&mut self, from: usize) {
        let Some((class, body)) = self.lanes[from].pop() else { return };
        // What is written here reads as it was meant.
        assert!(decode(body.clone()).is_ok_and(|(head, content)| encode(head, &content) == body));
        self.receive(1 - from, self.epoch, class, body);
        self.note_room(from);
    }

    fn set_capacity(&mut self, side: usize, capacity: usize) {
        self.lanes[side].set_capacity(capacity);
        self.note_room(side);
    }

    fn note_room(&self, side: usize) {
        if self.sides[side].needs_retry() {
            self.sides[side].retry();
        }
        self.lanes[side].take_wakers().into_iter().for_each(Waker::wake);
    }

    fn receive(&mut self, at: usize, epoch: u64, class: Class, body: Bytes) {
        if let Ok((head, content)) = decode(body.clone()) {
            assert_eq!(encode(head, &content), body, "what is read is written as it came");
        }
        if let Some(stream) = self.sides[at].handle_message(epoch, class, body) {
            let of = stream.name().parse().ok().filter(|of: &usize| self.honest && *of < self.broken.len());
            assert!(!self.honest || of.is_some(), "{stream:?} was opened by nobody");
            self.add(stream, of, false);
        }
    }

    /// What no honest peer says: any bytes, or a message of one of few streams; of this session or another one.
    fn inject(&mut self, at: usize, how: u8, source: &mut Bytes) {
        let length = byte(source);
        let mut body = vec![];
        if how & 1 == 0 {
            let (tag, id) = (byte(source) as u8, byte(source) as u8);
            body = [[tag & 0x80 | (tag & 7), id & 7].as_slice(), &[0; 7]].concat();
        }
        body.extend_from_slice(&source.split_to(length.min(source.len())));
        let class = if how & 2 == 0 { Class::Normal } else { Class::Bulk };
        // Now and then one of a session that is over.
        let epoch = if how == 7 { self.epoch - 1 } else { self.epoch };
        self.receive(at, epoch, class, body.into());
    }

    fn session_over(&mut self) {
        let over = self.epoch;
        self.epoch += 1;
        for side in &self.sides {
            side.session_over(Cause::SessionLost, over, Some(self.epoch));
        }
        self.lanes.iter().for_each(|lane| lane.clear());
        self.broken.iter_mut().for_each(|broken| *broken = true);
    }

    /// Bounds; and who was told to wait, and was not woken, still has to.
    fn check(&mut self) {
        assert!(self.sides.iter().all(|side| side.len() <= BYTE_STREAMS_MAX));
        for end in &mut self.ends {
            if let Some(flag) = end.reading.clone().filter(|flag| !flag.woken()) {
                let poll = end.stream.poll_read_shared(&mut Context::from_waker(&Waker::from(flag)), 1);
                assert!(poll.is_pending(), "{:?} could be read: {poll:?}", end.stream);
            }
            if let Some(flag) = end.writing.clone().filter(|flag| !flag.woken()) {
                let waker = Waker::from(flag);
                let cx = &mut Context::from_waker(&waker);
                let ended = end.of.map(|of| self.directions[of][usize::from(!end.opener)].ended);
                let poll = match ended {
                    Some(true) => end.stream.poll_shutdown_shared(cx).map_ok(|()| 0),
                    Some(false) => end.stream.poll_write_shared(cx, b"x"),
                    None => continue,
                };
                assert!(poll.is_pending(), "{:?} could be written: {poll:?}", end.stream);
            }
        }
    }

    /// Delivers and reads until nothing moves; then all that was written has arrived.
    fn finish(mut self) {
        [0, 1].into_iter().for_each(|side| self.set_capacity(side, 8));
        loop {
            let mut moved = false;
            while self.lanes.iter().any(|lane| lane.len() > 0) {
                self.deliver(0);
                self.deliver(1);
                moved = true;
            }
            for at in 0..self.ends.len() {
                while !self.ends[at].failed && self.read(at, 60_000) {
                    moved = true;
                }
            }
            if !moved && self.lanes.iter().all(|lane| lane.len() == 0) {
                break;
            }
        }
        assert!(self.sides.iter().all(|side| !side.needs_retry()), "room, and something waits");
        if self.honest {
            self.check_ends();
        }
        self.ends.clear();
        while self.lanes.iter().any(|lane| lane.len() > 0) {
            self.deliver(0);
            self.deliver(1);
            self.ends.clear();
        }
        assert!(self.sides.iter().all(|side| side.len() == 0 && !side.needs_retry()), "nothing is kept");
    }

    fn check_ends(&self) {
        for end in &self.ends {
            let asleep = end.writing.as_ref().is_some_and(|flag| !flag.woken());
            assert!(!asleep, "{:?} waits, and all was read", end.stream);
        }
        for (of, directions) in self.directions.iter().enumerate() {
            for direction in directions.iter().filter(|_| !self.broken[of]) {
                assert_eq!(direction.read, direction.written, "{of}: {direction:?}");
                assert_eq!(direction.read_to_end, direction.ended, "{of}: {direction:?}");
            }
        }
    }
}
