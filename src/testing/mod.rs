//! The simulation: real messengers, driver and all, in virtual time over a network from a seed, a membership system that
//! tells them of views at different times, and invariants that watch. Feature `testing`; no stability is promised.
//!
//! A seed makes a plan, processes act and things go wrong for some 40 s, then nothing fails any more, and all that
//! is pending must come to its end. The same seed gives the same world, event by event.

mod acts;
mod breaks;
mod coverage;
mod facts;
mod faults;
mod figures;
mod happens;
mod invariants;
#[cfg(all(test, feature = "rendezvous"))]
pub(crate) mod lab;
mod later;
mod ledger;
mod net;
mod plan;
#[cfg(feature = "rendezvous")]
pub(crate) mod platter;
mod pour;
mod process;
#[cfg(all(feature = "rendezvous", feature = "testing"))]
mod rendezvous;
mod routers;
#[cfg(test)]
mod tests;
mod trace;
mod views;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

pub use coverage::Coverage;
use trace::Trace;

/// A guarantee that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// What was seen.
    pub text: String,
    /// When, in virtual time since the world began.
    pub at: Duration,
}

/// What became of one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// Processes that ran in it, successors counted.
    pub members: usize,
    /// Messages that were sent.
    pub messages: u64,
    /// Of them, those that were sent at the end, from each to each.
    pub last_messages: u64,
    /// How long it lasted in virtual time.
    pub virtual_time: Duration,
    /// What went wrong in it, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Connections on which bits were bent.
    pub bent: u64,
    /// Connections that were cut after a number of bytes.
    pub cut: u64,
    /// Byte streams that were opened, or tried to.
    pub byte_streams: u64,
    /// Byte streams that were accepted and came to their end, in order or with an error.
    pub byte_streams_ended: u64,
    /// What became of flows, if there were routers.
    pub routers: Routers,
    /// What became of a rendezvous, if there was one.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    pub rendezvous: Rendezvous,
    /// The same whenever the seed is run.
    pub digest: u64,
    /// The first guarantee that did not hold.
    pub violation: Option<Violation>,
}

pub use figures::Routers;
#[cfg(all(feature = "rendezvous", feature = "testing"))]
pub use rendezvous::{Cost, Figures as Rendezvous, Scale};

/// What kind of world seeds make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Messengers under a membership system of the simulation's own.
    #[default]
    Messengers,
    /// Servers of a rendezvous, and nodes that follow it.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    Rendezvous,
}

/// What became of many.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many there were.
    pub seeds: u64,
    /// The smallest world's processes and messages, and its time.
    pub least: (usize, u64, Duration),
    /// Processes of all.
    pub members: u64,
    /// Messages of all.
    pub messages: u64,
    /// Virtual time of all.
    pub virtual_time: Duration,
    /// What went wrong, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Connections on which bits were bent.
    pub bent: u64,
    /// Connections that were cut after a number of bytes.
    pub cut: u64,
    /// Byte streams that were opened, and those that were accepted and came to their end.
    pub byte_streams: (u64, u64),
    /// What became of flows.
    pub routers: Routers,
    /// What became of rendezvous.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    pub rendezvous: Rendezvous,
    /// Faults by states.
    pub coverage: Coverage,
    /// Seeds in which a guarantee did not hold, in their order.
    pub violations: Vec<Outcome>,
    /// How long it took.
    pub wall: Duration,
}

impl Report {
    fn add(&mut self, outcome: Outcome, coverage: &Coverage) {
        let (members, messages, time) = (outcome.members, outcome.messages, outcome.virtual_time);
        self.least = if self.seeds == 0 {
            (members, messages, time)
        } else {
            (self.least.0.min(members), self.least.1.min(messages), self.least.2.min(time))
        };
        self.seeds += 1;
        self.members += members as u64;
        self.messages += messages;
        self.virtual_time += time;
        (self.bent, self.cut) = (self.bent + outcome.bent, self.cut + outcome.cut);
        self.byte_streams.0 += outcome.byte_streams;
        self.byte_streams.1 += outcome.byte_streams_ended;
        for (fault, count) in &outcome.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
        self.routers.add(&outcome.routers);
        #[cfg(all(feature = "rendezvous", feature = "testing"))]
        self.rendezvous.add(&outcome.rendezvous);
        self.coverage.add(coverage);
        if outcome.violation.is_some() {
            self.violations.push(outcome);
        }
    }
}

/// Runs `count` seeds from `first` on, `threads` at a time; `tell` hears of each as it ends, and says whether to go on.
///
/// # Panics
///
/// If a thread cannot be started.
pub fn simulate(
    kind: Kind,
    first: u64,
    count: u64,
    threads: usize,
    mut tell: impl FnMut(&Outcome) -> bool,
) -> Report {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let (told, outcomes) = sync_channel(threads);
        for _ in 0..threads.max(1) {
            let (told, next) = (told.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let (outcome, coverage, _) = run(kind, first.wrapping_add(at), false);
                    if told.send((outcome, coverage)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        while let Ok((outcome, coverage)) = outcomes.recv() {
            let goes_on = tell(&outcome);
            report.add(outcome, &coverage);
            if !goes_on {
                next.store(count, Ordering::Relaxed);
            }
        }
    });
    report.violations.sort_by_key(|outcome| outcome.seed);
    report.wall = began.elapsed();
    report
}

/// Runs one seed and tells all that happened in it.
#[must_use]
pub fn replay(kind: Kind, seed: u64) -> (Outcome, Vec<String>) {
    let (outcome, _, trace) = run(kind, seed, true);
    (outcome, trace.into_lines())
}

/// What a join and a change of routes cost in a network of so many nodes, in virtual time.
///
/// # Errors
///
/// What did not come to pass.
#[cfg(all(feature = "rendezvous", feature = "testing"))]
pub fn scale(nodes: usize) -> Result<Scale, String> {
    fastrand::seed(nodes as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|error| error.to_string())?.block_on(rendezvous::measure(nodes))
}

fn run(kind: Kind, seed: u64, keeps: bool) -> (Outcome, Coverage, Trace) {
    listen_for_panics();
    // Ids and seeds of this thread's messengers come from here.
    fastrand::seed(seed ^ 0x6b61_7265_7265);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { panic!("no runtime") };
    let trace = Trace::new(keeps);
    let ran = match kind {
        Kind::Messengers => runtime.block_on(world::run(seed, trace)),
        #[cfg(all(feature = "rendezvous", feature = "testing"))]
        Kind::Rendezvous => {
            let (outcome, trace) = runtime.block_on(rendezvous::run(seed, trace));
            (outcome, Coverage::default(), trace)
        }
    };
    drop(runtime);
    let _of_the_end = take_panic();
    ran
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static SIMULATES: RefCell<bool> = const { RefCell::new(false) };
}

/// A panic in a task of a messenger is a violation, and no noise.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    SIMULATES.set(true);
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if SIMULATES.with_borrow(|simulates| *simulates) {
                PANIC.with_borrow_mut(|panic| panic.get_or_insert_with(|| info.to_string()).len());
            } else {
                before(info);
            }
        }));
    });
}

fn take_panic() -> Option<String> {
    PANIC.take()
}
