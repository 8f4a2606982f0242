//! What the node's user, messenger and router want or tell.

use std::time::{Duration, Instant};

use super::way::Phase;
use super::{Client, Output, Ticket};
use crate::rendezvous::common::Refused;
use crate::rendezvous::words::ToServer;
use crate::router::RouteChange;
use crate::{Member, MemberId};

/// Who is another member again so soon after the last time waits so long with its hello: whatever a server says, its peers are not to
/// meet a new one at the pace of words.
pub(super) const REBORN_WAIT: Duration = Duration::from_millis(500);

impl Client {
    /// This node's own routes have changed.
    pub(crate) fn handle_announce(&mut self, change: RouteChange) {
        self.routes.announce(change);
    }

    /// This node's own routes go, and no others come.
    pub(crate) fn handle_withdraw(&mut self) {
        self.routes.withdraw();
    }

    /// What the traffic says of a member.
    pub(crate) fn handle_evidence(&mut self, now: Instant, member: MemberId, lost: bool) {
        if self.copy.members().contains_key(&member) && member != self.me.id {
            self.reports.note(now, member, lost);
        }
    }

    /// Whether a member answered that was to be probed.
    pub(crate) fn handle_probed(&mut self, member: MemberId, answered: bool) {
        self.probes = self.probes.saturating_sub(1);
        if self.server().is_some() {
            self.outputs.push_back(Output::Say(ToServer::Probed { member, answered }));
        }
    }

    /// A lease is wanted; with `wait` also if somebody else holds it.
    ///
    /// # Errors
    ///
    /// Too many are wanted already.
    pub(crate) fn acquire(&mut self, name: &str, wait: bool) -> Result<Ticket, Refused> {
        self.leases.acquire(name, wait, &self.copy)
    }

    /// It is wanted no more.
    pub(crate) fn release(&mut self, name: &str, ticket: Ticket) {
        self.leases.release(name, ticket, &self.copy);
    }

    /// This node is to leave.
    pub(crate) fn handle_leave(&mut self) {
        if self.leaving || self.phase == Phase::Left {
            return;
        }
        self.leaving = true;
        if self.me.joined.is_none() && !matches!(self.phase, Phase::Asking { .. } | Phase::Following { .. }) {
            return self.left(false);
        }
        if self.is_following() {
            self.outputs.push_back(Output::Say(ToServer::Leave));
        }
    }

    /// This process is this member now.
    pub(crate) fn handle_reborn(&mut self, now: Instant, me: Member) {
        let Phase::Reborn { server } = self.phase else { return };
        self.me = me;
        self.hellos = 0;
        self.reborn_at = Some(self.reborn_at.map_or(now, |before| now.max(before + REBORN_WAIT)));
        match server {
            Some(server) => self.say_hello(now, server),
            None => self.phase = Phase::Waiting { until: now },
        }
    }

    pub(super) fn left(&mut self, stop: bool) {
        if self.phase != Phase::Left {
            self.lose_leader();
            self.leases.handle_reborn();
            self.phase = Phase::Left;
            self.outputs.push_back(Output::Left { stop });
        }
    }
}
