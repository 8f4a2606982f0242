//! A peer: the session with one other member, the links it goes through, and why it is kept.
//!
//! Sans-IO. After any input, poll until nothing comes: [`Peer::poll_output`], [`Peer::poll_dial`],
//! [`Peer::poll_transmit`]; then sleep until [`Peer::poll_timeout`].

mod accepting;
mod backoff;
mod contact;
mod dialling;
mod ending;
mod event;
mod handshake;
mod identity;
mod live;
mod lobby;
mod reason;
#[cfg(test)]
mod tests;

pub(crate) use backoff::{Backoff, BackoffConfig};
pub(crate) use contact::{Finding, Search};
pub use event::{Disconnect, PeerEvent};
pub(crate) use handshake::{Introduction, Rank};
pub(crate) use identity::Identity;
pub(crate) use lobby::{Lobby, Ticket as LobbyTicket};
pub(crate) use reason::{ContactId, Place};

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use reason::Reasons;

use crate::link::{Link, LinkConfig, LinkId};
use crate::member::MemberId;
use crate::session::{Cause, Delivery, Session, SessionConfig, SessionEvent, SharedIntake, Transmit};
use crate::wire::{BodyCheck, Epoch, Frame, StreamId, TypeEntry, frame};

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
    /// What frames carry behind their bodies: nothing under TLS. Of the whole process.
    pub(crate) body_check: BodyCheck,
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
    pub(crate) place: Place,
}

#[derive(Debug)]
struct Dial {
    link: LinkId,
    rank: Rank,
    place: Place,
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
    Leaving {
        said: bool,
    },
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
    /// The name that the peer gave at its first link, and that its certificate covered if this is TLS. One run has one name.
    name: Option<String>,
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
            name: None,
        }
    }

    // ---- reasons ----

    /// A handle wants this peer; it is dialled at `place`.
    pub(crate) fn add_contact(&mut self, now: Instant, contact: ContactId, place: impl Into<Place>) {
        self.reasons.add_contact(contact, place.into());
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

    pub(crate) fn poll_output(&mut self) -> Option<PeerOutput> {
        if let Some(event) = self.session.poll_event() {
            return Some(match event {
                SessionEvent::Deliver { epoch, delivery } => PeerOutput::Deliver { epoch, delivery },
                SessionEvent::Reserve { epoch, stream, bytes } => {
                    PeerOutput::Reserve { epoch, stream, bytes }
                }
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

    /// The bytes of a frame as the links of this process carry them.
    fn encode(&self, frame: &Frame) -> Bytes {
        frame::encode(frame, self.with.config.body_check)
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
