//! What this node's own traffic says of other members, damped: each state is said once, and changes of one member at most once
//! in a while. To a new leader all is said again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::MemberId;
use crate::rendezvous::words::{Report, ToServer};

/// Reports of one member follow each other at least so far apart.
const DAMPING: Duration = Duration::from_secs(1);
/// Reports at once, and after how long as many may follow: after a split every member is lost at the same time.
const BURST: u32 = 64;
const BURST_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
struct Seen {
    lost: bool,
    said: Option<bool>,
    not_before: Instant,
}

/// See the module's text. Bounded by the members, because only they are noted.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    seen: BTreeMap<MemberId, Seen>,
    /// How many were said since then.
    burst: Option<(Instant, u32)>,
}

impl Reports {
    /// `lost`: it is not heard or reached; else it is heard.
    pub(super) fn note(&mut self, now: Instant, member: MemberId, lost: bool) {
        match self.seen.get_mut(&member) {
            Some(seen) => seen.lost = lost,
            // Who was never lost need not be said to be heard.
            None if lost => drop(self.seen.insert(member, Seen { lost, said: None, not_before: now })),
            None => {}
        }
    }

    /// A leader that knows nothing of what was said.
    pub(super) fn handle_welcome(&mut self, now: Instant) {
        self.seen.retain(|_, seen| seen.lost);
        self.seen.values_mut().for_each(|seen| (seen.said, seen.not_before) = (None, now));
        self.burst = None;
    }

    pub(super) fn keep(&mut self, stays: impl Fn(MemberId) -> bool) {
        self.seen.retain(|member, _| stays(*member));
    }

    pub(super) fn forget(&mut self, member: MemberId) {
        self.seen.remove(&member);
    }

    #[cfg(any(test, all(feature = "rendezvous", feature = "testing")))]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    fn due(seen: &Seen) -> bool {
        // What was lost and is heard again before it was said is no news.
        seen.said.map_or(seen.lost, |said| said != seen.lost)
    }

    pub(super) fn poll(&mut self, now: Instant) -> Option<ToServer> {
        let (since, said) = self.burst.filter(|(since, _)| now < *since + BURST_EVERY).unwrap_or((now, 0));
        if said >= BURST {
            return None;
        }
        let (member, seen) =
            self.seen.iter_mut().find(|(_, seen)| Self::due(seen) && seen.not_before <= now)?;
        self.burst = Some((since, said + 1));
        (seen.said, seen.not_before) = (Some(seen.lost), now + DAMPING);
        let (of, lost) = (*member, seen.lost);
        if !lost {
            // It has gone well: the next loss is news, at once.
            self.seen.remove(&of);
        }
        Some(ToServer::Report { of, what: if lost { Report::Lost } else { Report::Heard } })
    }

    /// When there may be something more to say.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let next = self.seen.values().filter(|seen| Self::due(seen)).map(|seen| seen.not_before).min()?;
        let room = self.burst.filter(|(since, said)| *said >= BURST && now < *since + BURST_EVERY);
        Some(room.map_or(next, |(since, _)| next.max(since + BURST_EVERY)))
    }
}
