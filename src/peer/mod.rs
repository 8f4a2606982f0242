//! A peer: the session with one other member, the links it goes through, and why it is kept.
//!
//! Sans-IO. After any input, poll until nothing comes: [`Peer::poll_output`], [`Peer::poll_dial`],
//! [`Peer::poll_transmit`]; then sleep until [`Peer::poll_timeout`].

mod backoff;
mod contact;
mod event;
mod handshake;
mod lobby;
mod reason;
#[cfg(test)]
mod tests;

pub(crate) use backoff::{Backoff, BackoffConfig};
pub(crate) use contact::{Finding, Search};
pub use event::{Disconnect, PeerEvent};
pub(crate) use handshake::{Introduction, Rank};
pub(crate) use lobby::{Lobby, Ticket as LobbyTicket};
pub(crate) use reason::ContactId;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use handshake::Same;
use reason::Reasons;

use crate::limits::ERRORS_UNTIL_STUCK;
use crate::link::{Link, LinkConfig, LinkEnd, LinkId};
use crate::member::{Endpoint, MemberId};
use crate::session::{
    Cause, Delivery, Handled, PeerTypes, ProtocolError, Reservation, Session, SessionConfig, SessionEvent,
    SharedIntake, Transmit,
};
use crate::wire::first::Code;
use crate::wire::frame::encode_control;
use crate::wire::{Epoch, FirstBytes, Frame, Hello, Reject, StreamId, TypeEntry};

/// Numbers that a process hands out and never twice.
#[derive(Debug)]
pub(crate) struct Counters {
    epoch: AtomicU64,
    link: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self { epoch: AtomicU64::new(1), link: AtomicU64::new(1) }
    }

    /// The epoch of a session that begins now.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// A session ended: all that begin from now on are newer.
    fn raise_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn link(&self) -> LinkId {
        LinkId(self.link.fetch_add(1, Ordering::Relaxed))
    }
}

/// Times and bounds of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerConfig {
    pub(crate) session: SessionConfig,
    pub(crate) link: LinkConfig,
    pub(crate) backoff: BackoffConfig,
    /// From dialled to connected.
    pub(crate) connect: Duration,
    /// From connected to answered.
    pub(crate) hello: Duration,
    /// How long a session is kept for a peer that dialled and is gone.
    pub(crate) lease: Duration,
}

/// What a peer shares with the process it is in.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) config: PeerConfig,
    pub(crate) me: Arc<Introduction>,
    pub(crate) counters: Arc<Counters>,
}

/// What a peer asks of its driver.
#[derive(Debug)]
pub(crate) enum PeerOutput {
    /// For a handler; `handle_handled` answers.
    Deliver { epoch: Epoch, delivery: Delivery },
    /// Memory for a large message; `handle_reserved` answers.
    Reserve { epoch: Epoch, stream: StreamId, bytes: u64 },
    /// Write what was to be written and then this, if it can be done at once, and close. Also ends a dial.
    Close { link: LinkId, farewell: Option<Bytes> },
    /// Byte streams of this session are no more.
    SessionOver { cause: Cause },
    /// These contacts were met by another member.
    Replaced { contacts: Vec<ContactId>, by: MemberId },
    /// For whoever listens.
    Event(PeerEvent),
}

/// A connection to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DialRequest {
    pub(crate) link: LinkId,
    pub(crate) endpoint: Endpoint,
}

#[derive(Debug)]
struct Dial {
    link: LinkId,
    rank: Rank,
    endpoint: Endpoint,
    deadline: Instant,
    /// Its hello was given to be written. Before that the other side cannot have adopted it, so it outranks nothing.
    greeted: bool,
}

#[derive(Debug)]
enum Dialling {
    Idle,
    /// Not before then.
    Waiting(Instant),
    Pending(Dial),
}

#[derive(Debug)]
struct Live {
    link: Link,
    rank: Rank,
    types_heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Refuses new messages; says goodbye when all is acknowledged.
    Leaving { said: bool },
    Ended,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Peer {
    with: Surroundings,
    id: MemberId,
    session: Session,
    live: Option<Live>,
    dialling: Dialling,
    reasons: Reasons,
    backoff: Backoff,
    /// The highest generation seen established.
    established: u64,
    attempts: u64,
    state: State,
    types: Arc<Vec<TypeEntry>>,
    /// Control frames to be written before anything else.
    control: VecDeque<Bytes>,
    outputs: VecDeque<PeerOutput>,
    errors_in_row: u32,
    /// Links adopted so far.
    links: u64,
}

impl Peer {
    pub(crate) fn new(
        with: Surroundings,
        id: MemberId,
        intake: SharedIntake,
        types: Arc<Vec<TypeEntry>>,
        seed: u64,
    ) -> Self {
        let epoch = with.counters.epoch();
        Self {
            session: Session::new(with.config.session, epoch, intake),
            backoff: Backoff::new(with.config.backoff, seed),
            with,
            id,
            live: None,
            dialling: Dialling::Idle,
            reasons: Reasons::default(),
            established: 0,
            attempts: 0,
            state: State::Open,
            types,
            control: VecDeque::new(),
            outputs: VecDeque::new(),
            errors_in_row: 0,
            links: 0,
        }
    }

    // ---- reasons ----

    /// A handle wants this peer; it is dialled at `endpoint`.
    pub(crate) fn add_contact(&mut self, now: Instant, contact: ContactId, endpoint: Endpoint) {
        self.reasons.add_contact(contact, endpoint);
        if matches!(self.dialling, Dialling::Idle) {
            self.dialling = Dialling::Waiting(now);
        }
    }

    /// The handle is gone. Without another reason the session ends.
    pub(crate) fn remove_contact(&mut self, contact: ContactId) {
        self.reasons.remove_contact(contact);
        self.settle(Cause::Closed);
    }

    /// Without a reason the session ends.
    fn settle(&mut self, cause: Cause) {
        if self.state != State::Ended && !self.reasons.hold(self.live.is_some()) {
            self.end(cause);
        }
    }

    /// Nothing holds this peer, or it has ended: it can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Ended || !self.reasons.hold(self.live.is_some())
    }

    /// Whether it has ended, whatever may hold it: nothing is sent or dialled any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    // ---- dialling ----

    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<DialRequest> {
        let due = match self.dialling {
            Dialling::Idle => self.session.wants_link() || matches!(self.state, State::Leaving { .. }),
            Dialling::Waiting(until) => until <= now,
            Dialling::Pending(_) => false,
        };
        if !due || self.live.is_some() || self.state == State::Ended || !self.reasons.may_dial() {
            return None;
        }
        let endpoint = self.reasons.next_endpoint()?;
        self.attempts += 1;
        let link = self.with.counters.link();
        let rank = Rank {
            // A peer may claim any generation.
            generation: self.established.saturating_add(1),
            dialler: self.with.me.member.id,
            attempt: self.attempts,
        };
        let deadline = now + self.with.config.connect;
        self.dialling = Dialling::Pending(Dial { link, rank, endpoint: endpoint.clone(), deadline, greeted: false });
        Some(DialRequest { link, endpoint })
    }

    fn pending(&self, link: LinkId) -> Option<&Dial> {
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

    fn hello(&self, rank: Rank) -> Hello {
        Hello {
            to: Some(self.id),
            epoch: self.session.epoch(),
            your_epoch: self.session.peer_epoch().unwrap_or(Epoch::UNKNOWN),
            generation: rank.generation,
            attempt: rank.attempt,
            streams: self.session.resume_points(),
            credit: self.session.default_credit(),
            ..self.with.me.question()
        }
    }

    /// The dial came to nothing: refused, unreachable, closed before an answer.
    pub(crate) fn handle_dial_failed(&mut self, now: Instant, link: LinkId) {
        if self.pending(link).is_some() {
            self.redial(now);
        }
    }

    fn redial(&mut self, now: Instant) {
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
        if answer.from.id != self.id || answer.to != Some(self.with.me.member.id) {
            self.redial(now);
            return false;
        }
        match self.same(answer) {
            Same::Bind | Same::Resume => {}
            Same::PeerForgot | Same::Unknown | Same::Stale => {
                self.redial(now);
                return false;
            }
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
        let endpoint = match &self.dialling {
            Dialling::Pending(dial) => dial.endpoint.clone(),
            Dialling::Idle | Dialling::Waiting(_) => return,
        };
        self.redial(now);
        match (reject.code, reject.from) {
            (Code::WrongMember, Some(by)) if by != self.id => self.replaced(&endpoint, by),
            (Code::SessionUnknown, _) => self.session_unknown(now),
            (Code::Removed, _) => self.end(Cause::Departed),
            (Code::Duplicate, _) => {
                let wait = self.backoff.jittered(self.with.config.hello);
                self.dialling = Dialling::Waiting(now + wait);
            }
            (Code::VersionMismatch | Code::EnvironmentMismatch | Code::NetworkMismatch, _) => {
                self.backoff.exhaust();
                self.redial(now);
                let why = format!("{:?}: {}", reject.code, reject.text);
                self.event(PeerEvent::Refused { peer: self.id, why });
            }
            _ => {}
        }
    }

    /// Rule 5: a session that only contacts hold ends when another member is found at their address.
    fn replaced(&mut self, endpoint: &Endpoint, by: MemberId) {
        let contacts = self.reasons.remove_contacts_at(endpoint);
        self.event(PeerEvent::Replaced { old: self.id, new: by });
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

    // ---- accepting ----

    /// A hello that means this process. `Ok`: the link is adopted, write the answer; `Err`: write the refusal.
    pub(crate) fn handle_hello(
        &mut self,
        now: Instant,
        link: LinkId,
        hello: &Hello,
    ) -> Result<Hello, Box<Reject>> {
        let refuse = |me: &Introduction, code, text: &str| Err(Box::new(me.reject(code, text)));
        if self.state == State::Ended {
            return refuse(&self.with.me, Code::SessionUnknown, "the session has ended here");
        }
        match self.same(hello) {
            Same::Unknown => return refuse(&self.with.me, Code::SessionUnknown, "no such session"),
            Same::Stale => return refuse(&self.with.me, Code::Stale, "the session has ended there"),
            Same::PeerForgot => {
                self.restart();
            }
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

    fn same(&self, hello: &Hello) -> Same {
        Same::judge(self.session.epoch(), self.session.peer_epoch(), hello.epoch, hello.your_epoch)
    }

    /// Rule 10: every other link and dial of this peer closes first, so that what the hello then says is exact.
    fn adopt(&mut self, now: Instant, link: LinkId, rank: Rank, hello: &Hello) -> Result<(), ProtocolError> {
        self.close_live(now, LinkEnd::Superseded, Some(Code::Superseded));
        if let Dialling::Pending(dial) = std::mem::replace(&mut self.dialling, Dialling::Idle) {
            self.outputs.push_back(PeerOutput::Close { link: dial.link, farewell: None });
        }
        if let Err(error) = self.session.handle_link_up(&hello.streams, hello.credit) {
            self.session.handle_link_down();
            return Err(error);
        }
        self.session.bind(hello.epoch);
        self.reasons.end_lease();
        if rank.generation > self.established {
            self.established = rank.generation;
            self.attempts = 0;
        }
        self.links += 1;
        self.note_progress();
        let link = Link::new(link, self.with.config.link, now);
        self.live = Some(Live { link, rank, types_heard: false });
        self.control.clear();
        self.control.push_back(encode_control(&Frame::Types(self.types.to_vec())));
        if let State::Leaving { said } = &mut self.state {
            *said = false;
        }
        self.event(PeerEvent::Connected { peer: self.id });
        Ok(())
    }

    // ---- a live link ----

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
        }
    }

    fn note_progress(&mut self) {
        if self.session.take_progress() {
            self.backoff.reset();
            self.errors_in_row = 0;
        }
    }

    fn frame(&mut self, now: Instant, frame: Frame) -> Result<(), ProtocolError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        live.link.handle_frame(now, &frame);
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
                let confirmed = Frame::Goodbye { last: Vec::new(), confirmed: true };
                self.finish(Cause::Departed, Some(encode_control(&confirmed)));
                Ok(())
            }
            Frame::Goodbye { confirmed: true, .. } => {
                if self.state == (State::Leaving { said: true }) {
                    self.finish(Cause::Closed, None);
                }
                Ok(())
            }
            Frame::Close { code: Code::Removed, .. } => {
                self.end(Cause::Departed);
                Ok(())
            }
            Frame::Close { code: Code::Closing, .. } if self.reasons.is_passive() => {
                // The session has ended there, and only the other side's reason held it.
                self.end(Cause::Departed);
                Ok(())
            }
            Frame::Close { code, text } => {
                self.close_live(now, LinkEnd::Closed(code, text), None);
                Ok(())
            }
            Frame::Ping { .. } | Frame::Pong { .. } | Frame::Joined(_) | Frame::Datagram(_) | Frame::Unknown => {
                Ok(())
            }
        }
    }

    fn peer_types(&self, entries: &[TypeEntry]) -> PeerTypes {
        PeerTypes::new(entries, |theirs| {
            let same = |ours: &&TypeEntry| (ours.protocol, ours.hash) == (theirs.protocol, theirs.hash);
            self.types.iter().filter(same).any(|ours| ours.name != theirs.name)
        })
    }

    /// What this process understands has changed.
    pub(crate) fn set_types(&mut self, types: Arc<Vec<TypeEntry>>) {
        self.types = types;
        if self.live.is_some() {
            self.control.push_back(encode_control(&Frame::Types(self.types.to_vec())));
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
        let code = match &end {
            LinkEnd::Protocol(error) => {
                self.note_error(now, error);
                Some(if error.is_corruption() { Code::Corrupt } else { Code::Malformed })
            }
            LinkEnd::End
            | LinkEnd::Io(_)
            | LinkEnd::Silence
            | LinkEnd::WriteStalled
            | LinkEnd::Closed(..)
            | LinkEnd::Superseded => None,
        };
        self.close_live(now, end, code);
    }

    /// Rule 18: three in a row without progress, and something is wrong that dialling does not mend.
    fn note_error(&mut self, now: Instant, error: &ProtocolError) {
        tracing::warn!(peer = %format_args!("{:.8}", self.id), %error, "protocol error");
        self.errors_in_row += 1;
        if self.errors_in_row >= ERRORS_UNTIL_STUCK {
            self.backoff.exhaust();
            if self.errors_in_row == ERRORS_UNTIL_STUCK {
                self.event(PeerEvent::Stuck { peer: self.id });
            }
        }
        if self.live.is_none() {
            self.redial(now);
        }
    }

    fn close_live(&mut self, now: Instant, end: LinkEnd, code: Option<Code>) {
        let Some(live) = self.live.take() else { return };
        let text = if let LinkEnd::Protocol(error) = &end { error.to_string() } else { String::new() };
        let farewell = code.map(|code| encode_control(&Frame::Close { code, text }));
        self.outputs.push_back(PeerOutput::Close { link: live.link.id(), farewell });
        self.session.handle_link_down();
        self.control.clear();
        tracing::debug!(peer = %format_args!("{:.8}", self.id), ?end, "link down");
        self.event(PeerEvent::Disconnected { peer: self.id, reason: disconnect(&end) });
        self.reasons.start_lease(now + self.with.config.lease);
        if self.reasons.may_dial() && matches!(self.dialling, Dialling::Idle) {
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

    // ---- output ----

    /// What is to be written on the live link.
    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) {
        self.advance_leave();
        let Some(live) = &mut self.live else { return };
        self.control.drain(..).for_each(|frame| out.push(frame));
        live.link.poll_transmit(now, out);
        self.session.poll_transmit(now, out);
        if self.session.take_starved() {
            // The pong is a write that is due, so acknowledgements go before it.
            live.link.ping_now();
            live.link.poll_transmit(now, out);
        }
        self.say_goodbye(out);
    }

    /// Last of all, because the peer reads nothing after it: also acknowledgements that are not due yet go before.
    fn say_goodbye(&mut self, out: &mut Transmit) {
        if self.state == (State::Leaving { said: false }) && self.session.is_drained() {
            self.session.flush_acks(out);
            let last = self.session.last_sent();
            out.push(encode_control(&Frame::Goodbye { last, confirmed: false }));
            self.state = State::Leaving { said: true };
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<PeerOutput> {
        if let Some(event) = self.session.poll_event() {
            return Some(match event {
                SessionEvent::Deliver { epoch, delivery } => PeerOutput::Deliver { epoch, delivery },
                SessionEvent::Reserve { epoch, stream, bytes } => PeerOutput::Reserve { epoch, stream, bytes },
            });
        }
        self.outputs.pop_front()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        if let Some(live) = &mut self.live
            && let Err(end) = live.link.handle_timeout(now)
        {
            self.close_live(now, end, None);
        }
        if let Dialling::Pending(dial) = &self.dialling
            && dial.deadline <= now
        {
            let link = dial.link;
            self.outputs.push_back(PeerOutput::Close { link, farewell: None });
            self.redial(now);
        }
        if self.live.is_none() && self.reasons.lease().is_some_and(|until| until <= now) {
            self.reasons.end_lease();
            self.settle(Cause::SessionLost);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let dialling = match &self.dialling {
            Dialling::Waiting(until) if self.reasons.may_dial() && self.live.is_none() => Some(*until),
            Dialling::Pending(dial) => Some(dial.deadline),
            Dialling::Idle | Dialling::Waiting(_) => None,
        };
        let live = self.live.as_ref().map(|live| live.link.poll_timeout());
        let lease = if self.live.is_none() { self.reasons.lease() } else { None };
        [dialling, live, lease, self.session.poll_timeout()].into_iter().flatten().min()
    }

    // ---- the end ----

    /// Refuses new messages, drains, says goodbye; `is_over` when it was confirmed.
    pub(crate) fn leave(&mut self) {
        if self.state == State::Open {
            self.session.intake().lock().close(Cause::Closed);
            self.state = State::Leaving { said: false };
            self.advance_leave();
        }
    }

    fn advance_leave(&mut self) {
        let State::Leaving { said: false } = self.state else { return };
        if !self.session.is_drained() {
            return;
        }
        let never_met = self.session.peer_epoch().is_none();
        let nobody_dials = self.live.is_none() && self.reasons.is_passive();
        if never_met || nobody_dials {
            self.finish(Cause::Closed, None);
        }
    }

    /// Ends the session now: what was written is indeterminate, the rest not sent, nothing is dialled again.
    pub(crate) fn end(&mut self, cause: Cause) {
        let text = cause.to_string();
        let close = Frame::Close { code: Code::Closing, text };
        self.finish(cause, Some(encode_control(&close)));
    }

    fn finish(&mut self, cause: Cause, farewell: Option<Bytes>) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        self.close_all(farewell);
        self.session.end(cause);
        self.with.counters.raise_epoch();
        self.outputs.push_back(PeerOutput::SessionOver { cause });
        self.event(PeerEvent::Left { peer: self.id });
    }

    /// The session ended on one side, its reason did not: another begins. What was not written goes on in it.
    fn restart(&mut self) {
        self.close_all(None);
        self.with.counters.raise_epoch();
        self.session.restart(Cause::SessionLost, self.with.counters.epoch());
        self.outputs.push_back(PeerOutput::SessionOver { cause: Cause::SessionLost });
        self.event(PeerEvent::SessionLost { peer: self.id });
    }

    /// Rule 7: ending a session closes all its links and dials.
    fn close_all(&mut self, farewell: Option<Bytes>) {
        if let Some(live) = self.live.take() {
            self.outputs.push_back(PeerOutput::Close { link: live.link.id(), farewell });
            self.session.handle_link_down();
        }
        if let Dialling::Pending(dial) = std::mem::replace(&mut self.dialling, Dialling::Idle) {
            self.outputs.push_back(PeerOutput::Close { link: dial.link, farewell: None });
        }
        self.control.clear();
    }

    fn event(&mut self, event: PeerEvent) {
        self.outputs.push_back(PeerOutput::Event(event));
    }

    // ---- what is seen from outside ----

    pub(crate) const fn id(&self) -> MemberId {
        self.id
    }

    pub(crate) const fn session(&self) -> &Session {
        &self.session
    }

    /// Links adopted so far, and the last measured round trip of the live one.
    pub(crate) fn links(&self) -> (u64, Option<Duration>) {
        (self.links, self.live.as_ref().and_then(|live| live.link.rtt()))
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
        LinkEnd::Closed(Code::Corrupt, _) => Disconnect::Corrupt,
        LinkEnd::Closed(..) => Disconnect::Closed,
    }
}
