//! When nothing breaks any more: does everything end?

use std::collections::HashSet;

use super::conn::Stage;
use super::side::{Contact, Life};
use super::{Action, World};

/// Far more than anything needs.
const STEPS_MAX: usize = 500;
/// How often the same may come again before time passes.
const CIRCLES_MAX: usize = 8;

impl World {
    /// From here on nobody sends, leaves or restarts, nothing breaks, and both sides install all views: what is on its way
    /// arrives first, then dials are let wait, then time passes. It must come to rest, or do the same again and again for
    /// somebody who is no more; with every message ended, and both on one link if a contact holds it.
    ///
    /// `at_once`: connections stand before anything arrives, and nobody waits longer to dial than the other. So both always
    /// dial at the same time.
    ///
    /// # Errors
    ///
    /// What never ends.
    pub fn calm(mut self, at_once: bool) -> Result<(), String> {
        let mut met = HashSet::new();
        let mut circles = 0;
        for _ in 0..STEPS_MAX {
            let again = !met.insert(self.digest());
            let actions = self.calm_actions(at_once);
            circles += usize::from(again);
            let next = if circles > CIRCLES_MAX {
                // It waits for what is less urgent, or for nothing.
                (circles, met) = (0, HashSet::new());
                actions.iter().find(|action| !is_quick(**action))
            } else if again {
                // The same way round again would be unfair: connections are only told apart by their places.
                actions.iter().filter(|action| is_quick(**action)).cycle().nth(circles)
            } else {
                actions.first()
            };
            let Some(action) = next.copied() else { return self.judge_end(actions.is_empty()) };
            if let Action::Deadline { side } = action {
                self.judge_deadline(side.into())?;
            }
            self.apply(action);
            if let Some((fault, what)) = self.books.faults.first() {
                return Err(format!("{fault:?}: {what}"));
            }
        }
        Err(format!("{STEPS_MAX} steps and no rest"))
    }

    /// In the order in which they get their turn.
    fn calm_actions(&self, at_once: bool) -> Vec<Action> {
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
            Action::Dial { .. } if at_once => -2,
            Action::Connect { .. } if at_once => -1,
            Action::Connect { .. } => 1,
            Action::Install { .. } => 2,
            Action::Dial { .. } => 3,
            Action::Lease { .. } | Action::Quarantine { .. } => 4,
            Action::Deadline { .. } => 5,
            _ => 0,
        });
        actions
    }

    /// Who leaves needs its deadline only if the other is no more, or neither can dial.
    fn judge_deadline(&self, side: usize) -> Result<(), String> {
        let (here, there) = (&self.sides[side], &self.sides[1 - side]);
        let room = |side: &super::side::Side, of| side.rooms.get(&of).map(|room| room.peer.may_dial());
        match (room(here, there.id()), room(there, here.id())) {
            (Some(dials), Some(dialled)) if dials || dialled => {
                Err(format!("side {side} leaves, and needs its deadline"))
            }
            _ => Ok(()),
        }
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

/// What happens before anybody has waited for long. At most a dial is waited for.
const fn is_quick(action: Action) -> bool {
    matches!(
        action,
        Action::Connect { .. }
            | Action::Deliver { .. }
            | Action::Notice { .. }
            | Action::Find { .. }
            | Action::Write { .. }
            | Action::Dial { .. }
    )
}
