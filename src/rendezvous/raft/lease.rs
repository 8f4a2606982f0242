//! When a leader may speak: while it is certain that there is no other.
//!
//! # Why that is certain
//!
//! A follower that has taken an append of a leader, in whatever way it answers it, votes for nobody else for
//! [`election_max`](super::LogConfig) after: openraft's `Engine::handle_vote_req` refuses while `now <= vote_utime + leader_lease`
//! if the vote is committed, every append renews `vote_utime` (`VoteHandler::update_vote`), and `leader_lease` is the largest
//! election timeout (`EngineConfig::new`). A follower that starts again has the committed vote from its disk, where it was
//! before the append was answered (`Command::SaveVote` precedes `Command::Respond`), and begins a lease of its own with its start
//! (`StorageHelper::get_initial_state`). It does not make itself a candidate earlier either: see [`elections`](super::elections).
//!
//! So whoever answered an append that left at `t` helps nobody to be elected before `t + election_max` by its own clock, which the
//! append reached after `t`. If a majority of the voters did so, every majority that elects another leader holds one of them. The
//! length of the lease is shorter than `election_max` by a tenth: by so much may clocks differ in their rate.
//!
//! The leader itself counts among that majority, and may vote for another while its lease runs (its own `vote_utime` is not
//! renewed by what it sends). Then its lease ends with the vote, before the vote leaves this process: [`Leases::handle_vote`].
//!
//! The voters are those of the newest membership that is in this server's log, in all parts of it while it changes. What this
//! room was told of it is behind by one change at most ([`change`](super::change)), and majorities of neighbours overlap.
//!
//! # What it does not cover
//!
//! A process that stands still between the question and what it sends by the answer: SIGSTOP, a virtual machine that is moved (where
//! the clock stands still as well). What it sends then comes late. It carries its term, and whoever has heard of a higher one
//! refuses it; one who has not is told nothing that had not been decided in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::types::ServerId;

/// For how long a leader may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// What it speaks with: whoever has heard of a higher one refuses.
    pub(crate) term: u64,
    /// Not after this.
    pub(crate) until: Instant,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Leases {
    me: ServerId,
    length: Duration,
    /// The term in which this server leads and its machine is current.
    leads: Option<u64>,
    /// The highest term in which this server voted for another.
    voted: u64,
    /// When the newest append left that a server has taken, in this term.
    taken: BTreeMap<ServerId, Instant>,
    taken_in: u64,
    /// Majorities of all of these are needed.
    voters: Vec<BTreeSet<ServerId>>,
}

impl Leases {
    pub(super) fn new(me: ServerId, length: Duration) -> Self {
        let (taken, voters) = (BTreeMap::new(), Vec::new());
        Self { me, length, leads: None, voted: 0, taken, taken_in: 0, voters }
    }

    /// The membership is this from now on.
    pub(super) fn set_voters(&mut self, voters: &[BTreeSet<ServerId>]) {
        if self.voters != voters {
            self.voters = voters.to_vec();
        }
    }

    /// This server leads, and has applied all that was decided in earlier terms.
    pub(super) fn handle_leading(&mut self, term: u64) {
        if term > self.voted {
            self.leads = Some(term);
        }
    }

    /// It leads no more.
    pub(super) fn handle_following(&mut self) {
        self.leads = None;
    }

    /// This server has voted for another, and nobody knows yet.
    pub(super) fn handle_vote(&mut self, term: u64) {
        self.voted = self.voted.max(term);
        if self.leads.is_some_and(|leads| leads < term) {
            self.leads = None;
        }
    }

    /// A server has taken an append of this term that left here at that time.
    pub(super) fn handle_taken(&mut self, term: u64, by: ServerId, sent: Instant) {
        if term > self.taken_in {
            self.taken_in = term;
            self.taken.clear();
        }
        if term == self.taken_in {
            let newest = self.taken.entry(by).or_insert(sent);
            *newest = sent.max(*newest);
        }
    }

    /// For how long this server may speak, if it may now.
    pub(super) fn lease(&self, now: Instant) -> Option<Lease> {
        let term = self.leads?;
        let mut until = None;
        for voters in &self.voters {
            let since = self.majority_since(voters, term, now)?;
            let ends = since.checked_add(self.length)?;
            until = Some(until.map_or(ends, |until: Instant| until.min(ends)));
        }
        until.filter(|until| *until > now).map(|until| Lease { term, until })
    }

    /// The latest time at which a majority of them stood behind this server.
    fn majority_since(&self, voters: &BTreeSet<ServerId>, term: u64, now: Instant) -> Option<Instant> {
        let mut since: Vec<Instant> =
            voters.iter().filter_map(|voter| self.since(*voter, term, now)).collect();
        since.sort_unstable_by(|a, b| b.cmp(a));
        since.get(voters.len() / 2).copied()
    }

    fn since(&self, voter: ServerId, term: u64, now: Instant) -> Option<Instant> {
        if voter == self.me {
            return Some(now);
        }
        if self.taken_in == term { self.taken.get(&voter).copied() } else { None }
    }
}
