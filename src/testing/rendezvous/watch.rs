//! What must hold in a world of a rendezvous, whatever goes wrong; each `Err` says what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::world::LOOK;
use crate::rendezvous::Token;
use crate::rendezvous::doors::ClusterId;
use crate::{MemberId, View, ViewId};

/// Who has been well for so long is never evicted: eviction (5 s), settling of a new leader, a ping and a probe; and what was on its way.
pub(super) const WELL: Duration = Duration::from_secs(12);
/// No leader evicts anybody for silence before it has spoken for so long: the default eviction time.
const EVICTION: Duration = Duration::from_secs(5);

/// A member, and the view in which it joined.
type Seat = (MemberId, Option<ViewId>);

/// A server that may speak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker {
    pub(super) place: usize,
    pub(super) term: u64,
    /// Up to which of what members are told its machine has come.
    pub(super) knows: u64,
}

/// Messages from one member to another, numbered from 1.
#[derive(Debug, Default)]
struct Way {
    sent: u64,
    delivered: u64,
    /// Of those that are not delivered, which were told to be lost.
    lost: BTreeSet<u64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Who is in each view that somebody has installed, of each history.
    views: BTreeMap<(Option<ClusterId>, ViewId), Vec<Seat>>,
    /// The last view of each member.
    installed: BTreeMap<MemberId, ViewId>,
    /// Whose each term is, by the server's place: with its disk it may go on in its term after a restart.
    terms: BTreeMap<u64, usize>,
    /// The newest of them, and when it was seen first.
    reign: Option<(u64, Instant)>,
    /// What some server knew that might speak.
    decided: u64,
    ways: BTreeMap<(MemberId, MemberId), Way>,
    tokens: BTreeMap<(Option<ClusterId>, String), (Token, MemberId)>,
    pub(super) figures: Figures,
}

/// What worlds of a rendezvous came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Worlds.
    pub worlds: u64,
    /// Views that somebody installed.
    pub views: u64,
    /// Terms in which a leader might speak.
    pub terms: u64,
    /// Messages between members.
    pub messages: u64,
    /// Times that what the leader knows of routes was held against what nodes were told.
    pub looks: u64,
    /// Members that were evicted.
    pub evicted: u64,
    /// Leases that were granted.
    pub grants: u64,
}

impl Figures {
    pub(in crate::testing) fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.views += other.views;
        self.terms += other.terms;
        self.messages += other.messages;
        self.looks += other.looks;
        self.evicted += other.evicted;
        self.grants += other.grants;
    }
}

impl Watch {
    /// All who install a view of an id install the same one, and each only newer ones than before. Servers that lost their disks may begin
    /// another history, for those who know nothing of the first: it has a cluster's id of its own.
    pub(super) fn view_installed(
        &mut self,
        by: MemberId,
        cluster: Option<ClusterId>,
        view: &View,
    ) -> Result<(), String> {
        let id = view.id();
        let mut members: Vec<Seat> = view.members().iter().map(|member| (member.id, member.joined)).collect();
        members.sort_unstable();
        let known = self.views.entry((cluster, id)).or_insert_with(|| members.clone());
        if *known != members {
            return Err(format!("view {id} is {members:?} at {by:.8}, and is {known:?} elsewhere"));
        }
        self.figures.views = self.views.len() as u64;
        match self.installed.insert(by, id) {
            Some(before) if before > id => Err(format!("{by:.8} went back from view {before} to {id}")),
            _ => Ok(()),
        }
    }

    /// At one moment at most one server may speak, and in one term only one ever.
    pub(super) fn may_speak(&mut self, speakers: &[Speaker], now: Instant) -> Result<(), String> {
        for Speaker { place, term, .. } in speakers {
            let before = match self.terms.insert(*term, *place) {
                Some(before) => before,
                None => {
                    self.figures.terms += 1;
                    *place
                }
            };
            if before != *place {
                return Err(format!("term {term} is of server {place}, and was of {before}"));
            }
            if self.reign.is_none_or(|(reign, _)| reign < *term) {
                self.reign = Some((*term, now));
            }
        }
        match speakers {
            [] | [_] => Ok(()),
            several => Err(format!("several servers may speak: {several:?}")),
        }
    }

    /// Whoever may speak knows all that any who might before has told of.
    pub(super) fn knows_what_was_decided(&mut self, speakers: &[Speaker]) -> Result<(), String> {
        let decided = self.decided;
        for Speaker { place, term, knows } in speakers {
            if *knows < decided {
                return Err(format!(
                    "server {place} may speak in term {term} and knows changes up to {knows}; a leader knew {decided}"
                ));
            }
            self.decided = self.decided.max(*knows);
        }
        Ok(())
    }

    /// Whether a leader speaks that was not there a moment ago, or none does: then it is looked at more closely.
    pub(super) fn is_changing(&self, speakers: &[Speaker], now: Instant) -> bool {
        speakers.is_empty() || self.reign.is_none_or(|(_, since)| now < since + 4 * LOOK)
    }

    /// All disks are lost: terms begin anew.
    pub(super) fn log_begins_anew(&mut self) {
        self.terms.clear();
        (self.reign, self.decided) = (None, 0);
    }

    // ---- messages between members ----

    pub(super) fn sent(&mut self, from: MemberId, to: MemberId) -> u64 {
        let way = self.ways.entry((from, to)).or_default();
        way.sent += 1;
        self.figures.messages += 1;
        way.sent
    }

    /// It was not taken, after all.
    pub(super) fn not_sent(&mut self, from: MemberId, to: MemberId) {
        if let Some(way) = self.ways.get_mut(&(from, to)) {
            way.sent -= 1;
        }
    }

    pub(super) fn delivered(&mut self, from: MemberId, to: MemberId, number: u64) -> Result<(), String> {
        let way = self.ways.entry((from, to)).or_default();
        if number > way.sent {
            return Err(format!("{to:.8} got message {number} of {from:.8}, which sent {}", way.sent));
        }
        if number <= way.delivered {
            return Err(format!("{to:.8} got message {number} of {from:.8} after {}", way.delivered));
        }
        let between: Vec<u64> =
            (way.delivered + 1..number).filter(|missing| !way.lost.contains(missing)).collect();
        way.delivered = number;
        if between.is_empty() {
            Ok(())
        } else {
            Err(format!("{to:.8} got message {number} of {from:.8} before {between:?}"))
        }
    }

    /// The sender was told that a message may be lost: only of one with whom it is no longer in one view.
    pub(super) fn lost(&mut self, from: MemberId, to: MemberId, number: u64) {
        self.ways.entry((from, to)).or_default().lost.insert(number);
    }

    /// Between those who are members at the end all has arrived.
    pub(super) fn all_arrived(&self, members: &BTreeSet<MemberId>) -> Result<(), String> {
        for ((from, to), way) in &self.ways {
            let both = members.contains(from) && members.contains(to);
            if both && (way.delivered < way.sent || !way.lost.is_empty()) {
                return Err(format!(
                    "{from:.8} and {to:.8} are members, and of {} messages {} were delivered, lost {:?}",
                    way.sent, way.delivered, way.lost
                ));
            }
        }
        Ok(())
    }

    // ---- leases, evictions ----

    pub(super) fn granted(
        &mut self,
        cluster: Option<ClusterId>,
        name: &str,
        to: MemberId,
        token: Token,
    ) -> Result<(), String> {
        match self.tokens.insert((cluster, name.to_owned()), (token, to)) {
            Some((before, whose)) if before > token || (before == token && whose != to) => {
                Err(format!("lease {name}: token {token} for {to:.8} after {before} for {whose:.8}"))
            }
            before => {
                self.figures.grants += u64::from(before.is_none_or(|(before, _)| before != token));
                Ok(())
            }
        }
    }

    /// Nobody who is well is evicted for being silent.
    pub(super) fn evicted(
        &mut self,
        member: MemberId,
        ill: Option<Instant>,
        now: Instant,
    ) -> Result<(), String> {
        self.figures.evicted += 1;
        match ill {
            Some(until) if now < until + WELL => Ok(()),
            _ => Err(format!("{member:.8} was evicted and had been well for {WELL:?}")),
        }
    }

    /// A leader gives everybody the time of an eviction, at the least. What was on its way into the log before it spoke was found by
    /// the first look at it.
    pub(super) fn evicted_in_time(&mut self, member: MemberId, now: Instant) -> Result<(), String> {
        match self.reign {
            Some((term, since)) if since < now && now + LOOK < since + EVICTION => Err(format!(
                "{member:.8} was evicted for silence {:?} after the leader of term {term} began to speak",
                now.duration_since(since)
            )),
            _ => Ok(()),
        }
    }
}
