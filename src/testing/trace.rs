//! What happened in a world: a number that is the same when a seed is run again, and lines for people.

use std::time::Duration;

use super::facts::{Event, Facts};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Trace {
    digest: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// `keeps`: lines for people as well.
    pub(super) fn new(keeps: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, lines: keeps.then(Vec::new) }
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }

    /// Whether lines for people are kept.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    pub(super) const fn keeps(&self) -> bool {
        self.lines.is_some()
    }

    /// Something happened.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    pub(super) fn mix_in(&mut self, at_micros: u64, what: u64) {
        self.mix(at_micros);
        self.mix(what);
    }

    pub(super) fn say(&mut self, at: Duration, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            tracing::trace!("{:.3} {}", at.as_secs_f64(), "world");
            lines.push(format!("{:10.6} {}", at.as_secs_f64(), text()));
        }
    }

    pub(super) fn note(&mut self, facts: &Facts, event: &Event) {
        let at = facts.time();
        self.mix(at.as_micros() as u64);
        let (kind, number) = match event {
            Event::Tick | Event::Looked { .. } => return,
            Event::Sent { tag } => (1, tag.0),
            Event::Delivered { process, tag, .. } => (2, process.0 as u64 ^ tag.map_or(0, |tag| tag.0 << 8)),
            Event::Ended { tag, ending } => (3, tag.0 << 2 | *ending as u64),
            Event::Installed { process, .. } => (4, process.0 as u64),
            Event::Heard { process, .. } => (5, process.0 as u64),
            Event::Fault(fault) => (6, *fault as u64),
            Event::WaitEnded { wait } => (7, *wait),
            Event::Drunk { process } => (9, process.0 as u64),
            Event::Flow(told) => (10, told.number()),
            _ => (8, 0),
        };
        self.mix(kind << 56 ^ number);
        if self.lines.is_some() {
            let text = describe(facts, event);
            self.say(at, || text);
        }
    }
}

fn describe(facts: &Facts, event: &Event) -> String {
    let name = |id| facts.name(id);
    match event {
        Event::Sent { tag } => match facts.ledger.get(*tag) {
            Some(sent) => {
                let open = if sent.open { ", open" } else { "" };
                let (from, to) = (name(sent.from), name(sent.to));
                format!("{from} -> {to} {tag:?}: {:?}{open}, {:?}, {} B", sent.class, sent.way, sent.bytes)
            }
            None => format!("{event:?}"),
        },
        Event::Delivered { process, from, tag, .. } => {
            format!("P{} handles {tag:?} of {}", process.0, name(*from))
        }
        Event::Heard { process, event } => {
            format!("P{} hears of {}: {event:?}", process.0, name(event.peer()))
        }
        Event::Installed { process, left } => {
            let view = facts.of(*process).map(|facts| (facts.view_id, facts.view.clone()));
            let (id, members) = view.unwrap_or_default();
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            let members: Vec<_> = members.into_iter().map(name).collect();
            let left: Vec<_> = left.iter().map(|left| facts.name(*left)).collect();
            format!("P{} installs {id} {members:?}, left {left:?}", process.0)
        }
        Event::Reincarnated { process, was } => format!("P{} is not {} any more", process.0, name(*was)),
        Event::Began { process } => {
            let address = facts.of(*process).map(|facts| facts.address.to_string());
            format!("P{} begins at {}", process.0, address.unwrap_or_default())
        }
        Event::WaitBegan { process, on, what, wait, .. } => {
            format!("P{} waits ({wait}) for {what} of {}", process.0, name(*on))
        }
        other => format!("{other:?}"),
    }
}
