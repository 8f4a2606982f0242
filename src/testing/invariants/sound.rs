//! Nothing panics, and between processes that keep the rules nobody is blamed for breaking them.

use super::{Event, Facts, Invariant};
use crate::{Disconnect, PeerEvent};

pub(super) struct Sound;

impl Invariant for Sound {
    fn name(&self) -> &'static str {
        "nobody is blamed"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Panicked { text } => Err(format!("a panic: {text}")),
            Event::Heard { process, event } => {
                let blames = match event {
                    PeerEvent::Refused { .. } => true,
                    PeerEvent::Misbehaving { .. }
                    | PeerEvent::Disconnected {
                        reason: Disconnect::Misbehaved | Disconnect::Corrupt, ..
                    } => !facts.bent,
                    _ => false,
                };
                if blames { Err(format!("P{} says {event:?}", process.0)) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}
