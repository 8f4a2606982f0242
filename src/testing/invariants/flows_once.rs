//! Of routers: what is not idempotent is handled once at most; what goes to all, once by each host.

use super::{Event, Facts, Invariant};
use crate::testing::routers::Told;

pub(super) struct FlowsOnce;

impl Invariant for FlowsOnce {
    fn name(&self) -> &'static str {
        "messages are handled once"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Flow(Told::Handling { tag, .. }) = event else { return Ok(()) };
        let Some(message) = facts.book.messages.get(tag) else {
            return Err(format!("message {tag} was never sent"));
        };
        let handled = &message.handled;
        let twice = if message.broadcast {
            let last = handled.last();
            handled.iter().filter(|by| Some(*by) == last).count() > 1
        } else {
            handled.len() > 1
        };
        // What goes to all may be idempotent, and then comes again to whom it came.
        if twice && !message.idempotent {
            let by: Vec<_> = handled.iter().map(|(process, host)| format!("P{}.{host}", process.0)).collect();
            let flow = message.flow;
            let what = if message.broadcast { "for all" } else { "for one" };
            return Err(format!("message {tag} of flow {flow}, {what}, was handled by {by:?}"));
        }
        Ok(())
    }
}
