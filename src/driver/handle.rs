//! What the process shares of a peer: producers, handlers and the peer's own task meet here.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;

use super::clock;
use super::doorbell::Doorbell;
use super::net::BoxConn;
use crate::member::MemberId;
use crate::peer::{Answered, Datagrams, Introduction, Peer, Seat};
use crate::session::{Handled, SharedIntake};
use crate::wire::Hello;

/// Connections that said hello to a peer and were not looked at yet.
const INCOMING_MAX: usize = 64;

/// A connection that said hello and means this process.
pub(crate) struct Incoming {
    pub(crate) conn: BoxConn,
    pub(crate) hello: Hello,
    /// What came behind the hello.
    pub(crate) rest: BytesMut,
}

/// See the module's text. The peer's lock is held for one turn of its task at a time, never across an await.
pub(crate) struct PeerHandle {
    pub(crate) id: MemberId,
    pub(crate) intake: SharedIntake,
    pub(crate) peer: Mutex<Peer>,
    pub(crate) doorbell: Doorbell,
    /// A view that was installed and that the peer was not told of yet.
    view: Mutex<Option<(Arc<Introduction>, Seat)>>,
    pub(crate) datagrams: Arc<Datagrams>,
    /// Which probes the peer has answered; `None`: it is gone, and answers none any more, though handlers of what it sent
    /// may still hold this.
    answered: Mutex<Option<watch::Sender<Answered>>>,
    /// What handlers are done with, merged by session and stream.
    handled: Mutex<SmallVec<[Handled; 4]>>,
    incoming: Mutex<Vec<Incoming>>,
    /// What the application keeps with a peer.
    pub(crate) extension: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl PeerHandle {
    pub(crate) fn new(id: MemberId, intake: SharedIntake, peer: Peer) -> Self {
        Self {
            id,
            intake,
            datagrams: Arc::clone(peer.datagrams()),
            answered: Mutex::new(Some(watch::Sender::default())),
            peer: Mutex::new(peer),
            doorbell: Doorbell::default(),
            view: Mutex::default(),
            handled: Mutex::default(),
            incoming: Mutex::default(),
            extension: OnceLock::new(),
        }
    }

    /// A view was installed; only the last one counts.
    pub(crate) fn note_view(&self, me: Arc<Introduction>, seat: Seat) {
        *self.view.lock() = Some((me, seat));
        self.doorbell.ring();
    }

    pub(crate) fn take_view(&self) -> Option<(Arc<Introduction>, Seat)> {
        self.view.lock().take()
    }

    /// Asks whether the peer is there: it is when the watch shows this number or a higher one. `None`: it has ended.
    pub(crate) fn probe(&self) -> Option<(watch::Receiver<Answered>, u64)> {
        let answered = self.answered.lock().as_ref()?.subscribe();
        let mut peer = self.peer.lock();
        if peer.has_ended() {
            return None;
        }
        let round = peer.probe(clock::now());
        drop(peer);
        self.doorbell.ring();
        Some((answered, round))
    }

    /// Tells those who probe.
    pub(super) fn tell_answered(&self, answered: Answered) {
        if let Some(told) = &*self.answered.lock() {
            told.send_replace(answered);
        }
    }

    /// The peer is forgotten: whoever probes it need not wait.
    pub(super) fn end_probes(&self) {
        drop(self.answered.lock().take());
    }

    /// A handler is done with something.
    pub(crate) fn note_handled(&self, done: Handled) {
        let mut handled = self.handled.lock();
        let same = |other: &&mut Handled| (other.epoch, other.stream) == (done.epoch, done.stream);
        match handled.iter_mut().find(same) {
            Some(other) => {
                other.records += done.records;
                other.bytes += done.bytes;
            }
            None => handled.push(done),
        }
        drop(handled);
        self.doorbell.ring();
    }

    pub(crate) fn take_handled(&self) -> SmallVec<[Handled; 4]> {
        std::mem::take(&mut *self.handled.lock())
    }

    /// Hands over a connection; it comes back when too many wait.
    #[expect(clippy::result_large_err, reason = "once a connection, and the error is what was handed over")]
    pub(crate) fn hand_over(&self, incoming: Incoming) -> Result<(), Incoming> {
        let mut waiting = self.incoming.lock();
        if waiting.len() >= INCOMING_MAX {
            return Err(incoming);
        }
        waiting.push(incoming);
        drop(waiting);
        self.doorbell.ring();
        Ok(())
    }

    pub(crate) fn take_incoming(&self) -> Vec<Incoming> {
        std::mem::take(&mut *self.incoming.lock())
    }

    pub(crate) fn has_incoming(&self) -> bool {
        !self.incoming.lock().is_empty()
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerHandle").field("id", &self.id).finish_non_exhaustive()
    }
}
