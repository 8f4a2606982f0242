//! The dialling side: a peer that meets whatever answers its hello.

use super::*;
use crate::fuzzing::session::{check_balance, intake, types};
use crate::limits::REDIAL_MAX;
use crate::link::{LinkEnd, LinkId};
use crate::member::Views;
use crate::peer::{ContactId, Peer, PeerOutput, Roster};

/// Whom it means.
const MEANT: u64 = 2;
/// Rounds after which an honest answer must have been taken.
const ROUNDS_MAX: usize = 40;

struct Dialler {
    now: Instant,
    peer: Peer,
    /// The dial that is under way, and what was said on it.
    pending: Option<(LinkId, Option<Hello>)>,
    /// As whom the one that is meant was met. One run has one name.
    name: Option<String>,
}

pub(super) fn run(source: &mut Source<'_>) {
    let (now, with) = (now(), process(ME));
    let seat = Roster::new(Views::Agreed).seat(member_id(MEANT));
    let peer = Peer::new(with, member_id(MEANT), intake(), Arc::new(types()), source.u8().into());
    let mut dialler = Dialler { now, peer: peer.with_seat(seat), pending: None, name: None };
    dialler.peer.add_contact(now, ContactId(1), endpoint());
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() || dialler.peer.is_over() {
            break;
        }
        dialler.operate(source);
        dialler.settle();
    }
    if !dialler.peer.is_over() {
        dialler.finish();
    }
    dialler.peer.end(crate::session::Cause::Closed);
    assert!(dialler.peer.session().is_drained());
}

impl Dialler {
    fn operate(&mut self, source: &mut Source<'_>) {
        let operation = source.u8();
        match operation & 7 {
            0 => {
                self.now += pause(source);
                self.peer.handle_timeout(self.now);
            }
            1 => {
                if let Some((link, _)) = &self.pending {
                    self.peer.handle_dial_failed(self.now, *link);
                }
            }
            2 => {
                if let Some(link) = self.peer.live_link() {
                    self.peer.handle_link_end(self.now, link, LinkEnd::End);
                }
            }
            3 => {
                let stray = FirstBytes::Reject(Box::new(reject(source)));
                assert!(!self.peer.handle_reply(self.now, LinkId(u64::MAX), stray), "never dialled");
            }
            _ => {
                self.dial();
                let like = self.expected();
                if let Ok(Some(reply)) = read(&opening(source, &like)) {
                    self.reply(reply);
                }
            }
        }
    }

    /// What the one that is meant would answer.
    fn expected(&self) -> Hello {
        let said = self.pending.as_ref().and_then(|(_, said)| said.as_ref());
        let epoch = self.peer.session().peer_epoch().unwrap_or(Epoch(1));
        let answer = first_hello(&process(MEANT).me, member_id(ME));
        match said {
            Some(said) => Hello {
                epoch,
                your_epoch: said.epoch,
                generation: said.generation,
                attempt: said.attempt,
                ..answer
            },
            None => Hello { epoch, ..answer },
        }
    }

    fn dial(&mut self) {
        if let Some(request) = self.peer.poll_dial(self.now) {
            assert!(self.pending.is_none() && self.peer.live_link().is_none(), "one at a time");
            self.pending = Some((request.link, None));
        }
        if let Some((link, said @ None)) = &mut self.pending {
            let hello = self.peer.handle_connected(self.now, *link).map(|hello| read(&hello));
            let Some(Ok(Some(FirstBytes::Hello(hello)))) = hello else { panic!("{hello:?}") };
            assert_eq!(hello.to, Some(member_id(MEANT)));
            *said = Some(*hello);
        }
    }

    fn reply(&mut self, reply: FirstBytes) {
        let Some((link, Some(said))) = self.pending.take() else { return };
        let adopted = self.peer.handle_reply(self.now, link, reply.clone());
        assert_eq!(adopted, self.peer.live_link() == Some(link));
        if adopted {
            let FirstBytes::Answer(answer) = reply else { panic!("taken for an answer: {reply:?}") };
            assert_eq!((answer.from.id, answer.to), (member_id(MEANT), Some(member_id(ME))));
            let known = answer.your_epoch == said.epoch || answer.your_epoch == Epoch::UNKNOWN;
            assert!(known, "it means another session");
            assert_eq!(self.peer.session().peer_epoch(), Some(answer.epoch));
            let name = self.name.get_or_insert_with(|| answer.from.name.clone());
            assert_eq!(*name, answer.from.name);
        }
    }

    /// What the peer asks of its driver.
    fn settle(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                PeerOutput::Close { link, .. } => {
                    self.pending = self.pending.take().filter(|(pending, _)| *pending != link);
                    assert!(self.peer.live_link() != Some(link), "a link that is closed is not live");
                }
                PeerOutput::Deliver { .. } => panic!("nobody sent anything"),
                _ => {}
            }
        }
        // A dial that failed is told of by nothing else.
        if let Some((link, _)) = &self.pending
            && self.peer.handle_connected(self.now, *link).is_none()
        {
            self.pending = None;
        }
        check_balance(self.peer.session());
        let over = self.peer.is_over() || self.peer.live_link().is_some();
        assert!(over || self.peer.poll_timeout().is_some(), "it waits for nothing");
    }

    /// Who is meant is there from now on, honest, and knows what it is told: they are linked before long.
    fn finish(&mut self) {
        let mut other = process(MEANT);
        let mut introduction = Introduction::clone(&other.me);
        introduction.member.name = self.name.clone().unwrap_or_default();
        other.me = Arc::new(introduction);
        let mut honest = Peer::new(other.clone(), member_id(ME), intake(), Arc::new(types()), 7);
        let until = self.now + REDIAL_MAX * 8;
        for _ in 0..ROUNDS_MAX {
            if let Some(link) = self.peer.live_link() {
                self.peer.handle_link_end(self.now, link, LinkEnd::End);
            }
            self.settle();
            self.dial();
            if let Some((link, Some(said))) = self.pending.take() {
                assert_eq!(other.me.judge(&said), Ok(()));
                let reply = match honest.handle_hello(self.now, other.counters.link(), &said) {
                    Ok(answer) => FirstBytes::Answer(Box::new(answer)),
                    Err(reject) => FirstBytes::Reject(reject),
                };
                if self.peer.handle_reply(self.now, link, reply) {
                    return;
                }
                self.settle();
            }
            assert!(!self.peer.is_over(), "a contact holds it");
            if let Some(next) = self.peer.poll_timeout() {
                self.now = self.now.max(next);
                self.peer.handle_timeout(self.now);
            }
            assert!(self.now < until, "not linked after {:?}", REDIAL_MAX * 8);
        }
        panic!("never linked");
    }
}
