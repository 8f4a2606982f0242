//! Where a thread's world has been: the way it went, and what it was at each step. A way that parts from it is gone from
//! there on. Breadth first, the next state is mostly a child or a sibling of the last.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use karere::fuzzing::model::{Action, Scenario, World};

use crate::arena;

struct Trail {
    scenario: *const Scenario,
    /// In the region.
    world: *mut World,
    way: Vec<Action>,
    /// The region at the beginning, and after each action.
    saved: Vec<Vec<u8>>,
    /// The region is as it was last saved.
    fresh: bool,
}

thread_local! {
    static TRAIL: RefCell<Trail> = const {
        RefCell::new(Trail {
            scenario: ptr::null(),
            world: ptr::null_mut(),
            way: Vec::new(),
            saved: Vec::new(),
            fresh: false,
        })
    };
}

impl Trail {
    fn begin(&mut self, scenario: &'static Scenario) {
        if ptr::eq(self.scenario, scenario) {
            return;
        }
        // Whatever is made once in a thread is made outside of the region.
        drop(World::new(scenario));
        // The one of another scenario stays where it is; nobody looks at it any more.
        self.world = arena::within(|| Box::into_raw(Box::new(World::new(scenario))));
        self.scenario = scenario;
        self.way.clear();
        self.saved.truncate(1);
        self.saved.resize_with(1, Vec::new);
        arena::save(&mut self.saved[0]);
        self.fresh = true;
    }

    /// Goes there, judging nothing.
    fn go(&mut self, way: &[Action]) {
        let same = way.iter().zip(&self.way).take_while(|(one, other)| one == other).count();
        if same < self.way.len() || !self.fresh {
            self.way.truncate(same);
            self.put_back();
        }
        for action in &way[same..] {
            self.fresh = false;
            // SAFETY: it was made by a box and is never dropped.
            arena::within(|| unsafe { (*self.world).repeat(*action) });
            self.way.push(*action);
            if self.saved.len() <= self.way.len() {
                self.saved.push(Vec::new());
            }
            arena::save(&mut self.saved[self.way.len()]);
            self.fresh = true;
        }
    }

    fn put_back(&mut self) {
        // SAFETY: it was saved by this thread; no reference into the region outlives a call of `at_end`.
        unsafe { arena::put_back(&self.saved[self.way.len()]) };
        self.fresh = true;
    }
}

/// What somebody makes of the world at the end of a way, whose last step is judged; or the panic on it.
pub fn at_end<T>(
    scenario: &'static Scenario,
    way: &[Action],
    look: impl FnOnce(&World) -> T,
) -> Result<T, String> {
    TRAIL.with_borrow_mut(|trail| {
        trail.begin(scenario);
        let run = AssertUnwindSafe(|| {
            if let Some((last, before)) = way.split_last() {
                trail.go(before);
                trail.fresh = false;
                // SAFETY: as above.
                arena::within(|| unsafe { (*trail.world).apply(*last) });
            } else {
                trail.go(way);
            }
            // SAFETY: as above.
            look(unsafe { &*trail.world })
        });
        let found = catch_unwind(run).map_err(|panic| text_of(&*panic));
        if found.is_err() {
            trail.fresh = false;
        }
        found
    })
}

/// What may happen next.
pub fn actions(scenario: &'static Scenario, way: &[Action], out: &mut Vec<Action>) {
    TRAIL.with_borrow_mut(|trail| {
        trail.begin(scenario);
        // It was there before, so nothing panics on the way.
        trail.go(way);
        // SAFETY: as above.
        unsafe { (*trail.world).actions(out) };
    });
}

/// A world that goes the whole way, outside of any region; or the panic on it.
pub fn anew(scenario: &'static Scenario, way: &[Action]) -> Result<World, String> {
    catch_unwind(|| {
        let mut world = World::new(scenario);
        if let Some((last, before)) = way.split_last() {
            before.iter().for_each(|action| world.repeat(*action));
            world.apply(*last);
        }
        world
    })
    .map_err(|panic| text_of(&*panic))
}

/// What a panic said.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
