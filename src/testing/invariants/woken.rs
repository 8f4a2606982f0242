//! Guarantee 5, of those who wait: nobody waits longer than he said, nor longer than 100 ms for one who was removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Event, Facts, Invariant};
use crate::member::MemberId;
use crate::testing::net::ProcessId;

const WOKEN_AFTER: Duration = Duration::from_millis(100);
/// What lies between two looks.
const MARGIN: Duration = Duration::from_millis(300);

struct Wait {
    process: ProcessId,
    on: MemberId,
    until: Instant,
    what: &'static str,
}

#[derive(Default)]
pub(super) struct Woken(BTreeMap<u64, Wait>);

impl Invariant for Woken {
    fn name(&self) -> &'static str {
        "waiters are woken"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::WaitBegan { wait, process, on, until, what } => {
                self.0.insert(*wait, Wait { process: *process, on: *on, until: *until, what });
            }
            Event::WaitEnded { wait } => drop(self.0.remove(wait)),
            Event::Installed { process, left } => {
                let soon = facts.now + WOKEN_AFTER;
                let waits = self.0.values_mut();
                waits
                    .filter(|wait| wait.process == *process && left.contains(&wait.on))
                    .for_each(|wait| wait.until = wait.until.min(soon));
            }
            Event::Killed { process } => self.0.retain(|_, wait| wait.process != *process),
            Event::Tick => {
                let is_late = |wait: &&Wait| {
                    let runs = facts.of(wait.process).and_then(|process| process.runs_since());
                    runs.is_some_and(|since| {
                        let from = wait.until.max(since).max(facts.jumped);
                        facts.now.saturating_duration_since(from) > MARGIN
                    })
                };
                if let Some(late) = self.0.values().find(is_late) {
                    let on = facts.name(late.on);
                    return Err(format!("P{} waits for {} of {on} too long", late.process.0, late.what));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
