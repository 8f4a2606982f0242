//! Admission: what the view makes of this peer, and what that does to its session. Rules 3, 14 and 15 of docs/PROTOCOL.md.

use std::sync::Arc;
use std::time::Instant;

use super::roster::{Gone, Seat, Standing};
use super::{Introduction, Peer, PeerEvent, PeerOutput, State};
use crate::link::LinkEnd;
use crate::member::{MemberId, ViewId, Views};
use crate::session::{Cause, Gate, ProtocolError};
use crate::wire::first::Code;
use crate::wire::{Frame, Reject, TypeEntry};

impl Peer {
    /// As a peer begins: what the view says of it.
    pub(crate) fn with_seat(mut self, seat: Seat) -> Self {
        self.reasons.set_view(seat.member.clone());
        self.seat = seat;
        self
    }

    /// A view was installed, or this process is another member of it: what it says of itself, and what the view says of
    /// this peer.
    pub(crate) fn handle_view(&mut self, now: Instant, me: Arc<Introduction>, seat: Seat) {
        let joined_before = self.with.me.member.joined;
        let was_in_view = self.reasons.is_in_view();
        self.with.me = me;
        self.reasons.set_view(seat.member.clone());
        self.seat = seat;
        if self.state == State::Ended {
            return;
        }
        if was_in_view && !self.reasons.is_in_view() && self.standing() != Standing::Removed {
            self.settle(Cause::Departed);
        }
        if self.live.is_some() && self.with.me.member.joined != joined_before {
            self.say_joined();
        }
        self.settle_admission(now);
    }

    /// The peer says in which view it joined.
    pub(super) fn handle_joined(&mut self, now: Instant, joined: ViewId) {
        self.joined = Some(joined);
        self.settle_admission(now);
    }

    pub(super) fn standing(&self) -> Standing {
        if self.id == self.with.me.member.id { Standing::Member } else { self.seat.judge(self.joined) }
    }

    /// Does what the standing asks for, now that the view or the peer's word has changed.
    fn settle_admission(&mut self, now: Instant) {
        if self.standing() == Standing::Removed {
            self.remove();
            return;
        }
        if let Err(error) = self.set_gate(now)
            && let Some(link) = self.live_link()
        {
            self.handle_link_end(now, link, LinkEnd::Protocol(error));
        }
    }

    /// The session lets through what the standing allows.
    pub(super) fn set_gate(&mut self, now: Instant) -> Result<(), ProtocolError> {
        let gate = match self.standing() {
            Standing::Member => Gate::Open,
            Standing::Unknown => Gate::Hold,
            Standing::Stranger | Standing::Removed => Gate::Shut,
        };
        self.session.set_gate(now, gate)
    }

    /// Tells the peer in which view this member joined. It goes before any batch.
    pub(super) fn say_joined(&mut self) {
        if let Some(joined) = self.with.me.member.joined {
            self.control.push_back(self.encode(&Frame::Joined(joined)));
        }
    }

    /// The peer is no member to us any more: the session ends and holds nothing; outranks every contact. If it was our view
    /// that removed it, it is told so; if we are the one who was expelled, its views are its own business.
    pub(crate) fn remove(&mut self) {
        self.removed = true;
        if self.seat.gone == Some(Gone::Shunned) {
            self.gone = Some(Gone::Shunned);
            self.end(Cause::Departed);
            return;
        }
        self.gone = Some(Gone::Departed);
        let text = match self.seat.view {
            Some(view) => format!("not in view {view}"),
            None => String::new(),
        };
        let removed = self.encode(&Frame::Close { code: Code::Removed, text });
        self.finish(Cause::Departed, Some(removed));
    }

    /// What a peer is told whose hello is refused because it is no member to us any more.
    pub(super) fn removal(&self) -> Box<Reject> {
        Box::new(self.seat.refusal(&self.with.me))
    }

    /// This process is another member from now on, and whoever listens is not told of the sessions of the one before.
    pub(crate) fn abandon(&mut self) {
        self.end(Cause::Closed);
        self.outputs.retain(|output| !matches!(output, PeerOutput::Event(_)));
    }

    /// Whether a view has removed it: its connection gets no time for long farewells.
    pub(crate) const fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether it is the peer of this member: not of one that this process was before.
    pub(crate) fn is_of(&self, me: MemberId) -> bool {
        self.with.me.member.id == me
    }

    /// Whether it is never spoken with again under this id, and why.
    pub(crate) const fn gone(&self) -> Option<Gone> {
        self.gone
    }

    /// The peer's view does not hold this member: the session is over, and is never tried again.
    pub(super) fn handle_removed(&mut self) {
        if self.state == State::Ended {
            return;
        }
        self.gone = Some(Gone::Shunned);
        self.event(PeerEvent::Expelled { by: self.id });
        self.end(Cause::Departed);
    }

    /// What was held has waited for a view for too long: dropped, and the sender keeps it.
    pub(super) fn end_quarantine(&mut self, now: Instant) {
        if self.session.quarantined_until().is_some_and(|until| until <= now) {
            self.session.drop_quarantined();
            self.close_live(now, LinkEnd::NotInView, Some(Code::NotInView));
        }
    }

    /// What this process takes from this peer: without views, only what is open to anyone.
    pub(super) fn types_frame(&self) -> Frame {
        let shut = self.seat.views == Views::None && self.id != self.with.me.member.id;
        let told = |entry: &&TypeEntry| entry.open || !shut;
        Frame::Types(self.types.iter().filter(told).cloned().collect())
    }
}
