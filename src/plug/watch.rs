//! Tells the router of its peers, and gives it what comes: the plug's one task, its partings, and the handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::peer::{Due, Peer};
use super::table::{Changes, Table};
use super::{DownCause, PeerChange, Plugged, RouterTransport, Transport};
use crate::{Events, MemberId, PeerEvent};

/// Watches views and events until the messenger ends; then everyone is down.
pub(super) async fn run<R: RouterTransport>(closing: Closing<R>, mut events: Events) {
    let plugged = &closing.0;
    let messenger = plugged.table().messenger.clone();
    let (mut seen, mut missed, mut listens) = (messenger.view().map(|view| view.id()), 0, true);
    // What came between the first look and this one.
    plugged.look_again(true);
    loop {
        tokio::select! {
            view = messenger.view_other_than(seen) => {
                seen = view.map(|view| view.id());
                plugged.look_again(false);
            }
            event = events.next(), if listens => match event {
                Some(event) => plugged.note(&event),
                // The messenger ends, or too many listen: then views are all there is.
                None => listens = false,
            },
        }
        if events.missed() > missed {
            missed = events.missed();
            plugged.look_again(true);
        }
    }
}

/// However the messenger ends, everyone who is up is told to be down.
pub(super) struct Closing<R: RouterTransport>(pub(super) Arc<Plugged<R>>);

impl<R: RouterTransport> Drop for Closing<R> {
    fn drop(&mut self) {
        for peer in self.0.table().close() {
            peer.note_gone(DownCause::Closed);
            peer.end();
            peer.cut();
            self.0.settle(&peer);
        }
    }
}

/// Has the turn of a peer, and gives it back.
struct Turn<'a, R: RouterTransport> {
    plugged: &'a Arc<Plugged<R>>,
    peer: &'a Arc<Peer>,
}

impl<R: RouterTransport> Drop for Turn<'_, R> {
    fn drop(&mut self) {
        self.plugged.give_back(self.peer);
    }
}

/// Counts when it is dropped, unless it was finished.
struct Begun<'a>(Option<&'a AtomicU64>);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(interrupted) = self.0 {
            interrupted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<R: RouterTransport> Plugged<R> {
    fn table(&self) -> &Arc<Table> {
        &self.transport.table
    }

    /// A frame has come. Its credit comes back when this ends.
    pub(super) async fn handle(self: &Arc<Self>, from: MemberId, frame: Bytes) {
        let counts = &self.table().counts;
        loop {
            let Some(peer) = self.table().admit(from) else {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            };
            // One that is down is not in the table any more.
            if !peer.take_turn().await {
                continue;
            }
            let _turn = Turn { plugged: self, peer: &peer };
            if peer.is_new() {
                self.tell(peer.id, PeerChange::Up);
            }
            counts.delivered.fetch_add(1, Ordering::Relaxed);
            let mut begun = Begun(Some(&counts.interrupted));
            tokio::select! {
                biased;
                () = peer.until_cut() => {}
                () = self.router.on_message(&self.transport, from, frame) => begun.0 = None,
            }
            return;
        }
    }

    /// Compares with what is now. `thoroughly`: also sessions outside the view, which events would have told.
    pub(super) fn look_again(self: &Arc<Self>, thoroughly: bool) {
        let table = self.table();
        let mut met = Vec::new();
        if thoroughly && table.kind.is_open() {
            let peers = table.messenger.stats().peers;
            met.extend(peers.iter().filter(|peer| peer.is_connected).map(|peer| peer.peer));
        }
        let Changes { came, went } = table.compare(met);
        came.iter().for_each(|peer| self.settle(peer));
        went.into_iter().for_each(|peer| self.part(peer));
    }

    fn note(self: &Arc<Self>, event: &PeerEvent) {
        let table = self.table();
        match event {
            PeerEvent::Connected { peer } if table.kind.is_open() => self.look_at(*peer),
            PeerEvent::Replaced { old, new } => {
                if let Some(peer) = table.get(*old) {
                    peer.note_replaced(*new);
                }
            }
            PeerEvent::Left { peer } => self.ended(*peer, DownCause::Left),
            PeerEvent::Expelled { by } => self.ended(*by, DownCause::Expelled),
            // Conditions are for who judges members.
            _ => {}
        }
    }

    fn ended(self: &Arc<Self>, id: MemberId, hint: DownCause) {
        if let Some(peer) = self.table().note_ended(id, hint) {
            self.part(peer);
        }
    }

    fn look_at(self: &Arc<Self>, id: MemberId) {
        if let Some(peer) = self.table().admit(id) {
            self.settle(&peer);
        }
    }

    /// What was accepted from it comes first, if it comes in time.
    fn part(self: &Arc<Self>, peer: Arc<Peer>) {
        let plugged = Arc::clone(self);
        let messenger = self.table().messenger.clone();
        messenger.clone().spawn(async move {
            let drained = messenger.wait_handled_from(peer.id, plugged.table().kind, Transport::DRAIN).await;
            peer.end();
            plugged.settle(&peer);
            // Of a session that followed, a frame may be with the router.
            if !drained || tokio::time::timeout(Transport::DRAIN, peer.until_down()).await.is_err() {
                peer.cut();
            }
        });
    }

    /// Tells the router what is due, if nobody else does.
    fn settle(self: &Arc<Self>, peer: &Arc<Peer>) {
        if peer.try_take_turn() {
            self.give_back(peer);
        }
    }

    fn give_back(self: &Arc<Self>, peer: &Arc<Peer>) {
        while let Some(due) = peer.next_due() {
            if let Due::Tell(change) = due {
                self.tell(peer.id, change);
            }
            if matches!(due, Due::Nothing | Due::Tell(PeerChange::Down { .. })) {
                self.table().forget(peer);
            }
        }
        if peer.is_down() {
            // It may have come again.
            self.look_at(peer.id);
        }
    }

    fn tell(&self, peer: MemberId, change: PeerChange) {
        tracing::debug!(%peer, ?change, "plug");
        let call = || self.router.on_peer(&self.transport, peer, change);
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            self.table().counts.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%peer, ?change, "a router panicked over a peer");
        }
    }
}
