//! Rule 15: what is held in quarantine is not acknowledged before a view includes its sender.

use super::{Event, Facts, Invariant};
use crate::testing::ledger::Ending;

pub(super) struct LetIn;

impl Invariant for LetIn {
    fn name(&self) -> &'static str {
        "quarantine does not acknowledge"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Ended { tag, ending: Ending::Acked } = event else { return Ok(()) };
        let Some(sent) = facts.ledger.get(*tag).filter(|sent| !sent.open && sent.from != sent.to) else {
            return Ok(());
        };
        let receiver = facts.process_of(sent.to).and_then(|process| facts.of(process));
        if receiver.is_none_or(|receiver| receiver.ever.contains(&sent.from)) {
            return Ok(());
        }
        let (from, to) = (facts.name(sent.from), facts.name(sent.to));
        Err(format!("{to} acknowledged {tag:?} of {from}, which no view of it ever held"))
    }
}
