//! Rounds: who is asked of a silent member, and what comes of it.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::record::Record;
use super::{Evidence, Health, Judge, WITNESSES};
use crate::MemberId;

/// Who may be asked in one round: three, and three in the place of those who do not answer.
const ASKED_MAX: usize = 6;
const _: () = assert!(ASKED_MAX >= WITNESSES);
/// A member that another reaches is asked about again after this, then after twice as long, and so on.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// At most so far apart.
const AGAIN_MAX: Duration = Duration::from_secs(8);

/// A round of questions about one suspect.
#[derive(Debug, Default)]
pub(super) struct Round {
    asked: SmallVec<[MemberId; ASKED_MAX]>,
    /// Of those, whose answer is not here and may still come.
    open: usize,
}

impl Round {
    /// An answer came, or will not come.
    pub(super) fn closed_one(&mut self) {
        debug_assert!(self.open > 0, "as many probes as are counted");
        self.open = self.open.saturating_sub(1);
    }

    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        !self.asked.spilled() && self.open <= WITNESSES
    }
}

impl Judge {
    /// Goes on with every case, as far as it goes.
    pub(super) fn deliberate(&mut self, now: Instant) {
        self.pace.handle_missing(now, self.table.missing(), self.table.len());
        let silent = self.table.silent();
        if silent.is_empty() {
            return;
        }
        let witnesses = self.table.witnesses(now);
        for suspect in silent {
            self.advance(now, suspect, &witnesses);
        }
    }

    fn advance(&mut self, now: Instant, suspect: MemberId, witnesses: &[MemberId]) {
        let Some(record) = self.table.get(suspect) else { return };
        if record.round.is_none() && !self.may_begin(now, record) {
            return;
        }
        let lost = counted(record, witnesses);
        let wanted = (WITNESSES - lost.len()).max(usize::from(self.awaits_voucher(now, suspect, record)));
        if wanted > 0 && self.ask(now, suspect, witnesses, wanted) {
            return;
        }
        // All three say so, or nobody is left who could be asked.
        if !lost.is_empty() {
            self.convict(now, suspect, Evidence::Witnesses(lost));
        } else if witnesses.is_empty() {
            self.convict(now, suspect, Evidence::NoWitness);
        } else {
            // Nobody answered. That is no testimony.
            self.table.set_health(suspect, self.silence_of(suspect));
            self.postpone(now, suspect);
        }
    }

    /// Whoever reached it last has the first word, however many say that they do not.
    fn awaits_voucher(&self, now: Instant, suspect: MemberId, record: &Record) -> bool {
        let is_asked = |witness| record.round.as_ref().is_some_and(|round| round.asked.contains(&witness));
        let awaits = |witness| {
            let may_answer = !is_asked(witness) || self.probes.has(witness, suspect);
            may_answer && self.table.is_heard_lately(now, witness)
        };
        record.voucher.is_some_and(awaits)
    }

    /// In a crowd a round begins at its turn, and alone, so that what it finds is fresh when it counts.
    fn may_begin(&self, now: Instant, record: &Record) -> bool {
        record.ask_at <= now && (!self.pace.is_slow() || (self.pace.is_open() && self.probes.is_empty()))
    }

    /// Asks until so many answers are on their way. `true`: there is something to wait for.
    fn ask(&mut self, now: Instant, suspect: MemberId, witnesses: &[MemberId], wanted: usize) -> bool {
        let deadline = now + self.config.probe();
        loop {
            let Some(record) = self.table.get_mut(suspect) else { return false };
            let open = record.round.get_or_insert_default().open;
            if open >= wanted {
                return true;
            }
            let Some(witness) = self.choose(now, suspect, witnesses) else { return open > 0 };
            if self.probes.is_full() {
                return true;
            }
            self.probes.ask(witness, suspect, deadline);
            if let Some(round) = self.round_of(suspect) {
                round.asked.push(witness);
                round.open += 1;
            }
        }
    }

    /// Who is asked next: who reached it last, so that it stays for as long as that one reaches it; else one by chance.
    fn choose(&mut self, now: Instant, suspect: MemberId, witnesses: &[MemberId]) -> Option<MemberId> {
        let record = self.table.get(suspect)?;
        let asked = record.round.as_ref().map_or(&[][..], |round| &round.asked);
        if asked.len() == ASKED_MAX {
            return None;
        }
        let is_new = |member: &MemberId| !asked.contains(member) && !record.lost().contains(member);
        let voucher = record.voucher.filter(is_new).filter(|member| self.table.is_heard_lately(now, *member));
        if voucher.is_some() {
            return voucher;
        }
        let others: Vec<MemberId> = witnesses.iter().copied().filter(is_new).collect();
        let place = self.random.usize(..others.len().max(1));
        others.get(place).copied()
    }

    /// The suspect goes, if it may go now.
    fn convict(&mut self, now: Instant, suspect: MemberId, why: Evidence) {
        self.end_round(suspect);
        let silence = self.silence_of(suspect);
        if !self.pace.is_open() {
            // The round began before the crowd did. There will be another, at its turn.
            return;
        }
        let Some(since) = self.table.get(suspect).map(|record| record.quiet_from) else { return };
        self.table.set_health(suspect, silence);
        self.evictions.insert(suspect, (since, why));
        self.pace.handle_evicted(now);
        // If it is still here then, the eviction came to nothing.
        self.table.postpone(suspect, now + self.config.eviction());
    }

    /// Somebody reaches the suspect. That is proof, where "I do not reach it" is the lack of one: it outweighs any number.
    pub(super) fn vouch(&mut self, now: Instant, suspect: MemberId, witness: MemberId) {
        self.evictions.remove(&suspect);
        let Some(record) = self.table.get_mut(suspect) else { return };
        record.remove_lost(witness);
        record.voucher = Some(witness);
        if !record.is_silent() {
            return;
        }
        let (since, waits) = (record.quiet_from, record.round.is_none() && record.ask_at > now);
        self.table.set_health(suspect, Health::Vouched { since });
        self.end_round(suspect);
        if !waits {
            self.postpone(now, suspect);
        }
    }

    /// The next round about it is later than the one before was.
    fn postpone(&mut self, now: Instant, suspect: MemberId) {
        self.end_round(suspect);
        let Some(record) = self.table.get_mut(suspect) else { return };
        let wait = AGAIN_MIN.saturating_mul(1 << record.postponed.min(8)).min(AGAIN_MAX);
        record.postponed = record.postponed.saturating_add(1);
        self.table.postpone(suspect, now + wait);
    }

    /// What was said in it counts no more in the next.
    fn end_round(&mut self, suspect: MemberId) {
        self.probes.cancel(suspect);
        if let Some(record) = self.table.get_mut(suspect) {
            record.round = None;
            record.forget_sayings();
        }
    }

    pub(super) fn round_of(&mut self, suspect: MemberId) -> Option<&mut Round> {
        self.table.get_mut(suspect)?.round.as_mut()
    }

    fn silence_of(&self, suspect: MemberId) -> Health {
        self.table.get(suspect).map_or(Health::Healthy, |record| Health::Silent { since: record.quiet_from })
    }
}

/// Who says that it does not reach this one, and counts.
fn counted(record: &Record, witnesses: &[MemberId]) -> SmallVec<[MemberId; WITNESSES]> {
    let counts = |member: &&MemberId| witnesses.binary_search(member).is_ok();
    record.lost().iter().filter(counts).take(WITNESSES).copied().collect()
}
