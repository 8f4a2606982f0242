//! Guarantee 2: where nothing is wrong a message arrives soon, whatever goes wrong elsewhere.

use std::time::Duration;

use super::{Event, Facts, Invariant};
use crate::limits::CHUNK_BYTES;
use crate::testing::ledger::{Sent, Tag, Way};
use crate::wire::Class;

/// Whatever was wrong is over after this: a dead link found out, a new one made.
const SOUND_FOR: Duration = Duration::from_secs(12);
/// A large message or two may be before it on the same link.
const SOON: Duration = Duration::from_secs(6);

#[derive(Default)]
pub(super) struct Apart(Vec<Tag>);

impl Apart {
    /// Both have been there, in each other's view, with nothing wrong between them, since well before it was sent.
    fn is_sound(facts: &Facts, sent: &Sent) -> bool {
        let ends = [sent.from, sent.to].map(|id| facts.process_of(id).and_then(|at| facts.of(at)));
        let [Some(from), Some(to)] = ends else { return false };
        let Some(since) = sent.at.checked_sub(SOUND_FOR) else { return false };
        let ran = |process: &crate::testing::facts::ProcessFacts| {
            process.runs_since().is_some_and(|at| at <= since) && !process.leaving
        };
        let mutual = from.view.contains(&sent.to) && to.view.contains(&sent.from);
        let undisturbed = facts.disturbed(from.address, to.address).is_none_or(|at| at <= since);
        ran(from) && ran(to) && mutual && to.prompt && undisturbed && facts.jumped <= since
    }
}

impl Invariant for Apart {
    fn name(&self) -> &'static str {
        "destinations are apart"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Sent { tag } => {
                let sent = facts.ledger.get(*tag);
                // A large message waits for memory at its receiver, and what is behind it on its stream for it.
                let before = |sent: &Sent| {
                    let key = |sent: &Sent| (sent.from, sent.to, sent.class as u8, sent.open);
                    let mut pending = facts.ledger.pending().iter().filter_map(|tag| facts.ledger.get(*tag));
                    pending.any(|other| key(other) == key(sent) && other.bytes > CHUNK_BYTES)
                };
                let watched =
                    |sent: &&Sent| sent.class == Class::Urgent && sent.way == Way::Ordered && !before(sent);
                if sent.filter(watched).is_some_and(|sent| Self::is_sound(facts, sent)) {
                    self.0.push(*tag);
                }
            }
            Event::Tick => {
                let mut late = None;
                self.0.retain(|tag| {
                    let Some(sent) = facts.ledger.get(*tag) else { return false };
                    if sent.ending.is_some() || !Self::is_sound(facts, sent) {
                        return false;
                    }
                    let age = facts.now.duration_since(sent.at);
                    if age > SOON {
                        let (from, to) = (facts.name(sent.from), facts.name(sent.to));
                        late = Some(format!(
                            "{tag:?} from {from} to {to} waits for {age:?}, and nothing is wrong there"
                        ));
                    }
                    true
                });
                return late.map_or(Ok(()), Err);
            }
            _ => {}
        }
        Ok(())
    }
}
