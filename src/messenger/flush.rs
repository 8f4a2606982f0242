//! Flush: waiting until what reached this member is handled, before a view is changed say.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Messenger;
use super::ledger::{Intakes, Past};
use crate::member::MemberId;
use crate::wire::{Class, Epoch, StreamId};

/// What one member had sent to each other one, and what it had accepted and not handled, at one moment. To be sent to
/// others as a message, and given to [`Messenger::wait_handled`] there. Some 40 bytes for each member and stream in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    of: MemberId,
    sent: Vec<Sent>,
    accepted: Vec<Accepted>,
}

/// What went to one member, in the session of this epoch of the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    to: MemberId,
    epoch: u64,
    /// Stream, and the last record's number.
    streams: Vec<(u16, u64)>,
}

/// What came on one stream of one member, in the session of this epoch of the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Accepted {
    from: MemberId,
    stream: u16,
    epoch: u64,
    records: u64,
}

impl Digest {
    /// Whose it is.
    #[must_use]
    pub const fn of(&self) -> MemberId {
        self.of
    }
}

/// Why something is missing in a [`FlushReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unflushed {
    /// The session in which it was sent is over, and it had not come. What had not been written then may still come in
    /// the next session.
    SessionOver,
    /// It had not come when the time was over.
    NotCome,
    /// It came, and its handler was not done when the time was over.
    NotHandled,
}

/// Something that a digest names and that is not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Who sent it.
    pub from: MemberId,
    /// In which class.
    pub class: Class,
    /// Whether its types are open to anyone.
    pub open: bool,
    /// The protocol: 0 is the application's messages, 6 requests.
    pub protocol: u16,
    /// How many records: messages, or chunks of large ones.
    pub records: u64,
    /// Why.
    pub why: Unflushed,
}

/// What [`Messenger::wait_handled`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "what is missing is said here, and nowhere else"]
pub struct FlushReport {
    /// What is not handled; at most one entry a stream.
    pub missing: Vec<Missing>,
}

impl FlushReport {
    /// Whether all that the digest names is handled here.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Something to be handled.
#[derive(Clone, Copy)]
struct Goal {
    from: MemberId,
    stream: StreamId,
    session: Session,
    records: u64,
}

/// A session, by the epoch that one of its ends knows it by.
#[derive(Clone, Copy)]
enum Session {
    Ours(Epoch),
    Theirs(Epoch),
}

/// How far a goal is.
enum Stand {
    Handled,
    /// Nothing more comes, and so much is missing.
    Over(u64),
    Waits(Unflushed, u64),
}

impl Messenger {
    /// What this member has sent to each member there is a session with, queued messages included, and what it has
    /// accepted and not handled. Messages and requests; no byte streams. Exact for each member at one moment.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let shared = &self.inner.shared;
        let mut digest = Digest { of: self.member().id, sent: Vec::new(), accepted: Vec::new() };
        for handle in shared.driver.peers() {
            let peer = handle.peer.lock();
            let session = peer.session();
            let marks = session.marks().into_iter();
            let sent = marks.filter(|(stream, mark)| Intakes::counts(*stream) && mark.0 > 0);
            let streams: Vec<_> = sent.map(|(stream, mark)| (stream.to_wire(), mark.0)).collect();
            if !streams.is_empty() && !peer.has_ended() {
                digest.sent.push(Sent { to: handle.id, epoch: session.epoch().0, streams });
            }
        }
        for from in shared.ledger.members() {
            let handle = shared.driver.peer(from);
            // While its task rests, what is acknowledged is in the ledger.
            let _peer = handle.as_ref().map(|handle| handle.peer.lock());
            for track in shared.ledger.tracks(from) {
                if let Some((epoch, records)) = track.last().filter(|_| track.unhandled() > 0) {
                    let (stream, epoch) = (track.stream().to_wire(), epoch.0);
                    digest.accepted.push(Accepted { from, stream, epoch, records });
                }
            }
        }
        digest
    }

    /// Waits until what a digest names is handled here: of this member's own digest, what it had accepted then; of
    /// another member's, what that one had sent to this member by then, whether it has come already or not.
    ///
    /// So a membership system flushes a view: each member sends its digest to all, and each waits for the others'
    /// (and its own, for those that are gone) before it installs the next view. Survivors relay nothing: it is not virtual
    /// synchrony.
    ///
    /// Returns when all is handled or can never come, at the latest after `timeout` or when the messenger closes; the
    /// report says what is missing. What its sender dropped after the digest and before it was written (not
    /// understood, expired) counts as missing until later messages have taken its numbers. Handled means that
    /// handlers returned or panicked; of requests, that the handler is done or called off. Do not call it inside a
    /// handler: it would wait for itself. Cancel safe.
    pub async fn wait_handled(&self, digest: &Digest, timeout: Duration) -> FlushReport {
        let mut goals = self.goals(digest);
        let mut report = FlushReport::default();
        let look = || {
            goals.retain(|goal| match self.stand(goal) {
                Stand::Handled => false,
                Stand::Over(records) => {
                    report.missing.push(goal.missing(records, Unflushed::SessionOver));
                    false
                }
                Stand::Waits(..) => true,
            });
            goals.is_empty().then_some(())
        };
        let shared = &self.inner.shared;
        let waiting = shared.driver.stop.run_until_cancelled(shared.ledger.bell.until(look));
        let _over = tokio::time::timeout(timeout, waiting).await;
        for goal in &goals {
            match self.stand(goal) {
                Stand::Handled => {}
                Stand::Over(records) => report.missing.push(goal.missing(records, Unflushed::SessionOver)),
                Stand::Waits(why, records) => report.missing.push(goal.missing(records, why)),
            }
        }
        report
    }

    fn goals(&self, digest: &Digest) -> Vec<Goal> {
        let me = self.member().id;
        // Streams that do not exist are passed over: a digest may come from anywhere.
        let stream = |raw| StreamId::from_wire(raw).ok().filter(|stream| Intakes::counts(*stream));
        if digest.of == me {
            let goal = |accepted: &Accepted| {
                let session = Session::Ours(Epoch(accepted.epoch));
                let (from, records) = (accepted.from, accepted.records);
                Some(Goal { from, stream: stream(accepted.stream)?, session, records })
            };
            return digest.accepted.iter().filter_map(goal).collect();
        }
        let to_me = digest.sent.iter().filter(|sent| sent.to == me);
        let goals = to_me.flat_map(|sent| {
            let session = Session::Theirs(Epoch(sent.epoch));
            sent.streams.iter().filter_map(move |(raw, records)| {
                Some(Goal { from: digest.of, stream: stream(*raw)?, session, records: *records })
            })
        });
        goals.collect()
    }

    fn stand(&self, goal: &Goal) -> Stand {
        let shared = &self.inner.shared;
        let (ours, over) = match goal.session {
            Session::Ours(ours) => (Some(ours), false),
            Session::Theirs(theirs) => {
                // Before the ledger is asked: if it ends in between, the ledger knows.
                let present = shared.driver.peer(goal.from).map(|handle| {
                    let peer = handle.peer.lock();
                    (peer.session().epoch(), peer.session().peer_epoch())
                });
                let present_theirs = present.and_then(|(_, theirs)| theirs);
                match shared.ledger.past(goal.from, theirs, present_theirs) {
                    Past::Over(ours) => (Some(ours), true),
                    Past::Forgotten => return Stand::Over(goal.records),
                    Past::NotOver if present_theirs == Some(theirs) => (present.map(|(ours, _)| ours), false),
                    Past::NotOver => (None, false),
                }
            }
        };
        let tracks = shared.ledger.tracks(goal.from);
        let mut tracks = tracks.iter().filter(|track| track.stream() == goal.stream);
        let found =
            ours.and_then(|ours| tracks.find_map(|track| Some((Arc::clone(track), track.span(ours)?))));
        match (found, goal.session) {
            (Some((track, span)), _) => {
                let came = (span.end - span.start).min(goal.records);
                let missing = goal.records - came;
                let unhandled = (span.start + came).saturating_sub(track.handled());
                match (unhandled, missing) {
                    (0, 0) => Stand::Handled,
                    (0, missing) if over => Stand::Over(missing),
                    (unhandled, missing) if over || missing == 0 => {
                        Stand::Waits(Unflushed::NotHandled, unhandled + missing)
                    }
                    (_, missing) => Stand::Waits(Unflushed::NotCome, missing),
                }
            }
            // The ledger forgets only what is handled.
            (None, Session::Ours(_)) => Stand::Handled,
            (None, Session::Theirs(_)) if over => Stand::Over(goal.records),
            (None, Session::Theirs(_)) => Stand::Waits(Unflushed::NotCome, goal.records),
        }
    }
}

impl Goal {
    const fn missing(&self, records: u64, why: Unflushed) -> Missing {
        Missing {
            from: self.from,
            class: self.stream.class(),
            open: self.stream.is_open(),
            protocol: self.stream.protocol().0,
            records,
            why,
        }
    }
}
