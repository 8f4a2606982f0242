//! A door for the fuzzer: cores that talk to each other in their real bytes, and strangers who say anything.
//!
//! What holds among honest nodes, whatever is lost and whoever comes and goes: each request ends once, by an answer of its own
//! flow or a failure; what is not idempotent is handled once at most; when all is over nothing is left. Of strangers: nothing
//! that they say panics, or stays.

mod between;
mod end;
mod flows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::super::envelope::{ActorRef, Body};
use super::super::key::MessageKey;
use super::{Core, CoreConfig, Work};
use crate::{Kind, MemberId};
use between::Packet;

const OPERATIONS_MAX: usize = 400;
const NODES: u64 = 3;
const KEYS: [&str; 4] = ["a", "b", "c", "answer"];

/// Names a message among all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob(Bytes);

impl Body for Blob {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Blob {
    fn of(tag: u64) -> Self {
        Self(Bytes::copy_from_slice(&tag.to_le_bytes()))
    }

    fn tag(&self) -> Option<u64> {
        self.0.as_ref().try_get_u64_le().ok()
    }
}

/// What is known of a message.
#[derive(Debug)]
struct Message {
    /// The request that it belongs to.
    token: Option<u32>,
    twice: bool,
    handled: BTreeMap<ActorRef, u32>,
    to_all: bool,
}

struct Side {
    core: Core<Blob, u32>,
    hosts: Vec<u32>,
    busy: Vec<(u32, Work<Blob>)>,
    promises: Vec<u64>,
}

struct Run {
    source: Bytes,
    now: Instant,
    sides: BTreeMap<MemberId, Side>,
    ways: BTreeMap<(MemberId, MemberId), VecDeque<Packet>>,
    messages: BTreeMap<u64, Message>,
    open: BTreeSet<u32>,
    next: u64,
    /// Strangers speak as well: then only what must hold of strangers does.
    hostile: bool,
}

fn member(number: u64) -> MemberId {
    MemberId::from_parts(number, 7)
}

fn key(at: u8) -> MessageKey {
    let name = KEYS.get(usize::from(at) % KEYS.len()).copied().unwrap_or("a");
    MessageKey::of_kind(Kind::new(name, 1))
}

/// Any operations on cores, and any bytes between them.
pub(crate) fn router(now: Instant, input: &[u8]) {
    let mut source = Bytes::copy_from_slice(input);
    let mode = source.try_get_u8().unwrap_or(0);
    let config = CoreConfig {
        grace: Duration::from_millis(50),
        hops_max: 6,
        depth_max: 5,
        queued_bytes_max: if mode & 2 == 0 { 64 } else { 1 << 20 },
        waiting_max: if mode & 4 == 0 { 8 } else { 1024 },
        routes_max: 16,
        ..CoreConfig::default()
    };
    let side = |at| Side {
        core: Core::new(member(at), config.clone()),
        hosts: Vec::new(),
        busy: Vec::new(),
        promises: Vec::new(),
    };
    let mut run = Run {
        source,
        now,
        sides: (1..=NODES).map(|at| (member(at), side(at))).collect(),
        ways: BTreeMap::new(),
        messages: BTreeMap::new(),
        open: BTreeSet::new(),
        next: 1,
        hostile: mode & 1 == 1,
    };
    run.all_up();
    for at in 0..OPERATIONS_MAX {
        let Ok(operation) = run.source.try_get_u8() else { break };
        run.operate(operation);
        if at % 16 == 0 {
            run.check();
        }
    }
    run.finish();
}

impl Run {
    fn u8(&mut self) -> u8 {
        self.source.try_get_u8().unwrap_or(0)
    }

    fn node(&mut self) -> MemberId {
        member(u64::from(self.u8()) % NODES + 1)
    }

    /// One of them, or somebody whom nobody knows.
    fn anybody(&mut self) -> MemberId {
        member(u64::from(self.u8()) % (NODES + 2) + 1)
    }

    fn act<R>(&mut self, at: MemberId, act: impl FnOnce(&mut Core<Blob, u32>, Instant) -> R) -> Option<R> {
        let now = self.now;
        let result = act(&mut self.sides.get_mut(&at)?.core, now);
        self.perform(at);
        Some(result)
    }

    fn all_up(&mut self) {
        let all: Vec<MemberId> = self.sides.keys().copied().collect();
        for at in &all {
            for other in all.iter().filter(|other| *other != at) {
                self.act(*at, |core, now| core.handle_node_up(now, *other));
            }
        }
    }

    fn operate(&mut self, operation: u8) {
        let at = self.node();
        match operation & 15 {
            0..=3 => {
                let from = self.node();
                self.deliver(from, at);
            }
            4 | 5 => self.begin(at, operation & 1 == 0),
            6 => self.change_hosts(at),
            7..=9 => self.next_work(at),
            10 | 11 => self.handled(at),
            12 => {
                let units = [1, 20, 300, 4_000];
                let unit = units.get(usize::from(operation >> 4) % units.len()).copied().unwrap_or(1);
                let time = u64::from(self.u8()) * unit;
                self.pass(Duration::from_millis(time));
            }
            13 => {
                let other = self.node();
                if operation & 16 == 0 {
                    self.act(at, |core, now| core.handle_node_down(now, other));
                } else {
                    self.act(at, |core, now| core.handle_node_up(now, other));
                }
            }
            14 if self.hostile => self.stranger(at),
            14 => self.lose(at),
            _ => self.give_up(at),
        }
    }
}
