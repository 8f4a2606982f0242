//! A network in virtual time, from a seed: delay, jitter, and every way in which it may fail. What runs over it is the
//! real driver.
//!
//! A connection is two [`pipe`]s of bytes that arrive late and in order, as TCP's do; what fails does so as it would
//! under TCP: a cut is told to both ends, to one, or to nobody; a road that is blocked for a while brings late what
//! was written; a connection that lost one direction for good fills its window in the other, for want of acknowledgements.

mod breaking;
mod host;
mod pipe;
mod socket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::ReadBuf;
use tokio::sync::Notify;

pub(super) use breaking::Told;
pub(super) use host::Host;
use host::{RETRY, no_descriptors};
use pipe::{Pipe, Road};
use socket::Socket;

use crate::driver::clock;
use crate::driver::net::BoxConn;

/// Connections that wait to be accepted, as `listen` is told.
const BACKLOG_MAX: usize = 128;

/// One run of one process, counted over the whole world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessId(pub(super) usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnId(pub(super) u64);

/// How the roads of a world are, before anything fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// The longest way between two processes.
    pub(super) delay_max: Duration,
    /// What is added to some segments, at most.
    pub(super) jitter_max: Duration,
    pub(super) bytes_per_second: u64,
    /// What is under way in one direction of a connection at most, and in the kernels of both sides.
    pub(super) window_bytes: usize,
}

#[derive(Debug)]
struct End {
    process: ProcessId,
    /// It was told that the connection is gone.
    reset: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
struct Connection {
    ends: [End; 2],
    /// `pipes[side]` carries what that side writes.
    pipes: [Pipe; 2],
    born: Instant,
    /// When the process that listened took it. Before that only its kernel knows of it.
    accepted: Option<Instant>,
    /// After so many bytes of a side it breaks.
    cut: Option<(usize, u64, Told)>,
    /// After so many bytes of a side bits are bent.
    bend: Option<(usize, u64)>,
    /// Since when nothing that the other side writes arrives.
    deaf_since: [Option<Instant>; 2],
}

#[derive(Debug, Default)]
struct Machine {
    address: Option<SocketAddr>,
    backlog: VecDeque<ConnId>,
    acceptor: Option<Waker>,
    no_descriptors: bool,
    gone: bool,
    listens: bool,
    /// Connections that were ever begun to be made from here: to whom and when, the last.
    dialled: BTreeMap<SocketAddr, Instant>,
}

#[derive(Debug)]
struct State {
    chance: fastrand::Rng,
    weather: Weather,
    machines: BTreeMap<ProcessId, Machine>,
    conns: BTreeMap<ConnId, Connection>,
    /// Roads on which nothing gets through for now, from address to address.
    blocked: BTreeSet<(SocketAddr, SocketAddr)>,
    next: u64,
    /// Faults that were wanted of connections yet to come, from any to any.
    bent: u64,
    cut: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Network {
    state: Mutex<State>,
    /// A road is free again.
    freed: Notify,
    began: tokio::time::Instant,
}

/// An open connection, as it is seen from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) conn: ConnId,
    /// Dialler, acceptor.
    pub(super) ends: [ProcessId; 2],
    /// When each process got its end, if it has it.
    pub(super) held_since: [Option<Instant>; 2],
    /// Since when nothing that the other side writes arrives any more.
    pub(super) deaf_since: [Option<Instant>; 2],
}

impl Network {
    pub(super) fn new(seed: u64, weather: Weather) -> Arc<Self> {
        let state = State {
            chance: fastrand::Rng::with_seed(seed),
            weather,
            machines: BTreeMap::new(),
            conns: BTreeMap::new(),
            blocked: BTreeSet::new(),
            next: 0,
            bent: 0,
            cut: 0,
        };
        Arc::new(Self { state: Mutex::new(state), freed: Notify::new(), began: tokio::time::Instant::now() })
    }

    /// A process begins at an address; whoever was there before is gone.
    pub(super) fn add(&self, process: ProcessId, address: SocketAddr) {
        let machine = Machine { address: Some(address), ..Machine::default() };
        self.state.lock().machines.insert(process, machine);
    }

    fn listen(&self, process: ProcessId, address: SocketAddr) -> io::Result<()> {
        let mut state = self.state.lock();
        let taken =
            state.machines.values().any(|one| one.listens && !one.gone && one.address == Some(address));
        if taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let machine = state.machines.entry(process).or_default();
        machine.listens = true;
        Ok(())
    }

    async fn connect(self: &Arc<Self>, from: ProcessId, to: SocketAddr) -> io::Result<BoxConn> {
        let (here, delay) = {
            let mut state = self.state.lock();
            let delay = state.delay();
            let machine = state.machines.get_mut(&from).ok_or(io::ErrorKind::NetworkDown)?;
            if machine.no_descriptors {
                return Err(no_descriptors());
            }
            machine.dialled.insert(to, clock::now());
            (machine.address.ok_or(io::ErrorKind::AddrNotAvailable)?, delay)
        };
        loop {
            tokio::time::sleep(delay * 2).await;
            let freed = self.freed.notified();
            if !self.is_blocked(here, to) {
                match self.state.lock().establish(from, to, delay) {
                    Ok(conn) => return Ok(Box::new(Socket::new(Arc::clone(self), conn, 0))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
            freed.await;
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A packet there or its answer back is lost.
    fn is_blocked(&self, here: SocketAddr, there: SocketAddr) -> bool {
        let state = self.state.lock();
        state.blocked.contains(&(here, there)) || state.blocked.contains(&(there, here))
    }

    fn poll_accept(
        self: &Arc<Self>,
        process: ProcessId,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(BoxConn, SocketAddr)>> {
        let mut state = self.state.lock();
        let Some(machine) = state.machines.get_mut(&process) else {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        };
        if machine.backlog.is_empty() {
            machine.acceptor = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if machine.no_descriptors {
            return Poll::Ready(Err(no_descriptors()));
        }
        let Some(conn) = machine.backlog.pop_front() else { return Poll::Pending };
        let dialler = state.conns.get_mut(&conn).map(|conn| {
            conn.accepted = Some(clock::now());
            conn.ends[0].process
        });
        let from = dialler.and_then(|dialler| state.machines.get(&dialler)?.address);
        let from = from.map_or_else(
            || SocketAddr::from(([0, 0, 0, 0], 1)),
            |from| SocketAddr::new(from.ip(), 1024 + (conn.0 % 60_000) as u16),
        );
        drop(state);
        Poll::Ready(Ok((Box::new(Socket::new(Arc::clone(self), conn, 1)), from)))
    }

    fn read(&self, conn: ConnId, side: usize, waker: &Waker, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let now = clock::now();
        let mut state = self.state.lock();
        let Some(conn) = state.conns.get_mut(&conn) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if conn.ends[side].reset.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let pipe = &mut conn.pipes[1 - side];
        let taken = pipe.take(now, buf.remaining(), |bytes| buf.put_slice(bytes));
        if taken > 0 {
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.is_at_end() {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(waker.clone());
        Poll::Pending
    }

    /// When there will be something to read, if that is known.
    fn next_read(&self, conn: ConnId, side: usize) -> Option<Instant> {
        let state = self.state.lock();
        let conn = state.conns.get(&conn)?;
        conn.pipes[1 - side].next().into_iter().chain(conn.ends[side].reset).min()
    }

    fn write(
        &self,
        id: ConnId,
        side: usize,
        waker: &Waker,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let now = clock::now();
        let mut state = self.state.lock();
        let jitter = state.jitter();
        let State { conns, machines, chance, bent, cut, .. } = &mut *state;
        let Some(conn) = conns.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if conn.ends[side].reset.is_some_and(|at| at <= now) || conn.pipes[side].ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut room = conn.pipes[side].room();
        if room == 0 {
            conn.pipes[side].writer = Some(waker.clone());
            return Poll::Pending;
        }
        let cuts = conn.cut.filter(|(at, ..)| *at == side);
        if let Some((_, after, _)) = cuts {
            room = room.min(after.saturating_sub(conn.pipes[side].carried).max(1) as usize);
        }
        let mut written = 0;
        for piece in pieces {
            let count = piece.len().min(room - written);
            conn.pipes[side].put(now, piece.get(..count).unwrap_or_default(), jitter);
            written += count;
            if written == room {
                break;
            }
        }
        if conn.bend.is_some_and(|(at, after)| at == side && conn.pipes[side].carried > after) {
            let bits: Vec<u32> = (0..chance.usize(1..=3)).map(|_| chance.u32(..)).collect();
            if conn.pipes[side].bend(&bits).is_some() {
                conn.bend = None;
                *bent += 1;
            }
        }
        if let Some((_, after, told)) = cuts
            && conn.pipes[side].carried >= after
        {
            *cut += 1;
            conn.cut = None;
            conn.break_now(now, told);
        }
        // The other end is no more: its kernel says so.
        let there = conn.ends[1 - side].process;
        let gone = machines.get(&there).is_none_or(|machine| machine.gone);
        if (conn.ends[1 - side].closed || gone) && !conn.pipes[side].lost {
            conn.ends[side].reset.get_or_insert(now + RETRY / 10);
        }
        if let Some(reader) = conn.pipes[side].reader.take() {
            reader.wake();
        }
        conn.pipes[1 - side].wake();
        Poll::Ready(Ok(written))
    }

    fn shut_down(&self, conn: ConnId, side: usize) {
        if let Some(conn) = self.state.lock().conns.get_mut(&conn) {
            conn.pipes[side].ended = true;
            conn.pipes[side].wake();
        }
    }

    /// What was not accepted is reset.
    fn stop_listening(&self, process: ProcessId) {
        let mut state = self.state.lock();
        let waiting = state.machines.get_mut(&process).map(|machine| {
            machine.listens = false;
            std::mem::take(&mut machine.backlog)
        });
        waiting.into_iter().flatten().for_each(|conn| state.close(conn, 1, true));
    }

    fn close(&self, conn: ConnId, side: usize) {
        self.state.lock().close(conn, side, false);
    }

    fn abort(&self, conn: ConnId, side: usize) {
        self.state.lock().close(conn, side, true);
    }

    // ---- what is seen from outside ----

    /// Connections that at least one process has open.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let state = self.state.lock();
        let seen = |(id, conn): (&ConnId, &Connection)| {
            let held = [Some(conn.born), conn.accepted];
            Seen {
                conn: *id,
                ends: [conn.ends[0].process, conn.ends[1].process],
                held_since: [0, 1].map(|side| held[side].filter(|_| !conn.ends[side].closed)),
                deaf_since: conn.deaf_since,
            }
        };
        state.conns.iter().map(seen).collect()
    }

    /// When a process last began to dial an address.
    pub(super) fn dialled(&self, process: ProcessId, to: SocketAddr) -> Option<Instant> {
        self.state.lock().machines.get(&process)?.dialled.get(&to).copied()
    }

    /// Bits were bent, and connections cut after so many bytes, so often.
    pub(super) fn late_faults(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.bent, state.cut)
    }
}

impl State {
    fn delay(&mut self) -> Duration {
        let most = self.weather.delay_max.as_micros() as u64;
        Duration::from_micros(self.chance.u64(100..=most.max(100)))
    }

    /// Some segments are late.
    fn jitter(&mut self) -> Duration {
        let most = self.weather.jitter_max.as_micros() as u64;
        let late = most > 0 && self.chance.u8(..8) == 0;
        if late { Duration::from_micros(self.chance.u64(..=most)) } else { Duration::ZERO }
    }

    fn establish(&mut self, from: ProcessId, to: SocketAddr, delay: Duration) -> io::Result<ConnId> {
        let there =
            |(_, one): &(&ProcessId, &mut Machine)| one.listens && !one.gone && one.address == Some(to);
        let found = self.machines.iter_mut().find(there);
        let Some((process, machine)) = found else { return Err(io::ErrorKind::ConnectionRefused.into()) };
        if machine.backlog.len() >= BACKLOG_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = ConnId(self.next);
        self.next += 1;
        machine.backlog.push_back(id);
        if let Some(acceptor) = machine.acceptor.take() {
            acceptor.wake();
        }
        let Weather { bytes_per_second, window_bytes, .. } = self.weather;
        let road = Road { delay, bytes_per_second, window_bytes };
        let end = |process| End { process, reset: None, closed: false };
        let conn = Connection {
            ends: [end(from), end(*process)],
            pipes: [Pipe::new(road), Pipe::new(road)],
            born: clock::now(),
            accepted: None,
            cut: None,
            bend: None,
            deaf_since: [None; 2],
        };
        self.conns.insert(id, conn);
        tracing::trace!(conn = id.0, from = from.0, to = process.0, "established");
        Ok(id)
    }

    fn close(&mut self, id: ConnId, side: usize, abort: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        tracing::trace!(conn = id.0, side, abort, "closed");
        conn.ends[side].closed = true;
        conn.pipes[side].ended = true;
        if abort && !conn.pipes[side].lost {
            conn.pipes[side].lose();
            conn.ends[1 - side].reset.get_or_insert(clock::now() + RETRY / 100);
        }
        conn.pipes.iter_mut().for_each(Pipe::wake);
        if conn.ends.iter().all(|end| end.closed) {
            self.conns.remove(&id);
        }
    }
}
