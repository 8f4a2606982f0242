//! All of the state, as a snapshot of the log keeps it.

use bytes::Bytes;

use super::command::{read_version, with_version};
use super::{Entry, GENERATION_MAX, GONE_MAX, Kept, MEMBERS_MAX, ROUTES_MAX, State};
use crate::MemberId;

/// The first byte of a snapshot.
const VERSION: u8 = 1;

impl State {
    pub(crate) fn snapshot(&self) -> Bytes {
        with_version(VERSION, &(self.index, &self.kept))
    }

    /// Becomes what a snapshot says. What changed before is not known any more, so whoever is behind gets everything.
    ///
    /// # Errors
    ///
    /// It cannot be read, and why; nothing has changed.
    pub(crate) fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let (index, kept): (u64, Kept) = read_version(VERSION, "snapshot", snapshot)?;
        check(index, &kept)?;
        let routes = kept.members.values().map(|entry| entry.routes.len()).sum();
        self.history.clear();
        (self.index, self.kept, self.routes) = (index, kept, routes);
        Ok(())
    }
}

/// Numbers beyond it are nobody's: what is one more than they are never overflows.
const NUMBER_MAX: u64 = 1 << 62;

/// What no state of ours ever was.
fn check(index: u64, kept: &Kept) -> Result<(), String> {
    let Kept { view, members, gone, suspended, .. } = kept;
    let broken = |what: &str| Err(format!("snapshot: {what}"));
    if index > NUMBER_MAX || view.number > NUMBER_MAX || view.generation > GENERATION_MAX {
        return broken("numbers that nothing counts to");
    }
    if suspended.is_some_and(|seen| seen.generation >= GENERATION_MAX) {
        return broken("a view above which there is no generation");
    }
    let routes: usize = members.values().map(|entry| entry.routes.len()).sum();
    if members.len() > MEMBERS_MAX || gone.len() > GONE_MAX || routes > ROUTES_MAX {
        return broken("more than there can be");
    }
    let is_sound = |(id, entry): (&MemberId, &Entry)| entry.member.id == *id && entry.member.joined.is_some();
    if !members.iter().all(is_sound) || gone.iter().any(|id| members.contains_key(id)) {
        return broken("members that cannot be");
    }
    if kept.cluster.is_none() && *kept != Kept::default() {
        return broken("members, views or leases without a history");
    }
    if kept.cluster.is_some() && view.generation == 0 {
        return broken("a history without a generation");
    }
    kept.leases.check(|id| members.contains_key(&id))
}
