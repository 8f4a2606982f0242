//! Who handles what: hosts of this node, and hosts of others.

mod page;

pub(crate) use page::{Mark, Page};

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::super::envelope::{ActorRef, RouteRecord};
use super::super::key::{KeyId, MessageKey};
use super::owed::Owed;
use crate::MemberId;

/// Ids are hashes already.
type ById<V> = HashMap<KeyId, V, foldhash::fast::RandomState>;

/// Who may find a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Announced to the network.
    #[default]
    Network,
    /// Never announced, and not reachable from other nodes.
    Local,
}

/// Of several providers, which one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// Hosts of this node in turn, and others only if it has none.
    #[default]
    LocalFirst,
    /// All in turn, here or elsewhere.
    Fair,
}

/// Why routes were not taken. None of them was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This host has the key already.
    Duplicate(MessageKey),
    /// Another key has the same hash.
    Collision(MessageKey, MessageKey),
    /// More than a node may hold.
    TooMany,
}

/// Providers of one key.
#[derive(Debug)]
struct Entry {
    key: MessageKey,
    local: Vec<(u32, Scope)>,
    remote: Vec<ActorRef>,
    /// Whose turn it is among those here, and among all.
    turn_here: usize,
    turn: usize,
    /// To whom was passed over for want of room.
    owed: Owed,
}

impl Entry {
    fn new(key: MessageKey) -> Self {
        Self { key, local: Vec::new(), remote: Vec::new(), turn_here: 0, turn: 0, owed: Owed::default() }
    }

    fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty()
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Table {
    me: MemberId,
    entries: ById<Entry>,
    /// What each other node holds.
    nodes: BTreeMap<MemberId, Vec<(KeyId, u32)>>,
    routes_max: usize,
}

/// Which providers come into question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) preference: Preference,
    pub(crate) affinity: Option<u64>,
    /// Only this node.
    pub(crate) node: Option<MemberId>,
    /// Asked for by another node: what is local to this one is not there.
    pub(crate) from_outside: bool,
    /// Not this one: it has just failed.
    pub(crate) but: Option<ActorRef>,
}

impl Table {
    pub(crate) fn new(me: MemberId, routes_max: usize) -> Self {
        Self { me, entries: ById::default(), nodes: BTreeMap::new(), routes_max }
    }

    /// Who this node is now.
    pub(crate) fn set_me(&mut self, me: MemberId) {
        self.forget(me);
        self.me = me;
    }

    // ---- this node ----

    /// A host takes these keys: all, or none.
    pub(crate) fn register(&mut self, host: u32, keys: &[(MessageKey, Scope)]) -> Result<(), Refused> {
        for (at, (key, _)) in keys.iter().enumerate() {
            let id = key.id();
            if keys.iter().take(at).any(|(other, _)| other.id() == id) {
                return Err(Refused::Duplicate(key.clone()));
            }
            if let Some(entry) = self.entries.get(&id) {
                if entry.key != *key {
                    return Err(Refused::Collision(key.clone(), entry.key.clone()));
                }
                if entry.local.iter().any(|(other, _)| *other == host) {
                    return Err(Refused::Duplicate(key.clone()));
                }
            }
        }
        if self.own().count() + keys.len() > self.routes_max {
            return Err(Refused::TooMany);
        }
        for (key, scope) in keys {
            let entry = self.entries.entry(key.id()).or_insert_with(|| Entry::new(key.clone()));
            entry.local.push((host, *scope));
        }
        Ok(())
    }

    /// A host takes this key no more; whether it did, and whether others were told of it.
    pub(crate) fn unregister(&mut self, host: u32, id: KeyId) -> Option<Scope> {
        let entry = self.entries.get_mut(&id)?;
        let at = entry.local.iter().position(|(other, _)| *other == host)?;
        let (_, scope) = entry.local.remove(at);
        let provider = ActorRef { node: self.me, host };
        entry.owed.forget(provider);
        if entry.is_empty() {
            self.entries.remove(&id);
        }
        Some(scope)
    }

    /// Keys that a host takes.
    pub(crate) fn keys_of(&self, host: u32) -> Vec<KeyId> {
        let holds = |entry: &Entry| entry.local.iter().any(|(other, _)| *other == host);
        let held = self.entries.iter().filter(|(_, entry)| holds(entry));
        in_order(held.map(|(id, _)| *id), |id| *id)
    }

    /// Whether a host takes this key; from outside only if others know of it.
    pub(crate) fn holds(&self, host: u32, id: KeyId, from_outside: bool) -> bool {
        let fits =
            |(other, scope): &(u32, Scope)| *other == host && !(from_outside && *scope == Scope::Local);
        self.entries.get(&id).is_some_and(|entry| entry.local.iter().any(fits))
    }

    /// All routes of this node.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&MessageKey, u32, Scope)> {
        self.entries
            .values()
            .flat_map(|entry| entry.local.iter().map(|(host, scope)| (&entry.key, *host, *scope)))
    }

    /// What others are told of.
    pub(crate) fn announced(&self) -> Vec<RouteRecord> {
        let record = |(key, host, _): (&MessageKey, u32, Scope)| RouteRecord { key: key.clone(), host };
        let shared = self.own().filter(|(_, _, scope)| *scope == Scope::Network);
        in_order(shared.map(record), |record| (record.key.id(), record.host))
    }

    // ---- other nodes ----

    /// A node holds a route. Says no to what is not sound, or too much.
    pub(crate) fn learn(&mut self, node: MemberId, record: RouteRecord) -> bool {
        if node == self.me || record.host == 0 || !record.key.is_sound() {
            return false;
        }
        let id = record.key.id();
        let known = self.nodes.entry(node).or_default();
        if known.len() >= self.routes_max {
            return false;
        }
        let entry = self.entries.entry(id).or_insert_with(|| Entry::new(record.key.clone()));
        let provider = ActorRef { node, host: record.host };
        if entry.key != record.key || entry.remote.contains(&provider) {
            return false;
        }
        // Sorted, so that all nodes take turns alike, whatever they learnt first.
        let at = entry.remote.partition_point(|other| *other < provider);
        entry.remote.insert(at, provider);
        known.push((id, record.host));
        true
    }

    /// A node holds a route no more.
    pub(crate) fn unlearn(&mut self, provider: ActorRef, id: KeyId) -> bool {
        let Some(known) = self.nodes.get_mut(&provider.node) else { return false };
        let Some(at) = known.iter().position(|route| *route == (id, provider.host)) else { return false };
        known.swap_remove(at);
        self.drop_remote(provider, id);
        true
    }

    fn drop_remote(&mut self, provider: ActorRef, id: KeyId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.remote.retain(|other| *other != provider);
            entry.owed.forget(provider);
            if entry.is_empty() {
                self.entries.remove(&id);
            }
        }
    }

    /// A node is no more, or tells all anew.
    pub(crate) fn forget(&mut self, node: MemberId) {
        for (id, host) in self.nodes.remove(&node).unwrap_or_default() {
            self.drop_remote(ActorRef { node, host }, id);
        }
    }

    /// Whether another node holds this route.
    pub(crate) fn has(&self, provider: ActorRef, id: KeyId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.remote.contains(&provider))
    }

    /// Hosts of a node that hold this key.
    pub(crate) fn hosts_of(&self, node: MemberId, id: KeyId) -> Vec<u32> {
        let remote = self.entries.get(&id).into_iter().flat_map(|entry| &entry.remote);
        remote.filter(|to| to.node == node).map(|to| to.host).collect()
    }

    /// Nodes that hold this key, each once.
    pub(crate) fn nodes_with(&self, id: KeyId) -> Vec<MemberId> {
        let mut nodes: Vec<_> =
            self.entries.get(&id).into_iter().flat_map(|entry| &entry.remote).map(|to| to.node).collect();
        // They are sorted.
        nodes.dedup();
        nodes
    }

    /// Hosts here that hold this key.
    pub(crate) fn hosts_with(&self, id: KeyId, from_outside: bool) -> Vec<u32> {
        let fits = |(_, scope): &&(u32, Scope)| !(from_outside && *scope == Scope::Local);
        let local = self.entries.get(&id).into_iter().flat_map(|entry| &entry.local);
        local.filter(fits).map(|(host, _)| *host).collect()
    }

    /// What all nodes hold, as they said.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&MessageKey, ActorRef)> {
        self.entries.values().flat_map(|entry| entry.remote.iter().map(|to| (&entry.key, *to)))
    }

    /// The key with this id, if any node holds it.
    pub(crate) fn key(&self, id: KeyId) -> Option<&MessageKey> {
        self.entries.get(&id).map(|entry| &entry.key)
    }

    // ---- the choice ----

    /// Who gets the next message with this key. Of those in turn one that `has_room`, if any has.
    pub(crate) fn choose(
        &mut self,
        id: KeyId,
        wish: Wish,
        has_room: impl Fn(ActorRef) -> bool,
    ) -> Option<ActorRef> {
        let me = self.me;
        let entry = self.entries.get_mut(&id)?;
        let fits = |to: ActorRef, scope: Scope| {
            wish.node.is_none_or(|node| node == to.node)
                && wish.but != Some(to)
                && !(wish.from_outside && scope == Scope::Local)
        };
        let provider = |at: usize| match entry.local.get(at) {
            Some((host, scope)) => Some((ActorRef { node: me, host: *host }, *scope)),
            None => entry.remote.get(at - entry.local.len()).map(|to| (*to, Scope::Network)),
        };
        let fitting = |at: usize| provider(at).filter(|(to, scope)| fits(*to, *scope)).map(|(to, _)| to);
        let all = entry.local.len() + entry.remote.len();
        if let Some(affinity) = wish.affinity {
            return (0..all).filter_map(fitting).max_by_key(|to| (weight(affinity, *to), *to));
        }
        let here = wish.preference == Preference::LocalFirst
            && (0..entry.local.len()).any(|at| fitting(at).is_some());
        let count = if here { entry.local.len() } else { all };
        let from = if here { entry.turn_here } else { entry.turn };
        // Who was passed over comes before whose turn it is: so in the end all have had as many.
        let takes = |to: ActorRef| {
            let there = if to.node == me {
                entry.local.iter().any(|(host, scope)| *host == to.host && fits(to, *scope))
            } else {
                !here && entry.remote.binary_search(&to).is_ok() && fits(to, Scope::Network)
            };
            there && has_room(to)
        };
        if let Some(to) = entry.owed.claim(takes) {
            return Some(to);
        }
        let mut first = None;
        let mut chosen = None;
        for at in (from..from + count).map(|at| at % count) {
            let Some(to) = fitting(at) else { continue };
            if has_room(to) {
                chosen = Some((at, to));
                break;
            }
            first = first.or(Some((at, to)));
        }
        if chosen.is_some() {
            let passed = (from..from + count)
                .map(|at| at % count)
                .take_while(|at| chosen.map(|(chosen, _)| chosen) != Some(*at));
            let passed: SmallVec<[ActorRef; 8]> = passed.filter_map(fitting).collect();
            passed.into_iter().for_each(|to| entry.owed.pass(to, count));
        }
        let (at, to) = chosen.or(first)?;
        *(if here { &mut entry.turn_here } else { &mut entry.turn }) = at + 1;
        Some(to)
    }
}

/// Tables are hashed by chance: what comes out of them has an order all the same, so that a seed replays.
fn in_order<T, K: Ord>(all: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable_by_key(key);
    all
}

/// Highest random weight (Thaler and Ravishankar, 1998): when one of N providers goes, only what it had moves, and when
/// one comes, a share of 1/(N+1) moves to it.
fn weight(affinity: u64, to: ActorRef) -> u64 {
    let member = u128::from_be_bytes(to.node.to_bytes());
    [(member >> 64) as u64, member as u64, u64::from(to.host)]
        .into_iter()
        .fold(mix(affinity), |hash, part| mix(hash ^ part))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
