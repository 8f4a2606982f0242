//! A peer: the session with one other member, the links it goes through, and why it is kept.
//!
//! Sans-IO. After any input, poll until nothing comes: [`Peer::poll_output`], [`Peer::poll_dial`],
//! [`Peer::poll_transmit`]; then sleep until [`Peer::poll_timeout`].

mod accepting;
mod admission;
mod backoff;
mod contact;
mod datagrams;
mod dialling;
#[cfg(any(test, feature = "testing"))]
mod digest;
mod ending;
mod event;
mod handshake;
mod health;
mod identity;
mod idle;
mod live;
mod lobby;
mod names;
mod probe;
mod reason;
mod roster;
#[cfg(any(test, feature = "testing"))]
mod states;
#[cfg(test)]
mod tests;

pub(crate) use backoff::{Backoff, BackoffConfig};
pub(crate) use contact::{Finding, Search};
pub use datagrams::DatagramStats;
pub(crate) use datagrams::{Datagrams, Dropped, Outbound};
#[cfg(any(test, feature = "testing"))]
pub(crate) use digest::Wait;
pub(crate) use event::Topic;
pub use event::{Disconnect, PeerEvent};
pub(crate) use handshake::{Introduction, Rank};
pub(crate) use health::HealthConfig;
pub(crate) use identity::Identity;
pub(crate) use lobby::{Lobby, Ticket as LobbyTicket};
pub(crate) use names::SentNames;
pub(crate) use probe::Answered;
pub(crate) use reason::{ContactId, Place};
pub(crate) use roster::{Gone, Roster, Seat, Standing};
pub use roster::{ViewChange, ViewError};
#[cfg(any(test, feature = "testing"))]
pub(crate) use states::Doing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use health::Health;
use idle::Usage;
use probe::Probes;
use reason::Reasons;

use crate::link::{Link, LinkConfig, LinkId};
use crate::member::{MemberId, ViewId};
use crate::session::{
    Cause, Delivery, QuarantineRoom, Session, SessionConfig, SessionEvent, SharedIntake, Transmit,
};
use crate::wire::frame::Datagram;
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
    pub(crate) health: HealthConfig,
    /// From dialled to connected.
    pub(crate) connect: Duration,
    /// From connected to answered.
    pub(crate) hello: Duration,
    /// How long a session is kept for a peer that dialled and is gone.
    pub(crate) lease: Duration,
    /// How long a link that no contact holds may carry nothing.
    pub(crate) idle: Duration,
    /// What frames carry behind their bodies: nothing under TLS. Of the whole process.
    pub(crate) body_check: BodyCheck,
}

/// What a peer shares with the process it is in.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) config: PeerConfig,
    pub(crate) me: Arc<Introduction>,
    pub(crate) counters: Arc<Counters>,
    /// What is held of those who are in no view yet.
    pub(crate) quarantine: QuarantineRoom,
    pub(crate) sent: Arc<SentNames>,
}

/// A session that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionOver {
    pub(crate) cause: Cause,
    /// Its epoch here.
    pub(crate) epoch: Epoch,
    /// Its epoch at the peer, if the two ever met.
    pub(crate) peer_epoch: Option<Epoch>,
}

/// What a peer asks of its driver.
#[derive(Debug)]
pub(crate) enum PeerOutput {
    /// For a handler; `handle_handled` answers.
    Deliver { epoch: Epoch, delivery: Delivery },
    /// For a handler, if it has time.
    Datagram(Datagram),
    /// Probes up to this one were answered.
    Answered(Answered),
    /// Memory for a large message; `handle_reserved` answers.
    Reserve { epoch: Epoch, stream: StreamId, bytes: u64 },
    /// Write what was to be written and then this, if it can be done at once, and close. Also ends a dial.
    Close { link: LinkId, farewell: Option<Bytes> },
    /// Byte streams and requests of this session are no more.
    SessionOver(SessionOver),
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
    usage: Usage,
    /// The peer has said goodbye on it, and waits until this side has drained.
    parting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Refuses new messages; says goodbye when all is acknowledged.
    Leaving {
        said: bool,
    },
    /// The peer leaves, and this side does not: only what was written is waited for, on this link.
    Left,
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
    /// What the view says of this peer.
    seat: Seat,
    /// The view in which it joined, by its own word.
    joined: Option<ViewId>,
    gone: Option<Gone>,
    removed: bool,
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
    health: Health,
    /// Links adopted so far.
    links: u64,
    datagrams: Arc<Datagrams>,
    probes: Probes,
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
        let room = with.quarantine.clone();
        Self {
            session: Session::new(with.config.session, epoch, intake).with_quarantine_room(room),
            backoff: Backoff::new(with.config.backoff, seed),
            health: Health::new(with.config.health),
            with,
            id,
            live: None,
            dialling: Dialling::Idle,
            reasons: Reasons::default(),
            seat: Seat::default(),
            joined: None,
            gone: None,
            removed: false,
            established: 0,
            attempts: 0,
            state: State::Open,
            types,
            control: VecDeque::new(),
            outputs: VecDeque::new(),
            errors_in_row: 0,
            links: 0,
            datagrams: Arc::default(),
            probes: Probes::default(),
            name: None,
        }
    }

    // ---- reasons ----

    /// A handle wants this peer; it is dialled at `place`.
    pub(crate) fn add_contact(&mut self, now: Instant, contact: ContactId, place: impl Into<Place>) {
        self.reasons.add_contact(contact, place.into());
        if self.standing() == Standing::Removed {
            // Removal outranks contacts; this one goes on looking for somebody else.
            self.remove();
            return;
        }
        if matches!(self.dialling, Dialling::Idle) {
            self.dialling = Dialling::Waiting(now);
        }
    }

    /// The handle is gone. Without another reason the session ends.
    pub(crate) fn remove_contact(&mut self, contact: ContactId) {
        self.reasons.remove_contact(contact);
        self.settle(Cause::Closed);
    }

    /// A link is wanted now, though there is nothing to send yet.
    pub(crate) fn preconnect(&mut self, now: Instant) {
        if matches!(self.dialling, Dialling::Idle) {
            self.dialling = Dialling::Waiting(now);
        }
    }

    #[cfg(test)]
    fn has_contact(&self) -> bool {
        self.reasons.has_contact()
    }

    /// Without a reason the session ends.
    fn settle(&mut self, cause: Cause) {
        if !self.reasons.may_dial() {
            self.health.handle_not_wanted();
        }
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
        self.probes.poll_transmit(now, &mut live.link, out);
        out.mark_acks();
        let before = out.parts.len();
        Self::write_datagrams(now, &self.datagrams, &self.session, out);
        self.session.poll_transmit(now, out);
        if out.parts.len() > before {
            live.usage.note(now);
        }
        if self.session.take_starved() {
            // The pong is a write that is due, so acknowledgements go before it.
            live.link.ping_now();
            live.link.poll_transmit(now, out);
        }
        self.say_goodbye(out);
        self.look(now);
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
        // What expired was perhaps the last.
        self.advance_leave();
        if let Some(live) = &mut self.live
            && let Err(end) = live.link.handle_timeout(now)
        {
            self.close_live(now, end, None);
        }
        self.check_idle(now);
        if let Dialling::Pending(dial) = &self.dialling
            && dial.deadline <= now
        {
            let link = dial.link;
            self.outputs.push_back(PeerOutput::Close { link, farewell: None });
            self.redial(now);
        }
        self.end_quarantine(now);
        if self.live.is_none() && self.reasons.lease().is_some_and(|until| until <= now) {
            self.reasons.end_lease();
            self.settle(Cause::SessionLost);
        }
        self.judge(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let dialling = match &self.dialling {
            Dialling::Waiting(until) if self.reasons.may_dial() && self.live.is_none() => Some(*until),
            Dialling::Pending(dial) => Some(dial.deadline),
            Dialling::Idle | Dialling::Waiting(_) => None,
        };
        let live = self.live.as_ref().map(|live| live.link.poll_timeout());
        let lease = if self.live.is_none() { self.reasons.lease() } else { None };
        let quarantine = self.session.quarantined_until();
        let health = self.poll_health();
        let (idle, session) = (self.idle_deadline(), self.session.poll_timeout());
        [dialling, live, idle, lease, quarantine, health, session].into_iter().flatten().min()
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

    /// What it calls itself; under TLS its certificate covers that.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) const fn session(&self) -> &Session {
        &self.session
    }

    /// Links adopted so far, and the last measured round trip of the live one.
    pub(crate) fn links(&self) -> (u64, Option<Duration>) {
        (self.links, self.live.as_ref().and_then(|live| live.link.rtt()))
    }
}
