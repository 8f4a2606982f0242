//! What the driver of a process does, for both sides of a [`Pair`]: carries bytes, polls, obeys.

use super::super::*;
use super::net::{Conn, Packet, Stage};
use super::pair::{A, B, Pair, STEPS_MAX};
use super::prelude::*;
use crate::wire::{DecodeError, first};

impl Pair {
    /// Polls, and lets happen what happens at this instant.
    pub(super) fn pump(&mut self) {
        self.poll();
        self.arrivals();
        self.poll();
    }

    pub(super) fn arrivals(&mut self) {
        for _ in 0..STEPS_MAX {
            let due = |(at, conn): (usize, &Conn)| conn.next().map(|(when, side)| (when, at, side));
            let next = self.conns.iter().enumerate().filter_map(due).min();
            let Some((_, conn, side)) = next.filter(|(when, ..)| *when <= self.now) else { return };
            if let Some(packet) = self.conns[conn].take(side, self.now) {
                self.arrived(conn, side, packet);
            }
            self.poll();
        }
        panic!("a storm at one instant");
    }

    pub(super) fn poll(&mut self) {
        for _ in 0..STEPS_MAX {
            let now = self.now;
            let mut moved = false;
            for side in [A, B] {
                let ids: Vec<_> = self.sides[side].rooms.keys().copied().collect();
                for of in ids {
                    moved |= self.poll_peer(side, of);
                }
                moved |= self.sides[side].work(now);
            }
            if !moved {
                return self.check();
            }
        }
        panic!("polling never ends");
    }

    fn poll_peer(&mut self, side: usize, of: MemberId) -> bool {
        let now = self.now;
        let Some(room) = self.sides[side].rooms.get_mut(&of) else { return false };
        if let Some(output) = room.peer.poll_output() {
            self.output(side, of, output);
            return true;
        }
        if let Some(dial) = room.peer.poll_dial(now) {
            let door = self.net.doors[1 - side];
            let arrives = now + self.net.delays[side];
            let mut conn = Conn::dialled(side, door, arrives, self.net.fates.pop_front().flatten());
            conn.ends[side].link = Some((of, dial.link));
            self.conns.push(conn);
            self.sides[side].dials.push(now);
            return true;
        }
        let mut out = Transmit::default();
        room.peer.poll_transmit(now, &mut out);
        if !out.is_empty() {
            room.peer.handle_written(now, true, false);
            let link = room.peer.live_link().expect("only a live link is written to");
            let conn = self.conn_of(side, (of, link)).expect("a live link has a connection");
            self.write(conn, side, out.parts.concat());
            return true;
        }
        if let Some(output) = room.peer.poll_output() {
            self.output(side, of, output);
            return true;
        }
        if room.peer.is_over() {
            if let Some(why) = room.peer.gone() {
                self.sides[side].roster.note_gone(of, why);
            }
            let room = &self.sides[side].rooms[&of];
            let (_, pending) = room.peer.session().queued_and_pending();
            assert_eq!(pending, 0, "nothing is forgotten with its peer");
            self.sides[side].rooms.remove(&of);
        }
        false
    }

    fn output(&mut self, side: usize, of: MemberId, output: PeerOutput) {
        match output {
            PeerOutput::Deliver { epoch, delivery } => self.deliver(side, of, epoch, &delivery),
            PeerOutput::Datagram(datagram) => self.sides[side].datagrams.push(datagram),
            PeerOutput::Answered(answered) => self.sides[side].answered.push(answered),
            PeerOutput::Reserve { epoch, stream, .. } => {
                self.sides[side].room(of).asked.push_back((epoch, stream));
            }
            PeerOutput::Close { link, farewell } => {
                let conn = self.conn_of(side, (of, link)).expect("it is closed once");
                if let Some(farewell) = farewell {
                    let mut reader = crate::link::FrameReader::default();
                    reader.buffer().extend_from_slice(&farewell);
                    self.sides[side].farewells.push(reader.next().unwrap().unwrap());
                    self.write(conn, side, farewell.to_vec());
                }
                self.close(conn, side);
            }
            PeerOutput::SessionOver(over) => self.sides[side].overs.push(over.cause),
            PeerOutput::Replaced { contacts, by } => self.sides[side].replaced.push((contacts, by)),
            PeerOutput::Event(event) => self.sides[side].events.push(event),
        }
    }

    pub(super) fn deliver(&mut self, side: usize, from: MemberId, epoch: Epoch, delivery: &Delivery) {
        let before = self.sides[side].came.len();
        self.sides[side].deliver(from, epoch, delivery);
        let to = self.id(side);
        for came in &self.sides[side].came[before..] {
            let message = &mut self.messages[came.tag as usize - 1];
            assert_eq!((message.from, message.to), (from, to), "{} was meant for another process", came.tag);
            message.times += 1;
            assert_eq!(message.times, 1, "{} came twice", came.tag);
        }
    }

    fn conn_of(&self, side: usize, link: (MemberId, LinkId)) -> Option<usize> {
        let is = |conn: &Conn| conn.ends[side].stage != Stage::Closed && conn.ends[side].link == Some(link);
        self.conns.iter().position(is)
    }

    fn write(&mut self, conn: usize, side: usize, bytes: Vec<u8>) {
        let arrives = self.now + self.net.delays[side];
        self.conns[conn].write(side, bytes, arrives);
    }

    fn close(&mut self, conn: usize, side: usize) {
        let arrives = self.now + self.net.delays[side];
        self.conns[conn].close(side, arrives);
    }

    fn arrived(&mut self, conn: usize, side: usize, packet: Packet) {
        let now = self.now;
        let end = &mut self.conns[conn].ends[side];
        let link = end.link;
        match packet {
            Packet::Connected => {
                let Some((of, link)) = link else { unreachable!("a dialler has a link") };
                end.stage = Stage::Greeting;
                match self.sides[side].room(of).peer.handle_connected(now, link) {
                    Some(hello) => self.write(conn, side, hello),
                    None => self.close(conn, side),
                }
            }
            Packet::Refused => {
                self.close(conn, side);
                if let Some((of, link)) = link {
                    self.sides[side].room(of).peer.handle_dial_failed(now, link);
                }
            }
            Packet::End => {
                if let Some((of, link)) = link {
                    self.sides[side].room(of).peer.handle_link_end(now, link, LinkEnd::End);
                    while self.poll_peer(side, of) {}
                }
                self.close(conn, side);
            }
            Packet::Bytes(bytes) => self.bytes(conn, side, &bytes),
        }
    }

    fn bytes(&mut self, conn: usize, side: usize, bytes: &[u8]) {
        let end = &mut self.conns[conn].ends[side];
        match end.stage {
            Stage::Live => end.reader.buffer().extend_from_slice(bytes),
            Stage::Greeting | Stage::Asked => {
                end.first.extend_from_slice(bytes);
                let length = match first::length(&end.first) {
                    Ok(Some(length)) if end.first.len() >= length => length,
                    Ok(_) => return,
                    Err(error) => return self.not_karere(conn, side, error),
                };
                let rest = end.first.split_off(length);
                end.reader.buffer().extend_from_slice(&rest);
                match first::decode(&end.first) {
                    Ok(first) => self.first_bytes(conn, side, first),
                    Err(error) => return self.not_karere(conn, side, error),
                }
            }
            Stage::Connecting | Stage::Closed => unreachable!("nothing is read there"),
        }
        self.frames(conn, side);
    }

    fn not_karere(&mut self, conn: usize, side: usize, error: DecodeError) {
        if let Some((of, link)) = self.conns[conn].ends[side].link {
            let end = LinkEnd::Protocol(error.into());
            self.sides[side].room(of).peer.handle_link_end(self.now, link, end);
        }
        self.close(conn, side);
    }

    fn first_bytes(&mut self, conn: usize, side: usize, first: FirstBytes) {
        let now = self.now;
        let end = &mut self.conns[conn].ends[side];
        if end.stage == Stage::Greeting {
            let Some((of, link)) = end.link else { unreachable!("a dialler has a link") };
            end.stage = Stage::Live;
            if !self.sides[side].room(of).peer.handle_reply(now, link, first) {
                self.close(conn, side);
            }
            return;
        }
        let FirstBytes::Hello(hello) = first else { panic!("an acceptor hears a hello") };
        let with = self.sides[side].with.clone();
        let answer = with.me.judge(&hello).and_then(|()| {
            let link = with.counters.link();
            let end = &mut self.conns[conn].ends[side];
            end.link = Some((hello.from.id, link));
            end.stage = Stage::Live;
            self.sides[side].room(hello.from.id).peer.handle_hello(now, link, &hello)
        });
        match answer {
            Ok(answer) => self.write(conn, side, first::encode(&FirstBytes::Answer(Box::new(answer)))),
            Err(reject) => {
                self.write(conn, side, first::encode(&FirstBytes::Reject(reject)));
                self.close(conn, side);
            }
        }
    }

    fn frames(&mut self, conn: usize, side: usize) {
        let now = self.now;
        self.poll();
        let end = &mut self.conns[conn].ends[side];
        let (Stage::Live, Some((of, link))) = (&end.stage, end.link) else { return };
        let Some(room) = self.sides[side].rooms.get_mut(&of) else { return };
        if room.peer.is_live(link) {
            room.peer.handle_heard(now);
        }
        loop {
            match end.reader.next() {
                Ok(Some(frame)) => room.peer.handle_frame(now, link, frame),
                Ok(None) => return,
                Err(error) => return room.peer.handle_link_end(now, link, LinkEnd::Protocol(error.into())),
            }
        }
    }
}
