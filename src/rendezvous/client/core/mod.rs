//! What a node decides about its rendezvous. Sans-IO: words and time go in by `handle_*`, what is to be done comes out of
//! `poll_output`, in its order.

mod copy;
#[cfg(all(feature = "rendezvous", any(test, feature = "testing")))]
pub(crate) mod door;
mod leases;
mod reports;
mod routes;
mod seek;
#[cfg(test)]
mod tests;
mod time;
mod user;
mod way;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub(crate) use self::copy::Copy;
use self::leases::OwnLeases;
pub(crate) use self::leases::{LeaseNews, Ticket};
use self::reports::Reports;
pub(crate) use self::routes::OwnRoutes;
use self::seek::Seek;
use self::way::Phase;
use super::setup::OnFrozen;
use super::standing::Standing;
use crate::rendezvous::common::ClusterId;
use crate::rendezvous::damp::Damped;
use crate::rendezvous::words::{Health, ToServer};
use crate::router::{Route, RouteChange};
use crate::{Member, MemberId, View, ViewId};

/// Times of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreConfig {
    /// A server of which nothing is heard for so long is left; a hello is answered within it.
    pub(crate) silence: Duration,
    /// Without a leader for so long, it is frozen.
    pub(crate) frozen_after: Duration,
    pub(crate) on_frozen: OnFrozen,
}

impl Default for CoreConfig {
    fn default() -> Self {
        let three_pings = Duration::from_secs(3);
        Self { silence: three_pings, frozen_after: three_pings, on_frozen: OnFrozen::GoOn }
    }
}

/// Probes that run at once.
const PROBES_MAX: usize = 16;
/// The longest of them, whatever a leader says.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Something to be done, in this order.
#[derive(Debug)]
pub(crate) enum Output {
    /// Whoever was spoken with is not any more: find out who is at this address.
    Seek {
        attempt: u64,
        address: String,
    },
    /// To the server that was met.
    Say(ToServer),
    /// Members came or went: the routes of those in `down` go, the view is installed, those in `up` may be sent to.
    View {
        down: Vec<MemberId>,
        view: View,
        up: Vec<MemberId>,
    },
    /// Routes of another member; `anew`: these are all.
    Routes {
        member: MemberId,
        anew: bool,
        change: RouteChange,
    },
    /// This process is to be another member; answered by [`Client::handle_reborn`].
    Reincarnate,
    /// Does it answer within this time? Answered by [`Client::handle_probed`].
    Probe {
        member: MemberId,
        within: Duration,
    },
    Lease(Ticket, LeaseNews),
    Standing(Standing),
    /// It is over: it was decided that this member has left, or (`stop`) it was frozen for too long.
    Left {
        stop: bool,
    },
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Client {
    config: CoreConfig,
    me: Member,
    seek: Seek,
    phase: Phase,
    attempts: u64,
    /// The highest in which a leader spoke.
    term: u64,
    /// The highest that was installed, by any of the members that this process was.
    newest: Option<ViewId>,
    copy: Copy,
    /// Whose history the leader goes by, and, until this node has settled in, up to which change its routes are known there.
    welcomed: Option<(ClusterId, Option<u64>)>,
    /// Those that the router knows, once a view with this member is installed.
    told: Option<BTreeSet<MemberId>>,
    /// Of changes before that.
    early: BTreeMap<MemberId, BTreeSet<Route>>,
    /// Of those that are not healthy.
    health: BTreeMap<MemberId, Health>,
    /// The link with this server broke, and is to be back by then.
    broken: Option<(MemberId, Instant)>,
    /// When the leader was heard last, whatever it said.
    word_at: Instant,
    /// When a leader was heard last that goes by the history of the installed view.
    heard: Instant,
    /// What a ping has said there is, and since when nothing has come.
    behind: Option<(u64, Instant)>,
    /// The oldest change of this node's routes that is not decided, and since when it is the oldest.
    undecided: Option<(u64, Instant)>,
    hellos: u32,
    hello_at: Instant,
    /// Since when a server that lets nobody in just now has said so.
    put_off: Option<Instant>,
    refused: Option<String>,
    refusals: Damped<String>,
    evicted: bool,
    /// When it could speak first as the member that it is.
    reborn_at: Option<Instant>,
    leaving: bool,
    probes: usize,
    standing: Standing,
    routes: OwnRoutes,
    leases: OwnLeases,
    reports: Reports,
    outputs: VecDeque<Output>,
}

impl Client {
    pub(crate) fn new(config: CoreConfig, servers: Vec<String>, me: Member, now: Instant, seed: u64) -> Self {
        Self {
            config,
            me,
            seek: Seek::new(servers, seed),
            phase: Phase::Waiting { until: now },
            attempts: 0,
            term: 0,
            newest: None,
            copy: Copy::new(),
            welcomed: None,
            told: None,
            early: BTreeMap::new(),
            health: BTreeMap::new(),
            broken: None,
            word_at: now,
            heard: now,
            behind: None,
            undecided: None,
            hellos: 0,
            hello_at: now,
            put_off: None,
            refused: None,
            refusals: Damped::default(),
            evicted: false,
            reborn_at: None,
            leaving: false,
            probes: 0,
            standing: Standing::Seeking,
            routes: OwnRoutes::default(),
            leases: OwnLeases::default(),
            reports: Reports::default(),
            outputs: VecDeque::new(),
        }
    }

    // ---- what it knows ----

    #[cfg(test)]
    pub(crate) const fn copy(&self) -> &Copy {
        &self.copy
    }

    pub(crate) const fn routes(&self) -> &OwnRoutes {
        &self.routes
    }

    /// Whose history it goes by.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    pub(crate) const fn cluster(&self) -> Option<ClusterId> {
        self.copy.cluster()
    }

    /// Members of the installed view and their health; nobody before there is one.
    pub(crate) fn members(&self) -> Vec<(Member, Health)> {
        let health = |id| self.health.get(id).copied().unwrap_or_default();
        let there = self.told.is_some().then(|| self.copy.members());
        there.into_iter().flatten().map(|(id, member)| (member.clone(), health(id))).collect()
    }

    /// How much waits to be done.
    pub(crate) fn backlog(&self) -> usize {
        self.outputs.len()
    }

    const fn server(&self) -> Option<MemberId> {
        match self.phase {
            Phase::Asking { server, .. }
            | Phase::Staying { server, .. }
            | Phase::Following { server, .. } => Some(server),
            Phase::Waiting { .. } | Phase::Seeking { .. } | Phase::Reborn { .. } | Phase::Left => None,
        }
    }

    const fn is_following(&self) -> bool {
        matches!(self.phase, Phase::Following { .. })
    }

    /// Whether the leader may be told what is this node's own.
    const fn is_settled(&self) -> bool {
        self.is_following() && matches!(self.welcomed, Some((_, None)))
    }

    // ---- what is to be done ----

    pub(crate) fn poll_output(&mut self, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some((ticket, news)) = self.leases.poll_news() {
            return Some(Output::Lease(ticket, news));
        }
        if self.is_settled() {
            let own = self.leases.poll_word().or_else(|| self.routes.poll());
            if let Some(word) = own.or_else(|| self.reports.poll(now)) {
                return Some(Output::Say(word));
            }
            let oldest = self.routes.oldest();
            if self.undecided.map(|(change, _)| change) != oldest {
                self.undecided = oldest.map(|change| (change, now));
            }
        }
        let standing = self.judge_standing(now);
        if standing == self.standing {
            return None;
        }
        tracing::debug!(from = %self.standing, to = %standing, "standing");
        self.standing = standing.clone();
        Some(Output::Standing(standing))
    }

    fn judge_standing(&self, now: Instant) -> Standing {
        if self.phase == Phase::Left {
            Standing::Left
        } else if let Some(why) = &self.refused {
            Standing::Refused(why.clone())
        } else if self.evicted {
            Standing::Evicted
        } else if self.told.is_none() {
            Standing::Seeking
        } else if now >= self.heard + self.config.frozen_after {
            Standing::Frozen { since: self.heard }
        } else {
            Standing::Joined { view: self.copy.view_id() }
        }
    }
}
