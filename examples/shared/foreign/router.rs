//! A router of another make, in the manner of kino's: messages are known by identity, version and partition; an
//! internal table says which actors of this node take them, an external one which other nodes do; redundant ones take turns.
//!
//! All it needs of a transport is in `RouterTransport`: send to a node, receive from a node, nodes come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use karere::{MemberId, NotTaken, PeerChange, Receipt, RouterTransport, Transport};
use serde::{Deserialize, Serialize};

/// What a message is known by: all three must match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) identity: String,
    pub(crate) version: u16,
    pub(crate) partition: String,
}

impl Key {
    pub(crate) fn new(identity: &str, version: u16, partition: impl ToString) -> Self {
        Self { identity: identity.to_owned(), version, partition: partition.to_string() }
    }
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) key: Key,
    pub(crate) number: u64,
    /// The partition of who waits for the answer.
    pub(crate) answer_to: String,
}

#[derive(Serialize, Deserialize)]
enum Content {
    /// All keys that the sender's actors take.
    Routes(Vec<Key>),
    Message(Envelope),
}

/// What goes over the transport. Numbered for each pair of nodes, so that both can say what was lost.
#[derive(Serialize, Deserialize)]
struct Frame {
    sequence: u64,
    content: Content,
}

/// Takes one message and returns none, one or many.
pub(crate) type Actor = Box<dyn Fn(Envelope) -> Vec<Envelope> + Send + Sync>;

/// Those who take a key, in turns.
struct Ring<T> {
    all: Vec<T>,
    next: usize,
}

impl<T: Copy + PartialEq> Ring<T> {
    const fn new() -> Self {
        Self { all: Vec::new(), next: 0 }
    }

    fn add(&mut self, one: T) {
        if !self.all.contains(&one) {
            self.all.push(one);
        }
    }

    fn turn(&mut self) -> Option<T> {
        self.next = (self.next + 1) % self.all.len().max(1);
        self.all.get(self.next).copied()
    }
}

/// What this node knows of its traffic with another one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lane {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) out_of_order: u64,
    /// The number that is to come next, and those before it that have not come.
    next: u64,
    missing: BTreeSet<u64>,
}

impl Lane {
    fn note(&mut self, sequence: u64) {
        self.received += 1;
        if sequence < self.next {
            if self.missing.remove(&sequence) {
                self.out_of_order += 1;
            } else {
                self.twice += 1;
            }
        } else {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        }
        self.lost = self.missing.len() as u64;
    }
}

/// What became of a message.
pub(crate) enum Routed {
    /// An actor of this node had it.
    Here,
    /// It is on its way to another node.
    To(MemberId, Receipt),
    /// Nobody takes it now, or the queue has no room: to be tried again.
    NotNow(Envelope),
}

#[derive(Default)]
struct Tables {
    internal: BTreeMap<Key, Ring<usize>>,
    external: BTreeMap<Key, Ring<MemberId>>,
    /// Also of nodes that are gone, for the count at the end.
    lanes: BTreeMap<MemberId, Lane>,
    up: BTreeSet<MemberId>,
    /// What found no room. Bounded by what is asked for at a time: one answer a question, one table a node.
    waiting: VecDeque<(MemberId, Content)>,
}

pub(crate) struct Router {
    actors: Vec<Actor>,
    tables: Mutex<Tables>,
}

impl Router {
    /// With these actors, and the keys that each of them takes.
    pub(crate) fn new(actors: Vec<(Actor, Vec<Key>)>) -> Self {
        let mut tables = Tables::default();
        let mut take = |(at, (actor, keys)): (usize, (Actor, Vec<Key>))| {
            keys.into_iter().for_each(|key| tables.internal.entry(key).or_insert_with(Ring::new).add(at));
            actor
        };
        let actors = actors.into_iter().enumerate().map(&mut take).collect();
        Self { actors, tables: Mutex::new(tables) }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The internal table first, the external one only if it has nobody.
    pub(crate) fn route(&self, transport: &Transport, message: Envelope) -> Routed {
        let mut tables = self.tables();
        if let Some(actor) = tables.internal.get_mut(&message.key).and_then(Ring::turn) {
            drop(tables);
            self.run(transport, actor, message);
            return Routed::Here;
        }
        let Some(to) = tables.external.get_mut(&message.key).and_then(Ring::turn) else {
            return Routed::NotNow(message);
        };
        match tables.send(transport, to, Content::Message(message)) {
            Ok(receipt) => Routed::To(to, receipt),
            Err(Content::Message(message)) => Routed::NotNow(message),
            Err(Content::Routes(_)) => unreachable!("what was given comes back"),
        }
    }

    /// What an actor returns is routed on.
    fn run(&self, transport: &Transport, actor: usize, message: Envelope) {
        for next in (self.actors[actor])(message) {
            let mut tables = self.tables();
            if tables.internal.contains_key(&next.key) {
                drop(tables);
                self.route(transport, next);
            } else if let Some(to) = tables.external.get_mut(&next.key).and_then(Ring::turn) {
                tables.send_later(transport, to, Content::Message(next));
            }
        }
    }

    /// Tries again what found no room.
    pub(crate) fn retry(&self, transport: &Transport) {
        let mut tables = self.tables();
        for (to, content) in std::mem::take(&mut tables.waiting) {
            tables.send_later(transport, to, content);
        }
    }

    pub(crate) fn is_up(&self, node: MemberId) -> bool {
        self.tables().up.contains(&node)
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.tables().up.is_empty()
    }

    pub(crate) fn lanes(&self) -> Vec<(MemberId, Lane)> {
        self.tables().lanes.iter().map(|(node, lane)| (*node, lane.clone())).collect()
    }

    /// Whether anything waits for room.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.tables().waiting.is_empty()
    }
}

impl Tables {
    /// A number is used only if the frame is taken.
    fn send(&mut self, transport: &Transport, to: MemberId, content: Content) -> Result<Receipt, Content> {
        let lane = self.lanes.entry(to).or_default();
        let frame = Frame { sequence: lane.sent, content };
        let Ok(bytes) = postcard::to_stdvec(&frame) else { return Err(frame.content) };
        match transport.send_with_receipt(to, bytes.into()) {
            Ok(receipt) => {
                lane.sent += 1;
                Ok(receipt)
            }
            // The same bytes are made again when there is room: the number is another then.
            Err(NotTaken { .. }) => Err(frame.content),
        }
    }

    /// In the order given, for as long as the node is up.
    fn send_later(&mut self, transport: &Transport, to: MemberId, content: Content) {
        if !self.up.contains(&to) {
            return;
        }
        let waits = self.waiting.iter().any(|(node, _)| *node == to);
        match if waits { Err(content) } else { self.send(transport, to, content).map(drop) } {
            Ok(()) => {}
            Err(content) => self.waiting.push_back((to, content)),
        }
    }
}

impl RouterTransport for Router {
    fn on_peer(&self, transport: &Transport, peer: MemberId, change: PeerChange) {
        let mut tables = self.tables();
        match change {
            PeerChange::Up => {
                tables.up.insert(peer);
                let routes = Content::Routes(tables.internal.keys().cloned().collect());
                tables.send_later(transport, peer, routes);
            }
            PeerChange::Down { cause } => {
                tables.up.remove(&peer);
                tables.waiting.retain(|(to, _)| *to != peer);
                tables.external.values_mut().for_each(|ring| ring.all.retain(|node| *node != peer));
                eprintln!("{:.8}: {peer:.8} is down: {cause}", transport.me());
            }
            _ => {}
        }
    }

    async fn on_message(&self, transport: &Transport, from: MemberId, frame: Bytes) {
        let Ok(Frame { sequence, content }) = postcard::from_bytes(&frame) else {
            eprintln!("{from:.8} sent something else");
            return;
        };
        self.tables().lanes.entry(from).or_default().note(sequence);
        match content {
            Content::Routes(keys) => {
                let mut tables = self.tables();
                keys.into_iter()
                    .for_each(|key| tables.external.entry(key).or_insert_with(Ring::new).add(from));
            }
            Content::Message(message) => {
                // From outside to an actor of this node, never on to another one.
                let actor = self.tables().internal.get_mut(&message.key).and_then(Ring::turn);
                if let Some(actor) = actor {
                    self.run(transport, actor, message);
                }
            }
        }
    }
}
