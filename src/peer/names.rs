//! The names of the types that this process sends. On the wire a type is a hash of 32 bits, and the peer says by what
//! name it knows each: one that it knows by another name than ours is never sent to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::limits::TYPES_MAX;

/// Places for types that were sent lately, so that a look costs one load and no lock. Two types that share a place cost
/// a lock each time, so there are many.
const LATELY: usize = 1024;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct SentNames {
    /// Hash and address of a name that all peers were compared with.
    lately: [AtomicU64; LATELY],
    names: Mutex<HashMap<u32, &'static str>>,
}

impl Default for SentNames {
    fn default() -> Self {
        Self { lately: std::array::from_fn(|_| AtomicU64::new(0)), names: Mutex::default() }
    }
}

impl SentNames {
    /// Whether all peers were compared with this name, as far as can be told without a lock.
    #[inline]
    pub(crate) fn knows(&self, hash: u32, name: &'static str) -> bool {
        self.place(hash).is_some_and(|place| place.load(Ordering::Acquire) == mark(hash, name))
    }

    /// Types that arrive from now on are compared with this name. Tells whether it is new.
    pub(crate) fn add(&self, hash: u32, name: &'static str) -> bool {
        let mut names = self.names.lock();
        let new = names.len() < TYPES_MAX && !names.contains_key(&hash);
        if new {
            names.insert(hash, name);
        }
        new
    }

    /// All peers were compared with it.
    pub(crate) fn settle(&self, hash: u32, name: &'static str) {
        if let Some(place) = self.place(hash) {
            place.store(mark(hash, name), Ordering::Release);
        }
    }

    /// Whether something is sent under this hash and another name.
    pub(super) fn clashes(&self, hash: u32, name: &str) -> bool {
        self.names.lock().get(&hash).is_some_and(|ours| *ours != name)
    }

    #[inline]
    fn place(&self, hash: u32) -> Option<&AtomicU64> {
        self.lately.get(hash as usize % LATELY)
    }
}

#[inline]
fn mark(hash: u32, name: &'static str) -> u64 {
    u64::from(hash) << 32 | u64::from(name.as_ptr() as usize as u32)
}
