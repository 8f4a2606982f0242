//! A world of two addresses that a model checker steps: real `Peer`s, with their `Session`s, intakes, receipts and the
//! process's `Roster`, and between them connections that carry real bytes. `tests/model` walks through all of it.
//!
//! A `Scenario` says what may happen at most; `World::actions` is what may happen next, `World::apply` lets it,
//! `World::faults` is what broke by it, and two worlds of one `World::digest` are the same from there on. A world
//! cannot be copied (intakes and receipts are shared), but it is deterministic: whoever wants it again applies the same
//! actions to a new one.
//!
//! # What is left to choice, and what is not
//!
//! Chosen, in every order: sends, connections that come to stand, what arrives where (all that a pipe holds, or
//! frame by frame: `Scenario::by_frame`), breaks, when each side notices one, views, restarts, leaving,
//! leases, quarantines and waits that end. Not chosen, because it commutes with whatever else may happen, or because it
//! is the driver's habit: outputs are obeyed, what can be written is written, dials begin and handlers are done at once, and a connection on which
//! nobody can learn anything any more is over (`World::sweep` says why that is so).
//!
//! A *break* says only that what is written from now on is lost. What is on its way may still arrive, or the end notices
//! first: so one kind of break is cut, half-open, told to both, to one, to nobody, and found out at last. Side 0 is
//! told by its kernel (an error of the link), side 1 finds out by the liveness time.
//!
//! When a connection breaks is left to choice too, but not every moment counts. A break only takes away what is written
//! behind it (who writes does not find out) and lets an end notice; a dial that breaks does not come to stand. Everything
//! else commutes with it. So a run is the same as one in which each break stands right before the first write that is
//! lost or the first notice, or is left out if there is none: walking those is walking all. `World::written` tells what
//! a walker needs for that: which connections an action wrote to, whether or not it was lost. What this leaves out are states
//! in which a break has not mattered yet; of those only whether everything ends (`World::calm`) could be worse than
//! without it, so a walker asks that with each break as well.
//!
//! *Time*: each peer has a clock of its own, which no other can compare with. It stands still but when a deadline is let
//! pass; then it goes to that deadline. Whatever can pass is one at a time (`Peer::wait`) and set anew before it can
//! pass again, so a deadline is told by being set. The times are chosen so that there is no jitter: back-off 0, and waits
//! of one nanosecond (a half of it rounds to none). Keep-alive does not ping by itself: a link that stands is not silent.
//!
//! `Session`: crate::session::Session
//! `Roster`: crate::peer::Roster

mod actions;
mod books;
mod calm;
mod conn;
mod digest;
mod happens;
mod scenario;
mod side;
#[cfg(test)]
mod tests;
mod turns;

pub use actions::Action;
pub use books::{Fault, Seen};
pub use scenario::{Member, Scenario, scenarios};

use books::Books;
use conn::Conn;
use side::Side;

use std::sync::Arc;

use crate::member::MemberId;

/// See the module's text.
pub struct World {
    scenario: &'static Scenario,
    sides: [Side; 2],
    conns: Vec<Conn>,
    books: Books,
    left: Left,
    /// Connections, by their places before the last action, that it wrote to: one bit each.
    written: u64,
}

/// What may still happen of what is bounded.
#[derive(Clone, Copy, Hash)]
struct Left {
    breaks: u8,
    leases: u8,
    quarantines: u8,
    restarts: [u8; 2],
    leaves: [bool; 2],
    /// Whose time for leaving is not over yet.
    deadlines: [bool; 2],
    drops: [bool; 2],
    /// Messages of a side sent so far.
    sent: [u8; 2],
}

/// Who runs at an address, counted from 0.
const fn id(side: usize, incarnation: u8) -> MemberId {
    MemberId::from_parts(1 + incarnation as u64, 1 + side as u128)
}

/// At which address a member runs or ran.
fn side_of(id: MemberId) -> usize {
    usize::from((0..4).any(|incarnation| self::id(1, incarnation) == id))
}

fn incarnation_of(of: MemberId) -> u8 {
    (0..4).find(|incarnation| id(side_of(of), *incarnation) == of).unwrap_or(u8::MAX)
}

impl World {
    /// As it begins: what the scenario says is there is there, and nothing has happened.
    #[must_use]
    pub fn new(scenario: &'static Scenario) -> Self {
        let Scenario { breaks, leases, quarantines, restarts, leaves, drops, .. } = *scenario;
        let (deadlines, sent) = ([true; 2], [0; 2]);
        let left = Left { breaks, leases, quarantines, restarts, leaves, deadlines, drops, sent };
        let sent = Arc::default();
        let sides = [0, 1].map(|at| Side::new(at, 0, &sent));
        let mut world =
            Self { scenario, sides, conns: Vec::new(), books: Books::default(), left, written: 0 };
        for at in [0, 1] {
            for _ in 0..scenario.installed[at] {
                world.install(at);
            }
            if scenario.contacts[at] {
                world.attach(at, id(1 - at, 0));
            }
        }
        world.settle();
        world.judge();
        world
    }

    /// What must not happen and did, by the actions so far.
    #[must_use]
    pub fn faults(&self) -> &[(Fault, String)] {
        &self.books.faults
    }

    /// What happened that a scenario is there to show.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.books.seen
    }

    /// Connections, by their places before the last action, that something was written to by it: one bit each. Their being
    /// broken mattered to it, that of others did not (but to a notice). See [`World::apply`].
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The process that runs there now.
    fn id(&self, side: usize) -> MemberId {
        self.sides[side].id()
    }
}
