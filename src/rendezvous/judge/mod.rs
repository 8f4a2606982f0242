//! Who has failed: the leader's judgement. Sans-IO; used by the leader alone, and made anew, with nothing known, at each election.
//!
//! The leader pings everybody. A member unheard for half of the eviction time is *suspected*, for all of it *silent*; then a
//! *round* begins: three members are asked whether they reach it. The rules, and why:
//!
//! 1. **An eviction needs missed pings and a witness**, another member that was heard lately and does not reach the suspect
//!    either. Reports of members' own traffic count as such a saying, but begin nothing: without missed pings they evict nobody,
//!    however many they are.
//! 2. **One who reaches it outweighs all who do not.** To reach it is proof; not to reach it is the lack of one, and has other
//!    causes than the suspect's death: one bad link, or the witness's own network. The suspect is *vouched* for, and asked about
//!    again, ever later up to 8 s, for as long as this lasts. Who said so last is asked first, before anybody convicts, so that
//!    neither chance nor a number passes it over. A witness that lies so keeps a dead member in; it can throw no living one out.
//! 3. **Three sayings convict, or as many as there are.** Two that are sick at once do not suffice where a third can be asked. A
//!    witness that does not answer in time is replaced by another, up to three times; then fewer convict. Witnesses none of whom
//!    answers say nothing: others are asked later. With no possible witness at all the pings suffice.
//! 4. **A witness of whom two claims are wrong is doubtful**: it says that it does not reach those two, and the leader has heard
//!    both since. Its own network is the likely cause. Its "lost" does not count and it is not asked, unless all are doubtful. (One
//!    wrong claim is one bad link.) Its "reached" counts.
//! 5. **What a suspect says of others does not count**, nor what was said before the silence began, nor, in the next round,
//!    what was said before this one. A suspect that is heard is healthy: all is forgotten, probes under way included.
//! 6. **Above a third missing at once, evictions slow down** ([`pace`]): the leader's own network is the likely cause. One
//!    goes at a time, each after its own round. Those suspected count as missing: when the leader's network breaks, all fall silent within
//!    one ping of each other, and the first of them must not go for want of a witness before the others are counted.
//! 7. **Time in which the leader itself stood still counts for nobody's silence**: the pongs may wait to be read.
//!
//! A new leader gives everybody the time that clients need to find it, and the whole eviction time.
//!
//! In the main after SWIM's indirect probes (Das, Gupta, Motivala, 2002) and Eureka's self-preservation, which stops where this
//! one slows down.

mod action;
mod config;
mod pace;
mod probes;
mod record;
mod rounds;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

pub(crate) use action::{Action, Evidence, Health, ProbeId, Report};
pub(crate) use config::JudgeConfig;

use self::pace::Pace;
use self::probes::{Probe, Probes};
use self::table::Table;
use crate::MemberId;

/// As many have to say that they do not reach a suspect, if there are so many (R11).
const WITNESSES: usize = 3;

/// The leader's judgement of all members: pings, the health table, witnesses, evictions.
#[derive(Debug)]
pub(crate) struct Judge {
    config: JudgeConfig,
    random: fastrand::Rng,
    table: Table,
    probes: Probes,
    pace: Pace,
    /// Those to be evicted, not told yet.
    evictions: BTreeMap<MemberId, (Instant, Evidence)>,
    next_ping: Instant,
    /// Is to be told.
    ping: bool,
}

impl Judge {
    /// A new leader's. Everybody is healthy, and counts as heard at `now + settle`. All chance comes from the seed.
    pub(crate) fn new(
        config: JudgeConfig,
        seed: u64,
        now: Instant,
        members: impl IntoIterator<Item = MemberId>,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut table = Table::new(&config);
        for member in members {
            table.insert(member, None, now + config.settle());
        }
        let probes = Probes::new(&mut random);
        let pace = Pace::new(config.slow(), config.ping());
        Self { config, random, table, probes, pace, evictions: BTreeMap::new(), next_ping: now, ping: false }
    }

    /// A view holds a new member: it counts as heard now.
    pub(crate) fn handle_joined(&mut self, now: Instant, member: MemberId) {
        self.wake(now);
        if self.table.insert(member, Some(now), now) {
            self.deliberate(now);
        }
    }

    /// A view does not hold a member any more: what is known of it is dropped.
    pub(crate) fn handle_left(&mut self, now: Instant, member: MemberId) {
        self.wake(now);
        if !self.table.remove(member) {
            return;
        }
        self.evictions.remove(&member);
        self.probes.cancel(member);
        for probe in self.probes.abandon(member) {
            self.closed(probe);
        }
        self.deliberate(now);
    }

    /// A pong, or any other message of a member. To be told before what the message says, which counts only then.
    pub(crate) fn handle_heard(&mut self, now: Instant, member: MemberId) {
        self.wake(now);
        if self.table.heard(now, member) {
            self.evictions.remove(&member);
            self.probes.cancel(member);
            self.deliberate(now);
        }
    }

    /// A member says how its own traffic with another goes.
    pub(crate) fn handle_report(
        &mut self,
        now: Instant,
        reporter: MemberId,
        suspect: MemberId,
        what: Report,
    ) {
        self.wake(now);
        self.testify(now, reporter, suspect, what == Report::Heard);
        self.deliberate(now);
    }

    /// A witness answers a probe: whether it reached the suspect. What was not asked, or is too late, changes nothing.
    pub(crate) fn handle_probed(&mut self, now: Instant, witness: MemberId, probe: ProbeId, reached: bool) {
        self.wake(now);
        let Some(probe) = self.probes.answer(probe, witness) else { return };
        self.closed(probe);
        self.testify(now, witness, probe.suspect, reached);
        self.deliberate(now);
    }

    /// Time has passed. To be called at [`Judge::poll_timeout`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        if self.next_ping <= now {
            self.ping = true;
            self.next_ping += self.config.ping();
        }
        self.table.handle_timeout(now);
        while let Some(probe) = self.probes.expire(now) {
            self.closed(probe);
        }
        self.pace.handle_timeout(now);
        self.deliberate(now);
    }

    /// When [`Judge::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let others = [self.table.poll_timeout(), self.probes.poll_timeout(), self.pace.poll_timeout()];
        others.into_iter().flatten().chain([self.next_ping]).min()
    }

    /// What is to be done next; to be asked after each input until there is nothing.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        if std::mem::take(&mut self.ping) {
            return Some(Action::Ping);
        }
        if let Some((member, health)) = self.table.poll_change() {
            return Some(Action::Health { member, health });
        }
        if let Some((probe, Probe { witness, suspect, .. })) = self.probes.poll_send() {
            return Some(Action::Probe { probe, witness, suspect, within: self.config.probe_within() });
        }
        let (member, (since, why)) = self.evictions.pop_first()?;
        Some(Action::Evict { member, since, why })
    }

    /// The health table, in the order of ids.
    #[cfg(test)]
    pub(crate) fn health(&self) -> impl Iterator<Item = (MemberId, Health)> {
        self.table.iter().map(|(member, record)| (member, record.health))
    }

    /// Notices that the leader stood still: it comes later than the time of a ping by more than a whole one.
    fn wake(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next_ping);
        if late > self.config.ping() {
            self.table.forgive(now, late);
            self.next_ping = now;
        }
    }

    fn testify(&mut self, now: Instant, witness: MemberId, suspect: MemberId, reached: bool) {
        let counts = witness != suspect && self.table.is_heard_lately(now, witness);
        if !counts || self.table.get(suspect).is_none() {
            return;
        }
        if let Some(record) = self.table.get_mut(witness) {
            if reached { record.unclaim(suspect) } else { record.claim(now, suspect) }
        }
        if reached {
            self.vouch(now, suspect, witness);
        } else if let Some(record) = self.table.get_mut(suspect) {
            record.add_lost(witness);
            record.voucher = record.voucher.filter(|voucher| *voucher != witness);
        }
    }

    fn closed(&mut self, probe: Probe) {
        if let Some(round) = self.round_of(probe.suspect) {
            round.closed_one();
        }
    }

    /// One bounded record a member, and so many probes.
    #[cfg(test)]
    fn is_bounded(&self) -> bool {
        self.table.is_bounded() && self.probes.is_bounded() && self.evictions.len() <= self.table.len()
    }
}
