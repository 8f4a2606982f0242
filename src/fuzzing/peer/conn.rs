//! Connections between two processes: bytes on their way, what breaks them, and what their ends make of them.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::super::Source;
use super::super::session::NORMAL;
use super::super::wire::repaired_frame;
use super::{FLIPS_MAX, Run};
use crate::link::{FrameReader, LinkEnd, LinkId};
use crate::peer::{Peer, PeerOutput, Standing};
use crate::session::Cause;
use crate::wire::frame::encode_control;
use crate::wire::{Epoch, FirstBytes, Frame, Hello, Seq, StreamId, StreamResume, first};

/// What the end of a connection does with bytes.
pub(super) enum Stage {
    /// The first bytes are not all there.
    Opening(BytesMut),
    Frames(FrameReader),
    Closed,
}

pub(super) struct End {
    pub(super) link: Option<LinkId>,
    pub(super) stage: Stage,
    /// Written and not yet at the other end.
    pub(super) pipe: VecDeque<u8>,
}

pub(super) struct Conn {
    pub(super) dialler: usize,
    pub(super) ends: [End; 2],
    /// Whatever is written vanishes, and nobody is told.
    pub(super) silent: bool,
}

impl Conn {
    pub(super) fn end_of(&mut self, link: LinkId, at: usize) -> Option<&mut End> {
        Some(&mut self.ends[at]).filter(|end| end.link == Some(link))
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| matches!(end.stage, Stage::Closed))
    }
}

impl Run {
    /// Resets a connection: what is on its way is lost. Both ends learn of it, or only one of them.
    pub(super) fn break_conn(&mut self, which: usize, both: bool) {
        let Some(conn) = self.conn(which) else { return };
        conn.silent |= !both;
        let links = [0, 1].map(|at| {
            let end = &mut conn.ends[at];
            end.pipe.clear();
            let told = both || at == 0;
            let was = if told { std::mem::replace(&mut end.stage, Stage::Closed) } else { Stage::Closed };
            (end.link, was)
        });
        for (at, (link, was)) in links.into_iter().enumerate() {
            self.note_end(at, link, &was, LinkEnd::Io(std::io::ErrorKind::ConnectionReset));
        }
    }

    fn note_end(&mut self, at: usize, link: Option<LinkId>, was: &Stage, end: LinkEnd) {
        if let (Some(peer), Some(link)) = (&mut self.nodes[at].peer, link) {
            match was {
                Stage::Opening(_) => peer.handle_dial_failed(self.now, link),
                Stage::Frames(_) => peer.handle_link_end(self.now, link, end),
                Stage::Closed => {}
            }
        }
        self.take_outputs(at);
    }

    pub(super) fn flip(&mut self, at: usize, source: &mut Source<'_>) {
        let (which, place, bit) = (usize::from(source.u8()), usize::from(source.u16()), source.u8() & 7);
        if self.flips >= FLIPS_MAX {
            return;
        }
        let Some(conn) = self.conn(which) else { return };
        let pipe = &mut conn.ends[at].pipe;
        if let Some(place) = place.checked_rem(pipe.len()) {
            pipe[place] ^= 1 << bit;
            self.flips += 1;
        }
    }

    /// The other side's live link brings what no honest one writes.
    pub(super) fn inject(&mut self, at: usize, source: &mut Source<'_>) {
        let frame = if source.u8() & 1 == 0 {
            repaired_frame(source)
        } else {
            let last = vec![(NORMAL, Seq(source.number()))];
            encode_control(&Frame::Goodbye { last, confirmed: source.u8() & 1 == 0 }).to_vec()
        };
        let Some(live) = self.nodes[at].peer.as_ref().and_then(Peer::live_link) else { return };
        if let Some(end) = self.conns.iter_mut().find_map(|conn| conn.end_of(live, at)) {
            end.pipe.extend(frame);
        }
    }

    /// A hello of any content, in the name of this side.
    pub(super) fn inject_hello(&mut self, at: usize, source: &mut Source<'_>) {
        let streams = (0..source.u8() & 3)
            .filter_map(|_| {
                let stream = StreamId::from_wire(source.u16() & 0x1b).ok()?;
                Some(StreamResume { stream, next_expected: Seq(source.number()), credit: source.number() })
            })
            .collect();
        let node = &self.nodes[at];
        let hello = Hello {
            to: Some(self.nodes[1 - at].id()),
            epoch: Epoch(source.number()),
            your_epoch: Epoch(source.number()),
            generation: source.number(),
            attempt: source.number(),
            streams,
            credit: source.number(),
            ..node.with.me.question()
        };
        let bytes = first::encode(&FirstBytes::Hello(Box::new(hello)));
        let closed = End { link: None, stage: Stage::Closed, pipe: bytes.into() };
        let open = End { link: None, stage: Stage::Opening(BytesMut::new()), pipe: VecDeque::new() };
        let ends = if at == 0 { [closed, open] } else { [open, closed] };
        self.add(Conn { dialler: at, ends, silent: false });
    }

    pub(super) fn carry_all(&mut self) -> usize {
        let mut moved = 0;
        for which in 0..self.conns.len() {
            moved += self.carry(which, 0, usize::MAX) + self.carry(which, 1, usize::MAX);
        }
        moved
    }

    /// Bytes of one side's end arrive at the other end; behind the last of them its end, if it has closed.
    pub(super) fn carry(&mut self, which: usize, from: usize, most: usize) -> usize {
        let Some(which) = which.checked_rem(self.conns.len()) else { return 0 };
        let (to, conn) = (1 - from, &mut self.conns[which]);
        let end = &mut conn.ends[from];
        let count = end.pipe.len().min(most);
        let bytes: Vec<u8> = end.pipe.drain(..count).collect();
        let ended = end.pipe.is_empty() && matches!(end.stage, Stage::Closed);
        if conn.silent {
            return 0;
        }
        let to_end = &mut conn.ends[to];
        if matches!(to_end.stage, Stage::Closed) {
            return 0;
        }
        if let (Some(link), Stage::Frames(_)) = (to_end.link, &to_end.stage)
            && count > 0
            && let Some(peer) = self.nodes[to].peer.as_mut().filter(|peer| peer.is_live(link))
        {
            peer.handle_heard(self.now);
        }
        self.receive(which, to, &bytes);
        if ended {
            let end = &mut self.conns[which].ends[to];
            let (link, was) = (end.link, std::mem::replace(&mut end.stage, Stage::Closed));
            self.note_end(to, link, &was, LinkEnd::End);
            return count + 1;
        }
        count
    }

    fn receive(&mut self, which: usize, to: usize, bytes: &[u8]) {
        let end = &mut self.conns[which].ends[to];
        match &mut end.stage {
            Stage::Closed => {}
            Stage::Frames(reader) => {
                reader.buffer().extend_from_slice(bytes);
                reader.note_read();
                self.frames(which, to);
            }
            Stage::Opening(so_far) => {
                so_far.extend_from_slice(bytes);
                let opening = match first::length(so_far) {
                    Ok(Some(length)) if so_far.len() >= length => first::decode(&so_far.split_to(length)),
                    Ok(_) => return,
                    Err(error) => Err(error),
                };
                let rest = std::mem::take(so_far);
                match opening {
                    Ok(opening) => self.opened(which, to, opening, &rest),
                    Err(_) => {
                        let (link, was) = (end.link, std::mem::replace(&mut end.stage, Stage::Closed));
                        self.note_end(to, link, &was, LinkEnd::End);
                    }
                }
            }
        }
    }

    fn opened(&mut self, which: usize, to: usize, opening: FirstBytes, rest: &[u8]) {
        let now = self.now;
        let dialled = self.conns[which].dialler == to;
        let adopted = match (opening, self.conns[which].ends[to].link) {
            (reply, Some(link)) if dialled => {
                let Some(peer) = self.nodes[to].peer.as_mut() else { return };
                peer.handle_reply(now, link, reply).then_some((link, None))
            }
            (FirstBytes::Hello(hello), None) if !dialled => self.greet(which, to, &hello),
            _ => None,
        };
        // Closes what the new link replaces before it takes its place; this end keeps its own.
        let end = &mut self.conns[which].ends[to];
        end.stage = Stage::Closed;
        match adopted {
            Some((link, answer)) => {
                end.link = None;
                self.take_outputs(to);
                let end = &mut self.conns[which].ends[to];
                end.link = Some(link);
                end.pipe.extend(answer.unwrap_or_default());
                let mut reader = FrameReader::default();
                reader.buffer().extend_from_slice(rest);
                end.stage = Stage::Frames(reader);
                self.frames(which, to);
            }
            None => self.take_outputs(to),
        }
    }

    fn greet(&mut self, which: usize, to: usize, hello: &Hello) -> Option<(LinkId, Option<Vec<u8>>)> {
        let node = &mut self.nodes[to];
        let of = hello.from.id;
        let seat = node.roster.seat(of);
        let met = node.peer.as_ref().is_some_and(|peer| peer.id() == of);
        let judged = match node.with.me.judge(hello) {
            Ok(()) if !met && seat.judge(hello.from.joined) == Standing::Removed => {
                Err(Box::new(seat.refusal(&node.with.me)))
            }
            judged => judged,
        };
        let link = node.with.counters.link();
        if judged.is_ok() && !met {
            // This pair has room for one peer; in a process the old one's would stay beside it until its lease is over.
            if let Some(mut peer) = node.peer.take() {
                peer.end(Cause::SessionLost);
                while let Some(output) = peer.poll_output() {
                    if let PeerOutput::Deliver { delivery, .. } = output {
                        self.nodes[to].admits(peer.id(), delivery.stream);
                        self.books.got(to, &delivery, self.honest);
                    }
                }
                for conn in &mut self.conns {
                    if conn.ends[to].link.is_some() {
                        conn.ends[to].stage = Stage::Closed;
                    }
                }
                self.bury(to, peer);
            }
        }
        let node = &mut self.nodes[to];
        let answered = judged.and_then(|()| node.peer(of).handle_hello(self.now, link, hello));
        match answered {
            Ok(answer) => {
                assert_eq!((answer.to, answer.your_epoch), (Some(of), hello.epoch));
                Some((link, Some(first::encode(&FirstBytes::Answer(Box::new(answer))))))
            }
            Err(reject) => {
                let refusal = first::encode(&FirstBytes::Reject(reject));
                self.conns[which].ends[to].pipe.extend(refusal);
                None
            }
        }
    }

    fn frames(&mut self, which: usize, to: usize) {
        loop {
            let end = &mut self.conns[which].ends[to];
            let (Stage::Frames(reader), Some(link)) = (&mut end.stage, end.link) else { return };
            let frame = reader.next();
            let Some(peer) = &mut self.nodes[to].peer else { return };
            match frame {
                Ok(Some(frame)) => peer.handle_frame(self.now, link, frame),
                Ok(None) => return,
                Err(error) => peer.handle_link_end(self.now, link, LinkEnd::Protocol(error.into())),
            }
            self.take_outputs(to);
        }
    }
}
