//! At the end nothing is left: no task, no socket.

use super::{Event, Facts, Invariant};

pub(super) struct Over;

impl Invariant for Over {
    fn name(&self) -> &'static str {
        "nothing is left at the end"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Closed { tasks } = event else { return Ok(()) };
        let seen = facts.network.seen();
        if *tasks > 0 || !seen.is_empty() {
            return Err(format!("{tasks} tasks, {} sockets: {:?}", seen.len(), seen.first()));
        }
        Ok(())
    }
}
