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
    /// Of the name by which the peer knows it.
    name: u64,
    /// That is another name than ours.
    clashes: bool,
}

impl PeerTypes {
    /// Types whose hash stands for another name here are never sent: nothing is delivered as something else.
    pub(crate) fn new(entries: &[TypeEntry], clashes: impl Fn(&TypeEntry) -> bool) -> Self {
        let mut types = Self::default();
        for entry in entries {
            if entry.any {
                types.any.insert(entry.protocol.0, entry.open);
            } else {
                let (version, open, name) = (entry.version, entry.open, fnv1a(&entry.name));
                let known = Known { version, open, name, clashes: clashes(entry) };
                types.known.insert((entry.protocol.0, entry.hash), known);
            }
        }
        types
    }

    /// A type is sent under this name, whatever its protocol.
    pub(crate) fn note_sent(&mut self, hash: u32, name: &str) {
        let name = fnv1a(name);
        let same = self.known.iter_mut().filter(|((_, known), _)| *known == hash);
        same.for_each(|(_, known)| known.clashes |= known.name != name);
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
            Some(known) if version <= known.version && !known.clashes => known.open,
            Some(_) => return Err(Cause::NotUnderstood),
            None => *self.any.get(&protocol).ok_or(Cause::NotUnderstood)?,
        };
        let passes = if stream.is_open() { open } else { admitted };
        if passes { Ok(()) } else { Err(Cause::NotAdmitted) }
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): names that are alike in 32 of them differ here.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
