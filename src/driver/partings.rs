//! Connections of members that are told last words. They have some time for it, but none once a view has removed them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::member::MemberId;

/// See the module's text. As many as part at the same time, which is bounded.
#[derive(Debug, Default)]
pub(super) struct Partings(Mutex<HashMap<MemberId, Told>>);

#[derive(Debug, Default)]
struct Told {
    connections: usize,
    removed: CancellationToken,
}

impl Partings {
    /// A connection of this member begins to be told last words.
    pub(super) fn begin(self: &Arc<Self>, member: MemberId) -> Parting {
        let mut told = self.0.lock();
        let told = told.entry(member).or_default();
        told.connections += 1;
        Parting { partings: Arc::clone(self), member, removed: told.removed.clone() }
    }

    /// A view has removed this member: nothing more is said to it on connections of before.
    pub(super) fn end(&self, member: MemberId) {
        if let Some(told) = self.0.lock().get(&member) {
            told.removed.cancel();
        }
    }
}

/// One connection, until this is dropped.
#[derive(Debug)]
pub(super) struct Parting {
    partings: Arc<Partings>,
    member: MemberId,
    /// Cancelled when a view removes the member.
    pub(super) removed: CancellationToken,
}

impl Drop for Parting {
    fn drop(&mut self) {
        let mut told = self.partings.0.lock();
        if let Some(one) = told.get_mut(&self.member) {
            one.connections -= 1;
            if one.connections == 0 {
                told.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_of_a_member_end_with_its_removal_and_none_of_another() {
        let partings = Arc::<Partings>::default();
        let [one, other] = [1, 2].map(|id| MemberId::from_parts(id, id.into()));
        let told = [one, one, other].map(|member| partings.begin(member));
        partings.end(one);
        assert_eq!(told.each_ref().map(|parting| parting.removed.is_cancelled()), [true, true, false]);
        drop(told);
        assert!(partings.0.lock().is_empty(), "nothing is kept of them");
    }
}
