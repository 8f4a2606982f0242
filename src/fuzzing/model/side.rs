//! One address: the process that runs there, with all that its driver keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::session::intake;
use super::id;
use crate::limits::{CREDIT_BYTES_MIN, MIB};
use crate::link::LinkConfig;
use crate::member::{Endpoint, MemberId, Views};
use crate::peer::{
    BackoffConfig, Counters, HealthConfig, Introduction, Peer, PeerConfig, Roster, SentNames, Surroundings,
};
use crate::session::{InboxLimits, SessionConfig};
use crate::wire::{BodyCheck, Epoch, Protocol, StreamId, TypeEntry};

/// A wait that jitter cannot move: at most half of it is added, and that rounds to nothing.
const WAIT: Duration = Duration::from_nanos(1);
const QUARANTINE: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(100);
pub(super) const LIVENESS: Duration = Duration::from_secs(1000);
/// What never passes.
const NEVER: Duration = Duration::from_secs(1_000_000_000);

/// A session with another member, its own clock, and what it has delivered.
pub(super) struct Room {
    pub(super) peer: Peer,
    pub(super) now: Instant,
    /// Of this session.
    pub(super) epoch: Epoch,
    /// Records of each stream that it delivered.
    pub(super) delivered: Vec<(StreamId, u64)>,
    /// Nothing has happened since it last wrote all that was to be written.
    pub(super) written: bool,
    /// Its first session was noted.
    pub(super) known: bool,
}

/// What became of a contact.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Contact {
    None,
    Held(MemberId),
    /// It looks for another than this.
    Seeks(Option<MemberId>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Running,
    Leaving,
    Gone,
}

/// See the module's text. It shares nothing with another world, so the bytes of a world are all of it.
pub(super) struct Side {
    pub(super) at: usize,
    pub(super) incarnation: u8,
    pub(super) with: Surroundings,
    pub(super) roster: Roster,
    /// Boxed: a node of the map has room for eleven.
    pub(super) rooms: BTreeMap<MemberId, Box<Room>>,
    pub(super) contact: Contact,
    /// How many of the scenario's views it has seen.
    pub(super) installed: usize,
    pub(super) life: Life,
    types: Arc<Vec<TypeEntry>>,
    start: Instant,
}

/// What a side says it understands: everything.
fn types() -> Arc<Vec<TypeEntry>> {
    let protocol = Protocol::APPLICATION;
    let every = TypeEntry { protocol, hash: 0, version: 0, open: true, any: true, name: "*".to_owned() };
    Arc::new(vec![every])
}

const fn config() -> PeerConfig {
    PeerConfig {
        session: SessionConfig {
            inbox: InboxLimits { credit_bytes: CREDIT_BYTES_MIN, message_bytes_max: MIB },
            ack_delay: Duration::ZERO,
            quarantine: QUARANTINE,
        },
        link: LinkConfig { ping: LIVENESS, liveness: LIVENESS },
        backoff: BackoffConfig { min: Duration::ZERO, max: Duration::ZERO },
        health: HealthConfig { slow: NEVER, stuck: NEVER, unreachable: NEVER, grace: NEVER },
        connect: WAIT,
        hello: WAIT,
        lease: LEASE,
        idle: Duration::MAX,
        body_check: BodyCheck::Crc,
    }
}

/// Where a side is dialled.
pub(super) fn endpoint(side: usize) -> Endpoint {
    std::net::SocketAddr::from(([10, 0, 0, 1 + side as u8], 7400)).into()
}

impl Side {
    /// `sent` tells nothing here; it is large, so a world has one.
    pub(super) fn new(at: usize, incarnation: u8, sent: &Arc<SentNames>) -> Self {
        let mut me = Introduction::default();
        me.member.id = id(at, incarnation);
        me.member.endpoints = vec![endpoint(at)];
        let with = Surroundings {
            config: config(),
            me: Arc::new(me),
            counters: Arc::new(Counters::new()),
            quarantine: Default::default(),
            sent: Arc::clone(sent),
        };
        Self {
            at,
            incarnation,
            with,
            roster: Roster::new(Views::Agreed),
            rooms: BTreeMap::new(),
            contact: Contact::None,
            installed: 0,
            life: Life::Running,
            types: types(),
            start: Instant::now(),
        }
    }

    pub(super) fn id(&self) -> MemberId {
        self.with.me.member.id
    }

    /// The peer with this id; made if it is not there.
    pub(super) fn room(&mut self, of: MemberId) -> &mut Room {
        let Self { with, roster, rooms, types, start, .. } = self;
        rooms.entry(of).or_insert_with(|| {
            let peer = Peer::new(with.clone(), of, intake(), Arc::clone(types), 7);
            let peer = peer.with_seat(roster.seat(of));
            let epoch = peer.session().epoch();
            Box::new(Room { peer, now: *start, epoch, delivered: Vec::new(), written: false, known: false })
        })
    }

    /// Whether something may be sent to this member.
    pub(super) fn reaches(&self, of: MemberId) -> bool {
        let room = self.rooms.get(&of);
        self.roster.is_member(of) || room.is_some_and(|room| !room.peer.has_ended())
    }
}

impl Room {
    /// What the session it is in now has delivered of a stream.
    pub(super) fn delivered(&self, stream: StreamId) -> u64 {
        self.delivered.iter().find(|(of, _)| *of == stream).map_or(0, |(_, records)| *records)
    }

    pub(super) fn note_delivered(&mut self, epoch: Epoch, stream: StreamId, records: u64) {
        self.note_epoch(epoch);
        match self.delivered.iter_mut().find(|(of, _)| *of == stream) {
            Some((_, so_far)) => *so_far += records,
            None => self.delivered.push((stream, records)),
        }
    }

    /// Another session begins with nothing.
    pub(super) fn note_epoch(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.delivered.clear();
        }
    }
}
