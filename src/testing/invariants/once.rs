//! Guarantee 1: once, in order, and to whom it was sent.

use super::{Event, Facts, Invariant};
use crate::testing::ledger::Way;

pub(super) struct Once;

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "once and in order"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered { process, from, tag: Some(tag), before } = event else { return Ok(()) };
        let Some(sent) = facts.ledger.get(*tag) else { return Err(format!("{tag:?} was never sent")) };
        let here = facts.of(*process).map_or(&[][..], |process| &process.ids);
        // Who waits for room may have become another member meanwhile.
        let sender = facts.of(sent.by).map_or(&[][..], |process| &process.ids);
        let fits = sent.from == *from || (sent.way == Way::Waited && sender.contains(from));
        if !fits || !here.contains(&sent.to) {
            let (by, to, at) = (facts.name(sent.from), facts.name(sent.to), process.0);
            let from = facts.name(*from);
            return Err(format!("{tag:?} went from {by} to {to} and came to P{at} as of {from}"));
        }
        if sent.times > 1 {
            return Err(format!("{tag:?} came {} times to P{}", sent.times, process.0));
        }
        match before {
            Some(before) if before > tag && sent.way != Way::Waited => {
                Err(format!("{tag:?} came to P{} after {before:?}, which was sent later", process.0))
            }
            _ => Ok(()),
        }
    }
}
