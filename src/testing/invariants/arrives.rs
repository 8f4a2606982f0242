//! Guarantees 1 and 4, of the end: when nothing fails any more all that is pending comes to its end, and whoever is in
//! the last view hears whoever is.

use super::{Event, Facts, Invariant};
use crate::testing::ledger::Ending;

pub(super) struct Arrives;

impl Invariant for Arrives {
    fn name(&self) -> &'static str {
        "everything arrives"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Rest => match facts.ledger.pending().first() {
                None => Ok(()),
                Some(tag) => {
                    let sent = facts.ledger.get(*tag);
                    let of = sent.map(|sent| {
                        let age = facts.now.duration_since(sent.at);
                        let (from, to) = (facts.name(sent.from), facts.name(sent.to));
                        format!("{from} to {to}, {:?}, sent {age:?} ago", sent.class)
                    });
                    let count = facts.ledger.pending().len();
                    Err(format!(
                        "{count} messages never ended, the first {tag:?}: {}",
                        of.unwrap_or_default()
                    ))
                }
            },
            Event::Last { tags } => tags.iter().try_for_each(|tag| match facts.ledger.get(*tag) {
                Some(sent) if sent.ending != Some(Ending::Acked) || sent.times != 1 => Err(format!(
                    "the last message {tag:?} from {} to {}: {:?}, came {} times",
                    facts.name(sent.from),
                    facts.name(sent.to),
                    sent.ending,
                    sent.times
                )),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }
    }
}
