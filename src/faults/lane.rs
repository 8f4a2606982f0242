//! One direction of one connection: reads, holds, breaks and writes bytes.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::fate::{Armed, Deed, Fate};
use super::pacer::Pacer;
use super::pipe::{PIPE_BYTES, Pipe};
use super::plan::{Direction, Ending, Rate};
use super::shared::Shared;

/// Reads and writes in a row before the other direction and the orders have their turn. Two readiness checks
/// a round, so that both directions stay below the runtime's budget of 128 a poll.
const ROUNDS_MAX: usize = 24;

/// Why a lane has nothing more to do.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// The end of file was passed on; the other direction goes on.
    Finished,
    /// It took effect and is counted; the connection has to close that way.
    Cut(Ending),
    /// Reading failed: the side that sends is gone.
    SourceLost(io::Error),
    /// Writing failed: the side that receives is gone.
    SinkLost(io::Error),
}

/// What a lane lies between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) source: &'a TcpStream,
    pub(super) sink: &'a TcpStream,
    pub(super) shared: &'a Shared,
}

#[derive(Debug)]
enum Gate {
    Open,
    /// The end of file is read but not yet passed on.
    Ending,
    Silent {
        drain: bool,
    },
    Shut,
}

#[derive(Debug)]
pub(super) struct Lane {
    connection: u64,
    direction: Direction,
    gate: Gate,
    pipe: Pipe,
    pub(super) fate: Fate,
    pub(super) delay: Duration,
    pacer: Option<Pacer>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Lane {
    pub(super) fn new(connection: u64, direction: Direction, fate: Fate) -> Lane {
        Lane {
            connection,
            direction,
            gate: Gate::Open,
            pipe: Pipe::new(),
            fate,
            delay: Duration::ZERO,
            pacer: None,
            timer: None,
        }
    }

    /// Bytes forwarded so far.
    pub(super) fn forwarded(&self) -> u64 {
        self.pipe.taken()
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        self.pacer.as_ref().map(Pacer::rate)
    }

    pub(super) fn set_rate(&mut self, rate: Option<Rate>) {
        self.pacer = rate.map(|rate| Pacer::new(rate, Instant::now()));
    }

    /// Forwards nothing any more, not even the end; false if there is nothing to silence.
    pub(super) fn silence(&mut self, drain: bool) -> bool {
        let was_open = matches!(self.gate, Gate::Open | Gate::Ending);
        if was_open {
            self.gate = Gate::Silent { drain };
        }
        was_open
    }

    pub(super) fn is_silent(&self) -> bool {
        matches!(self.gate, Gate::Silent { .. })
    }

    pub(super) fn is_shut(&self) -> bool {
        matches!(self.gate, Gate::Shut)
    }

    /// Does what can be done now; ready when it ended.
    ///
    /// `news` says whether orders wait. It is asked between a read and the write: so no byte that was sent
    /// after an order was given is forwarded before it is obeyed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        ends: Ends<'_>,
        news: impl Fn() -> bool,
    ) -> Poll<LaneEnd> {
        for _ in 0..ROUNDS_MAX {
            let read = match self.gate {
                Gate::Open => self.poll_read(cx, ends.source),
                Gate::Silent { drain: true } => self.poll_drain(cx, ends.source),
                Gate::Ending => Poll::Pending,
                Gate::Silent { drain: false } | Gate::Shut => return Poll::Pending,
            };
            if let Poll::Ready(Err(end)) = read {
                return Poll::Ready(end);
            }
            if news() {
                break;
            }
            let wrote = match self.gate {
                Gate::Open | Gate::Ending => self.poll_write(cx, ends.sink, ends.shared),
                Gate::Silent { .. } | Gate::Shut => Poll::Pending,
            };
            if let Poll::Ready(Err(end)) = wrote {
                return Poll::Ready(end);
            }
            if read.is_pending() && wrote.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<Result<(), LaneEnd>> {
        let limit = self.rate().map_or(PIPE_BYTES, |rate| self.held_most(rate));
        let room = self.pipe.room(limit);
        if room.is_empty() {
            // A write makes room; it or its timer wakes this task.
            return Poll::Pending;
        }
        Poll::Ready(match ready!(poll_try(cx, |cx| source.poll_read_ready(cx), || source.try_read(room))) {
            Ok(0) => {
                self.gate = Gate::Ending;
                Ok(())
            }
            Ok(len) => {
                let due = (!self.delay.is_zero()).then(|| Instant::now() + self.delay);
                self.pipe.filled(len, due);
                Ok(())
            }
            Err(error) => Err(LaneEnd::SourceLost(error)),
        })
    }

    /// What waits for its turn, and what a delay keeps on its way at this rate, which is no queue.
    fn held_most(&self, rate: Rate) -> usize {
        let on_the_way = rate.bytes_per_second as f64 * self.delay.as_secs_f64();
        (rate.buffer_bytes as usize).saturating_add(on_the_way as usize).clamp(1, PIPE_BYTES)
    }

    /// One write, with what is due at its offset.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &TcpStream,
        shared: &Shared,
    ) -> Poll<Result<(), LaneEnd>> {
        if let Some(end) = self.cut(shared) {
            return Poll::Ready(Err(end));
        }
        if self.pipe.is_empty() {
            return if matches!(self.gate, Gate::Ending) { self.finish(sink) } else { Poll::Pending };
        }
        let due = ready!(self.poll_due(cx));
        let len = self.fate.limit(self.forwarded(), due);
        debug_assert!(len > 0);
        let last = self.forwarded() + len as u64 - 1;
        let flip = self.fate.flip_at(last).filter(|flip| self.allowed(flip, shared));
        let bytes = self.pipe.front(len);
        invert(bytes, flip);
        let outcome = poll_try(cx, |cx| sink.poll_write_ready(cx), || sink.try_write(bytes));
        let wrote = match &outcome {
            Poll::Ready(Ok(wrote)) => *wrote,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if wrote < len {
            // The byte stays here for now, so it has to be whole again.
            invert(bytes, flip);
        }
        self.wrote(wrote, flip, wrote == len, shared);
        match ready!(outcome) {
            Ok(_) => Poll::Ready(self.cut(shared).map_or(Ok(()), Err)),
            Err(error) => Poll::Ready(Err(LaneEnd::SinkLost(error))),
        }
    }

    /// How many bytes may leave now, at least one; otherwise the timer is set.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            let due = self.pipe.due(Instant::now);
            let piece = self.pacer.as_ref().map_or(Ok(usize::MAX), |pacer| pacer.piece(Instant::now()));
            let wake_at = match (due, piece) {
                (0, _) => self.pipe.due_at(),
                (_, Err(at)) => Some(at),
                (due, Ok(piece)) => return Poll::Ready(due.min(piece)),
            };
            let Some(wake_at) = wake_at else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(wake_at)));
            timer.as_mut().reset(wake_at);
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// Whether the flip may take effect; scheduled ones may be used up.
    fn allowed(&mut self, flip: &Armed, shared: &Shared) -> bool {
        let allowed = !flip.scheduled || shared.budgets.take(&flip.fault(self.direction));
        if !allowed {
            self.fate.exhaust(*flip);
        }
        allowed
    }

    /// Accounts for a write: the bytes, and the flip if its byte is among them.
    fn wrote(&mut self, len: usize, flip: Option<Armed>, whole: bool, shared: &Shared) {
        if len > 0 {
            self.pipe.take(len);
            shared.counters.bytes(self.direction, len);
            if let Some(pacer) = &mut self.pacer {
                pacer.left(Instant::now(), len);
            }
        }
        let Some(flip) = flip else { return };
        let fault = flip.fault(self.direction);
        if whole {
            self.fate.done(flip);
            shared.note(self.connection, fault, || format!("{:?} byte {} flipped", self.direction, flip.at));
        } else if flip.scheduled {
            shared.budgets.give_back(&fault);
        }
    }

    /// The cut that is due, counted; scheduled ones may be used up.
    fn cut(&mut self, shared: &Shared) -> Option<LaneEnd> {
        while let Some((cut, ending)) = self.fate.cut_due(self.forwarded()) {
            let fault = cut.fault(self.direction);
            if cut.scheduled && !shared.budgets.take(&fault) {
                self.fate.exhaust(cut);
                continue;
            }
            self.fate.done(cut);
            shared
                .note(self.connection, fault, || format!("cut after {} bytes {:?}", cut.at, self.direction));
            return Some(LaneEnd::Cut(ending));
        }
        None
    }

    fn finish(&mut self, sink: &TcpStream) -> Poll<Result<(), LaneEnd>> {
        self.gate = Gate::Shut;
        let shut = SockRef::from(sink).shutdown(Shutdown::Write);
        Poll::Ready(Err(shut.map_or_else(LaneEnd::SinkLost, |()| LaneEnd::Finished)))
    }

    /// Reads and drops; the end is kept secret.
    fn poll_drain(&mut self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<Result<(), LaneEnd>> {
        let drained = ready!(poll_drain(cx, source));
        if !drained {
            self.gate = Gate::Silent { drain: false };
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads once and drops it; false at the end of file or on an error.
pub(super) fn poll_drain(cx: &mut Context<'_>, source: &TcpStream) -> Poll<bool> {
    let mut scratch = [0; 16 * 1024];
    let outcome = ready!(poll_try(cx, |cx| source.poll_read_ready(cx), || source.try_read(&mut scratch)));
    Poll::Ready(outcome.is_ok_and(|len| len > 0))
}

/// Attempts when the socket is ready; pending with the waker set when it is not.
fn poll_try(
    cx: &mut Context<'_>,
    mut poll_ready: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(poll_ready(cx))?;
        match attempt() {
            // Not ready after all: the next check sets the waker.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

/// Inverts the flip's bit of the last byte; a second time restores it.
fn invert(bytes: &mut [u8], flip: Option<Armed>) {
    if let (Some(Armed { deed: Deed::Flip(mask), .. }), Some(last)) = (flip, bytes.last_mut()) {
        *last ^= mask;
    }
}
