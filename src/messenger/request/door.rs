//! A door for the fuzzer: messages of requests and replies, and who waits for a handler or for a reply.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Buf, Bytes};
use tokio::sync::oneshot;

use super::lane::{CalledOff, Lane, Put};
use super::pending::{Outcome, Pending};
use super::wire::{self, Code, Message};
use crate::limits::{KIB, REQUEST_OVERHEAD_BYTES};
use crate::session::{Cause, Ticket};
use crate::wire::{Class, Protocol, StreamId};

const OPERATIONS_MAX: usize = 500;
/// What the lane holds.
const MOST: usize = 8 * KIB;

/// Any messages, against the lane of requests that wait for a handler and the table of those that wait for a reply.
pub fn requests(input: &[u8]) {
    let mut source = Bytes::copy_from_slice(input);
    let stream = StreamId::new(Protocol::REQUESTS, Class::Normal, true);
    let mut run = Run {
        lane: Lane::new(stream, 0, MOST),
        model: Model::default(),
        pending: Pending::default(),
        asked: HashMap::new(),
        next_id: 0,
    };
    for _ in 0..OPERATIONS_MAX {
        let Ok(operation) = source.try_get_u8() else { break };
        run.operate(operation, &mut source);
    }
    run.finish();
}

/// What a lane should hold.
#[derive(Default)]
struct Model {
    waiting: VecDeque<u64>,
    running: VecDeque<u64>,
    costs: HashMap<u64, usize>,
    /// Ids that came once more after they were called off: their turn may come sooner.
    again: HashSet<u64>,
    called_off: HashSet<u64>,
    manned: bool,
}

struct Run {
    lane: Lane<u64>,
    model: Model,
    pending: Pending,
    asked: HashMap<u64, oneshot::Receiver<Outcome>>,
    next_id: u64,
}

impl Run {
    fn operate(&mut self, operation: u8, source: &mut Bytes) {
        match operation & 15 {
            0..=7 => {
                let bytes = if operation & 1 == 0 { raw(source) } else { message(operation >> 4, source) };
                if let Ok(message) = wire::decode(bytes.clone()) {
                    check(&bytes, &message);
                    self.arrive(message, bytes.len());
                }
            }
            8 | 9 => self.next(),
            10 => {
                if let Some(id) = self.model.running.pop_front() {
                    self.model.costs.remove(&id);
                    self.lane.finish(id);
                }
            }
            11 | 12 => self.ask(),
            13 => {
                let id = self.some(source);
                assert_eq!(self.pending.forget(id), self.asked.remove(&id).is_some());
            }
            14 => self.session_over(),
            _ => {
                assert_eq!(self.lane.clear(), self.model.costs.len() as u64);
                let manned = self.model.manned;
                self.model = Model { manned, ..Model::default() };
            }
        }
        assert_eq!(self.pending.len(), self.asked.len());
    }

    /// An id that is near those in use.
    fn some(&self, source: &mut Bytes) -> u64 {
        u64::from(source.try_get_u8().unwrap_or(0)) % (self.next_id + 2)
    }

    fn arrive(&mut self, message: Message, bytes: usize) {
        match message {
            Message::Request { id, .. } => self.put(id, bytes),
            Message::Cancel { id, .. } => self.call_off(id),
            Message::Reply { id, of, body } => {
                self.resolve(id, Outcome::Reply { of, body });
            }
            Message::Failure { id, code, text } => {
                self.resolve(id, Outcome::Failed { code: Code::from_wire(code), text });
            }
        }
    }

    fn put(&mut self, id: u64, bytes: usize) {
        let model = &mut self.model;
        let cost = bytes + REQUEST_OVERHEAD_BYTES;
        let held: usize = model.costs.values().sum();
        let expected = if held + cost > MOST && !model.costs.is_empty() {
            Put::Busy(id)
        } else if model.costs.contains_key(&id) {
            Put::Twice(id)
        } else {
            Put::Waits(!std::mem::replace(&mut model.manned, true))
        };
        assert_eq!(self.lane.put(id, bytes, id), expected);
        if matches!(expected, Put::Waits(_)) {
            model.waiting.push_back(id);
            model.costs.insert(id, cost);
            if model.called_off.contains(&id) {
                model.again.insert(id);
            }
        }
    }

    fn call_off(&mut self, id: u64) {
        let model = &mut self.model;
        let place = model.waiting.iter().position(|waiting| *waiting == id);
        let expected = match place {
            Some(_) => CalledOff::Waiting(id),
            None if model.costs.contains_key(&id) => CalledOff::Running,
            None => CalledOff::Unknown,
        };
        assert_eq!(self.lane.call_off(id), expected);
        if let Some(place) = place {
            model.waiting.remove(place);
            model.costs.remove(&id);
            model.called_off.insert(id);
        }
    }

    fn next(&mut self) {
        let model = &mut self.model;
        let Some((id, call, stop)) = self.lane.next() else {
            assert!(model.waiting.is_empty(), "one that waits is passed over");
            model.manned = false;
            return;
        };
        assert!(id == call && !stop.is_cancelled());
        let ahead = model.waiting.iter().position(|waiting| *waiting == id);
        let Some(place) = ahead else { panic!("{id} does not wait") };
        let passed = model.waiting.iter().take(place).any(|other| !model.again.contains(other));
        assert!(!passed || model.again.contains(&id), "{id} before its turn");
        model.waiting.remove(place);
        model.running.push_back(id);
    }

    fn ask(&mut self) {
        self.next_id += 1;
        let (ticket, receipt) = Ticket::new();
        if self.next_id.is_multiple_of(2) {
            ticket.acked();
        }
        if let Some(outcome) = self.pending.begin(self.next_id, receipt) {
            self.asked.insert(self.next_id, outcome);
        }
    }

    /// A reply comes to who asked, once.
    fn resolve(&mut self, id: u64, outcome: Outcome) {
        let said = format!("{outcome:?}");
        let asker = self.asked.remove(&id);
        assert_eq!(self.pending.resolve(id, outcome), asker.is_some());
        if let Some(mut asker) = asker {
            let heard = asker.try_recv().map(|outcome| format!("{outcome:?}"));
            assert_eq!(heard, Ok(said));
        }
    }

    /// All that had been taken or lost has ended: nobody waits for its reply any more.
    fn session_over(&mut self) {
        self.pending.session_over(Cause::SessionLost);
        for (id, mut asker) in std::mem::take(&mut self.asked) {
            let heard = asker.try_recv();
            assert!(matches!(heard, Ok(Outcome::Lost(_))), "{id}: {heard:?}");
        }
    }

    /// Whatever waits gets its turn, and its room comes back.
    fn finish(&mut self) {
        while !self.model.waiting.is_empty() {
            self.next();
        }
        for id in std::mem::take(&mut self.model.running) {
            self.lane.finish(id);
        }
        assert!(self.lane.next().is_none());
        assert_eq!(self.lane.put(0, MOST * 2, 0), Put::Waits(true), "one of any size when nothing is held");
        self.session_over();
    }
}

fn raw(source: &mut Bytes) -> Bytes {
    let length = usize::from(source.try_get_u8().unwrap_or(0));
    source.split_to(length.min(source.len()))
}

/// A head that makes sense, with any content.
fn message(kind: u8, source: &mut Bytes) -> Bytes {
    let [id, more] = [source.try_get_u8().unwrap_or(0), source.try_get_u8().unwrap_or(0)];
    let head = [&[kind % 5, more & 3, more >> 2, 0, 7, 0, 0, 0, id & 31][..], &[0; 7]].concat();
    [&head[..], &raw(source)].concat().into()
}

/// What is written again is what came, but for what a kind does not use of its head.
fn check(bytes: &Bytes, message: &Message) {
    let again = encode(message);
    let zeroed = match message {
        Message::Request { .. } => 0..0,
        Message::Cancel { .. } => 2..8,
        Message::Reply { .. } => 1..2,
        Message::Failure { .. } => 1..8,
    };
    let mut expected = bytes.to_vec();
    if let Some(unused) = expected.get_mut(zeroed) {
        unused.fill(0);
    }
    match message {
        Message::Request { .. } | Message::Reply { .. } => assert_eq!(again, expected),
        Message::Cancel { .. } => assert!(expected.starts_with(&again), "what follows is passed over"),
        // Its text is cut and mended, its code is read as one that is known.
        Message::Failure { id, code, text } => match wire::decode(again.into()) {
            Ok(Message::Failure { id: same, code: known, text: written }) => {
                assert_eq!((same, Code::from_wire(known)), (*id, Code::from_wire(*code)));
                assert!(text.starts_with(&written), "{text:?} as {written:?}");
            }
            other => panic!("{other:?}"),
        },
    }
}

fn encode(message: &Message) -> Vec<u8> {
    let with = |mut head: Vec<u8>, body: &[u8]| {
        head.extend_from_slice(body);
        head
    };
    match message {
        Message::Request { id, depth, of, timeout, body } => {
            with(wire::begin_request(*id, *depth, *of, *timeout), body)
        }
        Message::Cancel { id, depth } => wire::cancel(*id, *depth),
        Message::Reply { id, of, body } => with(wire::begin_reply(*id, *of), body),
        Message::Failure { id, code, text } => wire::failure(*id, Code::from_wire(*code), text),
    }
}
