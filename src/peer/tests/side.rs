//! One process of a [`Pair`](super::pair::Pair): its peers, its handlers, and what must hold of them at every step.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::*;
use super::prelude::*;
use crate::limits::{self, KIB, MIB};
use crate::member::{View, Views};
use crate::session::tests::side::body;
use crate::session::{
    Account, Body, Budget, BudgetLimits, Buffers, Content, InboxLimits, Intake, Lost, Outgoing, Receipt,
    Ticket,
};
use crate::wire::{Class, Protocol, record};

/// The application's stream of a class, open to anyone.
pub(super) const fn stream(class: Class) -> StreamId {
    StreamId::new(Protocol::APPLICATION, class, true)
}

pub(super) const NORMAL: StreamId = stream(Class::Normal);

pub(super) const fn config(credit_bytes: u64) -> PeerConfig {
    PeerConfig {
        session: SessionConfig {
            inbox: InboxLimits { credit_bytes, message_bytes_max: 4 * MIB },
            ack_delay: limits::ACK_DELAY,
            quarantine: limits::QUARANTINE,
        },
        link: LinkConfig { ping: limits::PING, liveness: limits::LIVENESS },
        backoff: BackoffConfig { min: limits::REDIAL_MIN, max: limits::REDIAL_MAX },
        health: HealthConfig {
            slow: limits::SLOW,
            stuck: limits::STUCK,
            unreachable: limits::UNREACHABLE,
            grace: limits::PING,
        },
        connect: limits::CONNECT,
        hello: limits::HELLO,
        lease: limits::RESUME_LEASE,
        idle: limits::IDLE,
        body_check: crate::wire::BodyCheck::Crc,
    }
}

/// A process with this id that nobody has met.
pub(super) fn surroundings(id: MemberId, credit_bytes: u64) -> Surroundings {
    let mut me =
        Introduction { environment: "test".into(), network: "pairs".into(), ..Introduction::default() };
    me.member.id = id;
    Surroundings {
        config: config(credit_bytes),
        me: Arc::new(me),
        counters: Arc::new(Counters::new()),
        quarantine: QuarantineRoom::default(),
        sent: Arc::default(),
    }
}

/// Takes every type of the application.
pub(super) fn fallback() -> TypeEntry {
    TypeEntry {
        protocol: Protocol::APPLICATION,
        hash: 0,
        version: 0,
        open: true,
        any: true,
        name: String::new(),
    }
}

pub(super) fn intake() -> SharedIntake {
    let limits = BudgetLimits { process_bytes: 256 * MIB, reserve_bytes: 64 * MIB, queue_bytes: 64 * MIB };
    let intake = Intake::new(Account::new(Arc::new(Budget::new(limits))), Arc::new(Buffers::default()));
    Arc::new(parking_lot::Mutex::new(intake))
}

/// Queues a message that is known by its tag, which travels as its type's hash.
pub(super) fn push(intake: &SharedIntake, stream: StreamId, tag: u32, bytes: usize) -> Result<Receipt, Lost> {
    let body = body(tag, bytes);
    let (ticket, receipt) = Ticket::new();
    let out = Outgoing { stream, hash: tag, version: 1, body: Body::Shared(&body), reply: &|| false };
    match intake.lock().push(out, Some(ticket)) {
        Ok(_) => Ok(receipt),
        Err(crate::session::Refused::Closed(cause)) => Err(Lost::NotSent(cause)),
        Err(crate::session::Refused::Full(_)) => panic!("there is room"),
    }
}

/// One message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) from: MemberId,
    pub(super) stream: StreamId,
    pub(super) tag: u32,
}

/// A peer and the application's debts to it.
pub(super) struct Room {
    pub(super) peer: Peer,
    pub(super) held: VecDeque<Handled>,
    pub(super) asked: VecDeque<(Epoch, StreamId)>,
}

/// See the module's text.
pub(super) struct Side {
    pub(super) id: MemberId,
    pub(super) with: Surroundings,
    pub(super) roster: Roster,
    pub(super) types: Arc<Vec<TypeEntry>>,
    pub(super) rooms: BTreeMap<MemberId, Room>,
    /// Handlers are not done with anything.
    pub(super) slow: bool,
    /// Memory for large messages is not granted.
    pub(super) stingy: bool,
    pub(super) came: Vec<Came>,
    newest: HashMap<(MemberId, StreamId), u32>,
    pub(super) events: Vec<PeerEvent>,
    pub(super) overs: Vec<Cause>,
    pub(super) replaced: Vec<(Vec<ContactId>, MemberId)>,
    pub(super) farewells: Vec<Frame>,
    pub(super) dials: Vec<Instant>,
    pub(super) datagrams: Vec<Datagram>,
    pub(super) answered: Vec<Answered>,
    seed: u64,
}

impl Side {
    pub(super) fn new(id: MemberId, credit_bytes: u64, seed: u64) -> Self {
        Self {
            id,
            with: surroundings(id, credit_bytes),
            roster: Roster::new(Views::Agreed),
            types: Arc::new(vec![fallback()]),
            rooms: BTreeMap::new(),
            slow: false,
            stingy: false,
            came: Vec::new(),
            newest: HashMap::new(),
            events: Vec::new(),
            overs: Vec::new(),
            replaced: Vec::new(),
            farewells: Vec::new(),
            dials: Vec::new(),
            datagrams: Vec::new(),
            answered: Vec::new(),
            seed,
        }
    }

    /// The peer with this id; made if it is not there.
    pub(super) fn room(&mut self, of: MemberId) -> &mut Room {
        let Self { with, roster, types, seed, .. } = self;
        self.rooms.entry(of).or_insert_with(|| {
            *seed += 1;
            let peer = Peer::new(with.clone(), of, intake(), Arc::clone(types), *seed);
            let peer = peer.with_seat(roster.seat(of));
            Room { peer, held: VecDeque::new(), asked: VecDeque::new() }
        })
    }

    /// Its membership system installs a view: as the driver does it.
    pub(super) fn install(&mut self, now: Instant, view: View) -> Result<ViewChange, ViewError> {
        let mut me = Introduction::clone(&self.with.me);
        let id = view.id();
        let joined = view.member(self.id).and_then(|member| member.joined);
        let change = self.roster.install(self.id, view)?;
        me.member.joined = me.member.joined.or(joined).or(Some(id));
        me.view = Some(id);
        self.with.me = Arc::new(me);
        for (of, room) in &mut self.rooms {
            room.peer.handle_view(now, Arc::clone(&self.with.me), self.roster.seat(*of));
        }
        Ok(change)
    }

    /// A handler gets what came. Whether `from` sent it in this order is seen here; to whom, by the pair.
    pub(super) fn deliver(&mut self, from: MemberId, epoch: Epoch, delivery: &Delivery) {
        let &Delivery { stream, records, bytes, .. } = delivery;
        match &delivery.content {
            Content::Records(all) => {
                let mut all = all.clone();
                for _ in 0..records {
                    let record = record::take(&mut all).unwrap();
                    self.take(from, stream, record.header.hash, &record.body);
                }
                assert!(all.is_empty());
            }
            Content::Large { hash, body, .. } => self.take(from, stream, *hash, body),
        }
        self.room(from).held.push_back(Handled { epoch, stream, records, bytes });
    }

    fn take(&mut self, from: MemberId, stream: StreamId, tag: u32, bytes: &Bytes) {
        assert_eq!(*bytes, body(tag, bytes.len()), "message {tag} is not what was sent");
        let before = self.newest.insert((from, stream), tag);
        assert!(before.is_none_or(|before| before < tag), "{stream:?}: {tag} came after {before:?}");
        self.came.push(Came { from, stream, tag });
    }

    /// Handlers and memory, unless they are held back.
    pub(super) fn work(&mut self, now: Instant) -> bool {
        let mut moved = false;
        let (slow, stingy) = (self.slow, self.stingy);
        for room in self.rooms.values_mut() {
            while !slow && room.handle(now) {
                moved = true;
            }
            while !stingy && room.grant(now) {
                moved = true;
            }
        }
        moved
    }

    pub(super) fn tags(&self) -> Vec<u32> {
        self.came.iter().map(|came| came.tag).collect()
    }

    /// Holds after every step.
    pub(super) fn check(&self) {
        for room in self.rooms.values() {
            let accounts = room.peer.session().accounts();
            let (queued, pending) = room.peer.session().queued_and_pending();
            let ended = accounts.acked + accounts.not_sent + accounts.indeterminate;
            assert_eq!(queued, ended + pending, "every message is in one account: {accounts:?}, {pending}");
        }
    }
}

impl Room {
    pub(super) fn handle(&mut self, now: Instant) -> bool {
        let Some(handled) = self.held.pop_front() else { return false };
        self.peer.handle_handled(now, handled);
        true
    }

    pub(super) fn grant(&mut self, now: Instant) -> bool {
        let Some((epoch, stream)) = self.asked.pop_front() else { return false };
        self.peer.handle_reserved(now, epoch, stream, Reservation::new(()));
        true
    }
}

/// A little more than two delays.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(3);

/// The credit of tests that do not care.
pub(super) const CREDIT: u64 = 256 * KIB as u64;
