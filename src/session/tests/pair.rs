//! Two sessions joined by byte pipes. Time stands still unless a test moves it; every step ends with the checks.

use std::time::{Duration, Instant};

use super::super::*;
use super::side::{Side, take_frames};
use crate::limits::{ACK_DELAY, CREDIT_BYTES, KIB, MIB};
use crate::wire::Class;
use crate::wire::Frame;
use crate::wire::Protocol;
use crate::wire::StreamResume;
use crate::wire::frame::encode_control;

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// Room enough that nothing is refused, link or no link.
pub(super) const ROOMY: BudgetLimits =
    BudgetLimits { process_bytes: 256 * MIB, reserve_bytes: 64 * MIB, queue_bytes: 64 * MIB };

pub(super) const MESSAGE_MAX: usize = 4 * MIB;

/// The application's stream of a class.
pub(super) const fn stream(class: Class) -> StreamId {
    StreamId::new(Protocol::APPLICATION, class, true)
}

/// The application's normal stream.
pub(super) const NORMAL: StreamId = stream(Class::Normal);

/// How far a link has come.
enum Phase {
    Down,
    /// The hello of one side is under way, as it was when it was written.
    Dialled {
        by: usize,
        hello: Vec<StreamResume>,
    },
    /// The other side has adopted the link; its answer is under way.
    Accepted {
        by: usize,
        answer: Vec<StreamResume>,
    },
    Up,
}

/// See the module's text.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) sides: [Side; 2],
    phase: Phase,
    tags: u32,
}

impl Pair {
    pub(super) fn with(credit_bytes: u64, budget: BudgetLimits) -> Self {
        let inbox = InboxLimits { credit_bytes, message_bytes_max: MESSAGE_MAX };
        let config = SessionConfig { inbox, ack_delay: ACK_DELAY, quarantine: crate::limits::QUARANTINE };
        let sides = [Side::new(config, budget), Side::new(config, budget)];
        Self { now: Instant::now(), sides, phase: Phase::Down, tags: 0 }
    }

    pub(super) fn with_credit(credit_bytes: u64) -> Self {
        Self::with(credit_bytes, ROOMY)
    }

    /// Two sides with a link, types exchanged.
    pub(super) fn linked() -> Self {
        let mut pair = Self::with_credit(CREDIT_BYTES);
        pair.link();
        pair
    }

    /// Queues a tracked message and tells its tag.
    pub(super) fn push(&mut self, side: usize, stream: StreamId, bytes: usize) -> u32 {
        self.try_push(side, stream, bytes, true).expect("there is room")
    }

    pub(super) fn push_many(&mut self, count: usize, side: usize, stream: StreamId, bytes: usize) {
        for _ in 0..count {
            self.push(side, stream, bytes);
        }
    }

    pub(super) fn try_push(
        &mut self,
        side: usize,
        stream: StreamId,
        bytes: usize,
        tracked: bool,
    ) -> Result<u32, Refused> {
        self.tags += 1;
        let pushed = self.sides[side].push(stream, self.tags, bytes, tracked, None);
        self.check();
        pushed.map(|_| self.tags)
    }

    /// Queues a tracked message; tells whether the session is to be woken.
    pub(super) fn push_wakes(&mut self, side: usize, stream: StreamId, bytes: usize) -> bool {
        self.tags += 1;
        let pushed = self.sides[side].push(stream, self.tags, bytes, true, None);
        self.check();
        pushed.expect("there is room")
    }

    /// Queues a message with terms; tells its tag, and whether the session is to be woken.
    pub(super) fn try_push_under(
        &mut self,
        side: usize,
        stream: StreamId,
        bytes: usize,
        tracked: bool,
        terms: Terms,
    ) -> Result<(u32, bool), Refused> {
        self.tags += 1;
        let pushed = self.sides[side].push(stream, self.tags, bytes, tracked, Some((self.now, terms)));
        self.check();
        pushed.map(|wake| (self.tags, wake))
    }

    /// Queues a tracked message that is worth sending for so long.
    pub(super) fn push_for(&mut self, time: Duration, side: usize, stream: StreamId, bytes: usize) -> u32 {
        let terms = Terms { expires: Some(self.now + time), key: None };
        self.try_push_under(side, stream, bytes, true, terms).expect("there is room").0
    }

    /// Queues a tracked message under a key.
    pub(super) fn push_keyed(&mut self, key: u64, side: usize, stream: StreamId, bytes: usize) -> u32 {
        let terms = Terms { expires: None, key: Some(key) };
        self.try_push_under(side, stream, bytes, true, terms).expect("there is room").0
    }

    pub(super) fn time_out(&mut self, side: usize) {
        self.sides[side].session.handle_timeout(self.now);
        self.check();
    }

    /// Sleeps until `until` as a driver would: woken when the session asks for it, never earlier or later.
    pub(super) fn sleep_until(&mut self, side: usize, until: Instant) {
        while let Some(timeout) = self.sides[side].session.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(timeout);
            self.time_out(side);
        }
        self.now = until;
    }

    /// The tag the next message gets.
    pub(super) const fn next_tag(&self) -> u32 {
        self.tags + 1
    }

    /// Fills a side's pipe by one write, and tells which frames it was.
    pub(super) fn write(&mut self, side: usize) -> Vec<Frame> {
        let mut out = Transmit::default();
        let at = &mut self.sides[side];
        at.session.poll_transmit(self.now, &mut out);
        let bytes = out.parts.concat();
        assert_eq!(bytes.len(), out.bytes());
        assert!(bytes.len() < 2 * crate::limits::WRITE_BYTES + 64 * KIB, "a write is bounded");
        let mut whole = bytes::BytesMut::from(&bytes[..]);
        let frames = take_frames(&mut whole);
        assert!(whole.is_empty(), "a write is whole frames");
        let ack = frames.iter().rposition(|frame| matches!(frame, Frame::Ack(_)));
        assert!(ack.is_none_or(|at| at == 0), "acknowledgements go first");
        at.note_written(self.now, &frames);
        at.pipe.extend_from_slice(&bytes);
        self.check();
        frames
    }

    /// Carries at most `most` bytes from one side's pipe to the other side, and tells how many.
    pub(super) fn carry_some(&mut self, from: usize, most: usize) -> usize {
        let count = self.sides[from].pipe.len().min(most);
        let bytes = self.sides[from].pipe.split_to(count);
        // What comes in the answer's wake waits in the socket until the answer was read.
        if let Phase::Accepted { by, .. } = self.phase
            && by != from
            && count > 0
        {
            self.complete();
        }
        let to = &mut self.sides[1 - from];
        to.partial.extend_from_slice(&bytes);
        for frame in take_frames(&mut to.partial) {
            to.handle_frame(self.now, frame).expect("an honest peer breaks no rule");
        }
        self.take_events();
        count
    }

    pub(super) fn carry(&mut self, from: usize) {
        self.carry_some(from, usize::MAX);
    }

    pub(super) fn write_and_carry(&mut self, from: usize) {
        self.write(from);
        self.carry(from);
    }

    /// The applications of both sides look at what came.
    pub(super) fn take_events(&mut self) {
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.take_events(now));
        self.check();
    }

    /// A side writes its hello. Who learns that the other has begun anew does so as well (rule 4).
    pub(super) fn dial(&mut self, by: usize) {
        self.cut();
        while let Some(behind) = (0..2).find(|at| {
            let bound = self.sides[*at].session.peer_epoch();
            bound.is_some_and(|bound| bound != self.sides[1 - *at].session.epoch())
        }) {
            self.restart(behind, Cause::SessionLost);
        }
        let hello = self.sides[by].session.resume_points();
        self.phase = Phase::Dialled { by, hello };
    }

    /// A side writes its hello while the old link still brings something, so that the hello says too little.
    pub(super) fn dial_early(&mut self, by: usize, bytes: usize) {
        if matches!(self.phase, Phase::Up) {
            let hello = self.sides[by].session.resume_points();
            self.carry_some(1 - by, bytes);
            self.cut();
            self.phase = Phase::Dialled { by, hello };
        }
    }

    /// The other side adopts the link; its answer is computed after that (rule 10).
    pub(super) fn accept(&mut self) {
        let Phase::Dialled { by, hello } = std::mem::replace(&mut self.phase, Phase::Down) else { return };
        self.adopt(1 - by, &hello);
        let answer = self.sides[1 - by].session.resume_points();
        self.phase = Phase::Accepted { by, answer };
    }

    /// The answer arrives.
    pub(super) fn complete(&mut self) {
        let Phase::Accepted { by, answer } = std::mem::replace(&mut self.phase, Phase::Up) else { return };
        self.adopt(by, &answer);
    }

    fn adopt(&mut self, side: usize, said: &[StreamResume]) {
        let (epoch, credit) = {
            let peer = &self.sides[1 - side].session;
            (peer.epoch(), peer.default_credit())
        };
        let at = &mut self.sides[side];
        at.session.bind(epoch);
        at.session.handle_link_up(said, credit).expect("an honest peer resumes where it stands");
        let types = Frame::Types(at.types());
        at.pipe.extend_from_slice(&encode_control(&types));
        self.check();
    }

    /// The next step on the way to a link.
    pub(super) fn step_link(&mut self, dialler: usize) {
        match self.phase {
            Phase::Down => self.dial(dialler),
            Phase::Dialled { .. } => self.accept(),
            Phase::Accepted { .. } => self.complete(),
            Phase::Up => {}
        }
    }

    /// A link, with the types exchanged and nothing else.
    pub(super) fn link(&mut self) {
        while !matches!(self.phase, Phase::Up) {
            self.step_link(A);
        }
        self.carry(A);
        self.carry(B);
    }

    /// The link dies, and with it whatever is on its way.
    pub(super) fn cut(&mut self) {
        self.phase = Phase::Down;
        for side in &mut self.sides {
            side.session.handle_link_down();
            side.pipe.clear();
            side.partial.clear();
            side.types_came = false;
        }
        self.check();
    }

    /// A side ends its session and begins another; the other side learns of it at the next hello.
    pub(super) fn restart(&mut self, side: usize, cause: Cause) {
        self.cut();
        let session = &mut self.sides[side].session;
        session.restart(cause, Epoch(session.epoch().0 + 1));
        self.check();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// A slow handler is done with its oldest delivery.
    pub(super) fn handle(&mut self, side: usize) {
        self.sides[side].handle(self.now);
        self.check();
    }

    pub(super) fn grant(&mut self, side: usize) {
        self.sides[side].grant(self.now);
        self.check();
    }

    /// Writes and carries, and lets time pass when nothing else happens, until nothing will ever happen again.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut moved = 0;
            self.take_events();
            for side in [A, B] {
                moved += self.write(side).len() + self.carry_some(side, usize::MAX);
            }
            let timeout = self.sides.iter().filter_map(|side| side.session.poll_timeout()).min();
            match timeout {
                _ if moved > 0 => {}
                Some(timeout) => self.now = self.now.max(timeout),
                None => return,
            }
        }
        panic!("never comes to rest");
    }

    /// Lets one side write whatever it would ever write by itself, and carries it.
    pub(super) fn settle_side(&mut self, side: usize) {
        while let Some(timeout) = self.sides[side].session.poll_timeout() {
            self.now = self.now.max(timeout);
            self.write(side);
        }
        self.carry(side);
    }

    /// Heals everything, settles, and checks that every message has come to its end.
    pub(super) fn finish(&mut self) {
        for side in &mut self.sides {
            (side.slow, side.stingy) = (false, false);
        }
        self.link();
        self.settle();
        for (here, there) in [(A, B), (B, A)] {
            let (here, there) = (&self.sides[here], &self.sides[there]);
            assert!(here.session.is_drained(), "{:?}", here.session.streams().collect::<Vec<_>>());
            assert!(here.session.is_handled() && here.session.unhandled_bytes() == 0);
            assert_eq!(std::sync::Arc::strong_count(&here.permits), 1, "reservations are given back");
            here.check_deliveries_of(there);
        }
    }

    fn check(&mut self) {
        self.sides.iter_mut().for_each(Side::check);
    }
}
