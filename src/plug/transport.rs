//! What a router sends by.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::table::Table;
use crate::{Kind, MemberId, Messenger, Raw, Receipt, SendError, SendReport};

/// Sends to the peers of a plugged router. Cheap to clone. It holds the messenger open.
#[derive(Clone, Debug)]
pub struct Transport {
    pub(super) table: Arc<Table>,
}

/// A frame that was not taken, given back. The queue and the peer are as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not taken: {why}")]
pub struct NotTaken {
    /// The frame, as it was given.
    pub frame: Bytes,
    /// Why: above all [`SendError::Full`] and [`SendError::Absent`].
    pub why: SendError,
}

/// What became of frames that came. What came to the plug is `delivered + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlugStats {
    /// Frames that the router was given.
    pub delivered: u64,
    /// Of these, those it did not finish: its peer was gone for too long, the messenger closed, or it panicked.
    pub interrupted: u64,
    /// Frames it was not given, because their peer was down.
    pub dropped: u64,
    /// Calls of [`on_peer`](crate::RouterTransport::on_peer) that panicked.
    pub peer_panics: u64,
}

impl Transport {
    /// How long a peer's `Down` waits for the router to finish what was accepted from that peer: longer than a router takes
    /// that is only busy, and not long to wait for one that hangs.
    pub const DRAIN: Duration = Duration::from_secs(1);

    pub(super) const fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    /// The messenger below.
    #[must_use]
    pub fn messenger(&self) -> &Messenger {
        &self.table.messenger
    }

    /// The kind of the router's frames.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.table.kind
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> MemberId {
        self.table.messenger.id()
    }

    /// Who is up: the router was told so, and not gone. In the order of their ids.
    #[must_use]
    pub fn peers(&self) -> Vec<MemberId> {
        self.table.up()
    }

    /// Queues a frame and never waits. From 4 KiB on it is shared, not copied.
    ///
    /// # Errors
    ///
    /// [`NotTaken`] with the frame: it will not be sent. This member itself is absent: a router serves itself.
    pub fn send(&self, to: MemberId, frame: Bytes) -> Result<(), NotTaken> {
        let raw = self.raw(to, frame)?;
        match self.table.messenger.send(&raw, [to]) {
            Ok(report) => taken(to, raw, &report),
            Err(why) => Err(NotTaken { frame: raw.into_bytes(), why }),
        }
    }

    /// As [`Transport::send`], and tells what becomes of the frame. `handled`: the router there is done with it, or it was
    /// dropped there because this member was down.
    ///
    /// # Errors
    ///
    /// As for [`Transport::send`].
    pub fn send_with_receipt(&self, to: MemberId, frame: Bytes) -> Result<Receipt, NotTaken> {
        let raw = self.raw(to, frame)?;
        let sent = self.table.messenger.send_with_receipt(&raw, to);
        sent.map_err(|why| NotTaken { frame: raw.into_bytes(), why })
    }

    /// As [`Transport::send`], but waits for room: until there is some, the peer is gone, or the time is over. Cancel safe:
    /// dropped while it waits, nothing was queued.
    ///
    /// # Errors
    ///
    /// As for [`Transport::send`], and [`SendError::WithinHandler`] inside
    /// [`on_message`](crate::RouterTransport::on_message).
    pub async fn send_wait(&self, to: MemberId, frame: Bytes, timeout: Duration) -> Result<(), NotTaken> {
        let raw = self.raw(to, frame)?;
        match self.table.messenger.send_wait(&raw, [to], timeout).await {
            Ok(report) => taken(to, raw, &report),
            Err(why) => Err(NotTaken { frame: raw.into_bytes(), why }),
        }
    }

    /// Queues a frame for everyone who is up, and never waits. The report says whose queue was full and who is gone.
    ///
    /// # Errors
    ///
    /// [`NotTaken`] if it can be sent to nobody: it is too large, or the messenger is closed.
    pub fn broadcast(&self, frame: Bytes) -> Result<SendReport, NotTaken> {
        let raw = Raw::new(self.table.kind, frame);
        let sent = self.table.messenger.send(&raw, self.peers());
        sent.map_err(|why| NotTaken { frame: raw.into_bytes(), why })
    }

    /// What became of frames that came, so far.
    #[must_use]
    pub fn stats(&self) -> PlugStats {
        let counts = &self.table.counts;
        PlugStats {
            delivered: counts.delivered.load(Ordering::Relaxed),
            interrupted: counts.interrupted.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            peer_panics: counts.panics.load(Ordering::Relaxed),
        }
    }

    fn raw(&self, to: MemberId, frame: Bytes) -> Result<Raw, NotTaken> {
        if to == self.me() {
            return Err(NotTaken { frame, why: SendError::Absent(to) });
        }
        Ok(Raw::new(self.table.kind, frame))
    }
}

fn taken(to: MemberId, raw: Raw, report: &SendReport) -> Result<(), NotTaken> {
    let why = match (report.is_complete(), report.full.is_empty()) {
        (true, _) => return Ok(()),
        (false, true) => SendError::Absent(to),
        (false, false) => SendError::Full(to),
    };
    Err(NotTaken { frame: raw.into_bytes(), why })
}
