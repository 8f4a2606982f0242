//! Probes: does the peer answer now? Whoever asks before a ping is written shares it with all who ask before; the next
//! ping goes when that one is answered. So however many ask, there is one ping a round trip, and nothing is kept of
//! who asks.

use std::time::{Duration, Instant};

use super::{Dialling, Peer, PeerOutput, State};
use crate::limits::PROBE_DIALS_APART;
use crate::link::Link;
use crate::session::Transmit;

/// All who were told this number, or a lower one, when they asked are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) round: u64,
    /// From the ping to its pong.
    pub(crate) round_trip: Duration,
}

/// A ping that was written, and is not answered.
#[derive(Debug)]
struct Flying {
    round: u64,
    nonce: u64,
    since: Instant,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// The newest round that somebody asked in.
    newest: u64,
    answered: u64,
    flying: Option<Flying>,
    /// A probe dials at once only from then on.
    dials_from: Option<Instant>,
}

impl Probes {
    /// The round whose answer is an answer to whoever asks now: its ping is not written yet.
    fn ask(&mut self) -> u64 {
        let written = self.flying.as_ref().map_or(self.answered, |flying| flying.round);
        self.newest = self.newest.max(written + 1);
        self.newest
    }

    /// The link's own frames, with a ping if somebody asks.
    pub(super) fn poll_transmit(&mut self, now: Instant, link: &mut Link, out: &mut Transmit) {
        let asks = self.flying.is_none() && self.newest > self.answered;
        if asks {
            link.ping_now();
        }
        link.poll_transmit(now, out);
        if asks {
            self.flying = Some(Flying { round: self.newest, nonce: link.last_ping(), since: now });
        }
    }

    /// A later ping's pong answers an earlier one too: they travel in order, and only the last of several is answered.
    fn handle_pong(&mut self, now: Instant, nonce: u64) -> Option<Answered> {
        let flying = self.flying.take_if(|flying| flying.nonce <= nonce)?;
        self.answered = flying.round;
        Some(Answered { round: flying.round, round_trip: now.saturating_duration_since(flying.since) })
    }

    /// Whoever still waits is asked for on the next link.
    pub(super) fn link_down(&mut self) {
        self.flying = None;
    }

    /// The other side's own dial is under way (rule 11), or this side has just dialled for a probe.
    pub(super) fn no_dial_before(&mut self, until: Instant) {
        self.dials_from = self.dials_from.max(Some(until));
    }

    fn may_dial(&mut self, now: Instant) -> bool {
        let may = self.dials_from.is_none_or(|from| from <= now);
        if may {
            self.dials_from = Some(now + PROBE_DIALS_APART);
        }
        may
    }
}

impl Peer {
    /// Asks whether the peer is there. It is when [`PeerOutput::Answered`] comes with this number or a higher one.
    /// Without a link this side dials now, if it may dial and did not do so for a probe just before.
    pub(crate) fn probe(&mut self, now: Instant) -> u64 {
        let round = self.probes.ask();
        let waits = match self.dialling {
            Dialling::Idle => true,
            Dialling::Waiting(until) => until > now,
            Dialling::Pending(_) => false,
        };
        let may_dial = self.live.is_none() && self.state != State::Ended && self.reasons.may_dial();
        if waits && may_dial && self.probes.may_dial(now) {
            self.dialling = Dialling::Waiting(now);
        }
        round
    }

    pub(super) fn handle_pong(&mut self, now: Instant, nonce: u64) {
        if let Some(answered) = self.probes.handle_pong(now, nonce) {
            self.outputs.push_back(PeerOutput::Answered(answered));
        }
    }
}
