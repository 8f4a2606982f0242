//! Connections: what is on its way, as the real codec writes and reads it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use super::books::Fault;
use super::{World, side_of};
use crate::link::{FrameReader, LinkId};
use crate::member::MemberId;
use crate::wire::{FirstBytes, Frame, first};

/// How far one end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// The dialler waits for the connection.
    Connecting,
    /// The dialler said hello.
    Greeting,
    /// The acceptor waits for a hello.
    Asked,
    Live,
    Closed,
}

/// What arrives at once.
#[derive(Debug)]
pub(super) enum Packet {
    First(Box<FirstBytes>),
    /// Frames, each with what counts of it.
    Frames(Vec<(Frame, u64)>),
    End,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) stage: Stage,
    /// Whose link it is here, and which.
    pub(super) link: Option<(MemberId, LinkId)>,
    pub(super) inbound: VecDeque<Packet>,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: [End; 2],
    /// What is written from now on vanishes.
    pub(super) broken: bool,
    /// Something was written to it by the last action, or would have been.
    pub(super) written: bool,
}

impl End {
    const fn new(stage: Stage, link: Option<(MemberId, LinkId)>) -> Self {
        Self { stage, link, inbound: VecDeque::new() }
    }

    /// Whether something can be read.
    pub(super) fn reads(&self) -> bool {
        matches!(self.stage, Stage::Greeting | Stage::Asked | Stage::Live) && !self.inbound.is_empty()
    }
}

impl Conn {
    pub(super) fn dialled(by: usize, link: (MemberId, LinkId)) -> Self {
        let (dialler, acceptor) = (End::new(Stage::Connecting, Some(link)), End::new(Stage::Asked, None));
        let ends = if by == 0 { [dialler, acceptor] } else { [acceptor, dialler] };
        Self { ends, broken: false, written: false }
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.stage == Stage::Closed)
    }

    fn push(&mut self, from: usize, packet: Packet) {
        let to = &mut self.ends[1 - from];
        if to.stage != Stage::Closed {
            self.written = true;
            if !self.broken {
                to.inbound.push_back(packet);
            }
        }
    }

    /// A side closes its end; the other reads so behind all that was written.
    pub(super) fn close(&mut self, side: usize) {
        if self.ends[side].stage != Stage::Closed {
            self.ends[side].stage = Stage::Closed;
            self.ends[side].inbound.clear();
            self.push(side, Packet::End);
        }
    }

    /// An end is no more, and the other is not told.
    pub(super) fn die(&mut self, side: usize) {
        self.broken = true;
        self.ends[side].stage = Stage::Closed;
        self.ends[side].inbound.clear();
    }
}

impl World {
    /// The connection of a side's link, if it is open there.
    pub(super) fn conn_of(&self, side: usize, link: (MemberId, LinkId)) -> Option<usize> {
        let is = |conn: &Conn| conn.ends[side].stage != Stage::Closed && conn.ends[side].link == Some(link);
        self.conns.iter().position(is)
    }

    /// A side says the first thing on a connection.
    pub(super) fn write_first(&mut self, conn: usize, side: usize, bytes: &[u8]) {
        match first::decode(bytes) {
            Ok(first) => {
                self.judge_first(side, &first);
                self.conns[conn].push(side, Packet::First(Box::new(first)));
            }
            Err(error) => self.fault(Fault::Protocol, format!("side {side} wrote an opening: {error}")),
        }
    }

    /// A side writes frames, all of them whole.
    pub(super) fn write(&mut self, conn: usize, side: usize, parts: &[Bytes]) {
        let mut reader = FrameReader::default();
        parts.iter().for_each(|part| reader.buffer().extend_from_slice(part));
        let mut frames = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    self.judge_frame(conn, side, &frame);
                    let key = key(&frame);
                    frames.push((frame, key));
                }
                Ok(None) => break,
                Err(error) => return self.fault(Fault::Protocol, format!("side {side} wrote: {error}")),
            }
        }
        if self.scenario.by_frame {
            for frame in frames {
                self.conns[conn].push(side, Packet::Frames(vec![frame]));
            }
        } else if !frames.is_empty() {
            self.conns[conn].push(side, Packet::Frames(frames));
        }
    }

    /// Of connections of which no end is open nothing is kept.
    ///
    /// Where the dialler is over and the acceptor can learn nothing any more, it is over too. That nobody says hello
    /// (it is broken, or its end is all that comes) concerns nobody but the connection. A hello that is meant for another
    /// process is refused by whoever is there for what no process ever changes (its id, its network), before anything
    /// else is looked at, and the dialler does not read the refusal; so when it comes makes no difference, and it comes
    /// at once.
    pub(super) fn sweep(&mut self) {
        let written = self.conns.iter().enumerate().filter(|(_, conn)| conn.written);
        self.written = written.fold(0, |written, (at, _)| written | 1 << at);
        for at in 0..self.conns.len() {
            for side in [0, 1] {
                let conn = &mut self.conns[at];
                let (end, other) = (&conn.ends[side], &conn.ends[1 - side]);
                if end.stage != Stage::Asked {
                    continue;
                }
                match end.inbound.front() {
                    None if conn.broken => conn.close(side),
                    Some(Packet::End) => conn.close(side),
                    Some(Packet::First(first)) if other.stage == Stage::Closed => {
                        if let FirstBytes::Hello(hello) = &**first
                            && hello.to.is_some_and(|to| to != self.sides[side].id())
                        {
                            self.deliver(at, side);
                        }
                    }
                    _ => {}
                }
            }
        }
        self.conns.retain(|conn| !conn.is_over());
    }
}

/// What counts of a frame: all of it, but the number of a ping, which only tells it from others.
fn key(frame: &Frame) -> u64 {
    let mut hasher = DefaultHasher::new();
    match frame {
        Frame::Ping { .. } => 1.hash(&mut hasher),
        Frame::Pong { .. } => 2.hash(&mut hasher),
        Frame::Batch(batch) => {
            (3, batch.stream, batch.first, batch.count, &batch.records).hash(&mut hasher);
        }
        Frame::Ack(acks) => {
            4.hash(&mut hasher);
            for ack in acks {
                (ack.stream, ack.accepted, ack.handled, ack.credit).hash(&mut hasher);
            }
        }
        Frame::Types(_) => 5.hash(&mut hasher),
        Frame::Joined(joined) => (6, joined).hash(&mut hasher),
        Frame::Goodbye { last, confirmed } => (7, last, confirmed).hash(&mut hasher),
        Frame::Close { code, .. } => (8, code.to_wire()).hash(&mut hasher),
        Frame::Datagram(_) | Frame::Unknown => 9.hash(&mut hasher),
    }
    hasher.finish()
}

/// Who writes to whom at this end.
pub(super) fn other_of(link: Option<(MemberId, LinkId)>) -> Option<(usize, MemberId)> {
    link.map(|(of, _)| (side_of(of), of))
}
