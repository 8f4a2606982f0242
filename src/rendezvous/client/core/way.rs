//! The way to a leader: who is asked, what a server that is silent, gone, or not the leader leads to.

use std::time::{Duration, Instant};

use super::{Client, Output};
use crate::MemberId;
use crate::rendezvous::words::{Known, ToServer};

/// A hello is said again to the same server at the earliest after this, and the longer the more often it was in vain.
const HELLO_AGAIN: Duration = Duration::from_millis(100);
/// A connection that broke is dialled again within less; a server that is not there then is left.
const BROKEN: Duration = Duration::from_millis(150);
/// What is asked again later, is asked again within these.
const LATER_MIN: Duration = Duration::from_millis(10);
const LATER_MAX: Duration = Duration::from_secs(5);
/// For so many times of silence a server may put this node off.
const PUT_OFF_MAX: u32 = 2;

/// How it stands with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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
    /// It does not lead, and knows of no leader that is there: it says so once it does, and until then that is waited for.
    Staying {
        server: MemberId,
        until: Instant,
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

impl Client {
    /// Somebody was met at the address of this attempt; also when another one is there than before.
    pub(crate) fn handle_met(&mut self, now: Instant, attempt: u64, server: MemberId) {
        if attempt != self.attempts || matches!(self.phase, Phase::Waiting { .. } | Phase::Left) {
            return;
        }
        // What broke is not the link by which it was met.
        self.broken = None;
        self.put_off = None;
        self.seek.note_met();
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
            self.seek.note_dead();
            self.fail(now, Duration::ZERO);
        }
    }

    /// Who was met there is there no more.
    pub(crate) fn handle_gone(&mut self, now: Instant, attempt: u64) {
        if attempt == self.attempts && self.server().is_some() {
            self.go_on(now);
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
    pub(super) fn broken_at(&self) -> Option<Instant> {
        let (server, at) = self.broken?;
        (self.server() == Some(server)).then_some(at)
    }

    /// What is to be said to this server does not get on its way.
    pub(crate) fn handle_stuck(&mut self, now: Instant, server: MemberId) {
        if self.server() == Some(server) {
            self.pass(now);
        }
    }

    pub(super) fn fail(&mut self, now: Instant, least: Duration) {
        self.lose_leader();
        let wait = self.seek.failed().max(least);
        self.phase = Phase::Waiting { until: now + wait };
    }

    /// The server is silent: the next one, at once.
    pub(super) fn pass(&mut self, now: Instant) {
        tracing::debug!(server = self.seek.current(), "the server is silent");
        self.seek.note_dead();
        self.go_on(now);
    }

    /// The next server is asked at once.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.lose_leader();
        self.seek.pass();
        self.phase = Phase::Waiting { until: now };
    }

    /// This server does not lead. It says who does as soon as it knows, which is sooner than anybody would come to ask again; but it may be
    /// cut off from the others, so others are asked too.
    pub(super) fn handle_not_leader(&mut self, now: Instant, server: MemberId, leader: Option<String>) {
        tracing::debug!(server = self.seek.current(), ?leader, "it does not lead");
        if self.seek.led_by(leader) {
            self.lose_leader();
            self.phase = Phase::Waiting { until: now };
        } else if !matches!(self.phase, Phase::Staying { .. }) {
            self.lose_leader();
            self.phase = Phase::Staying { server, until: now + self.seek.stay() };
        }
    }

    /// It may let this node in, and not just now. Who says so for ever leads nobody: the others may know better.
    pub(super) fn handle_later(&mut self, now: Instant, server: MemberId, after: Duration) {
        let since = *self.put_off.get_or_insert(now);
        if now.duration_since(since) >= self.config.silence.saturating_mul(PUT_OFF_MAX) {
            return self.go_on(now);
        }
        self.lose_leader();
        let at = now + after.clamp(LATER_MIN, LATER_MAX);
        self.phase = Phase::Asking { server, until: at + self.config.silence, again: Some(at) };
    }

    pub(super) fn lose_leader(&mut self) {
        self.leases.handle_silence();
        (self.behind, self.undecided) = (None, None);
        self.probes = 0;
    }

    /// At once, or as soon as the member that this node is may speak.
    pub(super) fn say_hello(&mut self, now: Instant, server: MemberId) {
        if let Some(at) = self.reborn_at.filter(|at| *at > now) {
            self.phase = Phase::Asking { server, until: at + self.config.silence, again: Some(at) };
            return;
        }
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
    pub(super) fn hello_again(&mut self, now: Instant, server: MemberId) {
        self.lose_leader();
        let wait = HELLO_AGAIN.saturating_mul(1 << self.hellos.min(5));
        let at = if self.hellos == 0 { now } else { self.hello_at + wait };
        if at <= now {
            self.say_hello(now, server);
        } else {
            self.phase = Phase::Asking { server, until: at + self.config.silence, again: Some(at) };
        }
    }
}
