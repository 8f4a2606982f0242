//! Control messages that wait for room in the port. They are never lost: at most one of each kind for a stream, the
//! newest; whole, so that they outlive the stream they speak of.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use bytes::Bytes;

use super::mux::Key;
use crate::wire::Class;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Window,
    End,
    Abort,
}

/// Which notice: a newer one under the same label takes the older one's place.
pub(super) type Label = (Key, What);

#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) class: Class,
    pub(super) body: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: BTreeMap<Label, Notice>,
    /// How many of them are aborts.
    aborts: usize,
    /// The one taken last. The next is the one after it, so that busy streams do not starve the others.
    last: Option<Label>,
}

impl Notices {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) const fn aborts(&self) -> usize {
        self.aborts
    }

    pub(super) fn put(&mut self, label: Label, notice: Notice) {
        if self.waiting.insert(label, notice).is_none() && label.1 == What::Abort {
            self.aborts += 1;
        }
    }

    /// For one that was taken and found no room: a newer one that came since wins.
    pub(super) fn put_back(&mut self, label: Label, notice: Notice) {
        if !self.waiting.contains_key(&label) {
            self.put(label, notice);
        }
    }

    pub(super) fn remove(&mut self, label: Label) -> Option<Notice> {
        let removed = self.waiting.remove(&label);
        if removed.is_some() && label.1 == What::Abort {
            self.aborts -= 1;
        }
        removed
    }

    pub(super) fn take_next(&mut self) -> Option<(Label, Notice)> {
        let after = self.last.and_then(|last| self.waiting.range((Excluded(last), Unbounded)).next());
        let label = *after.or_else(|| self.waiting.first_key_value())?.0;
        self.last = Some(label);
        self.remove(label).map(|notice| (label, notice))
    }

    /// Nothing is said of this stream any more.
    pub(super) fn forget(&mut self, key: Key) {
        for what in [What::Window, What::End, What::Abort] {
            self.remove((key, what));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
