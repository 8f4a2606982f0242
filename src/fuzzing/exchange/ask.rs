//! A search: who is at an address? It believes only who says so, and ends in time.

use super::*;
use crate::limits::{REDIAL_MAX, REDIAL_MIN};
use crate::link::LinkId;
use crate::peer::{Finding, Search};

/// Whom nobody but the honest one at the end claims to be.
const HONEST: u64 = 77;

struct Asker {
    now: Instant,
    with: Surroundings,
    search: Search,
    give_up: Option<Instant>,
    /// The dial that is under way.
    asked: Option<LinkId>,
}

pub(super) fn run(source: &mut Source<'_>) {
    let now = now();
    let patience = match source.u8() {
        0..=127 => None,
        seconds => Some(Duration::from_secs(u64::from(seconds - 127))),
    };
    let with = process(ME);
    let search = Search::new(with.clone(), endpoint(), now, patience, source.u8().into());
    let mut asker = Asker { now, with, search, give_up: patience.map(|after| now + after), asked: None };
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        if asker.operate(source) {
            assert_eq!(asker.search.poll_dial(asker.now + REDIAL_MAX * 4), None, "it is over");
            assert_eq!(asker.search.poll_timeout(), None);
            return;
        }
        asker.check();
    }
    asker.finish();
}

impl Asker {
    /// `true`: it found somebody, or gave up.
    fn operate(&mut self, source: &mut Source<'_>) -> bool {
        let operation = source.u8();
        match operation & 7 {
            0 => {
                self.now += pause(source);
                return self.pass();
            }
            1 | 2 => self.dial(),
            3 => {
                let link = if operation & 8 == 0 { self.asked } else { Some(LinkId(u64::MAX)) };
                if let Some(link) = link {
                    self.search.handle_failed(self.now, link, "refused".to_owned());
                    self.asked = self.asked.filter(|asked| *asked != link);
                }
            }
            4 => {
                let wrong = self.search.handle_connected(self.now, LinkId(u64::MAX));
                assert_eq!(wrong, None, "not asked there");
                self.connect();
            }
            _ => {
                self.connect();
                let like = first_hello(&process(u64::from(operation >> 3) % OTHERS).me, member_id(ME));
                if let Ok(Some(reply)) = read(&opening(source, &like)) {
                    return self.reply(operation & 8 != 0, reply);
                }
            }
        }
        false
    }

    fn dial(&mut self) {
        if let Some(request) = self.search.poll_dial(self.now) {
            assert_eq!(self.asked, None, "one dial at a time");
            assert_eq!(self.search.poll_dial(self.now), None);
            self.asked = Some(request.link);
        }
    }

    fn connect(&mut self) {
        let Some(link) = self.asked else { return };
        let hello = self.search.handle_connected(self.now, link).map(|hello| read(&hello));
        let question = FirstBytes::Hello(Box::new(self.with.me.question()));
        assert_eq!(hello, Some(Ok(Some(question))), "it asks, and says nothing of a session");
    }

    fn reply(&mut self, stray: bool, reply: FirstBytes) -> bool {
        if stray {
            let found = self.search.handle_reply(self.now, LinkId(u64::MAX), reply);
            assert!(found.is_none(), "an answer to what was not asked: {found:?}");
            return false;
        }
        let Some(link) = self.asked.take() else { return false };
        match (self.search.handle_reply(self.now, link, reply.clone()), reply) {
            (Some(Finding::Found(id)), FirstBytes::Reject(reject)) => {
                assert_eq!((reject.code, reject.from), (Code::WrongMember, Some(id)));
                true
            }
            (Some(Finding::Refused(_)), FirstBytes::Reject(reject)) => {
                use Code::{EnvironmentMismatch, Identity, NetworkMismatch, VersionMismatch};
                let for_good = [VersionMismatch, EnvironmentMismatch, NetworkMismatch, Identity];
                assert!(for_good.contains(&reject.code), "{:?} passes", reject.code);
                true
            }
            (None, FirstBytes::Reject(reject)) => {
                assert!(reject.code != Code::WrongMember || reject.from.is_none());
                false
            }
            (None, FirstBytes::Hello(_) | FirstBytes::Answer(_)) => false,
            (found, reply) => panic!("{found:?} from {reply:?}"),
        }
    }

    /// Its timer fires.
    fn pass(&mut self) -> bool {
        let deadline = self.search.poll_timeout();
        match self.search.handle_timeout(self.now) {
            Some(Finding::GaveUp(_)) => {
                assert!(self.give_up.is_some_and(|at| at <= self.now), "too early");
                return true;
            }
            Some(other) => panic!("{other:?} out of nothing"),
            None => assert!(self.give_up.is_none_or(|at| at > self.now), "too late"),
        }
        if self.asked.is_some() && deadline.is_some_and(|at| at <= self.now) {
            self.asked = None;
        }
        false
    }

    /// It never waits for longer than its back-off, its dial or its patience allows.
    fn check(&self) {
        let Some(next) = self.search.poll_timeout() else { panic!("it waits for nothing") };
        let most = REDIAL_MAX.max(self.with.config.connect).max(self.with.config.hello) * 2;
        assert!(next <= self.now + most, "{:?}", next - self.now);
        assert!(self.give_up.is_none_or(|at| next <= at));
        assert!(REDIAL_MIN < REDIAL_MAX);
    }

    /// Somebody honest is there from now on, and is found.
    fn finish(&mut self) {
        let judge = process(HONEST);
        for _ in 0..8 {
            self.dial();
            if let Some(link) = self.asked.take() {
                let Some(hello) = self.search.handle_connected(self.now, link) else { continue };
                let Ok(Some(FirstBytes::Hello(hello))) = read(&hello) else { panic!("a hello") };
                let Err(reject) = judge.me.judge(&hello) else { panic!("it only asks") };
                let found = self.search.handle_reply(self.now, link, FirstBytes::Reject(reject));
                let is_there = matches!(found, Some(Finding::Found(id)) if id == member_id(HONEST));
                assert!(is_there, "{found:?}");
                return;
            }
            let Some(next) = self.search.poll_timeout() else { panic!("it waits for nothing") };
            self.now = self.now.max(next);
            if self.pass() {
                return;
            }
        }
        panic!("never asks again");
    }
}
