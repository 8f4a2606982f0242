//! Of routers: a handler sees what it declared and nothing else; what is local to a node never comes from another; what is
//! sent to one place never comes to another.

use super::{Event, Facts, Invariant};
use crate::testing::routers::Told;

pub(super) struct FlowsFit;

impl Invariant for FlowsFit {
    fn name(&self) -> &'static str {
        "messages come where they belong"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Flow(Told::Handling { by, here, tag, .. }) = event else { return Ok(()) };
        let Some(message) = facts.book.messages.get(tag) else { return Ok(()) };
        let at = format!("message {tag} of P{}, at P{}.{}", message.by.0, by.process.0, here.host);
        if (by.kind, by.partition) != (message.kind, message.partition) {
            return Err(format!(
                "{at}: it is {}@{}, the handler is for {}@{}",
                message.kind, message.partition, by.kind, by.partition
            ));
        }
        if by.local && message.by != by.process {
            return Err(format!("{at}: its handler is local"));
        }
        let ids = facts.of(by.process).map_or(&[][..], |process| &process.ids);
        let node = message.node.or(message.actor.map(|actor| actor.node));
        if node.is_some_and(|node| !ids.contains(&node))
            || message.actor.is_some_and(|actor| actor.host != here.host)
        {
            return Err(format!("{at}: it was sent to {:?} {:?}", message.node, message.actor));
        }
        Ok(())
    }
}
