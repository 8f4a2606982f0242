//! Of routers: every flow ends once for whoever began it, and not later than it said.

use std::time::Duration;

use super::{Event, Facts, Invariant};
use crate::testing::routers::{Told, Way};

/// What lies between two looks, and a little.
const MARGIN: Duration = Duration::from_millis(400);

pub(super) struct FlowsEnd;

impl Invariant for FlowsEnd {
    fn name(&self) -> &'static str {
        "flows end in time"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Flow(Told::Ended { flow, ended }) => {
                let known = facts.book.flows.get(flow).and_then(|flow| flow.ended.as_ref());
                if known != Some(ended) {
                    return Err(format!("flow {flow} ended as {known:?} and as {ended:?}"));
                }
                Ok(())
            }
            Event::Tick => {
                let late = facts.book.open.iter().find(|flow| {
                    let Some(flow) = facts.book.flows.get(flow) else { return false };
                    // It waits for its handler, however long that takes.
                    if flow.way == Way::Tracked {
                        return false;
                    }
                    let runs = facts.of(flow.process).and_then(|process| process.runs_since());
                    runs.is_some_and(|since| {
                        let from = flow.until.max(since).max(facts.jumped);
                        facts.now.saturating_duration_since(from) > MARGIN
                    })
                });
                let Some(late) = late else { return Ok(()) };
                Err(format!("flow {late} does not end: {:?}", facts.book.flows.get(late)))
            }
            _ => Ok(()),
        }
    }
}
