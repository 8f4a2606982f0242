//! What travels between nodes, and what is lost on its way. Strangers, who say anything.

use std::collections::{BTreeSet, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use super::super::super::envelope::{Control, FlowHead, ReplyHead, decode, encode};
use super::super::Output;
use super::{Blob, NODES, Run, Side, member};
use crate::{Cause, Lost, MemberId};

/// As it travels.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Flow(u64, Bytes),
    Reply(Bytes),
    Control(Bytes),
}

impl Run {
    pub(super) fn perform(&mut self, at: MemberId) {
        loop {
            let mut outputs = VecDeque::new();
            let Some(side) = self.sides.get_mut(&at) else { return };
            side.core.swap_outputs(&mut outputs);
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.carry(at, output));
        }
    }

    fn carry(&mut self, at: MemberId, output: Output<Blob, u32>) {
        let now = self.now;
        let Some(Side { core, .. }) = self.sides.get_mut(&at) else { return };
        let (to, packet) = match output {
            Output::Send { to, head, body } => {
                let bytes = encode(&head, &body.0).unwrap_or_default();
                let read = decode::<FlowHead>(&bytes).ok();
                assert_eq!(read, Some((head, body.0)), "it is read as it was written");
                let number = read.map_or(0, |(head, _)| head.number);
                (to, Packet::Flow(number, bytes))
            }
            Output::Reply { to, head, body, job } => {
                let known = to != at && (1..=NODES).any(|one| member(one) == to);
                if !known {
                    return core.handle_unknown_caller(now, to, head, body, job);
                }
                job.into_iter().for_each(|job| core.placed(now, job));
                let body = body.map(|body| body.0).unwrap_or_default();
                (to, Packet::Reply(encode(&head, &body).unwrap_or_default()))
            }
            Output::Control { to, control } => (to, said(&control)),
            Output::News { to } => match core.take_news(to) {
                Some(news) => (to, said(&news)),
                None => return,
            },
            Output::Resolve { token, answer } => {
                assert!(self.open.remove(&token), "{token} ends twice");
                if let (Ok((_, body)), false) = (&answer.outcome, self.hostile) {
                    let of = body.tag().and_then(|tag| self.messages.get(&tag));
                    assert_eq!(of.and_then(|of| of.token), Some(token), "an answer of another flow");
                }
                return;
            }
            Output::Settle { node } => return self.settle(at, node),
            Output::Wake(_) | Output::Told { .. } | Output::Announce | Output::Dead { .. } => return,
        };
        if self.sides.contains_key(&to) {
            self.ways.entry((at, to)).or_default().push_back(packet);
        }
    }

    /// What a node that is gone had: what had not left certainly did not arrive.
    fn settle(&mut self, at: MemberId, node: MemberId) {
        let sent = self.sides.get(&at).map(|side| side.core.sent_to(node)).unwrap_or_default();
        let way = self.ways.entry((at, node)).or_default();
        let waiting: BTreeSet<u64> = way.iter().filter_map(Packet::number).collect();
        way.retain(|packet| packet.number().is_none_or(|number| !sent.contains(&number)));
        for number in sent {
            let gone = Cause::Departed;
            let lost =
                if waiting.contains(&number) { Lost::NotSent(gone) } else { Lost::Indeterminate(gone) };
            let now = self.now;
            self.sides
                .get_mut(&at)
                .into_iter()
                .for_each(|side| side.core.handle_lost(now, node, number, lost));
        }
    }

    pub(super) fn deliver(&mut self, from: MemberId, to: MemberId) {
        if let Some(packet) = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            self.give(from, to, &packet);
        }
    }

    fn give(&mut self, from: MemberId, to: MemberId, packet: &Packet) {
        let sound = match packet {
            Packet::Flow(_, bytes) => decode::<FlowHead>(bytes).map(|(head, body)| {
                self.act(to, |core, now| core.handle_flow(now, from, head, Blob(body)));
            }),
            Packet::Reply(bytes) => decode::<ReplyHead>(bytes).map(|(head, body)| {
                self.act(to, |core, _| core.handle_reply(head, Some(Blob(body))));
            }),
            Packet::Control(bytes) => decode::<Control>(bytes).map(|(control, _)| {
                self.act(to, |core, now| core.handle_control(now, from, control));
            }),
        };
        assert!(sound.is_ok() || self.hostile, "an honest word cannot be read");
    }

    /// The session of two is lost, and all on its way with it; each is told.
    pub(super) fn lose(&mut self, at: MemberId) {
        let other = self.node();
        if at == other {
            return;
        }
        for (one, with) in [(at, other), (other, at)] {
            self.settle(one, with);
            self.perform(one);
            self.ways.remove(&(one, with));
        }
        for (one, with) in [(at, other), (other, at)] {
            self.act(one, |core, _| core.handle_session_lost(with));
        }
    }

    /// Any bytes, or what is on its way with some bytes changed.
    pub(super) fn stranger(&mut self, at: MemberId) {
        let (from, what) = (self.anybody(), self.u8());
        let known = self.ways.get(&(from, at)).and_then(VecDeque::front).cloned();
        let mut bytes = match (what & 3, known) {
            (0, _) | (_, None) => BytesMut::new(),
            (_, Some(Packet::Flow(_, bytes) | Packet::Reply(bytes) | Packet::Control(bytes))) => bytes.into(),
        };
        if bytes.is_empty() {
            let length = usize::from(self.u8()).min(self.source.len());
            bytes.put(self.source.split_to(length));
        }
        for _ in 0..what >> 6 {
            let (place, byte) = (usize::from(self.u8()), self.u8());
            let length = bytes.len().max(1);
            bytes.get_mut(place % length).into_iter().for_each(|place| *place = byte);
        }
        let bytes = bytes.freeze();
        let packet = match what >> 2 & 3 {
            0 | 1 => Packet::Flow(0, bytes),
            2 => Packet::Reply(bytes),
            _ => Packet::Control(bytes),
        };
        self.give(from, at, &packet);
    }
}

impl Packet {
    const fn number(&self) -> Option<u64> {
        match self {
            Self::Flow(number, _) => Some(*number),
            Self::Reply(_) | Self::Control(_) => None,
        }
    }
}

fn said(control: &Control) -> Packet {
    let bytes = encode(control, &[]).unwrap_or_default();
    let read = decode::<Control>(&bytes).ok();
    assert_eq!(read.map(|(read, _)| read).as_ref(), Some(control), "it is read as it was written");
    Packet::Control(bytes)
}
