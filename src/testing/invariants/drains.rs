//! Rule 20: who leaves in order has drained: nothing that it sent to somebody who is there ends because it closed.

use super::{Event, Facts, Invariant};
use crate::testing::ledger::{Sent, Tag};
use crate::{Cause, Lost, Receipt};

pub(super) struct Drains;

impl Invariant for Drains {
    fn name(&self) -> &'static str {
        "who leaves drains"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Left { process, in_order: true } = event else { return Ok(()) };
        let closed = [Lost::NotSent(Cause::Closed), Lost::Indeterminate(Cause::Closed)];
        let cut = |(_, sent): &(Tag, &Sent)| {
            let lost = sent.receipt.as_ref().and_then(Receipt::now).and_then(Result::err);
            sent.by == *process && facts.is_alive(sent.to) && lost.is_some_and(|lost| closed.contains(&lost))
        };
        // What ended before the last look ended for another reason than this.
        let mut pending =
            facts.ledger.pending().iter().filter_map(|tag| Some((*tag, facts.ledger.get(*tag)?)));
        match pending.find(cut) {
            Some((tag, sent)) => {
                let to = facts.name(sent.to);
                Err(format!("P{} left in order, and {tag:?} to {to} was cut off", process.0))
            }
            None => Ok(()),
        }
    }
}
