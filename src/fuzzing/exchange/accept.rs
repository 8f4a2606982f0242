//! The accepting side: judge, admission, and the peer that adopts the link or refuses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::fuzzing::session::{check_balance, intake, types};
use crate::limits::STREAMS_MAX;
use crate::link::{LinkEnd, LinkId};
use crate::member::{Member, View, Views};
use crate::peer::{Peer, PeerOutput, Roster, Standing};

/// Who was met, as the driver would keep them.
struct Process {
    now: Instant,
    with: Surroundings,
    roster: Roster,
    /// Ids are few, so this is bounded.
    peers: BTreeMap<MemberId, Peer>,
}

pub(super) fn run(source: &mut Source<'_>) {
    let views = if source.u8() & 1 == 0 { Views::Agreed } else { Views::Local };
    let mut process =
        Process { now: now(), with: process(ME), roster: Roster::new(views), peers: BTreeMap::new() };
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        process.operate(source);
        process.peers.values().for_each(|peer| check_balance(peer.session()));
    }
    // Whatever was said: somebody new who is honest is taken in.
    let honest = super::process(OTHERS + 20);
    let hello = first_hello(&honest.me, member_id(ME));
    let reply = process.meet(&written(FirstBytes::Hello(Box::new(hello))));
    assert!(matches!(reply, Some(FirstBytes::Answer(_))), "{reply:?}");
    let question = written(FirstBytes::Hello(Box::new(honest.me.question())));
    let Some(FirstBytes::Reject(reject)) = process.meet(&question) else { panic!("a question is answered") };
    assert_eq!((reject.code, reject.from), (Code::WrongMember, Some(member_id(ME))));
}

impl Process {
    fn operate(&mut self, source: &mut Source<'_>) {
        let operation = source.u8();
        match operation & 7 {
            0 => self.install(source),
            1 => {
                self.now += pause(source);
                self.peers.values_mut().for_each(|peer| peer.handle_timeout(self.now));
            }
            2 => {
                let id = member_id(u64::from(operation >> 3) % OTHERS);
                if let Some(peer) = self.peers.get_mut(&id)
                    && let Some(link) = peer.live_link()
                {
                    peer.handle_link_end(self.now, link, LinkEnd::End);
                }
            }
            _ => {
                let number = u64::from(operation >> 3) % OTHERS;
                let said = opening(source, &self.expected(number));
                self.meet(&said);
            }
        }
        self.tidy();
    }

    /// What this one would say if it were honest and remembered the session.
    fn expected(&self, number: u64) -> Hello {
        let id = member_id(number);
        let hello = first_hello(&super::process(number).me, self.with.me.member.id);
        match self.peers.get(&id) {
            None => hello,
            Some(peer) => Hello {
                epoch: peer.session().peer_epoch().unwrap_or(Epoch(1)),
                your_epoch: peer.session().epoch(),
                generation: 2,
                ..hello
            },
        }
    }

    /// The next view: this member, and those of the others whose bit is set.
    fn install(&mut self, source: &mut Source<'_>) {
        let number = self.roster.view().map_or(1, |view| view.id().number + 1);
        let id = ViewId { generation: 1, number };
        let who = source.u8();
        let others = (0..OTHERS).filter(|other| who >> other & 1 != 0).map(member_id);
        let located = |id| Member { endpoints: vec![endpoint()], ..member(id) };
        let me = self.with.me.member.id;
        let view = View::new(id, others.chain([me]).map(located));
        let change = self.roster.install(me, view);
        assert!(change.is_ok(), "{change:?}");
        let mut introduction = Introduction::clone(&self.with.me);
        introduction.member.joined.get_or_insert(id);
        introduction.view = Some(id);
        self.with.me = Arc::new(introduction);
        for (of, peer) in &mut self.peers {
            peer.handle_view(self.now, Arc::clone(&self.with.me), self.roster.seat(*of));
        }
    }

    /// Forgets who has ended, as the driver does.
    fn tidy(&mut self) {
        for peer in self.peers.values_mut() {
            while let Some(output) = peer.poll_output() {
                assert!(!matches!(output, PeerOutput::Deliver { .. }), "nobody sent anything");
            }
        }
        for (_, mut peer) in self.peers.extract_if(.., |_, peer| peer.is_over()) {
            if let Some(why) = peer.gone() {
                self.roster.note_gone(peer.id(), why);
            }
            peer.end(crate::session::Cause::Closed);
            assert!(peer.session().is_drained());
        }
    }

    /// What comes back to the first bytes of a connection, as the driver would have it.
    fn meet(&mut self, said: &[u8]) -> Option<FirstBytes> {
        let me = Arc::clone(&self.with.me);
        let reply = match read(said) {
            Ok(Some(FirstBytes::Hello(hello))) => match self.judge(&hello) {
                Ok(()) => self.greet(&hello),
                Err(reject) => FirstBytes::Reject(reject),
            },
            Ok(Some(FirstBytes::Answer(_) | FirstBytes::Reject(_)) | None) => return None,
            Err(DecodeError::Version { found }) => {
                assert_eq!(VERSIONS.agree(found), None);
                FirstBytes::Reject(me.reject_version(found))
            }
            Err(error) => FirstBytes::Reject(Box::new(me.reject(Code::Malformed, error.to_string()))),
        };
        if let FirstBytes::Reject(reject) = &reply {
            assert_eq!(reject.from, Some(me.member.id), "every refusal says who refuses");
        }
        written(reply.clone());
        Some(reply)
    }

    /// What the judge says is what the rules say.
    fn judge(&self, hello: &Hello) -> Result<(), Box<Reject>> {
        let me = &self.with.me;
        let judged = me.judge(hello);
        let network = hello.network.as_ref().is_none_or(|network| *network == me.network);
        let code = match judged.as_ref().map_err(|reject| reject.code) {
            Err(Code::VersionMismatch) => return judged,
            Err(Code::EnvironmentMismatch) => hello.environment != me.environment,
            Err(Code::NetworkMismatch) => hello.environment == me.environment && !network,
            Err(Code::WrongMember) => hello.to != Some(me.member.id),
            Err(code) => panic!("{code:?}"),
            Ok(()) => hello.to == Some(me.member.id) && hello.environment == me.environment && network,
        };
        assert!(code, "{hello:?}: {judged:?}");
        judged
    }

    /// A hello that means this process.
    fn greet(&mut self, hello: &Hello) -> FirstBytes {
        let of = hello.from.id;
        let seat = self.roster.seat(of);
        let removed = seat.judge(hello.from.joined) == Standing::Removed;
        if of == self.with.me.member.id || (removed && !self.peers.contains_key(&of)) {
            return FirstBytes::Reject(Box::new(seat.refusal(&self.with.me)));
        }
        let link = self.with.counters.link();
        let peer = self.peers.entry(of).or_insert_with(|| {
            Peer::new(self.with.clone(), of, intake(), Arc::new(types()), 7).with_seat(seat)
        });
        let before = (peer.session().epoch(), peer.live_link());
        let answered = peer.handle_hello(self.now, link, hello);
        check(peer, before, link, hello, &answered);
        assert!(!removed || answered.is_err(), "{of} was removed");
        match answered {
            Ok(answer) => FirstBytes::Answer(Box::new(answer)),
            Err(reject) => FirstBytes::Reject(reject),
        }
    }
}

/// Rules 4, 9 and 10: who is taken in, and what a refusal leaves as it was.
fn check(
    peer: &Peer,
    (epoch, live): (Epoch, Option<LinkId>),
    link: LinkId,
    hello: &Hello,
    answered: &Result<Hello, Box<Reject>>,
) {
    let session = peer.session();
    assert!(session.epoch() >= epoch, "epochs only grow");
    assert!(session.resume_points().len() <= STREAMS_MAX);
    let knows = hello.your_epoch == Epoch::UNKNOWN || hello.your_epoch == epoch;
    match answered {
        Ok(answer) => {
            assert_eq!(peer.live_link(), Some(link), "the link is adopted");
            assert!(knows, "it means a session that is not here");
            assert_eq!(session.peer_epoch(), Some(hello.epoch));
            assert_eq!((answer.to, answer.your_epoch), (Some(hello.from.id), hello.epoch));
            assert_eq!(answer.epoch, session.epoch());
            assert_eq!((answer.generation, answer.attempt), (hello.generation, hello.attempt));
        }
        Err(reject) => {
            assert!(peer.live_link() != Some(link), "a refused link is not adopted");
            let may_close = reject.code == Code::Removed || session.epoch() > epoch;
            assert!(may_close || peer.live_link() == live, "{:?} closed a link", reject.code);
            match reject.code {
                Code::SessionUnknown => assert!(!knows || peer.has_ended()),
                Code::Duplicate => assert!(live.is_some(), "with none live any is taken"),
                Code::Stale => assert!(session.peer_epoch() > Some(hello.epoch)),
                Code::Removed => assert!(peer.has_ended()),
                Code::Malformed | Code::Identity | Code::Closing => {}
                code => panic!("{code:?}: {}", reject.text),
            }
        }
    }
}
