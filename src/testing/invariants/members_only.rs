//! Rules 3 and 15: what is for members comes from members only.

use super::{Event, Facts, Invariant};

pub(super) struct MembersOnly;

impl Invariant for MembersOnly {
    fn name(&self) -> &'static str {
        "members hear members only"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Delivered { process, from, tag: Some(tag), .. } = event else { return Ok(()) };
        let (Some(sent), Some(here)) = (facts.ledger.get(*tag), facts.of(*process)) else { return Ok(()) };
        if sent.open || sent.from == sent.to || here.ever.contains(from) {
            return Ok(());
        }
        let from = facts.name(*from);
        Err(format!("P{} was given {tag:?} from {from}, which no view of it ever held", process.0))
    }
}
