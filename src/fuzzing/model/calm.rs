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
            let again = !met.insert(self.digest());
            let actions = self.calm_actions();
            // Going round in circles, what is less urgent gets its turn: as long as it waits, it waits for that.
            let next = if again {
                actions.into_iter().find(|action| !is_quick(*action))
            } else {
                actions.first().copied()
            };
            let Some(action) = next else { return self.judge_end(!again) };
            if again {
                met.clear();
            }
            if let (Action::Deadline { side }, Some(message)) = (action, self.unended()) {
                return Err(format!("side {side} leaves, and {message} is not acknowledged by its deadline"));
            }
            self.apply(action);
            if let Some((fault, what)) = self.books.faults.first() {
                return Err(format!("{fault:?}: {what}"));
            }
        }
        Err(format!("{STEPS_MAX} steps and no rest"))
    }

    /// In the order in which they get their turn.
    fn calm_actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.inner_actions(&mut actions);
        for at in [0, 1] {
            if self.sides[at].life == Life::Running && self.next_view(at).is_some() {
                actions.push(Action::Install { side: at as u8 });
            }
            // Time passes only for somebody whom nothing else can help.
            self.timers(at, true, true, &mut actions);
            if self.sides[at].life == Life::Leaving {
                actions.push(Action::Deadline { side: at as u8 });
            }
        }
        actions.sort_by_key(|action| match action {
            Action::Connect { .. } => 1,
            Action::Install { .. } => 2,
            Action::Dial { .. } => 3,
            Action::Lease { .. } | Action::Quarantine { .. } => 4,
            Action::Deadline { .. } => 5,
            _ => 0,
        });
        actions
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

/// What happens before anybody has waited for long.
const fn is_quick(action: Action) -> bool {
    matches!(
        action,
        Action::Connect { .. }
            | Action::Deliver { .. }
            | Action::Notice { .. }
            | Action::Find { .. }
            | Action::Write { .. }
    )
}
