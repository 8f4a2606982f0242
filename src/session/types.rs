//! What the peer understands: a message of a type it does not know is never sent silently.

use std::collections::HashMap;

use super::receipt::Cause;
use crate::wire::{StreamId, TypeEntry};

/// The peer's types, as its last `Types` frame said.
#[derive(Debug, Default)]
pub(crate) struct PeerTypes {
    known: HashMap<(u16, u32), Known>,
    /// Protocols with a fallback handler: (protocol, taken from anyone).
    any: HashMap<u16, bool>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    version: u16,
    open: bool,
}

impl PeerTypes {
    /// Types whose hash stands for another name here are left out: nothing of theirs is delivered as ours.
    pub(crate) fn new(entries: &[TypeEntry], clashes: impl Fn(&TypeEntry) -> bool) -> Self {
        let mut types = Self::default();
        for entry in entries {
            if entry.any {
                types.any.insert(entry.protocol.0, entry.open);
            } else if !clashes(entry) {
                let known = Known { version: entry.version, open: entry.open };
                types.known.insert((entry.protocol.0, entry.hash), known);
            }
        }
        types
    }

    /// Whether the peer takes this type on this stream: one that is open to anyone, or, `admitted` to a view that
    /// both are in, any.
    pub(crate) fn judge(
        &self,
        stream: StreamId,
        hash: u32,
        version: u16,
        admitted: bool,
    ) -> Result<(), Cause> {
        let protocol = stream.protocol().0;
        let open = match self.known.get(&(protocol, hash)) {
            Some(known) if version <= known.version => known.open,
            Some(_) => return Err(Cause::NotUnderstood),
            None => *self.any.get(&protocol).ok_or(Cause::NotUnderstood)?,
        };
        let passes = if stream.is_open() { open } else { admitted };
        if passes { Ok(()) } else { Err(Cause::NotAdmitted) }
    }
}
