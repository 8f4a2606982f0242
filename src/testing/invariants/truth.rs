//! Guarantee 4, of one message: what its receipt says is so, and stays so.

use super::{Event, Facts, Invariant};
use crate::testing::ledger::{Ending, Sent, Tag};

pub(super) struct Truth;

impl Truth {
    fn check(facts: &Facts, tag: Tag, sent: &Sent) -> Result<(), String> {
        let Some(ending) = sent.ending else { return Ok(()) };
        let now = sent.receipt.as_ref().map(crate::Receipt::now);
        let still = match now {
            None => Some(ending),
            Some(None) => None,
            Some(Some(Ok(()))) => Some(Ending::Acked),
            Some(Some(Err(crate::Lost::NotSent(_)))) => Some(Ending::NotSent),
            Some(Some(Err(crate::Lost::Indeterminate(_)))) => Some(Ending::Indeterminate),
        };
        if still != Some(ending) {
            return Err(format!("the receipt of {tag:?} said {ending:?}, and now {still:?}"));
        }
        let receiver = facts.process_of(sent.to).and_then(|process| facts.of(process));
        let is_here = receiver.is_some_and(|receiver| receiver.alive && !receiver.leaving);
        if ending == Ending::Acked && sent.times == 0 && is_here {
            let (from, to) = (facts.name(sent.from), facts.name(sent.to));
            return Err(format!("{tag:?} from {from} was acknowledged, and {to} never handled it"));
        }
        Ok(())
    }
}

impl Invariant for Truth {
    fn name(&self) -> &'static str {
        "receipts tell the truth"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Ended { tag, ending: Ending::NotSent } | Event::Delivered { tag: Some(tag), .. } => {
                let sent = facts.ledger.get(*tag);
                let lied = sent.is_some_and(|sent| sent.ending == Some(Ending::NotSent) && sent.times > 0);
                if lied { Err(format!("{tag:?} was delivered and ended as not sent")) } else { Ok(()) }
            }
            Event::Rest => facts.ledger.all().try_for_each(|(tag, sent)| Self::check(facts, tag, sent)),
            _ => Ok(()),
        }
    }
}
