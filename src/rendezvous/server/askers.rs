//! Nodes that asked this server for the leader while it knew none, or named one that was gone: they wait, and are told as soon as there is
//! another. So nobody has to ask again and again while one is elected. Sans-IO.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::MemberId;
use crate::rendezvous::common::{MEMBERS_MAX, SEEK_MAX};

/// Of so many at most; the others find out by asking.
const ASKERS_MAX: usize = MEMBERS_MAX + 1024;
/// Nobody waits longer.
const KEPT: Duration = SEEK_MAX.saturating_mul(2);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Askers(BTreeMap<MemberId, Asker>);

#[derive(Debug)]
struct Asker {
    at: Instant,
    /// Who leads, as it was told.
    told: Option<String>,
}

impl Askers {
    /// A node asked, and was told this.
    pub(super) fn note(&mut self, now: Instant, node: MemberId, told: Option<String>) {
        if self.0.len() >= ASKERS_MAX {
            self.forget(now);
        }
        if self.0.len() < ASKERS_MAX || self.0.contains_key(&node) {
            self.0.insert(node, Asker { at: now, told });
        }
    }

    /// Who is to be told that this one leads.
    pub(super) fn take_for(&mut self, now: Instant, leader: &str) -> Vec<MemberId> {
        self.forget(now);
        let news = |asker: &mut Asker| asker.told.as_deref() != Some(leader);
        self.0.extract_if(.., |_, asker| news(asker)).map(|(node, _)| node).collect()
    }

    /// All of them.
    pub(super) fn take(&mut self, now: Instant) -> Vec<MemberId> {
        self.forget(now);
        std::mem::take(&mut self.0).into_keys().collect()
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, asker| now.saturating_duration_since(asker.at) < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> MemberId {
        MemberId::from_parts(1, number)
    }

    #[test]
    fn who_asked_is_told_of_another_leader_once_and_not_of_the_one_it_was_told_of() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        askers.note(now, id(1), None);
        askers.note(now, id(2), Some("a:1".to_owned()));
        assert_eq!(askers.take_for(now, "a:1"), [id(1)]);
        assert!(askers.take_for(now, "a:1").is_empty());
        assert_eq!(askers.take_for(now, "b:1"), [id(2)]);
        askers.note(now, id(3), Some("a:1".to_owned()));
        assert_eq!(askers.take(now), [id(3)]);
        assert!(askers.take(now).is_empty());
    }

    #[test]
    fn who_waits_no_more_is_forgotten_and_there_are_never_too_many() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        (0..2 * ASKERS_MAX).for_each(|number| askers.note(now, id(number as u128), None));
        assert_eq!(askers.0.len(), ASKERS_MAX);
        askers.note(now + KEPT, id(99_999_999), None);
        assert_eq!(askers.take(now + KEPT), [id(99_999_999)]);
    }
}
