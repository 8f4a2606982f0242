//! Everything there is, encoded once for all who need it at about the same time.

use std::collections::VecDeque;

use bytes::Bytes;

use super::config::{PART_BYTES, VERSIONS_MAX};
use crate::rendezvous::state::State;
use crate::rendezvous::words::Everything;

/// Everything, as of one change.
#[derive(Debug)]
struct Version {
    number: u64,
    index: u64,
    encoded: Bytes,
}

impl Version {
    fn parts(&self) -> u32 {
        u32::try_from(self.encoded.len().div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
    }
}

/// One part.
pub(super) struct Part {
    pub(super) parts: u32,
    pub(super) piece: Bytes,
    /// What its reader knows once it was the last.
    pub(super) index: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Versions {
    kept: VecDeque<Version>,
    next: u64,
}

impl Versions {
    /// The number of a version as of `least` or a later change, from which changes lead on to now.
    pub(super) fn begin(&mut self, state: &State, least: u64) -> Option<u64> {
        let leads_on = |index| index == state.index() || state.change_after(index).is_some();
        if let Some(version) = self.kept.back()
            && version.index >= least
            && leads_on(version.index)
        {
            return Some(version.number);
        }
        let encoded = encode(state)?;
        self.next += 1;
        self.kept.push_back(Version { number: self.next, index: state.index(), encoded });
        if self.kept.len() > VERSIONS_MAX {
            self.kept.pop_front();
        }
        Some(self.next)
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.kept.iter().any(|version| version.number == number)
    }

    /// A part of it; `None`: that version is not kept any more.
    pub(super) fn part(&self, number: u64, part: u32) -> Option<Part> {
        let version = self.kept.iter().find(|version| version.number == number)?;
        let from = usize::try_from(part).ok()?.checked_mul(PART_BYTES)?;
        let to = from.saturating_add(PART_BYTES).min(version.encoded.len());
        let piece = (from < to).then(|| version.encoded.slice(from..to))?;
        Some(Part { parts: version.parts(), piece, index: version.index })
    }

    /// Lets go of those that nobody reads.
    pub(super) fn keep(&mut self, is_read: impl Fn(u64) -> bool) {
        self.kept.retain(|version| is_read(version.number));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

fn encode(state: &State) -> Option<Bytes> {
    let everything = Everything {
        cluster: state.cluster()?,
        index: state.index(),
        view: state.view_id(),
        members: state
            .members()
            .map(|member| (member.clone(), state.routes_of(member.id).cloned().collect()))
            .collect(),
        leases: state.leases().collect(),
    };
    postcard::to_stdvec(&everything).ok().map(Bytes::from)
}
