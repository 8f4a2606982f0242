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
        let State::Leaving { said: false } = self.state else { return };
        if !self.session.is_drained() {
            return;
        }
        if self.live.as_ref().is_some_and(|live| live.parting) {
            self.confirm_goodbye();
            return;
        }
        let never_met = self.session.peer_epoch().is_none();
        let nobody_dials = self.live.is_none() && self.reasons.is_passive();
        if never_met || nobody_dials {
            self.finish(Cause::Closed, None);
        }
    }

    /// The peer has said goodbye: it has drained, and sends nothing more. It still acknowledges, until it is confirmed. So who
    /// leaves itself drains first; otherwise of two that leave at once one would lose what it has just written.
    pub(super) fn handle_goodbye(&mut self) {
        let drains = self.state == (State::Leaving { said: false }) && !self.session.is_drained();
        match &mut self.live {
            Some(live) if drains => live.parting = true,
            Some(_) | None => self.confirm_goodbye(),
        }
    }

    fn confirm_goodbye(&mut self) {
        let confirmed = Frame::Goodbye { last: Vec::new(), confirmed: true };
        self.gone = Some(Gone::Departed);
        self.finish(Cause::Departed, Some(self.encode(&confirmed)));
    }

    /// Whether this session is over when the peer says that it has ended there: only the peer's reason held it; or this
    /// side leaves, and nothing is outstanding, or the peer had said goodbye, so that it takes nothing in another session.
    pub(super) fn ends_with_the_other(&self) -> bool {
        let parting = self.live.as_ref().is_some_and(|live| live.parting);
        let leaving = matches!(self.state, State::Leaving { .. });
        self.reasons.is_passive() || leaving && (parting || self.session.is_drained())
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
