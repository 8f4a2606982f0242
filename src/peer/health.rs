//! What ails a peer: each condition is told when it begins, and once when all are over.
//!
//! Sans-IO, and without timers that must be kept up: everything follows from times that the session, the link and the
//! dials have anyway. So a condition costs nothing until somebody asks when to look again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Peer, PeerEvent, State};
use crate::limits::{self, ERRORS_UNTIL_MISBEHAVING, REPLACED_NOTED};
use crate::member::MemberId;

/// After how long what is so is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HealthConfig {
    /// Something waits for credit.
    pub(crate) slow: Duration,
    /// A record is written and not acknowledged.
    pub(crate) stuck: Duration,
    /// A link is wanted, was dialled, and is not there.
    pub(crate) unreachable: Duration,
    /// Whoever looks later than this was not running itself. It gets as long to hear what came meanwhile.
    pub(crate) grace: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            slow: limits::SLOW,
            stuck: limits::STUCK,
            unreachable: limits::UNREACHABLE,
            grace: limits::PING,
        }
    }
}

/// What is judged, as it is at one moment.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// When the link came up that is there.
    up: Option<Instant>,
    /// Since when the same thing waits for credit.
    waits: Option<Instant>,
    /// When the oldest record that is not acknowledged was written first.
    oldest: Option<Instant>,
    /// How long the peer has not heard us, by its own word, though it should have.
    unheard: Option<Duration>,
    /// There is no link, and this side dials.
    dials: bool,
    errors: u32,
}

/// What may be so for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Slow,
    Stuck,
    Unreachable,
    OneWaySilence,
    Misbehaving,
}

/// A link that is wanted and not there.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    since: Instant,
    /// When that is too long; set with the first dial, which gets its time to connect.
    due: Option<Instant>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Health {
    config: HealthConfig,
    /// Conditions that were told and are not over.
    standing: u8,
    /// Something was told, and not yet that all is over.
    ill: bool,
    /// Since when that waits because of which the peer was said to be slow.
    slow_since: Option<Instant>,
    wanted: Option<Wanted>,
    /// Nothing is told before.
    not_before: Option<Instant>,
    /// Who was said to have taken the peer's place.
    replaced_by: VecDeque<MemberId>,
}

impl Health {
    pub(super) const fn new(config: HealthConfig) -> Self {
        Self {
            config,
            standing: 0,
            ill: false,
            slow_since: None,
            wanted: None,
            not_before: None,
            replaced_by: VecDeque::new(),
        }
    }

    /// A link is wanted from now on and will be dialled.
    pub(super) fn handle_wanted(&mut self, now: Instant) {
        self.wanted.get_or_insert(Wanted { since: now, due: None });
    }

    /// A dial begins; it may take so long to connect.
    pub(super) fn handle_dial(&mut self, now: Instant, connect: Duration) {
        let wanted = self.wanted.get_or_insert(Wanted { since: now, due: None });
        wanted.due.get_or_insert((wanted.since + self.config.unreachable).max(now + connect));
    }

    /// A link is up, or nobody here wants one.
    pub(super) fn handle_not_wanted(&mut self) {
        self.wanted = None;
    }

    /// Whether it is news that this member is where the peer was.
    pub(super) fn note_replaced(&mut self, by: MemberId) -> bool {
        if self.replaced_by.contains(&by) {
            return false;
        }
        if self.replaced_by.len() >= REPLACED_NOTED {
            self.replaced_by.pop_front();
        }
        self.replaced_by.push_back(by);
        true
    }

    /// Something was told, and not yet that all is over.
    #[cfg(test)]
    pub(super) const fn is_ill(&self) -> bool {
        self.ill
    }

    const fn stands(&self, condition: Condition) -> bool {
        self.standing & (1 << condition as u8) != 0
    }

    /// Conditions that time alone brings about: since when they are so, and when that is too long.
    fn clocks(&self, facts: &Facts) -> [Option<(Condition, Instant, Instant)>; 3] {
        // What waited while there was no link waited for the link.
        let waits = facts.up.zip(facts.waits).map(|(up, waits)| up.max(waits));
        let slow = waits.map(|since| (Condition::Slow, since, since + self.config.slow));
        let stuck = facts.oldest.map(|since| (Condition::Stuck, since, since + self.config.stuck));
        let wanted = self.wanted.filter(|_| facts.dials);
        let due = wanted.and_then(|wanted| Some((Condition::Unreachable, wanted.since, wanted.due?)));
        let not_before = |(condition, since, due): (_, _, Instant)| {
            let least = self.not_before.filter(|_| !self.stands(condition));
            (condition, since, least.map_or(due, |least| due.max(least)))
        };
        [slow, stuck, due].map(|clock| clock.map(not_before))
    }

    /// When a condition begins that does not stand yet.
    fn poll_timeout(&self, facts: &Facts) -> Option<Instant> {
        let clocks = self.clocks(facts).into_iter().flatten();
        clocks.filter(|(condition, ..)| !self.stands(*condition)).map(|(.., due)| due).min()
    }

    fn judge(&mut self, now: Instant, peer: MemberId, facts: &Facts, mut tell: impl FnMut(PeerEvent)) {
        if !facts.dials {
            self.wanted = None;
        }
        if self.poll_timeout(facts).is_some_and(|due| due + self.config.grace < now) {
            self.not_before = Some(now + self.config.grace);
        }
        let [slow, stuck, unreachable] = self.clocks(facts);
        let due = |clock: Option<(Condition, Instant, Instant)>| {
            clock.filter(|(.., due)| *due <= now).map(|(_, since, _)| now.saturating_duration_since(since))
        };
        let slow = due(slow).map(|blocked| PeerEvent::Slow { peer, blocked });
        if slow.is_some() {
            self.slow_since = facts.waits;
        }
        // Without a link, or just after it came, what waits is no better off.
        let still_slow = facts.waits.is_some() && facts.waits == self.slow_since;
        let mut standing = 0;
        let mut found = |condition: Condition, lasts: bool, begins: Option<PeerEvent>| {
            let stands = self.stands(condition);
            if begins.is_some() || (stands && lasts) {
                standing |= 1 << condition as u8;
            }
            begins.filter(|_| !stands).into_iter().for_each(&mut tell);
        };
        found(Condition::Slow, still_slow, slow);
        let event = due(stuck).map(|oldest_unacked| PeerEvent::Stuck { peer, oldest_unacked });
        found(Condition::Stuck, false, event);
        let event = facts.unheard.map(|unheard| PeerEvent::OneWaySilence { peer, unheard });
        found(Condition::OneWaySilence, false, event);
        let event = due(unreachable).map(|since| PeerEvent::Unreachable { peer, since });
        found(Condition::Unreachable, false, event);
        let errors = facts.errors;
        let event = (errors >= ERRORS_UNTIL_MISBEHAVING).then_some(PeerEvent::Misbehaving { peer, errors });
        found(Condition::Misbehaving, false, event);
        self.standing = standing;
        self.ill |= standing != 0;
        if self.ill && standing == 0 && facts.up.is_some() {
            self.ill = false;
            tell(PeerEvent::Recovered { peer });
        }
    }
}

impl Peer {
    fn facts(&self) -> Facts {
        let link = self.live.as_ref().map(|live| &live.link);
        Facts {
            up: link.map(crate::link::Link::since),
            waits: self.session.waits_since(),
            oldest: self.session.oldest_unacked(),
            unheard: link.and_then(crate::link::Link::unheard),
            dials: link.is_none() && self.reasons.may_dial(),
            errors: self.errors_in_row,
        }
    }

    /// Tells what begins now, and that all is over. During the shutdown nothing is told: it would be no news of the peer.
    pub(super) fn judge(&mut self, now: Instant) {
        if self.state == State::Open {
            let facts = self.facts();
            let outputs = &mut self.outputs;
            let tell = |event| outputs.push_back(super::PeerOutput::Event(event));
            self.health.judge(now, self.id, &facts, tell);
        }
    }

    /// After whatever may end a condition, or show that the peer does not hear us.
    #[inline]
    pub(super) fn look(&mut self, now: Instant) {
        if self.health.ill || self.live.as_ref().is_some_and(|live| live.link.unheard().is_some()) {
            self.judge(now);
        }
    }

    /// When to judge, though nothing happened.
    pub(super) fn poll_health(&self) -> Option<Instant> {
        if self.state == State::Open { self.health.poll_timeout(&self.facts()) } else { None }
    }
}
