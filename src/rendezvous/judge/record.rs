//! What is kept of one member: as much of each, whatever the others say.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::rounds::Round;
use super::{Health, WITNESSES};
use crate::MemberId;

/// Sayings kept of a member: those that are needed, and some whose witness may turn out not to count.
const SAYINGS_MAX: usize = 8;
const _: () = assert!(SAYINGS_MAX > WITNESSES);
/// Claims kept of a witness: more than what makes it doubtful.
const CLAIMS_MAX: usize = 8;
const _: () = assert!(CLAIMS_MAX > CLAIMS_WRONG_MAX);
/// One bad link between two healthy members is no reason to doubt either; with two, the likely cause is where they meet.
const CLAIMS_WRONG_MAX: usize = 1;
/// A claim is said once, when traffic breaks off, and may never be taken back, because nobody sends there any more.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(60);

/// A member.
#[derive(Debug)]
pub(super) struct Record {
    /// When it was really heard last, by this leader.
    pub(super) heard: Option<Instant>,
    /// Its silence counts from here: heard last, or what it is given by a new leader.
    pub(super) quiet_from: Instant,
    /// As the table says.
    pub(super) health: Health,
    /// As the table said when it was asked last.
    pub(super) told: Health,
    /// When it is looked at again.
    pub(super) check: Option<Instant>,
    /// Who does not reach it, as said since it was heard last and since the last round about it.
    lost: SmallVec<[MemberId; SAYINGS_MAX]>,
    /// Whom it does not reach, and since when it says so.
    claims: SmallVec<[(MemberId, Instant); CLAIMS_MAX]>,
    /// The round that is under way.
    pub(super) round: Option<Round>,
    /// No round begins before.
    pub(super) ask_at: Instant,
    /// Rounds of this silence that convicted nobody.
    pub(super) postponed: u32,
    /// Who said last, since it was heard, that it reaches it.
    pub(super) voucher: Option<MemberId>,
}

impl Record {
    pub(super) fn new(heard: Option<Instant>, quiet_from: Instant) -> Self {
        Self {
            heard,
            quiet_from,
            health: Health::Healthy,
            told: Health::Healthy,
            check: None,
            lost: SmallVec::new(),
            claims: SmallVec::new(),
            round: None,
            ask_at: quiet_from,
            postponed: 0,
            voucher: None,
        }
    }

    /// It was heard: what was said of its silence is forgotten.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.quiet_from = now;
        self.lost.clear();
        self.round = None;
        self.ask_at = now;
        self.postponed = 0;
        self.voucher = None;
    }

    /// What it says of others counts. The time decides, not the table: that may be a little late.
    pub(super) fn is_heard_lately(&self, now: Instant, suspicion: Duration) -> bool {
        self.heard.is_some() && self.quiet_from + suspicion > now
    }

    pub(super) fn is_silent(&self) -> bool {
        match self.health {
            Health::Healthy | Health::Suspected => false,
            Health::Silent { .. } | Health::Vouched { .. } => true,
        }
    }

    pub(super) fn lost(&self) -> &[MemberId] {
        &self.lost
    }

    pub(super) fn forget_sayings(&mut self) {
        self.lost.clear();
    }

    /// `witness` does not reach it. When there is no room, the oldest saying goes.
    pub(super) fn add_lost(&mut self, witness: MemberId) {
        self.remove_lost(witness);
        if self.lost.len() == SAYINGS_MAX {
            self.lost.remove(0);
        }
        self.lost.push(witness);
    }

    /// `witness` takes back what it said.
    pub(super) fn remove_lost(&mut self, witness: MemberId) {
        self.lost.retain(|other| *other != witness);
    }

    /// It says that it does not reach `other`.
    pub(super) fn claim(&mut self, now: Instant, other: MemberId) {
        self.unclaim(other);
        if self.claims.len() == CLAIMS_MAX {
            self.claims.remove(0);
        }
        self.claims.push((other, now));
    }

    /// It reaches `other`.
    pub(super) fn unclaim(&mut self, other: MemberId) {
        self.claims.retain(|(claimed, _)| *claimed != other);
    }

    /// Whether too many of its claims are wrong: the leader has heard those members since, and
    /// they are healthy (`heard` says when). Its own network is the likely cause.
    pub(super) fn is_doubtful(&self, now: Instant, heard: impl Fn(MemberId) -> Option<Instant>) -> bool {
        let fresh = self.claims.iter().filter(|(_, at)| *at + CLAIM_AGE_MAX > now);
        let wrong = fresh.filter(|(other, at)| heard(*other).is_some_and(|heard| heard > *at)).count();
        wrong > CLAIMS_WRONG_MAX
    }

    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        let inline = !self.lost.spilled() && !self.claims.spilled();
        inline && self.round.as_ref().is_none_or(Round::is_bounded)
    }
}
