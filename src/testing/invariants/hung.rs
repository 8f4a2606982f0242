//! Guarantee 6: a link that hangs is given up within liveness and a second. That another takes its place shows in what
//! arrives.

use std::time::Duration;

use super::{Event, Facts, Invariant};

/// A second, and what lies between two looks.
const MARGIN: Duration = Duration::from_millis(1_300);

pub(super) struct Hung;

impl Invariant for Hung {
    fn name(&self) -> &'static str {
        "a hung link is given up"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        if !matches!(event, Event::Tick) {
            return Ok(());
        }
        let times = &facts.plan.timeouts;
        let bound = times.liveness.max(times.hello) + MARGIN;
        for seen in facts.network.seen() {
            for side in [0, 1] {
                let Some(silent) = seen.deaf_since[side] else { continue };
                let process = facts.of(seen.ends[side]);
                let Some(since) = process.and_then(|process| process.runs_since()) else { continue };
                let Some(held) = seen.held_since[side] else { continue };
                let from = silent.max(held).max(since).max(facts.jumped);
                let hung = facts.now.saturating_duration_since(from);
                if hung > bound {
                    let (one, other) = (seen.ends[side].0, seen.ends[1 - side].0);
                    let age = facts.now.duration_since(held);
                    return Err(format!(
                        "P{one} keeps a link to P{other}, {age:?} old, that hangs since {hung:?}; side {side}"
                    ));
                }
            }
        }
        Ok(())
    }
}
