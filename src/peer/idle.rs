//! Idle links: closed when nothing went through them for long, or when there are too many. The session stays, and the
//! next message dials again.
//!
//! A link may go only if neither side wants it kept: a side does that holds it by a contact, or could not dial it
//! again. Each says so in its hello ([`FEATURE_KEEP`]). So a session that only the peer's dial holds never loses its
//! link to idleness, and its lease has nothing to do with it.

use std::time::Instant;

use super::{Live, Peer, State};
use crate::link::LinkEnd;
use crate::wire::Hello;
use crate::wire::first::{Code, FEATURE_KEEP};

/// Since when a live link carries nothing.
#[derive(Debug)]
pub(super) struct Usage {
    /// When a batch, a datagram or a report last went through it, either way. Pings do not count.
    last: Instant,
    /// The other side wants it kept.
    kept: bool,
}

impl Usage {
    /// `hello` is what the other side said of the link.
    pub(super) const fn new(now: Instant, hello: &Hello) -> Self {
        Self { last: now, kept: hello.features & FEATURE_KEEP != 0 }
    }

    pub(super) fn note(&mut self, now: Instant) {
        self.last = now;
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn is_kept(&self) -> bool {
        self.kept
    }
}

impl Peer {
    /// For a hello.
    pub(super) fn features(&self) -> u64 {
        if self.reasons.may_idle() { 0 } else { FEATURE_KEEP }
    }

    /// The live link, if neither side wants it kept. Says nothing of what is under way on it.
    fn unkept(&self) -> Option<&Live> {
        let live = self.live.as_ref()?;
        (!live.usage.kept && self.state == State::Open && self.reasons.may_idle()).then_some(live)
    }

    /// Since when the live link is idle, if it may be closed for that.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let since = self.unkept()?.usage.last;
        self.session.is_settled().then_some(since)
    }

    /// Closes the live link if it is idle. Tells whether it was.
    pub(crate) fn close_idle(&mut self, now: Instant) -> bool {
        let idle = self.idle_since().is_some();
        if idle {
            self.close_live(now, LinkEnd::Idle, Some(Code::Idle));
        }
        idle
    }

    /// When the live link will have been idle for too long.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        self.unkept()?.usage.last.checked_add(self.with.config.idle)
    }

    pub(super) fn check_idle(&mut self, now: Instant) {
        if self.idle_deadline().is_some_and(|at| at <= now)
            && !self.close_idle(now)
            && let Some(live) = &mut self.live
        {
            // Something is under way: when it ends, that is use again.
            live.usage.note(now);
        }
    }

    /// Whether nothing is dialled after this end of a link, until there is something to send.
    pub(super) fn rests_after(&self, end: &LinkEnd) -> bool {
        let idle = matches!(end, LinkEnd::Idle | LinkEnd::Closed(Code::Idle, _));
        idle && self.reasons.may_idle() && !self.session.wants_link()
    }

    /// Holds the peer as a view would.
    #[cfg(test)]
    pub(crate) fn hold_as_member(&mut self, endpoints: Vec<crate::member::Endpoint>) {
        self.reasons.set_view(Some(endpoints.into_iter().map(Into::into).collect()));
    }
}
