//! When nothing breaks any more: does everything end?

use std::collections::HashSet;

use super::conn::Stage;
use super::side::{Contact, Life};
use super::{Action, World};

/// Far more than anything needs.
const STEPS_MAX: usize = 500;

impl World {
    /// From here on nobody sends, leaves or restarts, nothing breaks, and both sides install all views: what is on its way
    /// arrives first, then dials are let wait, then time passes. It must come to rest, or do the same again and again for
    /// somebody who is no more; with every message ended, and both on one link if a contact holds it.
    ///
    /// # Errors
    ///
    /// What never ends.
    pub fn calm(mut self) -> Result<(), String> {
        let mut met = HashSet::new();
        for _ in 0..STEPS_MAX {
            let next = self.calm_action();
            let again = !met.insert(self.digest());
            let Some(action) = next.filter(|_| !again) else {
                return self.judge_end(next.is_none());
            };
            self.apply(action);
            if let Some((fault, what)) = self.books.faults.first() {
                return Err(format!("{fault:?}: {what}"));
            }
        }
        Err(format!("{STEPS_MAX} steps and no rest"))
    }

    fn calm_action(&self) -> Option<Action> {
        let mut inner = Vec::new();
        self.inner_actions(&mut inner);
        // A dial waits longer than anything takes that is on its way.
        let waits = |action: &&Action| matches!(action, Action::Dial { .. });
        if let Some(action) = inner.iter().find(|action| !waits(action)) {
            return Some(*action);
        }
        let views = [0, 1].into_iter().find(|at| {
            self.sides[*at].life == Life::Running && self.next_view(*at).is_some()
        });
        if let Some(at) = views {
            return Some(Action::Install { side: at as u8 });
        }
        if let Some(dial) = inner.first() {
            return Some(*dial);
        }
        // Time passes only for somebody whom nothing else can help.
        let mut timers = Vec::new();
        for at in [0, 1] {
            self.timers(at, true, true, &mut timers);
        }
        let leaving = [0, 1].into_iter().find(|at| self.sides[*at].life == Life::Leaving);
        timers.first().copied().or(leaving.map(|at| Action::Deadline { side: at as u8 }))
    }

    fn judge_end(&self, at_rest: bool) -> Result<(), String> {
        if let Some(message) = self.unended() {
            return Err(format!("{message} never ends"));
        }
        for side in [0, 1] {
            let (here, there) = (&self.sides[side], &self.sides[1 - side]);
            let holds = here.contact == Contact::Held(there.id()) && there.life == Life::Running;
            let linked = self.conns.iter().any(|conn| conn.ends.iter().all(|end| end.stage == Stage::Live));
            if holds && here.life == Life::Running && at_rest && !linked {
                return Err(format!("side {side} holds a contact and has no link"));
            }
        }
        Ok(())
    }
}
