//! Are the blocks all there, once and in order? Told from their numbers alone.

use std::collections::BTreeSet;

use serde::Serialize;

/// Numbers remembered as missing: enough to tell late ones from doubled ones in any but a hopeless case. Beyond it a
/// late one counts as doubled; the stream is not accepted either way.
const GAPS_MAX: u64 = 1024;

/// What the numbers told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct SequenceCounts {
    /// Blocks that came for the first time.
    pub(crate) blocks: u64,
    /// Blocks that came again.
    pub(crate) doubled: u64,
    /// Blocks that came after a later one.
    pub(crate) reordered: u64,
    /// Blocks that have not come.
    pub(crate) missing: u64,
}

impl SequenceCounts {
    /// Everything once and in order.
    pub(crate) fn are_clean(&self) -> bool {
        self.doubled == 0 && self.reordered == 0 && self.missing == 0
    }
}

/// What a number means for its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next one, or one after a gap.
    New,
    /// One that filled a gap.
    Late,
    /// One that was there already.
    Again,
}

/// Follows the numbers of the blocks, from 1.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    highest: u64,
    gaps: BTreeSet<u64>,
    counts: SequenceCounts,
}

impl Sequence {
    /// A block with this number came.
    pub(crate) fn handle_block(&mut self, number: u64) -> Place {
        if number > self.highest {
            self.skip_to(number);
            self.highest = number;
            self.counts.blocks += 1;
            return Place::New;
        }
        if self.gaps.remove(&number) {
            self.counts.blocks += 1;
            self.counts.reordered += 1;
            self.counts.missing = self.counts.missing.saturating_sub(1);
            return Place::Late;
        }
        self.counts.doubled += 1;
        Place::Again
    }

    /// The end came: this number would be the next.
    pub(crate) fn handle_end(&mut self, number: u64) {
        if number > self.highest {
            self.skip_to(number);
        } else {
            // The sender has written fewer than came: some of them cannot be its own.
            let extra = (self.highest - number).saturating_add(1);
            self.counts.doubled = self.counts.doubled.saturating_add(extra);
        }
    }

    /// What was told so far.
    pub(crate) fn counts(&self) -> SequenceCounts {
        self.counts
    }

    fn skip_to(&mut self, number: u64) {
        let gap = self.highest + 1..number;
        self.counts.missing = self.counts.missing.saturating_add(number - gap.start);
        let room = GAPS_MAX.saturating_sub(self.gaps.len() as u64);
        self.gaps.extend(gap.take(usize::try_from(room).unwrap_or(0)));
    }
}
