//! Peers come and go.

use std::sync::Arc;

use parking_lot::Mutex;

use super::net::BoxConn;
use super::peer_task::PeerTask;
use super::{Driver, Inbound, Incoming, Nobody, PeerHandle, Peers, Registry, acceptor, clock};
use crate::limits::LEASES_MAX;
use crate::member::MemberId;
use crate::peer::{DatagramStats, Peer, PeerEvent, PeerOutput, Standing};
use crate::session::{Account, Accounts, Cause, Intake};
use crate::wire::Reject;

/// Sums over peers that are gone, so that nothing disappears from the books.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Past {
    pub(crate) queued: u64,
    pub(crate) accounts: Accounts,
    pub(crate) datagrams: DatagramStats,
    pub(crate) links: u64,
}

impl Past {
    pub(super) fn add(&mut self, peer: &Peer) {
        let (queued, pending, accounts) = peer.session().books();
        debug_assert_eq!(pending, 0, "an ended session holds nothing");
        self.queued += queued;
        self.accounts.add(&accounts);
        self.datagrams.add(&peer.datagrams().stats());
        self.links += peer.links().0;
    }
}

impl Driver {
    /// The peer, if there is one.
    #[inline]
    pub(crate) fn peer(&self, id: MemberId) -> Option<Arc<PeerHandle>> {
        self.peers.load().get(&id).cloned()
    }

    /// Does something with the peer, if there is one, without taking a share of it.
    #[inline]
    pub(crate) fn with_peer<T>(&self, id: MemberId, act: impl FnOnce(&PeerHandle) -> T) -> Option<T> {
        self.peers.load().get(&id).map(|handle| act(handle))
    }

    /// All peers, in the order of their ids: what is done to each of them is done alike when a seed is replayed.
    pub(crate) fn peers(&self) -> Vec<Arc<PeerHandle>> {
        let mut peers: Vec<_> = self.peers.load().values().cloned().collect();
        peers.sort_unstable_by_key(|handle| handle.id);
        peers
    }

    /// The peer, made if need be. The registry's lock is held, so that it cannot be forgotten meanwhile.
    pub(super) fn peer_or_new(self: &Arc<Self>, registry: &Registry, id: MemberId) -> Arc<PeerHandle> {
        // One that has ended is being forgotten by its task: who is wanted from now on is another.
        if let Some(handle) = self.peer(id).filter(|handle| !handle.peer.lock().has_ended()) {
            return handle;
        }
        let account = Account::new(Arc::clone(&self.budget));
        let intake = Arc::new(Mutex::new(Intake::new(account, Arc::clone(&self.buffers))));
        let types = self.types.load_full();
        let peer = Peer::new(self.surroundings(), id, Arc::clone(&intake), types, clock::seed())
            .with_seat(registry.roster.seat(id));
        let handle = Arc::new(PeerHandle::new(id, intake, peer));
        self.update(|peers| peers.insert(id, Arc::clone(&handle)));
        let inbound = match self.application.get() {
            Some(application) => application.attach(&handle),
            None => Box::new(Nobody),
        };
        // Its timers are this runtime's, also when a thread that is in none, or in another, sends the first message.
        let _runtime = self.runtime.enter();
        let mut task = PeerTask::new(Arc::clone(self), Arc::clone(&handle), inbound);
        if id == self.me().member.id {
            task = task.loop_back();
        }
        self.spawn(task.run());
        handle
    }

    pub(super) fn update<T>(&self, change: impl Fn(&mut Peers) -> T) {
        self.peers.rcu(|peers| {
            let mut peers = Peers::clone(peers);
            change(&mut peers);
            peers
        });
    }

    /// Forgets a peer that nothing holds, unless something came up meanwhile. Its accounts are kept.
    pub(super) fn forget(self: &Arc<Self>, handle: &Arc<PeerHandle>, inbound: &mut dyn Inbound) -> bool {
        let mut registry = self.registry.lock();
        let mut peer = handle.peer.lock();
        if !peer.is_over() || (handle.has_incoming() && !registry.closed) {
            return false;
        }
        peer.end(Cause::Closed);
        while let Some(output) = peer.poll_output() {
            match output {
                PeerOutput::SessionOver(over) => inbound.session_over(over, None),
                PeerOutput::Event(event) => self.event(event),
                PeerOutput::Deliver { .. }
                | PeerOutput::Datagram(_)
                | PeerOutput::Answered(_)
                | PeerOutput::Reserve { .. }
                | PeerOutput::Close { .. }
                | PeerOutput::Replaced { .. } => {}
            }
        }
        self.update(|peers| {
            if peers.get(&handle.id).is_some_and(|held| Arc::ptr_eq(held, handle)) {
                peers.remove(&handle.id);
            }
        });
        registry.gone.add(&peer);
        if let Some(why) = peer.gone()
            && peer.is_of(self.me().member.id)
        {
            registry.roster.note_gone(handle.id, why);
        }
        handle.end_probes();
        self.forgotten.notify_waiters();
        if !registry.closed && self.peer(handle.id).is_none() {
            self.seek_others(&registry, handle.id);
        }
        true
    }

    /// Sums over peers that are gone.
    pub(crate) fn gone(&self) -> Past {
        self.registry.lock().gone
    }

    /// A connection that said hello. It comes back with a refusal when there are too many.
    pub(super) fn incoming(self: &Arc<Self>, incoming: Incoming) -> Result<(), (BoxConn, Box<Reject>)> {
        let mut registry = self.registry.lock();
        let id = incoming.hello.from.id;
        let seat = registry.roster.seat(id);
        if seat.judge(incoming.hello.from.joined) == Standing::Removed && self.peer(id).is_none() {
            return Err((incoming.conn, Box::new(seat.refusal(&self.me()))));
        }
        if let Some(old) = registry.roster.replaced_by(&incoming.hello.from) {
            self.event(PeerEvent::Replaced { old, new: id });
        }
        let known = self.peer(id).filter(|handle| !handle.peer.lock().has_ended());
        let full = self.peers.load().len() >= LEASES_MAX && self.peer(id).is_none();
        let handle = match known {
            // Also while this process leaves: what it drains may wait for just this link.
            Some(handle) => handle,
            None if full || registry.closed => return Err((incoming.conn, acceptor::busy(self))),
            None => self.peer_or_new(&registry, id),
        };
        handle.hand_over(incoming).map_err(|incoming| (incoming.conn, acceptor::busy(self)))
    }

    /// Whether it can be sent to, but for room: there is a session that goes on, or the view says that there would be.
    pub(crate) fn knows(&self, id: MemberId) -> bool {
        let registry = self.registry.lock();
        if registry.roster.seat(id).gone.is_some() {
            return false;
        }
        if let Some(handle) = self.peer(id) {
            let peer = handle.peer.lock();
            if !peer.has_ended() {
                return true;
            }
            // Its task has not told the roster yet.
            if peer.gone().is_some() && peer.is_of(self.me().member.id) {
                return false;
            }
        }
        !registry.closed && (registry.roster.is_member(id) || id == self.me().member.id)
    }

    /// Somebody who is sent to and whom nothing was sent to before: a member of the view, or this one itself. Their
    /// peers are made when they are first wanted.
    #[cold]
    pub(crate) fn peer_wanted(self: &Arc<Self>, id: MemberId) -> Option<Arc<PeerHandle>> {
        if let Some(handle) = self.peer(id) {
            return Some(handle);
        }
        let registry = self.registry.lock();
        let wanted = registry.roster.is_member(id) || id == self.me().member.id;
        (wanted && !registry.closed).then(|| self.peer_or_new(&registry, id))
    }
}
