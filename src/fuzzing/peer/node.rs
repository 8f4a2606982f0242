//! One of the two processes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::session::{config, intake, types};
use crate::limits::{self, CREDIT_BYTES_MIN};
use crate::link::LinkConfig;
use crate::member::{Endpoint, Member, MemberId, Views};
use crate::peer::{
    BackoffConfig, Counters, HealthConfig, Introduction, Peer, PeerConfig, Roster, Surroundings,
};
use crate::session::Handled;
use crate::wire::{Epoch, StreamId};

/// One of the two, and the application's debts to its peer.
pub(super) struct Node {
    pub(super) with: Surroundings,
    pub(super) roster: Roster,
    pub(super) peer: Option<Peer>,
    pub(super) held: VecDeque<Handled>,
    pub(super) asked: VecDeque<(Epoch, StreamId)>,
}

pub(in crate::fuzzing) fn endpoint() -> Endpoint {
    std::net::SocketAddr::from(([10, 0, 0, 1], 7400)).into()
}

pub(in crate::fuzzing) fn member_id(number: u64) -> MemberId {
    MemberId::from_parts(number, number.into())
}

pub(in crate::fuzzing) fn member(id: MemberId) -> Member {
    Member { id, endpoints: Vec::new(), name: String::new(), labels: BTreeMap::new(), joined: None }
}

/// A process that nobody has met.
pub(in crate::fuzzing) fn surroundings(id: MemberId) -> Surroundings {
    let config = PeerConfig {
        session: config(CREDIT_BYTES_MIN),
        idle: limits::IDLE,
        link: LinkConfig { ping: limits::PING, liveness: limits::LIVENESS },
        backoff: BackoffConfig { min: limits::REDIAL_MIN, max: limits::REDIAL_MAX },
        health: HealthConfig::default(),
        connect: limits::CONNECT,
        hello: limits::HELLO,
        lease: limits::RESUME_LEASE,
        body_check: crate::wire::BodyCheck::Crc,
    };
    let me = Arc::new(Introduction { member: member(id), ..Introduction::default() });
    let counters = Arc::new(Counters::new());
    Surroundings { config, me, counters, quarantine: Default::default(), sent: Arc::default() }
}

impl Node {
    pub(super) fn new(id: u64, views: Views) -> Self {
        let with = surroundings(member_id(id));
        let roster = Roster::new(views);
        Self { with, roster, peer: None, held: VecDeque::new(), asked: VecDeque::new() }
    }

    pub(super) fn id(&self) -> MemberId {
        self.with.me.member.id
    }

    /// The peer for this member; another one's goes, as its session has ended.
    pub(super) fn peer(&mut self, of: MemberId) -> &mut Peer {
        let (with, roster) = (&self.with, &self.roster);
        self.peer.get_or_insert_with(|| {
            Peer::new(with.clone(), of, intake(), Arc::new(types()), 7).with_seat(roster.seat(of))
        })
    }
}
