//! The end of a session: in order with a goodbye, at once, or to begin anew. Rules 5-7, 14, 16 and 20 of docs/PROTOCOL.md.

use bytes::Bytes;

use super::{Dialling, Gone, Peer, PeerEvent, PeerOutput, SessionOver, State};
use crate::session::{Cause, Transmit};
use crate::wire::Frame;
use crate::wire::first::Code;

impl Peer {
    /// Refuses new messages, drains, says goodbye; `is_over` when it was confirmed.
    pub(crate) fn leave(&mut self) {
        if self.state == State::Open {
            self.session.intake().lock().close(Cause::Closed);
            self.datagrams.take_no_more();
            self.state = State::Leaving { said: false };
            self.advance_leave();
        }
    }

    pub(super) fn advance_leave(&mut self) {
        let drains = matches!(self.state, State::Leaving { said: false } | State::Left);
        if !drains || !self.session.is_drained() {
            return;
        }
        if self.live.as_ref().is_some_and(|live| live.parting) {
            self.confirm_goodbye();
            return;
        }
        if self.state == State::Left {
            // On this link it has not said it yet.
            return;
        }
        let never_met = self.session.peer_epoch().is_none();
        let nobody_dials = self.live.is_none() && self.reasons.is_passive();
        if never_met || nobody_dials {
            self.finish(Cause::Closed, None);
        }
    }

    /// The peer has said goodbye: it has drained, and sends nothing more. It still acknowledges, until it is confirmed. So what
    /// was written to it is waited for; what was not ends, but by one who leaves too, which drains. Otherwise nobody would know
    /// what became of messages that crossed the goodbye.
    pub(super) fn handle_goodbye(&mut self) {
        if self.state == State::Open {
            self.session.wind_down(Cause::Departed);
            self.datagrams.take_no_more();
            self.state = State::Left;
        }
        match &mut self.live {
            Some(live) if !self.session.is_drained() => live.parting = true,
            Some(_) | None => self.confirm_goodbye(),
        }
    }

    fn confirm_goodbye(&mut self) {
        let confirmed = Frame::Goodbye { last: Vec::new(), confirmed: true };
        self.depart(Some(self.encode(&confirmed)));
    }

    /// The peer has said goodbye, and this is the end.
    pub(super) fn depart(&mut self, farewell: Option<Bytes>) {
        self.gone = Some(Gone::Departed);
        self.finish(Cause::Departed, farewell);
    }

    /// The peer says that this session has ended there. It is over here too if only the peer's reason held it, if the peer had said
    /// goodbye, so that it takes nothing in another session, or if this side leaves with nothing outstanding. Tells whether it is.
    pub(super) fn end_with_the_other(&mut self) -> bool {
        let leaving = matches!(self.state, State::Leaving { .. });
        if self.state == State::Left || self.live.as_ref().is_some_and(|live| live.parting) {
            self.depart(None);
        } else if self.reasons.is_passive() || leaving && self.session.is_drained() {
            self.end(Cause::Departed);
        }
        self.state == State::Ended
    }

    /// Ends the session now: what was written is indeterminate, the rest not sent, nothing is dialled again.
    pub(crate) fn end(&mut self, cause: Cause) {
        let text = cause.to_string();
        let close = Frame::Close { code: Code::Closing, text };
        self.finish(cause, Some(self.encode(&close)));
    }

    pub(super) fn finish(&mut self, cause: Cause, farewell: Option<Bytes>) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        self.close_all(farewell);
        self.datagrams.end();
        self.session.end(cause);
        self.with.counters.raise_epoch();
        let over = self.session_over(cause);
        self.outputs.push_back(over);
        self.event(PeerEvent::Left { peer: self.id });
    }

    /// The session ended on one side, its reason did not: another begins. What was not written goes on in it.
    pub(super) fn restart(&mut self) {
        self.close_all(None);
        self.with.counters.raise_epoch();
        let over = self.session_over(Cause::SessionLost);
        self.session.restart(Cause::SessionLost, self.with.counters.epoch());
        self.outputs.push_back(over);
        self.event(PeerEvent::SessionLost { peer: self.id });
    }

    fn session_over(&self, cause: Cause) -> PeerOutput {
        let (epoch, peer_epoch) = (self.session.epoch(), self.session.peer_epoch());
        PeerOutput::SessionOver(SessionOver { cause, epoch, peer_epoch })
    }

    /// Rule 7: ending a session closes all its links and dials.
    fn close_all(&mut self, farewell: Option<Bytes>) {
        if let Some(live) = self.live.take() {
            self.outputs.push_back(PeerOutput::Close { link: live.link.id(), farewell });
            self.session.handle_link_down();
            self.forget_best_effort();
        }
        if let Dialling::Pending(dial) = std::mem::replace(&mut self.dialling, Dialling::Idle) {
            self.outputs.push_back(PeerOutput::Close { link: dial.link, farewell: None });
        }
        self.control.clear();
    }

    /// Last of all, because a peer that has drained reads nothing after it: also acknowledgements that are not due yet go
    /// before. Those of what comes later follow.
    pub(super) fn say_goodbye(&mut self, out: &mut Transmit) {
        if self.state == (State::Leaving { said: false }) && self.session.is_drained() {
            self.session.flush_acks(out);
            let last = self.session.last_sent();
            out.push(out.encode(&Frame::Goodbye { last, confirmed: false }));
            self.datagrams.link_down();
            self.state = State::Leaving { said: true };
        }
    }
}
