//! The real rooms as a model of stateright.
//!
//! A peer cannot be copied: its intake and its receipts are shared with others. So a state is the way that led to it,
//! and what it is in 128 bits; whoever wants the next one goes that way again, from where the last way parts from it
//! (`trail.rs`). Only the 128 bits tell states apart.
//!
//! Breaks are no steps of their own: a step is some breaks, and behind them what each of them matters to (why that is all
//! there is: `karere::fuzzing::model`). A step to which one of its breaks does not matter is none.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use karere::fuzzing::model::{Action, Fault, Scenario, World};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::options::Options;
use crate::trail;

/// A world, by how it came about.
#[derive(Clone, Debug)]
pub struct State {
    way: Box<[Action]>,
    digest: u128,
    /// One bit a [`Fault`].
    faults: u32,
}

/// What happens between two states: connections break, and then something to which each of these breaks matters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// One bit a connection.
    breaks: u64,
    then: Action,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

thread_local! {
    /// What the last step without a break wrote to: from which state, by which action, to which connections.
    static WRITTEN: Cell<(u128, Option<Action>, u64)> = const { Cell::new((0, None, 0)) };
}

struct Walker {
    scenario: &'static Scenario,
    calm_every: u128,
    seen: Arc<AtomicU64>,
}

/// What came of a scenario.
pub struct Walked {
    pub scenario: &'static Scenario,
    /// States reached, counted as often as they were, which is the transitions.
    pub transitions: usize,
    pub unique: usize,
    pub depth: usize,
    pub took: Duration,
    /// All states were seen.
    pub exhausted: bool,
    /// Names of what the scenario is there to show and did not.
    pub not_shown: Vec<String>,
    /// Each property, and the way on which it does not hold.
    pub properties: Vec<(&'static str, Option<Counterexample>)>,
}

/// How something breaks.
pub struct Counterexample {
    pub actions: Vec<String>,
    pub what: String,
}

impl Walked {
    /// Everything holds, and the scenario shows what it is there to show.
    pub fn is_sound(&self) -> bool {
        self.properties.iter().all(|(_, broken)| broken.is_none())
            && (!self.exhausted || self.not_shown.is_empty())
    }
}

/// Its name, what breaks it, and whether it holds.
type Holds = (&'static str, Fault, fn(&Walker, &State) -> bool);

const PROPERTIES: &[Holds] = &[
    ("each message comes at most once", Fault::Twice, |_, state| state.keeps(Fault::Twice)),
    ("messages of a stream come in order", Fault::Order, |_, state| state.keeps(Fault::Order)),
    ("none comes at another process than it was sent to", Fault::Address, |_, state| {
        state.keeps(Fault::Address)
    }),
    ("what is acked has come exactly once", Fault::Acked, |_, state| state.keeps(Fault::Acked)),
    ("what is not sent never comes", Fault::NotSent, |_, state| state.keeps(Fault::NotSent)),
    ("queued = acked + not sent + indeterminate + pending", Fault::Books, |_, state| {
        state.keeps(Fault::Books)
    }),
    ("one live link a side, and closed are the ones told (7, 10)", Fault::Links, |_, state| {
        state.keeps(Fault::Links)
    }),
    ("both settle on one link (8-11, 17)", Fault::SameLink, |_, state| state.keeps(Fault::SameLink)),
    ("what is for members comes from members only (3)", Fault::Admission, |_, state| {
        state.keeps(Fault::Admission)
    }),
    ("nothing is said to have come before it is delivered (10, 15)", Fault::Claim, |_, state| {
        state.keeps(Fault::Claim)
    }),
    ("who leaves loses nothing unless something breaks or its time is over (20)", Fault::Leave, |_, state| {
        state.keeps(Fault::Leave)
    }),
    ("nothing goes to a removed member, nor is it dialled (14)", Fault::Removed, |_, state| {
        state.keeps(Fault::Removed)
    }),
    ("no protocol error between honest processes (18)", Fault::Protocol, |_, state| {
        state.keeps(Fault::Protocol)
    }),
    ("epochs of a pair increase (2)", Fault::Epochs, |_, state| state.keeps(Fault::Epochs)),
    ("it comes to rest at each instant, and links stay (8-11)", Fault::Storm, |_, state| {
        state.keeps(Fault::Storm)
    }),
    ("nothing panics", Fault::Panic, |_, state| state.keeps(Fault::Panic)),
    ("everything ends when nothing breaks any more", Fault::Calm, Walker::is_calm),
];

impl State {
    const fn keeps(&self, fault: Fault) -> bool {
        self.faults & 1 << fault as u32 == 0
    }
}

impl Walker {
    fn state(&self, way: Vec<Action>) -> (State, u64) {
        let way = way.into_boxed_slice();
        let found = trail::at_end(self.scenario, &way, |world| {
            let faults = world.faults().iter().fold(0, |faults, (fault, _)| faults | 1 << *fault as u32);
            (world.digest(), world.seen(), world.written(), faults)
        });
        match found {
            Ok((digest, seen, written, faults)) => {
                self.seen.fetch_or(seen, Ordering::Relaxed);
                (State { way, digest, faults }, written)
            }
            Err(what) => {
                let mut hasher = std::hash::DefaultHasher::new();
                what.hash(&mut hasher);
                let digest = hasher.finish().into();
                (State { way, digest, faults: 1 << Fault::Panic as u32 }, u64::MAX)
            }
        }
    }

    fn is_calm(&self, state: &State) -> bool {
        state.faults != 0 || !state.digest.is_multiple_of(self.calm_every) || self.calm(state).is_ok()
    }

    /// Of two schedules each state gets the one that its digest says; also if one of its connections breaks first. On the
    /// occasion it is seen whether going all the way leads to the same world.
    fn calm(&self, state: &State) -> Result<(), String> {
        let world = trail::anew(self.scenario, &state.way)?;
        if world.digest() != state.digest {
            return Err("the same way leads to another world".to_owned());
        }
        let mut actions = Vec::new();
        world.actions(&mut actions);
        let calm = |world: World| {
            catch_unwind(AssertUnwindSafe(|| world.calm(state.digest >> 64 & 1 == 0)))
                .unwrap_or_else(|panic| Err(trail::text_of(&*panic)))
        };
        calm(world)?;
        for action in actions.into_iter().filter(|action| matches!(action, Action::Break { .. })) {
            let way: Vec<_> = state.way.iter().copied().chain([action]).collect();
            trail::anew(self.scenario, &way)
                .and_then(calm)
                .map_err(|what| format!("{what}, if {action} then"))?;
        }
        Ok(())
    }

    fn why(&self, fault: Fault, state: &State) -> String {
        let found = match trail::anew(self.scenario, &state.way) {
            Err(panic) => return panic,
            Ok(world) => {
                world.faults().iter().find(|(found, _)| *found == fault).map(|(_, what)| what.clone())
            }
        };
        found.or_else(|| self.calm(state).err()).unwrap_or_default()
    }
}

impl Model for Walker {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(Vec::new()).0]
    }

    /// Each action with each set of breaks before it; `next_state` sees which of them are steps.
    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.faults != 0 {
            return;
        }
        let mut actions = Vec::new();
        trail::actions(self.scenario, &state.way, &mut actions);
        let breaks = actions.iter().fold(0, |breaks, action| match action {
            Action::Break { conn } => breaks | 1 << conn,
            _ => breaks,
        });
        actions.retain(|action| !matches!(action, Action::Break { .. }));
        let broken = state.way.iter().filter(|action| matches!(action, Action::Break { .. })).count();
        let left = u32::from(self.scenario.breaks) - broken as u32;
        let subsets = || {
            let next = |subset: &u64| Some((subset.wrapping_sub(breaks)) & breaks);
            std::iter::successors(Some(0), next)
                .scan(false, |begun, subset| {
                    (subset != 0 || !std::mem::replace(begun, true)).then_some(subset)
                })
                .filter(|subset| subset.count_ones() <= left)
        };
        for then in actions {
            steps.extend(subsets().map(|breaks| Step { breaks, then }));
        }
        for conn in (0..64).filter(|conn| breaks & 1 << conn != 0) {
            for side in [0, 1] {
                let then = Action::Notice { conn, side };
                let with = subsets().filter(|subset| subset & 1 << conn != 0);
                steps.extend(with.map(|breaks| Step { breaks, then }));
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let Step { breaks, then } = step;
        let noticed = if let Action::Notice { conn, .. } = then { 1 << conn } else { 0 };
        let matters = |written: u64| breaks & !written & !noticed == 0;
        let (of, action, written) = WRITTEN.get();
        if breaks & noticed == 0 && (of, action) == (state.digest, Some(then)) && !matters(written) {
            return None;
        }
        let broken = (0..64).rev().filter(|conn| breaks & 1 << conn != 0);
        let mut way = Vec::with_capacity(state.way.len() + 1 + breaks.count_ones() as usize);
        way.extend_from_slice(&state.way);
        way.extend(broken.map(|conn| Action::Break { conn }));
        if breaks != 0 {
            let mut actions = Vec::new();
            trail::actions(self.scenario, &way, &mut actions);
            if !actions.contains(&then) {
                return None;
            }
        }
        way.push(then);
        let (next, written) = self.state(way);
        if breaks == 0 {
            WRITTEN.set((state.digest, Some(then), written));
        }
        matters(written).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        PROPERTIES.iter().map(|(name, _, holds)| Property::always(name, *holds)).collect()
    }
}

/// Walks through a scenario until all is seen, something breaks, or it is enough.
pub fn walk(scenario: &'static Scenario, options: &Options) -> Walked {
    let seen = Arc::new(AtomicU64::new(0));
    let walker = Walker { scenario, calm_every: options.calm_every, seen: Arc::clone(&seen) };
    let from = Instant::now();
    let mut checker = walker.checker().threads(options.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(most) = options.max_states {
        checker = checker.target_state_count(most);
    }
    let checker = checker.spawn_bfs().join();
    let took = from.elapsed();
    let discoveries = checker.discoveries();
    let walker = checker.model();
    let counterexample = |name: &str, fault| {
        let path = discoveries.get(name)?;
        let state = path.last_state();
        let actions = state.way.iter().map(Action::to_string).collect();
        Some(Counterexample { actions, what: walker.why(fault, state) })
    };
    let transitions = checker.state_count();
    let seen = seen.load(Ordering::Relaxed);
    let not_shown = scenario.shows.iter().filter(|shows| seen & 1 << **shows as u64 == 0);
    Walked {
        scenario,
        transitions,
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        exhausted: discoveries.is_empty() && options.max_states.is_none_or(|most| transitions < most),
        not_shown: not_shown.map(|shows| format!("{shows:?}")).collect(),
        properties: PROPERTIES.iter().map(|(name, fault, _)| (*name, counterexample(name, *fault))).collect(),
    }
}
