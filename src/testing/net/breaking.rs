//! What goes wrong, on purpose.

use std::net::SocketAddr;
use std::time::Instant;

use super::{ConnId, Connection, Network, ProcessId, RETRY};
use crate::driver::clock;

/// Who hears that a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Told {
    Both,
    /// The dialler (0) or the acceptor (1).
    Only(usize),
    Nobody,
}

impl Connection {
    /// Nothing gets through any more; who is told gets an error.
    pub(super) fn break_now(&mut self, now: Instant, told: Told) {
        self.pipes.iter_mut().for_each(|pipe| pipe.lose());
        for side in [0, 1] {
            if told == Told::Both || told == Told::Only(side) {
                self.ends[side].reset.get_or_insert(now);
            }
        }
        self.deaf_since.iter_mut().filter(|since| since.is_none()).for_each(|since| *since = Some(now));
        self.pipes.iter_mut().for_each(super::Pipe::wake);
    }
}

impl Network {
    fn with<T>(&self, conn: ConnId, change: impl FnOnce(&mut Connection, Instant) -> T) -> Option<T> {
        let now = clock::now();
        self.state.lock().conns.get_mut(&conn).map(|conn| change(conn, now))
    }

    pub(in crate::testing) fn break_conn(&self, conn: ConnId, told: Told) {
        self.with(conn, |conn, now| conn.break_now(now, told));
    }

    /// It breaks when so many more bytes of one side have passed.
    pub(in crate::testing) fn cut_after(&self, conn: ConnId, side: usize, bytes: u64, told: Told) {
        self.with(conn, |conn, _| conn.cut = Some((side, conn.pipes[side].carried + bytes, told)));
    }

    /// Bits of what passes after so many more bytes of one side are bent.
    pub(in crate::testing) fn bend_after(&self, conn: ConnId, side: usize, bytes: u64) {
        self.with(conn, |conn, _| conn.bend = Some((side, conn.pipes[side].carried + bytes)));
    }

    /// What this side writes never arrives, for good; so what it reads is never acknowledged by its kernel either.
    pub(in crate::testing) fn silence_one_way(&self, conn: ConnId, side: usize) {
        self.with(conn, |conn, now| {
            conn.pipes[side].lose();
            conn.pipes[1 - side].unheard = true;
            conn.deaf_since[1 - side].get_or_insert(now);
        });
    }

    pub(in crate::testing) fn slow_down(&self, conn: ConnId, bytes_per_second: u64) {
        self.with(conn, |conn, _| {
            conn.pipes.iter_mut().for_each(|pipe| pipe.slow_down(bytes_per_second));
        });
    }

    /// From one address nothing gets to the other for now.
    pub(in crate::testing) fn block(&self, from: SocketAddr, to: SocketAddr) {
        self.state.lock().blocked.insert((from, to));
        self.settle_roads();
    }

    pub(in crate::testing) fn free(&self, from: SocketAddr, to: SocketAddr) {
        self.state.lock().blocked.remove(&(from, to));
        self.settle_roads();
        self.freed.notify_waiters();
    }

    /// Every road is free and as fast as it was; connections that are broken stay so.
    pub(in crate::testing) fn free_all(&self) {
        let mut state = self.state.lock();
        state.blocked.clear();
        state.machines.values_mut().for_each(|machine| machine.no_descriptors = false);
        let rate = state.weather.bytes_per_second;
        for conn in state.conns.values_mut() {
            (conn.cut, conn.bend) = (None, None);
            conn.pipes.iter_mut().for_each(|pipe| pipe.slow_down(rate));
        }
        drop(state);
        self.settle_roads();
        self.freed.notify_waiters();
    }

    fn settle_roads(&self) {
        let now = clock::now();
        let mut state = self.state.lock();
        let super::State { conns, machines, blocked, .. } = &mut *state;
        let address = |process: ProcessId| machines.get(&process).and_then(|machine| machine.address);
        for conn in conns.values_mut() {
            let ends = [0, 1].map(|side| address(conn.ends[side].process));
            for side in [0, 1] {
                let (Some(from), Some(to)) = (ends[side], ends[1 - side]) else { continue };
                let is = blocked.contains(&(from, to));
                let pipe = &mut conn.pipes[side];
                if is && !pipe.blocked {
                    pipe.blocked = true;
                } else if !is && pipe.blocked {
                    pipe.free(now, RETRY);
                    pipe.wake();
                }
            }
        }
    }

    pub(in crate::testing) fn set_descriptors(&self, process: ProcessId, exhausted: bool) {
        if let Some(machine) = self.state.lock().machines.get_mut(&process) {
            machine.no_descriptors = exhausted;
        }
    }

    /// The process is no more. Its kernel resets its connections, or the whole machine is gone and says nothing.
    pub(in crate::testing) fn kill(&self, process: ProcessId, silently: bool) {
        let now = clock::now();
        let mut state = self.state.lock();
        if let Some(machine) = state.machines.get_mut(&process) {
            machine.gone = true;
            machine.backlog.clear();
        }
        let told = if silently { Told::Nobody } else { Told::Both };
        for conn in state.conns.values_mut() {
            for side in [0, 1] {
                if conn.ends[side].process == process {
                    // What was on its way to the other side may still arrive, or not: it does not.
                    conn.break_now(now, told);
                    conn.ends[side].closed = true;
                }
            }
        }
        state.conns.retain(|_, conn| !conn.ends.iter().all(|end| end.closed));
    }
}
