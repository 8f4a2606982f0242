//! The health table: how all members are, and when each is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Health;
use super::config::JudgeConfig;
use super::record::Record;
use crate::MemberId;

/// All members. Everything is kept and walked through in the order of ids, so that a seed replays.
#[derive(Debug)]
pub(super) struct Table {
    suspicion: Duration,
    eviction: Duration,
    members: BTreeMap<MemberId, Record>,
    /// When each is looked at again. May be too early for one that was heard meanwhile, never too late.
    checks: BTreeSet<(Instant, MemberId)>,
    /// Those that are silent.
    silent: BTreeSet<MemberId>,
    /// Those that are not healthy.
    missing: usize,
    /// Those whose health is to be told.
    changed: BTreeSet<MemberId>,
}

impl Table {
    pub(super) fn new(config: &JudgeConfig) -> Self {
        Self {
            suspicion: config.suspicion(),
            eviction: config.eviction(),
            members: BTreeMap::new(),
            checks: BTreeSet::new(),
            silent: BTreeSet::new(),
            missing: 0,
            changed: BTreeSet::new(),
        }
    }

    pub(super) fn get(&self, member: MemberId) -> Option<&Record> {
        self.members.get(&member)
    }

    /// For what is not kept in order here: not for the health, nor for times.
    pub(super) fn get_mut(&mut self, member: MemberId) -> Option<&mut Record> {
        self.members.get_mut(&member)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MemberId, &Record)> {
        self.members.iter().map(|(member, record)| (*member, record))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) const fn missing(&self) -> usize {
        self.missing
    }

    /// Those that are silent, in the order in which they are to be asked about: who was put off stands behind those who were not
    /// asked about yet, so that a crowd of members whom others reach does not starve one who is dead.
    pub(super) fn silent(&self) -> Vec<MemberId> {
        let due = |member: &MemberId| self.get(*member).map(|record| (record.ask_at, *member));
        let mut silent: Vec<_> = self.silent.iter().filter_map(due).collect();
        silent.sort_unstable();
        silent.into_iter().map(|(_, member)| member).collect()
    }

    /// Those whose testimony counts now: heard lately, and not doubtful. If all are doubtful, those are better than none.
    pub(super) fn witnesses(&self, now: Instant) -> Vec<MemberId> {
        let healthy = |member: MemberId| self.get(member).filter(|record| record.health == Health::Healthy);
        let heard = |member: MemberId| healthy(member).and_then(|record| record.heard);
        let lately = self.iter().filter(|(_, record)| record.is_heard_lately(now, self.suspicion));
        let (sound, doubtful): (Vec<_>, Vec<_>) =
            lately.partition(|(_, record)| !record.is_doubtful(now, heard));
        let best = if sound.is_empty() { doubtful } else { sound };
        best.into_iter().map(|(member, _)| member).collect()
    }

    pub(super) fn is_heard_lately(&self, now: Instant, member: MemberId) -> bool {
        self.get(member).is_some_and(|record| record.is_heard_lately(now, self.suspicion))
    }

    /// A new member; `false`: it is known already.
    pub(super) fn insert(&mut self, member: MemberId, heard: Option<Instant>, quiet_from: Instant) -> bool {
        if self.members.contains_key(&member) {
            return false;
        }
        self.members.insert(member, Record::new(heard, quiet_from));
        self.set_check(member, Some(quiet_from + self.suspicion));
        true
    }

    /// It is no member any more; `false`: it was none.
    pub(super) fn remove(&mut self, member: MemberId) -> bool {
        let Some(record) = self.members.remove(&member) else { return false };
        if let Some(check) = record.check {
            self.checks.remove(&(check, member));
        }
        self.silent.remove(&member);
        self.missing -= usize::from(record.health != Health::Healthy);
        self.changed.remove(&member);
        true
    }

    /// It was heard. `true`: it was not healthy before.
    pub(super) fn heard(&mut self, now: Instant, member: MemberId) -> bool {
        let Some(record) = self.members.get_mut(&member) else { return false };
        let was_missing = record.health != Health::Healthy;
        let check = record.check;
        record.heard(now);
        self.silent.remove(&member);
        self.set_health(member, Health::Healthy);
        // Most pongs change nothing: the check that is set comes too early, and sets itself anew.
        let due = now + self.suspicion;
        if was_missing || check.is_none_or(|check| check > due) {
            self.set_check(member, Some(due));
        }
        was_missing
    }

    /// Looks at those whose time has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, member)) = self.checks.first().copied().filter(|(at, _)| *at <= now) {
            self.look(now, member);
        }
    }

    fn look(&mut self, now: Instant, member: MemberId) {
        self.set_check(member, None);
        let Some(record) = self.members.get(&member) else { return };
        let since = record.quiet_from;
        match record.health {
            Health::Healthy | Health::Suspected if since + self.eviction <= now => {
                self.silent.insert(member);
                self.set_health(member, Health::Silent { since });
            }
            Health::Healthy | Health::Suspected if since + self.suspicion <= now => {
                self.set_health(member, Health::Suspected);
                self.set_check(member, Some(since + self.eviction));
            }
            Health::Healthy | Health::Suspected => self.set_check(member, Some(since + self.suspicion)),
            // The time of its next round has come: who called us sees to it.
            Health::Silent { .. } | Health::Vouched { .. } => {}
        }
    }

    /// Time in which the leader itself slept counts for nobody's silence: pongs may wait to be read.
    pub(super) fn forgive(&mut self, now: Instant, slept: Duration) {
        for record in self.members.values_mut() {
            record.quiet_from = (record.quiet_from + slept).min(now.max(record.quiet_from));
        }
    }

    /// No round about it before `at`.
    pub(super) fn postpone(&mut self, member: MemberId, at: Instant) {
        if let Some(record) = self.members.get_mut(&member) {
            record.ask_at = at;
            self.set_check(member, Some(at));
        }
    }

    pub(super) fn set_health(&mut self, member: MemberId, health: Health) {
        let Some(record) = self.members.get_mut(&member) else { return };
        if record.health == health {
            return;
        }
        self.missing -= usize::from(record.health != Health::Healthy);
        self.missing += usize::from(health != Health::Healthy);
        record.health = health;
        self.changed.insert(member);
    }

    fn set_check(&mut self, member: MemberId, at: Option<Instant>) {
        let Some(record) = self.members.get_mut(&member) else { return };
        if let Some(before) = std::mem::replace(&mut record.check, at) {
            self.checks.remove(&(before, member));
        }
        self.checks.extend(at.map(|at| (at, member)));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.checks.first().map(|(at, _)| *at)
    }

    /// The next change of the table that is to be told.
    pub(super) fn poll_change(&mut self) -> Option<(MemberId, Health)> {
        while let Some(member) = self.changed.pop_first() {
            let Some(record) = self.members.get_mut(&member) else { continue };
            if record.told != record.health {
                record.told = record.health;
                return Some((member, record.health));
            }
        }
        None
    }

    /// One bounded record a member, and at most one entry each beside it.
    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        let most = self.members.len();
        self.checks.len() <= most
            && self.silent.len() <= most
            && self.changed.len() <= most
            && self.members.values().all(Record::is_bounded)
    }
}
