//! The hall: a judge, members that answer its pings and probes, and what goes wrong between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::{Action, Evidence, Health, Judge, JudgeConfig, ProbeId, Report};
use crate::MemberId;

pub(super) const EVICTION: Duration = Duration::from_secs(5);
pub(super) const PING: Duration = Duration::from_secs(1);
pub(super) const PROBE: Duration = Duration::from_secs(2);
pub(super) const SETTLE: Duration = Duration::from_secs(3);
/// From one process to the other.
const WAY: Duration = Duration::from_millis(20);

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn id(number: u64) -> MemberId {
    MemberId::from_parts(number, 0)
}

/// How a member answers when it is asked of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// The truth.
    Honest,
    /// That it does not reach it.
    Sick,
    /// That it reaches it.
    Kind,
    /// Not at all.
    Mute,
    /// The one or the other, at random.
    Mad,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Pong(MemberId),
    Answer(MemberId, ProbeId, bool),
    Left(MemberId),
}

/// Bounds of a test's time, not of the judge's: so many calls at one moment are a busy loop.
const CALLS_AT_A_MOMENT_MAX: usize = 50;

pub(super) struct Hall {
    pub(super) judge: Judge,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) members: BTreeMap<MemberId, Nature>,
    /// Gone for good: they answer nobody.
    pub(super) dead: BTreeSet<MemberId>,
    /// The leader and they do not reach each other.
    pub(super) deaf: BTreeSet<MemberId>,
    /// These two do not reach each other.
    pub(super) cut: BTreeSet<(MemberId, MemberId)>,
    /// Views follow evictions.
    pub(super) views: bool,
    /// When each was heard last, as an oracle knows it.
    pub(super) heard: BTreeMap<MemberId, Instant>,
    pub(super) log: Vec<(Duration, Action)>,
    /// Time that the leader stood still, in which nobody could be heard.
    stood: Duration,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    random: fastrand::Rng,
}

impl Hall {
    /// A new leader and `count` members, all of which are heard before anything else happens.
    pub(super) fn of(count: u64) -> Self {
        let mut hall = Self::unheard(count, 7);
        // Between two pings, so that no pong is on its way.
        hall.pass(PING * 3 + PING / 2);
        hall.log.clear();
        hall
    }

    pub(super) fn unheard(count: u64, seed: u64) -> Self {
        let config = JudgeConfig::new(PING, EVICTION, PROBE, SETTLE).unwrap();
        let now = Instant::now();
        let members: BTreeMap<_, _> = (1..=count).map(|number| (id(number), Nature::Honest)).collect();
        Self {
            judge: Judge::new(config, seed, now, members.keys().copied()),
            start: now,
            now,
            members,
            dead: BTreeSet::new(),
            deaf: BTreeSet::new(),
            cut: BTreeSet::new(),
            views: true,
            heard: BTreeMap::new(),
            log: Vec::new(),
            stood: Duration::ZERO,
            events: BTreeMap::new(),
            sequence: 0,
            random: fastrand::Rng::with_seed(seed ^ 0xfeed),
        }
    }

    // ---- what goes wrong ----

    pub(super) fn kill(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.dead.extend(numbers.into_iter().map(id));
    }

    pub(super) fn deafen(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.deaf.extend(numbers.into_iter().map(id));
    }

    pub(super) fn cut(&mut self, one: u64, other: u64) {
        self.cut.insert((id(one.min(other)), id(one.max(other))));
    }

    pub(super) fn nature(&mut self, number: u64, nature: Nature) {
        self.members.insert(id(number), nature);
    }

    // ---- what is said ----

    pub(super) fn heard(&mut self, member: MemberId) {
        self.heard.insert(member, self.now);
        self.judge.handle_heard(self.now, member);
        self.drain();
    }

    /// A report arrives; its reporter is heard by that.
    pub(super) fn report(&mut self, reporter: u64, suspect: u64, what: Report) {
        self.heard(id(reporter));
        self.say(reporter, suspect, what);
    }

    /// A report as such.
    pub(super) fn say(&mut self, reporter: u64, suspect: u64, what: Report) {
        self.judge.handle_report(self.now, id(reporter), id(suspect), what);
        self.drain();
    }

    pub(super) fn answer(&mut self, witness: MemberId, probe: ProbeId, reached: bool) {
        self.judge.handle_probed(self.now, witness, probe, reached);
        self.drain();
    }

    pub(super) fn join(&mut self, number: u64) {
        self.members.insert(id(number), Nature::Honest);
        self.heard.insert(id(number), self.now);
        self.judge.handle_joined(self.now, id(number));
        self.drain();
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.left(id(number));
    }

    fn left(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.heard.remove(&member);
        self.judge.handle_left(self.now, member);
        self.drain();
    }

    // ---- time ----

    /// Time passes, and everything happens at its time.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut calls = 0;
        loop {
            let timeout = self.judge.poll_timeout().unwrap();
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let next = event.map_or(timeout, |event| event.min(timeout)).max(self.now);
            if next > end {
                break;
            }
            calls = if next == self.now { calls + 1 } else { 0 };
            assert!(calls < CALLS_AT_A_MOMENT_MAX + self.members.len() * 2, "a busy loop");
            self.now = next;
            if event.is_some_and(|event| event <= next) {
                self.happen();
            } else {
                self.judge.handle_timeout(next);
                self.drain();
            }
        }
        self.now = end;
    }

    /// The leader stands still for so long. What arrives meanwhile it reads afterwards, and its timers come before that.
    pub(super) fn stall(&mut self, time: Duration) {
        self.now += time;
        self.stood += time;
        self.judge.handle_timeout(self.now);
        self.drain();
    }

    fn happen(&mut self) {
        let Some(((_, _), event)) = self.events.pop_first() else { return };
        match event {
            Event::Pong(member) if self.members.contains_key(&member) => self.heard(member),
            Event::Answer(witness, probe, reached) if self.members.contains_key(&witness) => {
                self.heard(witness);
                self.answer(witness, probe, reached);
            }
            Event::Left(member) => self.left(member),
            Event::Pong(_) | Event::Answer(..) => {}
        }
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + time, self.sequence), event);
    }

    fn drain(&mut self) {
        while let Some(action) = self.judge.poll_action() {
            self.log.push((self.now - self.start, action.clone()));
            match action {
                Action::Ping => self.pinged(),
                Action::Probe { probe, witness, suspect, within } => {
                    self.asked(probe, witness, suspect, within);
                }
                Action::Evict { member, since, why } => self.evicting(member, since, &why),
                Action::Health { .. } => {}
            }
        }
        assert!(self.judge.is_bounded());
    }

    fn speaks(&self, member: MemberId) -> bool {
        self.members.contains_key(&member) && !self.dead.contains(&member) && !self.deaf.contains(&member)
    }

    fn pinged(&mut self) {
        let members: Vec<_> = self.members.keys().copied().filter(|member| self.speaks(*member)).collect();
        for member in members {
            self.after(WAY * 2, Event::Pong(member));
        }
    }

    fn asked(&mut self, probe: ProbeId, witness: MemberId, suspect: MemberId, within: Duration) {
        assert_ne!(witness, suspect);
        if !self.speaks(witness) {
            return;
        }
        let pair = (witness.min(suspect), witness.max(suspect));
        let truth = !self.dead.contains(&suspect) && !self.cut.contains(&pair);
        let says = match self.members[&witness] {
            Nature::Honest => Some(truth),
            Nature::Sick => Some(false),
            Nature::Kind => Some(true),
            Nature::Mute => None,
            Nature::Mad => Some(self.random.bool()),
        };
        if let Some(reached) = says {
            let time = if reached { WAY * 4 } else { WAY * 2 + within };
            self.after(time, Event::Answer(witness, probe, reached));
        }
    }

    /// What holds of every eviction, whatever happens.
    fn evicting(&mut self, member: MemberId, since: Instant, why: &Evidence) {
        assert!(self.members.contains_key(&member), "a member");
        assert!(self.now - since >= EVICTION);
        if let Some(heard) = self.heard.get(&member) {
            assert!(self.now - *heard >= EVICTION, "{member:?} was heard");
        }
        let within = |witness: &MemberId, time: Duration| self.now - self.heard[witness] < time;
        let lately = |witness: &MemberId| within(witness, EVICTION / 2 + self.stood);
        match why {
            Evidence::Witnesses(lost) => {
                assert!(!lost.is_empty() && lost.iter().all(lately) && !lost.contains(&member));
            }
            Evidence::NoWitness => {
                let others = self.heard.keys().filter(|other| **other != member);
                assert_eq!(
                    others.filter(|other| within(other, EVICTION / 2)).count(),
                    0,
                    "somebody could be asked"
                );
            }
        }
        if self.views {
            self.after(ms(10), Event::Left(member));
        }
    }

    // ---- what is seen ----

    pub(super) fn evicted(&self) -> Vec<(Duration, MemberId, Evidence)> {
        let evicted = |(at, action): &(Duration, Action)| match action {
            Action::Evict { member, why, .. } => Some((*at, *member, why.clone())),
            Action::Ping | Action::Probe { .. } | Action::Health { .. } => None,
        };
        self.log.iter().filter_map(evicted).collect()
    }

    /// When, witness, suspect, name.
    pub(super) fn probes(&self) -> Vec<(Duration, MemberId, MemberId, ProbeId)> {
        let probe = |(at, action): &(Duration, Action)| match action {
            Action::Probe { probe, witness, suspect, .. } => Some((*at, *witness, *suspect, *probe)),
            Action::Ping | Action::Evict { .. } | Action::Health { .. } => None,
        };
        self.log.iter().filter_map(probe).collect()
    }

    pub(super) fn changes(&self, number: u64) -> Vec<(Duration, Health)> {
        let change = |(at, action): &(Duration, Action)| match action {
            Action::Health { member, health } if *member == id(number) => Some((*at, *health)),
            Action::Health { .. } | Action::Ping | Action::Evict { .. } | Action::Probe { .. } => None,
        };
        self.log.iter().filter_map(change).collect()
    }

    pub(super) fn health(&self, number: u64) -> Option<Health> {
        self.judge.health().find(|(member, _)| *member == id(number)).map(|(_, health)| health)
    }

    pub(super) fn all_healthy(&self) -> bool {
        self.judge.health().all(|(_, health)| health == Health::Healthy)
    }

    /// Time since the beginning.
    pub(super) fn at(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn heard_at(&self, number: u64) -> Duration {
        self.heard[&id(number)] - self.start
    }
}
