//! Of routers: an answer ends the flow that it belongs to, at whoever began it, and is one of those that were asked for.

use super::{Event, Facts, Invariant};
use crate::testing::routers::{Ended, Told};

pub(super) struct FlowsHome;

impl Invariant for FlowsHome {
    fn name(&self) -> &'static str {
        "answers come home"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Flow(Told::Ended { flow: number, ended: Ended::Answered { flow: other, tag, kind } }) =
            event
        else {
            return Ok(());
        };
        let Some(flow) = facts.book.flows.get(number) else {
            return Err(format!("flow {number} was never begun"));
        };
        if other != number {
            let of = facts.book.flows.get(other).map(|flow| facts.name(flow.by));
            return Err(format!(
                "flow {number} of {} was answered by flow {other} of {of:?}",
                facts.name(flow.by)
            ));
        }
        if !flow.keys.contains(kind) {
            return Err(format!("flow {number} waits for {:?} and was answered by {kind}", flow.keys));
        }
        match facts.book.messages.get(tag) {
            Some(message) if message.flow == *number && message.kind == *kind => Ok(()),
            other => Err(format!("flow {number} was answered by {tag}, which is {other:?}")),
        }
    }
}
