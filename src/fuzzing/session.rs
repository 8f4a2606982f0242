//! Two sessions joined by byte pipes, driven by the fuzzer's operations: the books balance at every step, and in the
//! end everything came exactly once and in order. With a hostile peer only the first holds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Source;
use super::wire::repaired_frame;
use crate::limits::{ACK_DELAY, CREDIT_BYTES_MIN, KIB, MIB};
use crate::link::FrameReader;
use crate::session::{
    Account, Body, Budget, BudgetLimits, Buffers, Cause, Content, Delivery, Handled, InboxLimits, Intake,
    Lost, Outgoing, PeerTypes, ProtocolError, Receipt, Reservation, Session, SessionConfig, SessionEvent,
    SharedIntake, Terms, Ticket, Transmit,
};
use crate::wire::frame::encode_control;
use crate::wire::{Class, Epoch, Frame, Protocol, StreamId, TypeEntry, record};

/// The application's normal stream, open to anyone.
pub(super) const NORMAL: StreamId = StreamId::new(Protocol::APPLICATION, Class::Normal, true);
/// The largest message the doors take.
pub(super) const MESSAGE_BYTES_MAX: usize = MIB;
/// Operations of one run.
const OPERATIONS_MAX: usize = 400;
/// More turns than that without an end are a storm.
const TURNS_MAX: usize = 10_000;

/// What a session must know.
pub(super) const fn config(credit_bytes: u64) -> SessionConfig {
    let inbox = InboxLimits { credit_bytes, message_bytes_max: MESSAGE_BYTES_MAX };
    SessionConfig { inbox, ack_delay: ACK_DELAY, quarantine: crate::limits::QUARANTINE }
}

/// A destination with a budget of its own, tight enough to be full now and then.
pub(super) fn intake() -> SharedIntake {
    let limits = BudgetLimits { process_bytes: MIB, reserve_bytes: 64 * KIB, queue_bytes: 512 * KIB };
    let account = Account::new(Arc::new(Budget::new(limits)));
    Arc::new(Mutex::new(Intake::new(account, Arc::new(Buffers::default()))))
}

/// A session that nobody has met yet.
pub(super) fn session(credit_bytes: u64) -> Session {
    Session::new(config(credit_bytes), Epoch(1), intake())
}

/// What a side says it understands: everything.
pub(super) fn types() -> Vec<TypeEntry> {
    let protocols = [Protocol::APPLICATION, Protocol::BYTES];
    let all =
        |protocol| TypeEntry { protocol, hash: 0, version: 0, open: true, any: true, name: "*".to_owned() };
    protocols.map(all).to_vec()
}

/// A body that shows which message it belongs to.
fn body(tag: u32, bytes: usize) -> Bytes {
    vec![tag as u8; bytes].into()
}

/// When a message is pushed, and under which terms.
pub(super) type Under = (Instant, Terms);

/// What both sides sent and got. A message is known by its tag, which travels as its type's hash.
#[derive(Default)]
pub(super) struct Books {
    pub(super) receipts: Vec<Receipt>,
    times: Vec<u32>,
    newest: HashMap<(usize, StreamId), u32>,
}

impl Books {
    /// Queues a message of the fuzzer's choice, if there is room. `open`: on a stream that is open to anyone.
    pub(super) fn push(
        &mut self,
        intake: &SharedIntake,
        source: &mut Source<'_>,
        under: Option<Under>,
        open: bool,
    ) {
        let what = source.u8();
        let class = [Class::Urgent, Class::Normal, Class::Normal, Class::Bulk][usize::from(what & 3)];
        let protocol = if what & 4 == 0 { Protocol::APPLICATION } else { Protocol::BYTES };
        let bytes = match what >> 3 & 7 {
            0 => 0,
            1..=4 => usize::from(source.u8()),
            5 => 4 * KIB + usize::from(source.u8()),
            6 => 64 * KIB + usize::from(source.u8()),
            _ => usize::from(source.u8()) * KIB,
        };
        let tag = self.receipts.len() as u32;
        let body = body(tag, bytes);
        let body = if what & 0x40 == 0 { Body::Shared(&body) } else { Body::Slice(&body) };
        let stream = StreamId::new(protocol, class, open);
        let out = Outgoing { stream, hash: tag, version: 1, body, reply: &|| what & 0x80 != 0 };
        let (ticket, receipt) = Ticket::new();
        let pushed = match under {
            None => intake.lock().push(out, Some(ticket)).is_ok(),
            Some((now, terms)) => {
                let pushed = intake.lock().push_under(now, terms, out, Some(ticket));
                pushed.map(|pushed| pushed.ended.tell()).is_ok()
            }
        };
        if pushed {
            self.receipts.push(receipt);
            self.times.push(0);
        }
    }

    /// `to` got this. With an honest peer each comes once, whole, and behind those before it.
    pub(super) fn got(&mut self, to: usize, delivery: &Delivery, honest: bool) {
        match &delivery.content {
            Content::Records(records) => {
                let mut records = records.clone();
                for _ in 0..delivery.records {
                    let record = record::take(&mut records);
                    assert!(record.is_ok(), "what is delivered decodes: {record:?}");
                    if let Ok(record) = record {
                        self.got_one(to, delivery.stream, record.header.hash, &record.body, honest);
                    }
                }
            }
            Content::Large { hash, body, .. } => self.got_one(to, delivery.stream, *hash, body, honest),
        }
    }

    fn got_one(&mut self, to: usize, stream: StreamId, tag: u32, content: &[u8], honest: bool) {
        if !honest {
            return;
        }
        assert!(content.iter().all(|byte| *byte == tag as u8), "{tag} is not what was sent");
        let before = self.newest.insert((to, stream), tag);
        assert!(before.is_none_or(|before| before < tag), "{stream:?}: {tag} after {before:?}");
        self.times[tag as usize] += 1;
    }

    /// Everything has ended, as its receipt says.
    pub(super) fn check_ends(&self) {
        for (tag, (receipt, times)) in self.receipts.iter().zip(&self.times).enumerate() {
            match receipt.now() {
                Some(Ok(())) => assert_eq!(*times, 1, "{tag} was acknowledged"),
                Some(Err(Lost::NotSent(_))) => assert_eq!(*times, 0, "{tag} was not sent"),
                Some(Err(Lost::Indeterminate(_))) => assert!(*times <= 1, "{tag} came {times} times"),
                None => panic!("{tag} never ended"),
            }
        }
    }
}

/// Every message is in one account.
pub(super) fn check_balance(session: &Session) {
    let accounts = session.accounts();
    let (queued, pending) = session.queued_and_pending();
    let ended = accounts.acked + accounts.not_sent + accounts.indeterminate;
    assert_eq!(queued, ended + pending, "{accounts:?}, {pending} pending");
    if session.is_drained() {
        assert_eq!((pending, session.intake().lock().bytes()), (0, 0), "drained, so nothing is held");
    }
}

struct Side {
    session: Session,
    pipe: VecDeque<u8>,
    reader: FrameReader,
    types_came: bool,
    held: VecDeque<Handled>,
    asked: VecDeque<(Epoch, StreamId)>,
}

impl Side {
    fn new() -> Self {
        Self {
            session: session(CREDIT_BYTES_MIN),
            pipe: VecDeque::new(),
            reader: FrameReader::default(),
            types_came: false,
            held: VecDeque::new(),
            asked: VecDeque::new(),
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), ProtocolError> {
        match frame {
            Frame::Batch(_) if !self.types_came => Err(ProtocolError::BatchBeforeTypes),
            Frame::Batch(batch) => self.session.handle_batch(now, &batch),
            Frame::Ack(acks) => self.session.handle_acks(&acks),
            Frame::Types(entries) => {
                self.types_came = true;
                self.session.handle_types(PeerTypes::new(&entries, |_| false));
                Ok(())
            }
            Frame::Goodbye { last, .. } => self.session.check_goodbye(&last),
            Frame::Datagram(_)
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Joined(_)
            | Frame::Close { .. }
            | Frame::Unknown => Ok(()),
        }
    }

    fn handle(&mut self, now: Instant) {
        if let Some(handled) = self.held.pop_front() {
            self.session.handle_handled(now, handled);
        }
    }

    fn grant(&mut self, now: Instant) {
        if let Some((epoch, stream)) = self.asked.pop_front() {
            self.session.handle_reserved(now, epoch, stream, Reservation::new(()));
        }
    }
}

struct Run {
    now: Instant,
    sides: [Side; 2],
    books: Books,
    up: bool,
    honest: bool,
}

/// A list of operations on a pair of sessions.
pub fn session_ops(bytes: &[u8]) {
    let mut source = Source(bytes);
    let honest = source.u8() & 1 == 0;
    let sides = [Side::new(), Side::new()];
    let mut run = Run { now: Instant::now(), sides, books: Books::default(), up: false, honest };
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        run.operate(&mut source);
        run.sides.iter().for_each(|side| check_balance(&side.session));
    }
    if honest {
        run.finish();
    }
    for side in &mut run.sides {
        side.session.end(Cause::Closed);
        check_balance(&side.session);
    }
    assert!(run.books.receipts.iter().all(|receipt| receipt.now().is_some()), "a message never ended");
}

impl Run {
    fn operate(&mut self, source: &mut Source<'_>) {
        let operation = source.u8();
        let at = usize::from(operation >> 7);
        match operation & 0x0f {
            0..=3 => {
                let intake = Arc::clone(self.sides[at].session.intake());
                let terms = operation >> 4 & 7;
                let millis = (terms & 1 != 0).then(|| Duration::from_millis(u64::from(source.u8() >> 1)));
                let key = (terms & 2 != 0).then(|| u64::from(source.u8() & 3));
                let terms = Terms { expires: millis.map(|millis| self.now + millis), key };
                let under = (millis.is_some() || key.is_some()).then_some((self.now, terms));
                self.books.push(&intake, source, under, true);
            }
            4 | 5 => self.write(at),
            6 => {
                let most = usize::from(source.u16());
                self.carry(at, most);
            }
            7 => {
                self.carry(at, usize::MAX);
            }
            8 => self.sides[at].handle(self.now),
            9 => self.sides[at].grant(self.now),
            10 => self.cut(),
            11 | 12 => self.link(at),
            13 => {
                self.now += Duration::from_millis(source.u8().into());
                self.sides[at].session.handle_timeout(self.now);
            }
            14 => self.restart(at),
            _ if self.honest => self.write(at),
            _ => {
                // The other side gets what no honest one writes.
                let frame = repaired_frame(source);
                self.sides[at].pipe.extend(frame);
            }
        }
    }

    fn write(&mut self, at: usize) {
        let side = &mut self.sides[at];
        let mut out = Transmit::default();
        side.session.poll_transmit(self.now, &mut out);
        if self.up {
            out.parts.iter().for_each(|part| side.pipe.extend(part));
        } else {
            assert!(out.is_empty(), "nothing is written without a link");
        }
    }

    fn carry(&mut self, from: usize, most: usize) -> usize {
        let count = self.sides[from].pipe.len().min(most);
        let bytes: Vec<u8> = self.sides[from].pipe.drain(..count).collect();
        let to = &mut self.sides[1 - from];
        to.reader.buffer().extend_from_slice(&bytes);
        to.reader.note_read();
        let end = loop {
            let frame = match to.reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(error) => break Some(ProtocolError::from(error)),
            };
            if let Err(error) = to.handle_frame(self.now, frame) {
                break Some(error);
            }
        };
        while let Some(event) = to.session.poll_event() {
            match event {
                SessionEvent::Deliver { epoch, delivery } => {
                    self.books.got(1 - from, &delivery, self.honest);
                    let Delivery { stream, records, bytes, .. } = delivery;
                    to.held.push_back(Handled { epoch, stream, records, bytes });
                }
                SessionEvent::Reserve { epoch, stream, .. } => to.asked.push_back((epoch, stream)),
            }
        }
        if let Some(error) = end {
            assert!(!self.honest, "an honest peer breaks no rule: {error}");
            self.cut();
        }
        count
    }

    fn cut(&mut self) {
        self.up = false;
        for side in &mut self.sides {
            side.session.handle_link_down();
            side.pipe.clear();
            side.reader = FrameReader::default();
            side.types_came = false;
        }
    }

    /// Both sides agree on their sessions and adopt a link, the acceptor first (rules 4 and 10).
    fn link(&mut self, dialler: usize) {
        self.cut();
        while let Some(behind) = (0..2).find(|at| {
            let bound = self.sides[*at].session.peer_epoch();
            bound.is_some_and(|bound| bound != self.sides[1 - *at].session.epoch())
        }) {
            self.restart(behind);
        }
        self.up = true;
        for at in [1 - dialler, dialler] {
            let other = &self.sides[1 - at].session;
            let (epoch, credit) = (other.epoch(), other.default_credit());
            let resume = other.resume_points();
            let side = &mut self.sides[at];
            side.session.bind(epoch);
            let up = side.session.handle_link_up(&resume, credit);
            if up.is_err() {
                assert!(!self.honest, "an honest peer resumes where it stands: {up:?}");
                return self.cut();
            }
            side.pipe.extend(encode_control(&Frame::Types(types())));
        }
    }

    fn restart(&mut self, at: usize) {
        self.cut();
        let session = &mut self.sides[at].session;
        session.restart(Cause::SessionLost, Epoch(session.epoch().0 + 1));
    }

    /// Mends everything; then all must come to its end.
    fn finish(&mut self) {
        self.link(0);
        for _ in 0..TURNS_MAX {
            let mut moved = 0;
            for at in [0, 1] {
                while !self.sides[at].held.is_empty() {
                    self.sides[at].handle(self.now);
                }
                while !self.sides[at].asked.is_empty() {
                    self.sides[at].grant(self.now);
                }
                self.write(at);
                moved += self.carry(at, usize::MAX);
            }
            self.sides.iter().for_each(|side| check_balance(&side.session));
            let idle = self.sides.iter().all(|side| side.held.is_empty() && side.asked.is_empty());
            match self.sides.iter().filter_map(|side| side.session.poll_timeout()).min() {
                _ if moved > 0 || !idle => {}
                Some(timeout) => self.now = self.now.max(timeout),
                None => {
                    assert!(
                        self.sides.iter().all(|side| side.session.is_drained() && side.session.is_handled())
                    );
                    return self.books.check_ends();
                }
            }
        }
        panic!("never comes to rest");
    }
}
