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
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub(crate) use self::copy::Copy;
use self::leases::OwnLeases;
pub(crate) use self::leases::{LeaseNews, Ticket};
use self::reports::Reports;
pub(crate) use self::routes::OwnRoutes;
use self::seek::Seek;
use super::setup::OnFrozen;
use super::standing::Standing;
use crate::rendezvous::common::{ClusterId, Refused};
use crate::rendezvous::words::{Health, Known, ToServer};
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

/// A hello is said again to the same server at the earliest after this, and the longer the more often it was in vain.
const HELLO_AGAIN: Duration = Duration::from_millis(100);
/// A change that a ping says there is, and that does not come within this time, is asked for.
const BEHIND: Duration = Duration::from_secs(1);
/// A change of this node's routes that is not decided within this time is said again.
const UNDECIDED: Duration = Duration::from_secs(5);
/// What is asked again later, is asked again at most after this.
const LATER_MAX: Duration = Duration::from_secs(5);
/// Who was refused asks again, another server perhaps, at the earliest after this.
const REFUSED_WAIT: Duration = Duration::from_millis(500);
/// Who is another member again so soon after the last time waits so long with its hello: whatever a server says, its peers are not to
/// meet a new one at the pace of words.
const REBORN_WAIT: Duration = Duration::from_millis(500);
/// Probes that run at once.
const PROBES_MAX: usize = 16;
/// The longest of them, whatever a leader says.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// A connection that broke is dialled again within less; a server that is not there then is left.
const BROKEN: Duration = Duration::from_millis(150);

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

/// How it stands with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next one is asked then.
    Waiting {
        until: Instant,
    },
    /// Somebody is looked for at an address.
    Seeking {
        attempt: u64,
        until: Instant,
    },
    /// A hello was said, and is to be answered until then; said again before, if the server wants that.
    Asking {
        server: MemberId,
        until: Instant,
        again: Option<Instant>,
    },
    /// The leader has let this member in, and tells it everything.
    Following {
        server: MemberId,
        term: u64,
    },
    /// This process is to be another member.
    Reborn {
        server: Option<MemberId>,
    },
    Left,
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
    refused: Option<String>,
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
            refused: None,
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
            Phase::Asking { server, .. } | Phase::Following { server, .. } => Some(server),
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

    // ---- the way to a leader ----

    /// Somebody was met at the address of this attempt; also when another one is there than before.
    pub(crate) fn handle_met(&mut self, now: Instant, attempt: u64, server: MemberId) {
        if attempt != self.attempts || matches!(self.phase, Phase::Waiting { .. } | Phase::Left) {
            return;
        }
        // What broke is not the link by which it was met.
        self.broken = None;
        if let Phase::Reborn { server: met } = &mut self.phase {
            *met = Some(server);
            return;
        }
        self.lose_leader();
        self.hellos = 0;
        self.say_hello(now, server);
    }

    /// Nobody was met there.
    pub(crate) fn handle_unmet(&mut self, now: Instant, attempt: u64, why: &str) {
        if matches!(self.phase, Phase::Seeking { attempt: seeking, .. } if seeking == attempt) {
            tracing::debug!(server = self.seek.current(), why, "no server there");
            self.fail(now, Duration::ZERO);
        }
    }

    /// Who was met there is there no more.
    pub(crate) fn handle_gone(&mut self, now: Instant, attempt: u64) {
        if attempt == self.attempts && self.server().is_some() {
            self.pass(now);
        }
    }

    /// What was said to this server did not get there, or not all of it.
    pub(crate) fn handle_session_lost(&mut self, now: Instant, server: MemberId) {
        if self.server() == Some(server) {
            self.hello_again(now, server);
        }
    }

    /// The link with this server has ended, not by silence, or is back.
    pub(crate) fn handle_link(&mut self, now: Instant, server: MemberId, is_up: bool) {
        if self.server() == Some(server) {
            self.broken = (!is_up).then_some((server, now + BROKEN));
        }
    }

    /// When a server whose link broke is left.
    fn broken_at(&self) -> Option<Instant> {
        let (server, at) = self.broken?;
        (self.server() == Some(server)).then_some(at)
    }

    /// What is to be said to this server does not get on its way.
    pub(crate) fn handle_stuck(&mut self, now: Instant, server: MemberId) {
        if self.server() == Some(server) {
            self.pass(now);
        }
    }

    fn fail(&mut self, now: Instant, least: Duration) {
        self.lose_leader();
        let wait = self.seek.failed().max(least);
        self.phase = Phase::Waiting { until: now + wait };
    }

    /// The server is silent: the next one, at once.
    fn pass(&mut self, now: Instant) {
        tracing::debug!(server = self.seek.current(), "the server is silent");
        self.lose_leader();
        self.seek.pass();
        self.phase = Phase::Waiting { until: now };
    }

    fn lose_leader(&mut self) {
        self.leases.handle_silence();
        (self.behind, self.undecided) = (None, None);
        self.probes = 0;
    }

    fn say_hello(&mut self, now: Instant, server: MemberId) {
        let known = Known {
            cluster: self.copy.cluster(),
            view: self.told.is_some().then_some(self.copy.view_id()).or(self.newest),
            index: self.copy.index(),
            term: self.term,
        };
        self.hellos = self.hellos.saturating_add(1);
        self.hello_at = now;
        self.phase = Phase::Asking { server, until: now + self.config.silence, again: None };
        let changes = self.routes.changes();
        self.outputs.push_back(Output::Say(ToServer::Hello { member: self.me.clone(), known, changes }));
    }

    /// The thread was lost. Not at once, if that was just tried.
    fn hello_again(&mut self, now: Instant, server: MemberId) {
        self.lose_leader();
        let wait = HELLO_AGAIN.saturating_mul(1 << self.hellos.min(5));
        let at = if self.hellos == 0 { now } else { self.hello_at + wait };
        if at <= now {
            self.say_hello(now, server);
        } else {
            self.phase = Phase::Asking { server, until: at + self.config.silence, again: Some(at) };
        }
    }

    // ---- its user ----

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
        if self.is_following() {
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
        let at = self.reborn_at.map_or(now, |before| now.max(before + REBORN_WAIT));
        self.reborn_at = Some(at);
        match server {
            Some(server) if at <= now => self.say_hello(now, server),
            Some(server) => {
                self.phase = Phase::Asking { server, until: at + self.config.silence, again: Some(at) };
            }
            None => self.phase = Phase::Waiting { until: at },
        }
    }

    fn left(&mut self, stop: bool) {
        if self.phase != Phase::Left {
            self.lose_leader();
            self.leases.handle_reborn();
            self.phase = Phase::Left;
            self.outputs.push_back(Output::Left { stop });
        }
    }

    // ---- time ----

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.broken_at().is_some_and(|at| at <= now) {
            // A leader is looked for at once; one that breaks off before it has let anybody in, not.
            if self.is_following() { self.pass(now) } else { self.fail(now, Duration::ZERO) }
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.attempts += 1;
                let (attempt, address) = (self.attempts, self.seek.next());
                self.phase = Phase::Seeking { attempt, until: now + self.config.silence };
                self.outputs.push_back(Output::Seek { attempt, address });
            }
            Phase::Seeking { until, .. } | Phase::Asking { until, .. } if until <= now => {
                self.fail(now, Duration::ZERO);
            }
            Phase::Asking { server, again: Some(at), .. } if at <= now => self.say_hello(now, server),
            Phase::Following { .. } if self.word_at + self.config.silence <= now => self.pass(now),
            Phase::Following { server, .. } if self.overdue().is_some_and(|at| at <= now) => {
                tracing::debug!("a change or an answer does not come: asking for it");
                self.hello_again(now, server);
            }
            Phase::Waiting { .. }
            | Phase::Seeking { .. }
            | Phase::Asking { .. }
            | Phase::Following { .. }
            | Phase::Reborn { .. }
            | Phase::Left => {}
        }
        if self.stops_at().is_some_and(|at| at <= now) {
            tracing::error!("no leader was heard for too long: this node stops, as it was told to");
            self.left(true);
        }
    }

    /// When what is to come is late.
    fn overdue(&self) -> Option<Instant> {
        let behind = self.behind.map(|(_, since)| since + BEHIND);
        let undecided = self.undecided.map(|(_, since)| since + UNDECIDED);
        behind.into_iter().chain(undecided).min()
    }

    fn stops_at(&self) -> Option<Instant> {
        match self.config.on_frozen {
            OnFrozen::Stop(after) if self.told.is_some() && self.phase != Phase::Left => {
                Some(self.heard + after)
            }
            OnFrozen::Stop(_) | OnFrozen::GoOn => None,
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Waiting { until } | Phase::Seeking { until, .. } => Some(until),
            Phase::Asking { until, again, .. } => Some(again.map_or(until, |again| again.min(until))),
            Phase::Following { .. } => {
                let silent = self.word_at + self.config.silence;
                Some(self.overdue().map_or(silent, |overdue| overdue.min(silent)))
            }
            Phase::Reborn { .. } | Phase::Left => None,
        };
        let frozen =
            Some(self.heard + self.config.frozen_after).filter(|at| self.told.is_some() && *at > now);
        // Before, nothing is reported, whatever is due.
        let report = self.reports.poll_timeout(now).filter(|_| self.is_settled());
        [phase, self.broken_at(), frozen, self.stops_at(), report].into_iter().flatten().min()
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
