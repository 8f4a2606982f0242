//! Of routers: a flow ends at its limit, whoever sends it on for ever; and only there is it said to have gone too far.

use super::{Event, Facts, Invariant};
use crate::router::FlowError;
use crate::testing::routers::{Ended, LIMITS, Told};

pub(super) struct FlowsLimit;

impl Invariant for FlowsLimit {
    fn name(&self) -> &'static str {
        "flows keep to their limits"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Flow(Told::Handling { flow, hops, depth, .. })
                if *depth > LIMITS.1 || *hops > LIMITS.0 =>
            {
                Err(format!("flow {flow} is at {hops} nodes and {depth} handlers"))
            }
            Event::Flow(Told::Ended { flow, ended: Ended::Failed(FlowError::TooFar) }) => {
                let Some(of) = facts.book.flows.get(flow) else { return Ok(()) };
                if of.depth < LIMITS.1 && of.hops < LIMITS.0 {
                    return Err(format!(
                        "flow {flow} went too far, they say, at {} nodes and {} handlers",
                        of.hops, of.depth
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
