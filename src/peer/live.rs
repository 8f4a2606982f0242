//! A live link: its frames, its end, and what errors on it lead to.

use std::sync::Arc;
use std::time::Instant;

use super::{Dialling, Disconnect, Peer, PeerEvent, PeerOutput, State};
use crate::limits::ERRORS_UNTIL_MISBEHAVING;
use crate::link::{LinkEnd, LinkId};
use crate::session::{Cause, Handled, PeerTypes, ProtocolError, Reservation};
use crate::wire::first::Code;
use crate::wire::{Epoch, Frame, StreamId, TypeEntry};

impl Peer {
    /// Whether this link is the live one. Of any other nothing more is read or written.
    pub(crate) fn is_live(&self, link: LinkId) -> bool {
        self.live.as_ref().is_some_and(|live| live.link.id() == link)
    }

    pub(crate) fn live_link(&self) -> Option<LinkId> {
        self.live.as_ref().map(|live| live.link.id())
    }

    /// Bytes came on the live link.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        if let Some(live) = &mut self.live {
            live.link.handle_heard(now);
        }
    }

    /// How writing on the live link goes: whether bytes were taken, and whether some are left.
    pub(crate) fn handle_written(&mut self, now: Instant, took: bool, left: bool) {
        if let Some(live) = &mut self.live {
            live.link.handle_written(now, took, left);
        }
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, link: LinkId, frame: Frame) {
        if !self.is_live(link) {
            return;
        }
        if let Err(error) = self.frame(now, frame) {
            self.handle_link_end(now, link, LinkEnd::Protocol(error));
        } else {
            self.note_progress();
            // What was acknowledged was perhaps the last.
            self.advance_leave();
            self.look(now);
        }
    }

    pub(super) fn note_progress(&mut self) {
        if self.session.take_progress() {
            self.backoff.reset();
            self.errors_in_row = 0;
        }
    }

    pub(super) fn frame(&mut self, now: Instant, frame: Frame) -> Result<(), ProtocolError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        live.link.handle_frame(now, &frame);
        if matches!(frame, Frame::Batch(_) | Frame::Ack(_) | Frame::Datagram(_)) {
            live.usage.note(now);
        }
        match frame {
            Frame::Batch(batch) => {
                if !live.types_heard {
                    return Err(ProtocolError::BatchBeforeTypes);
                }
                self.session.handle_batch(now, &batch)
            }
            Frame::Ack(acks) => self.session.handle_acks(&acks),
            Frame::Types(types) => {
                live.types_heard = true;
                self.session.handle_types(self.peer_types(&types));
                Ok(())
            }
            Frame::Goodbye { last, confirmed: false } => {
                self.session.check_goodbye(&last)?;
                self.handle_goodbye();
                Ok(())
            }
            Frame::Goodbye { confirmed: true, .. } => {
                if self.state == (State::Leaving { said: true }) {
                    self.finish(Cause::Closed, None);
                }
                Ok(())
            }
            Frame::Close { code: Code::Removed, .. } => {
                self.handle_removed();
                Ok(())
            }
            Frame::Close { code: Code::NotInView, text } => {
                self.close_live(now, LinkEnd::Closed(Code::NotInView, text), None);
                if self.reasons.may_dial() {
                    let wait = self.backoff.jittered(self.with.config.hello);
                    self.dialling = Dialling::Waiting(now + wait);
                }
                Ok(())
            }
            Frame::Joined(joined) => {
                self.handle_joined(now, joined);
                Ok(())
            }
            Frame::Close { code, text } => {
                if code == Code::Closing && self.end_with_the_other() {
                    return Ok(());
                }
                self.close_live(now, LinkEnd::Closed(code, text), None);
                Ok(())
            }
            Frame::Datagram(datagram) => {
                self.handle_datagram(datagram);
                Ok(())
            }
            Frame::Pong { nonce, .. } => {
                self.handle_pong(now, nonce);
                Ok(())
            }
            Frame::Ping { .. } | Frame::Unknown => Ok(()),
        }
    }

    fn peer_types(&self, entries: &[TypeEntry]) -> PeerTypes {
        PeerTypes::new(entries, |theirs| {
            let same = |ours: &&TypeEntry| (ours.protocol, ours.hash) == (theirs.protocol, theirs.hash);
            self.with.sent.clashes(theirs.hash, &theirs.name)
                || self.types.iter().filter(same).any(|ours| ours.name != theirs.name)
        })
    }

    /// Messages of a type of this name are about to be sent, for the first time in this process.
    pub(crate) fn note_sent(&mut self, hash: u32, name: &str) {
        self.session.note_sent(hash, name);
    }

    /// What this process understands has changed.
    pub(crate) fn set_types(&mut self, types: Arc<Vec<TypeEntry>>) {
        self.types = types;
        if self.live.is_some() {
            self.control.push_back(self.encode(&self.types_frame()));
        }
    }

    /// A link ended: an error, an end, bytes that are no frame. The session survives.
    pub(crate) fn handle_link_end(&mut self, now: Instant, link: LinkId, end: LinkEnd) {
        if self.pending(link).is_some() {
            self.redial(now);
            return;
        }
        if !self.is_live(link) {
            return;
        }
        let (end, code) = match end {
            LinkEnd::Protocol(ProtocolError::QuarantineFull) => (LinkEnd::NotInView, Some(Code::NotInView)),
            end => {
                let code = self.code_of(now, &end);
                (end, code)
            }
        };
        self.close_live(now, end, code);
    }

    fn code_of(&mut self, now: Instant, end: &LinkEnd) -> Option<Code> {
        match end {
            LinkEnd::Protocol(error) => {
                self.note_error(now, error);
                Some(if error.is_corruption() { Code::Corrupt } else { Code::Malformed })
            }
            LinkEnd::NotInView => Some(Code::NotInView),
            LinkEnd::End
            | LinkEnd::Io(_)
            | LinkEnd::Silence
            | LinkEnd::WriteStalled
            | LinkEnd::Closed(..)
            | LinkEnd::Superseded
            | LinkEnd::Idle => None,
        }
    }

    /// Rule 18: three in a row without progress, and something is wrong that dialling does not mend.
    pub(super) fn note_error(&mut self, now: Instant, error: &ProtocolError) {
        tracing::warn!(peer = %format_args!("{:.8}", self.id), %error, "protocol error");
        self.errors_in_row += 1;
        if self.errors_in_row >= ERRORS_UNTIL_MISBEHAVING {
            self.backoff.exhaust();
            self.judge(now);
        }
        if self.live.is_none() && !matches!(self.dialling, Dialling::Pending(_)) {
            self.redial(now);
        }
    }

    pub(super) fn close_live(&mut self, now: Instant, end: LinkEnd, code: Option<Code>) {
        let Some(live) = &self.live else { return };
        let link = live.link.id();
        let text = match &end {
            LinkEnd::Protocol(error) => error.to_string(),
            LinkEnd::NotInView => "no view here includes you".to_owned(),
            _ => String::new(),
        };
        let farewell = code.map(|code| self.encode(&Frame::Close { code, text }));
        if self.state == State::Left && end != LinkEnd::Superseded {
            self.depart(farewell);
            return;
        }
        self.live = None;
        self.outputs.push_back(PeerOutput::Close { link, farewell });
        self.session.handle_link_down();
        self.forget_best_effort();
        self.control.clear();
        tracing::debug!(peer = %format_args!("{:.8}", self.id), ?end, "link down");
        if self.state == State::Open {
            self.event(PeerEvent::Disconnected { peer: self.id, reason: disconnect(&end) });
        }
        self.reasons.start_lease(now + self.with.config.lease);
        if self.reasons.may_dial() && matches!(self.dialling, Dialling::Idle) && !self.rests_after(&end) {
            self.redial(now);
        }
    }

    /// Handlers are done with something.
    pub(crate) fn handle_handled(&mut self, now: Instant, handled: Handled) {
        self.session.handle_handled(now, handled);
    }

    /// Memory for a large message is there.
    pub(crate) fn handle_reserved(
        &mut self,
        now: Instant,
        epoch: Epoch,
        stream: StreamId,
        reservation: Reservation,
    ) {
        self.session.handle_reserved(now, epoch, stream, reservation);
    }
}

const fn disconnect(end: &LinkEnd) -> Disconnect {
    match end {
        LinkEnd::End => Disconnect::End,
        LinkEnd::Io(_) => Disconnect::Reset,
        LinkEnd::Silence | LinkEnd::WriteStalled => Disconnect::Silence,
        LinkEnd::Protocol(error) if error.is_corruption() => Disconnect::Corrupt,
        LinkEnd::Protocol(_) => Disconnect::Misbehaved,
        LinkEnd::Superseded => Disconnect::Superseded,
        LinkEnd::NotInView | LinkEnd::Closed(Code::NotInView, _) => Disconnect::NotInView,
        LinkEnd::Idle | LinkEnd::Closed(Code::Idle, _) => Disconnect::Idle,
        LinkEnd::Closed(Code::Corrupt, _) => Disconnect::Corrupt,
        LinkEnd::Closed(..) => Disconnect::Closed,
    }
}
