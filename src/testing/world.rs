//! One world: the processes of a seed, what they do, what goes wrong with them, and who watches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coverage::Coverage;
use super::facts::{Event, Facts};
use super::faults::Fault;
use super::invariants::{self, Invariant};
use super::later::{Later, Queue};
use super::ledger::{self, Ledger, Tag};
use super::net::{Network, ProcessId};
use super::plan::{CALM, CHAOS, LEAST, MESSAGES_MIN, Plan};
use super::process::{Manner, Note, Notes, Process};
use super::routers::Book;
use super::trace::Trace;
use super::views::Oracle;
use super::{Outcome, Violation};
use crate::driver::clock;
use crate::member::Views;

/// How often the invariants look.
const LOOK: Duration = Duration::from_millis(250);
/// The last messages, from each to each, have so long.
const LAST: Duration = Duration::from_secs(20);
/// Of worlds with views, one in so many has routers; and of those without.
const ROUTERS: u8 = 3;
const ROUTERS_WITHOUT_VIEWS: u8 = 2;
const FLOWS: u64 = 0x666c_6f77_7321;

/// See the module's text.
pub(super) struct World {
    pub(super) facts: Facts,
    pub(super) chance: fastrand::Rng,
    /// Of routers and flows, so that worlds without them are what they were.
    pub(super) flow_chance: fastrand::Rng,
    pub(super) processes: Vec<Option<Process>>,
    pub(super) later: Queue,
    pub(super) oracle: Oracle,
    pub(super) notes: Arc<Notes>,
    pub(super) waits: u64,
    /// Nothing fails any more.
    pub(super) is_calm: bool,
    /// All messengers have closed.
    pub(super) is_over: bool,
    pub(super) outcome: Outcome,
    pub(super) coverage: Coverage,
    invariants: Vec<Box<dyn Invariant>>,
    trace: Trace,
    looked: Instant,
    looks: usize,
}

/// A world from its beginning to its end. Runs in a runtime of one thread whose clock is stopped.
pub(super) async fn run(seed: u64, trace: Trace) -> (Outcome, Coverage, Trace) {
    let mut world = World::new(seed, trace);
    world.live().await;
    world.outcome.routers.hung = world.facts.book.open.len() as u64;
    world.outcome.virtual_time = world.facts.time();
    world.outcome.members = world.facts.processes.len();
    world.outcome.messages = world.facts.ledger.len() as u64;
    world.outcome.digest = world.trace.digest();
    (world.outcome, world.coverage, world.trace)
}

impl World {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut flow_chance = fastrand::Rng::with_seed(seed ^ FLOWS);
        let mut plan = Plan::of(&mut chance);
        let one_in = if plan.views == Views::None { ROUTERS_WITHOUT_VIEWS } else { ROUTERS };
        plan.routers = flow_chance.u8(..one_in) == 0;
        let network = Network::new(chance.u64(..), plan.weather);
        let now = clock::now();
        let oracle = Oracle::new(plan.views, plan.stagger);
        let facts = Facts {
            plan,
            began: now,
            now,
            network,
            ledger: Ledger::default(),
            book: Book::default(),
            processes: Vec::new(),
            bent: false,
            jumped: now,
            disturbed: Default::default(),
        };
        Self {
            facts,
            chance,
            flow_chance,
            processes: Vec::new(),
            later: Queue::default(),
            oracle,
            notes: Arc::default(),
            waits: 0,
            is_calm: false,
            is_over: false,
            outcome: Outcome { seed, ..Outcome::default() },
            coverage: Coverage::default(),
            invariants: invariants::all(),
            trace,
            looked: now,
            looks: 0,
        }
    }

    async fn live(&mut self) {
        self.trace.say(Duration::ZERO, || format!("{:?}", self.facts.plan));
        for at in 0..self.facts.plan.members {
            self.begin(address(at)).await;
        }
        let end = self.facts.began + CHAOS;
        // Also in a quiet world enough is sent.
        let wanted = |world: &Self| world.facts.ledger.len() < MESSAGES_MIN;
        let most = self.facts.began + 3 * CHAOS;
        while (self.facts.now < end || (wanted(self) && self.facts.now < most)) && self.goes_on() {
            let pause = self.facts.plan.pause.as_micros() as u64;
            let until = self.facts.now + Duration::from_micros(self.chance.u64(..=2 * pause));
            self.pass(until).await;
            self.act().await;
            self.act_routers();
        }
        self.calm_down().await;
        if self.goes_on() {
            self.last_messages().await;
        }
        self.close().await;
    }

    /// Until something is violated.
    pub(super) fn goes_on(&self) -> bool {
        self.outcome.violation.is_none()
    }

    // ---- time ----

    /// Time passes, and what was to happen in it happens.
    pub(super) async fn pass(&mut self, until: Instant) {
        loop {
            let next = self.later.next().map_or(until, |next| next.min(until));
            let next = next.min(self.looked + LOOK).max(self.facts.now);
            tokio::time::sleep_until(next.into()).await;
            self.drain();
            while let Some(later) = self.later.take(self.facts.now) {
                self.happen(later).await;
                self.drain();
            }
            if self.facts.now >= self.looked + LOOK {
                self.look();
            }
            if self.facts.now >= until || !self.goes_on() {
                return;
            }
        }
    }

    /// What processes have told since.
    pub(super) fn drain(&mut self) {
        for (at, note) in self.notes.take() {
            self.facts.now = at;
            match note {
                Note::Delivered { process, from, body } => {
                    let tag = ledger::read(&body);
                    let before = tag.and_then(|tag| self.facts.ledger.arrived(tag));
                    self.observe(Event::Delivered { process, from, tag, before });
                }
                Note::Heard { process, event } => self.observe(Event::Heard { process, event }),
                Note::Drunk { process } => {
                    self.outcome.byte_streams_ended += 1;
                    self.observe(Event::Drunk { process });
                }
                Note::Wrong { process, wrong } => {
                    self.violated("byte streams are as they were poured", format!("P{}: {wrong}", process.0));
                }
                Note::Flow(told) => {
                    self.count_flow(&told);
                    self.facts.book.note(&told);
                    self.observe(Event::Flow(told));
                }
                Note::WaitEnded { wait, wrong } => {
                    self.observe(Event::WaitEnded { wait });
                    if let Some(wrong) = wrong {
                        self.violated("answers fit", wrong);
                    }
                }
                Note::Left { process, in_order } => {
                    self.observe(Event::Left { process, in_order });
                    if self.process(process).is_none() {
                        continue;
                    }
                    let again = self.facts.now + self.millis(0, 2_000);
                    self.end(process, false);
                    if let Some(facts) = self.facts.of(process) {
                        self.later.add(again, Later::Begin(facts.address));
                    }
                }
            }
        }
        self.facts.now = clock::now();
        super::take_panic().into_iter().for_each(|text| self.observe(Event::Panicked { text }));
    }

    /// A look at everything.
    fn look(&mut self) {
        self.looked = self.facts.now;
        self.looks += 1;
        self.look_at_receipts();
        // Figures of one process in each look: they cost most.
        let running: Vec<_> = self.facts.running().map(|(process, _)| process).collect();
        if let Some(process) = self.looks.checked_rem(running.len()).and_then(|at| running.get(at)).copied()
            && let Some(one) = self.process(process)
        {
            let stats = Box::new(one.messenger.stats());
            self.observe(Event::Looked { process, stats });
        }
        self.observe(Event::Tick);
    }

    pub(super) fn look_at_receipts(&mut self) {
        for (tag, ending) in self.facts.ledger.look() {
            self.observe(Event::Ended { tag, ending });
        }
    }

    pub(super) fn observe(&mut self, event: Event) {
        self.trace.note(&self.facts, &event);
        let mut violated = None;
        for invariant in &mut self.invariants {
            if let Err(text) = invariant.observe(&self.facts, &event) {
                violated.get_or_insert((invariant.name(), text));
            }
        }
        if let Some((name, text)) = violated {
            self.violated(name, text);
        }
    }

    pub(super) fn violated(&mut self, invariant: &str, text: String) {
        let at = self.facts.time();
        self.trace.say(at, || format!("VIOLATED {invariant}: {text}"));
        let violation = Violation { invariant: invariant.to_owned(), text, at };
        self.outcome.violation.get_or_insert(violation);
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        self.trace.say(self.facts.time(), text);
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.chance.u64(least..=most))
    }

    // ---- the end ----

    /// Nothing fails from now on; all that is pending gets its time.
    async fn calm_down(&mut self) {
        if !self.goes_on() {
            return;
        }
        self.is_calm = true;
        self.facts.network.free_all();
        for at in 0..self.processes.len() {
            let id = ProcessId(at);
            self.thaw(id);
            if let Some(one) = self.process(id) {
                one.handlers.set(Manner::Prompt);
            }
            self.facts.of_mut(id).into_iter().for_each(|facts| facts.prompt = true);
            self.disturb(id);
        }
        self.observe(Event::Calm);
        let (least, most) = (self.facts.began + LEAST, self.facts.now + CALM);
        while self.goes_on() && self.facts.now < most {
            self.pass(self.facts.now + LOOK).await;
            if self.is_at_rest() && self.facts.now >= least {
                break;
            }
        }
        self.observe(Event::Rest);
        self.look_at_routers();
    }

    fn is_at_rest(&self) -> bool {
        let settled = if self.facts.plan.views == Views::None {
            self.routers_know_all()
        } else {
            self.facts.running().all(|(_, facts)| facts.view.len() == self.oracle.len())
        };
        self.later.is_empty() && self.facts.ledger.pending().is_empty() && settled && self.routers_rest()
    }

    /// From each to each whom it knows.
    async fn last_messages(&mut self) {
        let mut tags: Vec<Tag> = Vec::new();
        let all: Vec<_> = self.facts.running().map(|(process, _)| process).collect();
        if self.facts.plan.views == Views::None {
            for process in &all {
                let next = address((process.0 + 1) % self.facts.plan.members);
                self.contact(*process, next);
            }
            self.pass(self.facts.now + LAST / 2).await;
        }
        for process in all {
            tags.extend(self.send_last(process));
        }
        let most = self.facts.now + LAST;
        let pending = |world: &Self| !world.facts.ledger.pending().is_empty();
        while self.goes_on() && self.facts.now < most && pending(self) {
            self.pass(self.facts.now + LOOK).await;
        }
        self.outcome.last_messages = tags.len() as u64;
        self.observe(Event::Last { tags });
    }

    /// All leave or close, and nothing is left.
    async fn close(&mut self) {
        self.last_flows();
        let mut ends = Vec::new();
        for process in self.processes.iter().flatten() {
            process.contacts.lock().clear();
            let (messenger, leaves) = (process.messenger.clone(), self.chance.bool());
            ends.push(tokio::spawn(async move {
                if leaves {
                    messenger.leave(Duration::from_secs(5)).await;
                }
                messenger.close().await;
            }));
        }
        for end in ends {
            let _joined = end.await;
        }
        // Last words have a second, and so have flows that no messenger carries any more.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.drain();
        self.is_over = true;
        self.look_at_last_flows();
        let tasks = self.processes.iter().flatten().map(Process::tasks).sum();
        let (bent, cut) = self.facts.network.late_faults();
        self.outcome.bent = bent;
        self.outcome.cut = cut;
        if self.goes_on() {
            self.observe(Event::Closed { tasks });
        }
    }

    pub(super) fn hit(&mut self, fault: Fault) {
        *self.outcome.faults.entry(format!("{fault:?}")).or_default() += 1;
        self.observe(Event::Fault(fault));
    }
}

/// The place of a member.
pub(super) fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + at as u8], 7400))
}
