//! One peer, and whatever a test writes to it in the name of the other.

use std::time::{Duration, Instant};

use super::super::*;
use super::prelude::*;
use super::side::{CREDIT, fallback, intake, push, surroundings};
use crate::session::Receipt;
use crate::wire::{StreamResume, first};

/// See the module's text.
pub(super) struct Solo {
    pub(super) now: Instant,
    pub(super) peer: Peer,
    pub(super) with: Surroundings,
    them: Introduction,
    pub(super) outputs: Vec<PeerOutput>,
    tags: u32,
}

impl Solo {
    /// Our id is lower than the other's.
    pub(super) fn new() -> Self {
        let with = surroundings(MemberId::from_parts(1, 1), CREDIT);
        let them = surroundings(MemberId::from_parts(2, 2), CREDIT).me;
        let types = Arc::new(vec![fallback()]);
        let peer = Peer::new(with.clone(), them.member.id, intake(), types, 5);
        let them = Introduction::clone(&them);
        Self { now: Instant::now(), peer, with, them, outputs: Vec::new(), tags: 0 }
    }

    pub(super) fn contact() -> Self {
        let mut solo = Self::new();
        let endpoint: Endpoint = "10.0.0.1:7400".parse().unwrap();
        solo.peer.add_contact(solo.now, ContactId(1), endpoint);
        solo
    }

    pub(super) fn reject(&self, code: Code) -> FirstBytes {
        FirstBytes::Reject(Box::new(self.them.reject(code, "")))
    }

    /// What the other would say; `your_epoch` 0 means that it knows of no session.
    pub(super) fn hello(&self, rank: (u64, u64), epoch: u64, your_epoch: u64) -> Hello {
        Hello {
            to: Some(self.with.me.member.id),
            generation: rank.0,
            attempt: rank.1,
            epoch: Epoch(epoch),
            your_epoch: Epoch(your_epoch),
            credit: CREDIT,
            message_bytes: u64::MAX,
            ..self.them.question()
        }
    }

    pub(super) fn expecting(&self, hello: Hello, stream: StreamId, next_expected: u64) -> Hello {
        let point = StreamResume { stream, next_expected: crate::wire::Seq(next_expected), credit: CREDIT };
        Hello { streams: vec![point], ..hello }
    }

    pub(super) fn take_outputs(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            self.outputs.push(output);
        }
    }

    /// The other dials.
    pub(super) fn accept(&mut self, hello: &Hello) -> Result<(LinkId, Hello), Box<Reject>> {
        let link = self.with.counters.link();
        let answer = self.peer.handle_hello(self.now, link, hello);
        self.take_outputs();
        answer.map(|answer| (link, answer))
    }

    /// This side dials, as soon as it wants to within `limit`: the hello it says.
    pub(super) fn dial_within(&mut self, limit: Duration) -> Option<(LinkId, Hello)> {
        let until = self.now + limit;
        loop {
            self.take_outputs();
            if let Some(dial) = self.peer.poll_dial(self.now) {
                let bytes = self.peer.handle_connected(self.now, dial.link)?;
                let Ok(FirstBytes::Hello(hello)) = first::decode(&bytes) else { panic!("no hello") };
                return Some((dial.link, *hello));
            }
            self.now = self.now.max(self.peer.poll_timeout().filter(|at| *at <= until)?);
            self.peer.handle_timeout(self.now);
        }
    }

    pub(super) fn dial(&mut self) -> (LinkId, Hello) {
        self.dial_within(Duration::from_secs(20)).expect("it dials")
    }

    pub(super) fn reply(&mut self, link: LinkId, reply: FirstBytes) -> bool {
        let adopted = self.peer.handle_reply(self.now, link, reply);
        self.take_outputs();
        adopted
    }

    /// This side dials and the other answers, in its first session; the link.
    pub(super) fn link(&mut self) -> LinkId {
        let (link, hello) = self.dial();
        let answer = self.hello((hello.generation, hello.attempt), 1, hello.epoch.0);
        assert!(self.reply(link, FirstBytes::Answer(Box::new(answer))));
        link
    }

    /// The other understands everything.
    pub(super) fn types(&mut self, link: LinkId) {
        self.frame(link, Frame::Types(vec![fallback()]));
    }

    pub(super) fn frame(&mut self, link: LinkId, frame: Frame) {
        self.peer.handle_frame(self.now, link, frame);
        self.take_outputs();
    }

    pub(super) fn send(&mut self) -> Receipt {
        self.tags += 1;
        push(self.peer.session().intake(), super::side::NORMAL, self.tags, 10).unwrap()
    }

    /// The frames it writes now.
    pub(super) fn write(&mut self) -> Vec<Frame> {
        let mut out = Transmit::default();
        self.peer.poll_transmit(self.now, &mut out);
        self.take_outputs();
        let mut reader = crate::link::FrameReader::default();
        reader.buffer().extend_from_slice(&out.parts.concat());
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.peer.handle_timeout(self.now);
        self.take_outputs();
    }

    pub(super) fn closed(&self) -> Vec<LinkId> {
        let close = |output: &PeerOutput| match output {
            PeerOutput::Close { link, .. } => Some(*link),
            _ => None,
        };
        self.outputs.iter().filter_map(close).collect()
    }

    pub(super) fn events(&self) -> Vec<PeerEvent> {
        let event = |output: &PeerOutput| match output {
            PeerOutput::Event(event) => Some(event.clone()),
            _ => None,
        };
        self.outputs.iter().filter_map(event).collect()
    }
}
