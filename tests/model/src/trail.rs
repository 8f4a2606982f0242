//! Where a thread's world has been: the way it went. A way that goes on from there is gone from there; any other from the
//! beginning, because a world cannot be put back. Depth first, the first child of a state is a step on from it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use karere::fuzzing::model::{Action, Scenario, World};

struct Trail {
    scenario: &'static Scenario,
    world: World,
    way: Vec<Action>,
}

thread_local! {
    static TRAIL: RefCell<Option<Trail>> = const { RefCell::new(None) };
}

impl Trail {
    fn new(scenario: &'static Scenario) -> Self {
        Self { scenario, world: World::new(scenario), way: Vec::new() }
    }

    /// A world that went this way, judging nothing.
    fn at(kept: Option<Self>, scenario: &'static Scenario, way: &[Action]) -> Self {
        let kept = kept.filter(|kept| ptr::eq(kept.scenario, scenario) && way.starts_with(&kept.way));
        let mut trail = kept.unwrap_or_else(|| Self::new(scenario));
        for action in way.iter().skip(trail.way.len()) {
            trail.world.repeat(*action);
            trail.way.push(*action);
        }
        trail
    }
}

/// What somebody makes of the world at the end of a way, whose last step is judged; or the panic on it.
pub fn at_end<T>(
    scenario: &'static Scenario,
    way: &[Action],
    look: impl FnOnce(&World) -> T,
) -> Result<T, String> {
    let kept = TRAIL.take();
    let run = AssertUnwindSafe(|| {
        let (last, before) = match way.split_last() {
            Some((last, before)) => (Some(*last), before),
            None => (None, way),
        };
        let mut trail = Trail::at(kept, scenario, before);
        if let Some(last) = last {
            trail.world.apply(last);
            trail.way.push(last);
        }
        let found = look(&trail.world);
        (found, trail)
    });
    let (found, trail) = catch_unwind(run).map_err(|panic| text_of(&*panic))?;
    TRAIL.set(Some(trail));
    Ok(found)
}

/// What may happen next.
pub fn actions(scenario: &'static Scenario, way: &[Action], out: &mut Vec<Action>) {
    // It was there before, so nothing panics on the way.
    let trail = Trail::at(TRAIL.take(), scenario, way);
    trail.world.actions(out);
    TRAIL.set(Some(trail));
}

/// A world that goes the whole way; or the panic on it.
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
