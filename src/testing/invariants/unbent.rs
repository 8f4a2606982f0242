//! Guarantee 7: no corrupted byte is delivered.

use super::{Event, Facts, Invariant};

pub(super) struct Unbent;

impl Invariant for Unbent {
    fn name(&self) -> &'static str {
        "unbent"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered { process, from, tag: None, .. } => {
                Err(format!("P{} was given bytes that {} never sent", process.0, facts.name(*from)))
            }
            _ => Ok(()),
        }
    }
}
