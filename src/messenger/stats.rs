//! Figures: per peer, per stream, and in all, also of peers that are gone.

use std::time::{Duration, Instant};

use crate::driver::Past;
use crate::member::MemberId;
use crate::peer::{DatagramStats, Peer};
use crate::session::Accounts;
use crate::wire::Class;

/// The books of messages. At every moment
/// `queued = acked + not_sent + indeterminate + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Books {
    /// Messages that `send` took.
    pub queued: u64,
    /// In the receiver's memory.
    pub acked: u64,
    /// Never handed to a write.
    pub not_sent: u64,
    /// Handed to a write, and nobody knows.
    pub indeterminate: u64,
    /// Neither of these yet, counted where they wait.
    pub pending: u64,
    /// Records received that handlers here are done with.
    pub handled: u64,
    /// Records written again after a resume.
    pub resent: u64,
    /// Records received again and dropped.
    pub duplicates: u64,
    /// Frame bytes of messages written, repeats included.
    pub bytes_written: u64,
    /// Record bytes received.
    pub bytes_accepted: u64,
    /// Links that were up so far; all but the first of a peer are reconnects.
    pub links: u64,
}

impl Books {
    fn new(queued: u64, pending: u64, accounts: &Accounts, links: u64) -> Self {
        Self {
            queued,
            pending,
            acked: accounts.acked,
            not_sent: accounts.not_sent,
            indeterminate: accounts.indeterminate,
            handled: accounts.handled,
            resent: accounts.resent,
            duplicates: accounts.duplicates,
            bytes_written: accounts.bytes_written,
            bytes_accepted: accounts.bytes_accepted,
            links,
        }
    }

    /// Whether nothing has disappeared.
    #[must_use]
    pub const fn balance(&self) -> bool {
        self.queued == self.acked + self.not_sent + self.indeterminate + self.pending
    }

    fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.acked += other.acked;
        self.not_sent += other.not_sent;
        self.indeterminate += other.indeterminate;
        self.pending += other.pending;
        self.handled += other.handled;
        self.resent += other.resent;
        self.duplicates += other.duplicates;
        self.bytes_written += other.bytes_written;
        self.bytes_accepted += other.bytes_accepted;
        self.links += other.links;
    }
}

/// One stream of messages to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// The protocol: 0 is the application, 1 byte streams, 6 requests, 7 replies.
    pub protocol: u16,
    /// The class.
    pub class: Class,
    /// Whether its types are open to anyone.
    pub open: bool,
    /// Record bytes written and not acknowledged.
    pub unacked_bytes: u64,
    /// For how long the oldest of them has been waiting.
    pub oldest_unacked: Option<Duration>,
    /// Record bytes that may still be written.
    pub credit_bytes: u64,
    /// Whether something waits for credit: the peer's handlers are behind.
    pub is_blocked: bool,
    /// For how long in all something has waited for credit.
    pub blocked: Duration,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// Who.
    pub peer: MemberId,
    /// Whether its link is up.
    pub is_connected: bool,
    /// Messages, both ways.
    pub books: Books,
    /// What this destination costs: waiting and unacknowledged, with bookkeeping, in bytes.
    pub queue_bytes: usize,
    /// Received record bytes that wait for their handlers.
    pub unhandled_bytes: u64,
    /// Record bytes that are held, unacknowledged, until a view includes the peer.
    pub quarantined_bytes: usize,
    /// The round trip measured by the last ping of this link.
    pub rtt: Option<Duration>,
    /// Datagrams, both ways.
    pub datagrams: DatagramStats,
    /// Its streams.
    pub streams: Vec<StreamStats>,
}

impl PeerStats {
    pub(super) fn of(peer: &Peer, now: Instant) -> Self {
        let session = peer.session();
        let (queued, pending, accounts) = session.books();
        let (links, rtt) = peer.links();
        let age = |written: Instant| now.saturating_duration_since(written);
        let streams = session.streams().map(|figures| StreamStats {
            protocol: figures.stream.protocol().0,
            class: figures.stream.class(),
            open: figures.stream.is_open(),
            unacked_bytes: figures.unacked_bytes,
            oldest_unacked: figures.oldest_unacked.map(age),
            credit_bytes: figures.credit_bytes,
            is_blocked: figures.blocked_since.is_some(),
            blocked: figures.blocked + figures.blocked_since.map(age).unwrap_or_default(),
        });
        Self {
            peer: peer.id(),
            is_connected: peer.live_link().is_some(),
            books: Books::new(queued, pending, &accounts, links),
            queue_bytes: session.intake().lock().bytes(),
            unhandled_bytes: session.unhandled_bytes(),
            quarantined_bytes: session.quarantined_bytes(),
            rtt,
            datagrams: peer.datagrams().stats(),
            streams: streams.collect(),
        }
    }
}

/// What a messenger has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Peers there are.
    pub peers: Vec<PeerStats>,
    /// Sums over peers that are gone.
    pub gone: Books,
    /// Datagrams, summed over peers that are gone.
    pub gone_datagrams: DatagramStats,
    /// Datagrams dropped because there was no session with their recipient at all.
    pub datagrams_absent: u64,
    /// Connections that were refused: foreign protocols, other networks, stale sessions.
    pub refused_connections: u64,
    /// Attempts to accept that failed, for want of descriptors say.
    pub accept_errors: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Bodies that could not be decoded.
    pub undecodable: u64,
    /// Records that nobody handles, or that their sender may not send.
    pub refused_records: u64,
    /// Records that had been accepted and whose handler was not done when the messenger closed. Their senders were told
    /// that they were acknowledged, and are never told that they were handled.
    pub dropped_at_close: u64,
    /// Replies that nobody waited for any more: their request was called off, or its timeout was over.
    pub late_replies: u64,
    /// Requests that came here and were stopped, or not begun, because nobody waited for the reply any more.
    pub requests_called_off: u64,
}

impl Stats {
    /// All peers, also those that are gone.
    #[must_use]
    pub fn total(&self) -> Books {
        let mut total = self.gone;
        self.peers.iter().for_each(|peer| total.add(&peer.books));
        total
    }

    /// Datagrams of all peers, also of those that are gone; those for nobody count as without a link.
    #[must_use]
    pub fn total_datagrams(&self) -> DatagramStats {
        let mut total = self.gone_datagrams;
        total.no_link += self.datagrams_absent;
        self.peers.iter().for_each(|peer| total.add(&peer.datagrams));
        total
    }

    pub(super) fn set_gone(&mut self, gone: &Past) {
        self.gone = Books::new(gone.queued, 0, &gone.accounts, gone.links);
        self.gone_datagrams = gone.datagrams;
    }
}
