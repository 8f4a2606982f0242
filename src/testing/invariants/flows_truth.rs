//! Of routers: what is said of a flow is so. What was not handled, they say, never is; what was handled was; a failure is one
//! that a handler of the flow told; and time is over when it is said to be.

use std::time::Duration;

use super::{Event, Facts, Invariant};
use crate::router::FlowError;
use crate::testing::routers::{Ended, Told, Way, kind};

/// Times travel in whole milliseconds.
const ROUNDED: Duration = Duration::from_millis(30);

pub(super) struct FlowsTruth;

/// Whether this error says that the flow's first message was not handled.
fn says_not_handled(error: &FlowError, way: Way, first: u8) -> bool {
    let asks = matches!(way, Way::Request | Way::Dropped);
    match error {
        FlowError::Full | FlowError::Encode(_) => !asks,
        // Of a request it may be said of a message that came of the first.
        FlowError::Unroutable(key) => {
            !asks || key.split('@').next() == Some(&format!("{}/1", kind(first).name()))
        }
        _ => false,
    }
}

impl FlowsTruth {
    fn ended(facts: &Facts, number: u64, ended: &Ended) -> Result<(), String> {
        let Some(flow) = facts.book.flows.get(&number) else { return Ok(()) };
        let Some(first) = facts.book.messages.get(&flow.tag) else { return Ok(()) };
        let lie =
            |what: &str| Err(format!("flow {number} ended as {ended:?}, and {what}: {first:?}, {flow:?}"));
        match ended {
            Ended::Handled if first.ended == 0 => lie("nobody has handled it"),
            Ended::Failed(FlowError::Deadline) if facts.now + ROUNDED < flow.until => lie("it was early"),
            Ended::Failed(FlowError::Handler(text)) if matches!(flow.way, Way::Request | Way::Dropped) => {
                let told = flow.failures.iter().any(|failure| text.ends_with(failure.as_str()));
                if told { Ok(()) } else { lie("no handler said so") }
            }
            Ended::Failed(FlowError::Decode(_)) => lie("nothing else is sent"),
            Ended::Failed(error) if says_not_handled(error, flow.way, first.kind) && !first.broadcast => {
                let others = facts.book.of(number).filter(|message| message.kind == first.kind).count();
                if others == 1 && !first.handled.is_empty() { lie("it was handled") } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for FlowsTruth {
    fn name(&self) -> &'static str {
        "what is said of flows is so"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Flow(Told::Ended { flow, ended }) => Self::ended(facts, *flow, ended),
            Event::Flow(Told::Handling { tag, flow, .. }) => {
                let Some(of) = facts.book.flows.get(flow).filter(|flow| flow.tag == *tag) else {
                    return Ok(());
                };
                match &of.ended {
                    Some(ended @ Ended::Failed(_)) => Self::ended(facts, *flow, ended),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
