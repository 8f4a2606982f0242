//! Who is a peer. Only here is it decided, under one lock, so that the plug's task and the handlers agree.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::DownCause;
use super::peer::Peer;
use crate::{Kind, MemberId, Messenger, View};

/// What happened, beside what the messenger counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) interrupted: AtomicU64,
    pub(super) panics: AtomicU64,
}

#[derive(Debug)]
struct Held {
    peer: Arc<Peer>,
    /// A view held it.
    was_member: bool,
}

#[derive(Debug)]
struct Inner {
    /// Whom the peers know: another one after the messenger became another member.
    me: MemberId,
    closed: bool,
    peers: HashMap<MemberId, Held>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) messenger: Messenger,
    pub(super) kind: Kind,
    pub(super) counts: Counts,
    inner: Mutex<Inner>,
}

/// What is to be done, once the table is not locked any more.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// `Up` is due.
    pub(super) came: Vec<Arc<Peer>>,
    /// To be parted with.
    pub(super) went: Vec<Arc<Peer>>,
}

impl Table {
    pub(super) fn new(messenger: Messenger, kind: Kind) -> Self {
        let inner = Inner { me: messenger.id(), closed: false, peers: HashMap::new() };
        Self { messenger, kind, counts: Counts::default(), inner: Mutex::new(inner) }
    }

    fn is_wanted(&self, id: MemberId, view: Option<&View>) -> bool {
        let may_speak = self.kind.is_open() || view.is_some_and(|view| view.contains(id));
        may_speak && self.messenger.knows(id) && id != self.messenger.id()
    }

    /// The peer; a new one if it is none yet and may be one.
    pub(super) fn admit(&self, id: MemberId) -> Option<Arc<Peer>> {
        let mut inner = self.inner.lock();
        if let Some(held) = inner.peers.get(&id) {
            return Some(Arc::clone(&held.peer));
        }
        let view = self.messenger.view();
        if inner.closed || !self.is_wanted(id, view.as_deref()) {
            return None;
        }
        let was_member = view.is_some_and(|view| view.contains(id));
        let peer = Arc::new(Peer::new(id));
        inner.peers.insert(id, Held { peer: Arc::clone(&peer), was_member });
        Some(peer)
    }

    /// Compares with the view and the sessions as they are now. `met`: who may be there beside the view's members.
    pub(super) fn compare(&self, met: impl IntoIterator<Item = MemberId>) -> Changes {
        let mut changes = Changes::default();
        let mut inner = self.inner.lock();
        if inner.closed {
            return changes;
        }
        let view = self.messenger.view();
        let me = self.messenger.id();
        let is_another = std::mem::replace(&mut inner.me, me) != me;
        for (id, held) in &mut inner.peers {
            let in_view = view.as_ref().is_some_and(|view| view.contains(*id));
            held.was_member |= in_view;
            if is_another || !self.is_wanted(*id, view.as_deref()) {
                let cause = match (&view, held.was_member) {
                    _ if is_another => DownCause::Expelled,
                    (None, true) => DownCause::Expelled,
                    (Some(_), true) if !in_view => DownCause::Removed,
                    _ => DownCause::Left,
                };
                if held.peer.note_gone(cause) {
                    changes.went.push(Arc::clone(&held.peer));
                }
            }
        }
        let members = view.iter().flat_map(|view| view.others(me));
        for id in members.chain(met) {
            let Entry::Vacant(place) = inner.peers.entry(id) else { continue };
            if self.is_wanted(id, view.as_deref()) {
                let peer = Arc::new(Peer::new(id));
                let was_member = view.as_ref().is_some_and(|view| view.contains(id));
                place.insert(Held { peer: Arc::clone(&peer), was_member });
                changes.came.push(peer);
            }
        }
        changes
    }

    /// A peer's session has ended, as an event says. The peer, if it is one no more by that.
    pub(super) fn note_ended(&self, id: MemberId, hint: DownCause) -> Option<Arc<Peer>> {
        let inner = self.inner.lock();
        let held = inner.peers.get(&id)?;
        let view = self.messenger.view();
        let in_view = view.as_ref().is_some_and(|view| view.contains(id));
        // A member's session that ended before the view held it is of no interest any more.
        if in_view && self.messenger.knows(id) {
            return None;
        }
        let cause = match view {
            None if held.was_member => DownCause::Expelled,
            Some(_) if held.was_member && !in_view => DownCause::Removed,
            Some(_) | None => hint,
        };
        held.peer.note_gone(cause).then(|| Arc::clone(&held.peer))
    }

    pub(super) fn get(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.inner.lock().peers.get(&id).map(|held| Arc::clone(&held.peer))
    }

    /// It is down, and the router knows.
    pub(super) fn forget(&self, peer: &Arc<Peer>) {
        let mut inner = self.inner.lock();
        if inner.peers.get(&peer.id).is_some_and(|held| Arc::ptr_eq(&held.peer, peer)) {
            inner.peers.remove(&peer.id);
        }
    }

    /// Nobody comes any more. Who is there still.
    pub(super) fn close(&self) -> Vec<Arc<Peer>> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.peers.values().map(|held| Arc::clone(&held.peer)).collect()
    }

    /// Of whom the router knows, in the order of their ids.
    pub(super) fn up(&self) -> Vec<MemberId> {
        let inner = self.inner.lock();
        let mut up: Vec<_> =
            inner.peers.iter().filter(|(_, held)| held.peer.is_up()).map(|(id, _)| *id).collect();
        up.sort_unstable();
        up
    }
}
