//! Accepting: which hello becomes the link, and what closes before it does. Rules 4, 9 and 10 of docs/PROTOCOL.md.

use std::time::Instant;

use super::handshake::{Introduction, Rank, Same};
use super::idle::Usage;
use super::roster::Standing;
use super::{Dialling, Live, Peer, PeerEvent, PeerOutput, State};
use crate::link::{Link, LinkConfig, LinkEnd, LinkId};
use crate::session::ProtocolError;
use crate::wire::first::Code;
use crate::wire::{Epoch, Hello, Reject, Seq};

impl Peer {
    /// A hello that means this process. `Ok`: the link is adopted, write the answer; `Err`: write the refusal.
    pub(crate) fn handle_hello(
        &mut self,
        now: Instant,
        link: LinkId,
        hello: &Hello,
    ) -> Result<Hello, Box<Reject>> {
        let refuse = |me: &Introduction, code, text: &str| Err(Box::new(me.reject(code, text)));
        self.joined = hello.from.joined.or(self.joined);
        if self.standing() == Standing::Removed {
            self.remove();
            return Err(self.removal());
        }
        if self.state == State::Ended {
            return refuse(&self.with.me, Code::SessionUnknown, "the session has ended here");
        }
        // Before the epochs are believed: nobody ends another's session by knowing its id.
        if let Err(why) = self.check_name(hello) {
            return refuse(&self.with.me, Code::Identity, &why);
        }
        if hello.epoch == Epoch::UNKNOWN {
            return refuse(&self.with.me, Code::Malformed, "epochs begin at 1");
        }
        match self.same(hello) {
            Same::Unknown => return refuse(&self.with.me, Code::SessionUnknown, "no such session"),
            Same::Stale => return refuse(&self.with.me, Code::Stale, "the session has ended there"),
            Same::PeerForgot if hello.streams.iter().any(|point| point.next_expected > Seq(1)) => {
                let text = "who begins anew has received nothing";
                return refuse(&self.with.me, Code::Malformed, text);
            }
            Same::PeerForgot if self.state == State::Left => {
                self.depart(None);
                return refuse(&self.with.me, Code::SessionUnknown, "the session has ended here");
            }
            Same::PeerForgot => self.restart(),
            Same::Bind | Same::Resume => {}
        }
        let rank = Rank::of(hello);
        let outranked = match (&self.live, &self.dialling) {
            (Some(live), _) => live.rank >= rank,
            (None, Dialling::Pending(dial)) => dial.greeted && dial.rank > rank,
            (None, Dialling::Idle | Dialling::Waiting(_)) => false,
        };
        if outranked {
            if let Some(live) = &mut self.live {
                // If that link is dead, this finds out sooner.
                live.link.ping_now();
            }
            return refuse(&self.with.me, Code::Duplicate, "another link has precedence");
        }
        if let Err(error) = self.session.check_resume(&hello.streams) {
            // Nothing is closed for a claim that cannot be: neither a live link nor a pending dial.
            if self.live.is_none() {
                self.note_error(now, &error);
            }
            return refuse(&self.with.me, Code::Malformed, &error.to_string());
        }
        match self.adopt(now, link, rank, hello) {
            Ok(()) => {
                self.reasons.set_peer_dialled();
                Ok(self.hello(rank))
            }
            Err(error) => {
                self.note_error(now, &error);
                refuse(&self.with.me, Code::Malformed, &error.to_string())
            }
        }
    }

    /// One run has one name: who comes with another is somebody else, with a certificate of his own perhaps.
    pub(super) fn check_name(&self, hello: &Hello) -> Result<(), String> {
        match &self.name {
            Some(known) if *known != hello.from.name => {
                let (id, name) = (self.id, &hello.from.name);
                Err(format!("{id:.8} was met as `{known}` and now says it is `{name}`"))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn same(&self, hello: &Hello) -> Same {
        Same::judge(self.session.epoch(), self.session.peer_epoch(), hello.epoch, hello.your_epoch)
    }

    /// Rule 10: every other link and dial of this peer closes first, so that what the hello then says is exact.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        link: LinkId,
        rank: Rank,
        hello: &Hello,
    ) -> Result<(), ProtocolError> {
        self.close_live(now, LinkEnd::Superseded, Some(Code::Superseded));
        if let Dialling::Pending(dial) = std::mem::replace(&mut self.dialling, Dialling::Idle) {
            self.outputs.push_back(PeerOutput::Close { link: dial.link, farewell: None });
        }
        if let Err(error) = self.session.handle_link_up(&hello.streams, hello.credit) {
            self.session.handle_link_down();
            return Err(error);
        }
        self.set_gate(now)?;
        self.session.bind(hello.epoch);
        self.name.get_or_insert_with(|| hello.from.name.clone());
        self.session.set_peer_message_bytes(hello.message_bytes);
        self.reasons.end_lease();
        if rank.generation > self.established {
            self.established = rank.generation;
            self.attempts = 0;
        }
        self.links += 1;
        self.health.handle_not_wanted();
        self.note_progress();
        let oneself = self.id == self.with.me.member.id;
        let times = if oneself { LinkConfig::WITHIN } else { self.with.config.link };
        let link = Link::new(link, times, now);
        self.live =
            Some(Live { link, rank, types_heard: false, usage: Usage::new(now, hello), parting: false });
        if self.state == State::Open {
            self.datagrams.link_up();
        }
        self.control.clear();
        self.control.push_back(self.encode(&self.types_frame()));
        self.say_joined();
        if let State::Leaving { said } = &mut self.state {
            *said = false;
        }
        self.event(PeerEvent::Connected { peer: self.id });
        Ok(())
    }
}
