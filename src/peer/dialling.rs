//! Dialling: when, where, with what hello, and what the reply means.

use std::time::Instant;

use super::handshake::{Rank, Same, is_for_good};
use super::roster::Standing;
use super::{Dial, DialRequest, Dialling, Peer, PeerEvent, PeerOutput, Place, State};
use crate::link::LinkId;
use crate::member::MemberId;
use crate::session::Cause;
use crate::wire::first::Code;
use crate::wire::{Epoch, FirstBytes, Hello, Reject};

impl Peer {
    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<DialRequest> {
        let due = match self.dialling {
            Dialling::Idle => self.session.wants_link() || matches!(self.state, State::Leaving { .. }),
            Dialling::Waiting(until) => until <= now,
            Dialling::Pending(_) => false,
        };
        if !due || self.live.is_some() || self.state == State::Ended || !self.reasons.may_dial() {
            return None;
        }
        let place = self.reasons.next_place()?;
        self.attempts += 1;
        let link = self.with.counters.link();
        let rank = Rank {
            // A peer may claim any generation.
            generation: self.established.saturating_add(1),
            dialler: self.with.me.member.id,
            attempt: self.attempts,
        };
        let deadline = now + self.with.config.connect;
        self.health.handle_dial(now, self.with.config.connect);
        self.dialling =
            Dialling::Pending(Dial { link, rank, place: place.clone(), deadline, greeted: false });
        Some(DialRequest { link, place })
    }

    pub(super) fn pending(&self, link: LinkId) -> Option<&Dial> {
        match &self.dialling {
            Dialling::Pending(dial) if dial.link == link => Some(dial),
            Dialling::Pending(_) | Dialling::Idle | Dialling::Waiting(_) => None,
        }
    }

    /// The connection stands: what to write on it. `None`: it is not wanted any more.
    pub(crate) fn handle_connected(&mut self, now: Instant, link: LinkId) -> Option<Vec<u8>> {
        let hello = self.hello(self.pending(link)?.rank);
        if let Dialling::Pending(dial) = &mut self.dialling {
            dial.deadline = now + self.with.config.hello;
            dial.greeted = true;
        }
        Some(crate::wire::first::encode(&FirstBytes::Hello(Box::new(hello))))
    }

    pub(super) fn hello(&self, rank: Rank) -> Hello {
        Hello {
            to: Some(self.id),
            epoch: self.session.epoch(),
            your_epoch: self.session.peer_epoch().unwrap_or(Epoch::UNKNOWN),
            generation: rank.generation,
            attempt: rank.attempt,
            streams: self.session.resume_points(),
            credit: self.session.default_credit(),
            message_bytes: self.session.message_bytes(),
            features: self.features(),
            ..self.with.me.question()
        }
    }

    /// The dial came to nothing: refused, unreachable, closed before an answer.
    pub(crate) fn handle_dial_failed(&mut self, now: Instant, link: LinkId) {
        if self.pending(link).is_some() {
            self.redial(now);
        }
    }

    /// The dial ended with something that waiting does not mend, a certificate for another name say: dialling goes on ever
    /// more slowly, because somebody may mend it.
    pub(crate) fn handle_dial_refused(&mut self, now: Instant, link: LinkId, why: String) {
        if self.pending(link).is_some() {
            self.refused(now, why);
        }
    }

    fn refused(&mut self, now: Instant, why: String) {
        tracing::warn!(peer = %format_args!("{:.8}", self.id), "refused: {why}");
        self.backoff.exhaust();
        self.redial(now);
        self.event(PeerEvent::Refused { peer: self.id, why });
    }

    pub(super) fn redial(&mut self, now: Instant) {
        if self.reasons.may_dial() {
            self.health.handle_wanted(now);
        }
        self.dialling = Dialling::Waiting(now + self.backoff.next());
    }

    /// The first bytes that came back on a dial. `true`: the link is adopted; else close it.
    pub(crate) fn handle_reply(&mut self, now: Instant, link: LinkId, reply: FirstBytes) -> bool {
        if self.pending(link).is_none() {
            return false;
        }
        match reply {
            FirstBytes::Answer(answer) => self.handle_answer(now, link, &answer),
            FirstBytes::Reject(reject) => {
                self.handle_reject(now, &reject);
                false
            }
            FirstBytes::Hello(_) => {
                self.redial(now);
                false
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, link: LinkId, answer: &Hello) -> bool {
        let Some(rank) = self.pending(link).map(|dial| dial.rank) else { return false };
        let is_meant = answer.from.id == self.id && answer.to == Some(self.with.me.member.id);
        // Bound to none, no session of the peer would ever be the same one.
        if !is_meant || answer.epoch == Epoch::UNKNOWN {
            self.redial(now);
            return false;
        }
        if let Err(why) = self.check_name(answer) {
            self.refused(now, why);
            return false;
        }
        match self.same(answer) {
            Same::Bind | Same::Resume => {}
            Same::PeerForgot | Same::Unknown | Same::Stale => {
                self.redial(now);
                return false;
            }
        }
        self.joined = answer.from.joined.or(self.joined);
        if self.standing() == Standing::Removed {
            // The caller closes this connection.
            self.dialling = Dialling::Idle;
            self.remove();
            return false;
        }
        if self.live.as_ref().is_some_and(|live| live.rank > rank) {
            self.dialling = Dialling::Idle;
            return false;
        }
        // The dial itself becomes the link: it is not closed with the others.
        self.dialling = Dialling::Idle;
        match self.adopt(now, link, rank, answer) {
            Ok(()) => true,
            Err(error) => {
                self.note_error(now, &error);
                false
            }
        }
    }

    fn handle_reject(&mut self, now: Instant, reject: &Reject) {
        let place = match &self.dialling {
            Dialling::Pending(dial) => dial.place.clone(),
            Dialling::Idle | Dialling::Waiting(_) => return,
        };
        self.redial(now);
        match (reject.code, reject.from) {
            (Code::WrongMember, Some(by)) if by != self.id => self.replaced(&place, by),
            (Code::SessionUnknown, _) => self.session_unknown(now),
            (Code::Removed, _) => self.handle_removed(),
            (Code::Duplicate | Code::NotInView, _) => {
                let wait = self.backoff.jittered(self.with.config.hello);
                self.dialling = Dialling::Waiting(now + wait);
                self.probes.no_dial_before(now + wait);
            }
            (code, _) if is_for_good(code) => self.refused(now, format!("{code:?}: {}", reject.text)),
            _ => {}
        }
    }

    /// Rule 5: a session that only contacts hold ends when another member is found at their address.
    fn replaced(&mut self, place: &Place, by: MemberId) {
        let contacts = self.reasons.remove_contacts_at(place);
        if self.health.note_replaced(by) {
            self.event(PeerEvent::Replaced { old: self.id, new: by });
        }
        self.outputs.push_back(PeerOutput::Replaced { contacts, by });
        self.settle(Cause::SessionLost);
    }

    /// The peer proves that it has lost the session.
    fn session_unknown(&mut self, now: Instant) {
        if matches!(self.state, State::Leaving { .. }) && self.session.is_drained() {
            self.end(Cause::Departed);
        } else if self.session.peer_epoch().is_some() {
            self.restart();
            self.dialling = Dialling::Waiting(now);
        }
        // Otherwise no session was claimed, nothing is lost, and the back-off goes on.
    }

    /// A session with oneself (T38): the link it gets leads back here. `None`: it has one.
    pub(crate) fn adopt_self(&mut self, now: Instant) -> Option<LinkId> {
        if self.live.is_some() || self.id != self.with.me.member.id {
            return None;
        }
        self.reasons.set_oneself();
        let link = self.with.counters.link();
        let rank = Rank { generation: 1, dialler: self.id, attempt: 1 };
        let hello = self.hello(rank);
        self.adopt(now, link, rank, &hello).ok()?;
        Some(link)
    }
}
