//! Views: one is installed for all peers at once, and who left holds nothing from then on.

use std::sync::Arc;

use super::{Driver, Registry, clock};
use crate::member::{Member, MemberId, View, ViewId};
use crate::peer::{Gone, Introduction, ViewChange, ViewError};
use crate::session::Cause;

impl Driver {
    /// Installs a view. When this returns nothing more is taken for those who left, and everything is for those who
    /// joined; sockets and queues of those who left go in the next turns of their tasks.
    pub(crate) fn install_view(self: &Arc<Self>, view: View) -> Result<ViewChange, ViewError> {
        let mut registry = self.registry.lock();
        if registry.closed {
            return Err(ViewError::Closed("it is going away"));
        }
        let me = self.me();
        let before = registry.roster.view().cloned();
        let id = view.id();
        let mine = view.member(me.member.id).and_then(|member| member.joined);
        // Whoever waits looks once the registry is free.
        self.viewed.notify_waiters();
        match registry.roster.install(me.member.id, view) {
            Ok(change) => {
                let joined = me.member.joined.or(mine).or(Some(id));
                let member = Member { joined, ..me.member.clone() };
                self.tell(&registry, Introduction { member, view: Some(id), ..Introduction::clone(&me) });
                self.let_in(&registry, &change);
                self.let_go(&registry, &change.left);
                Ok(change)
            }
            Err(error @ ViewError::Expelled { .. }) => {
                let others: Vec<_> = before.iter().flat_map(|before| before.others(me.member.id)).collect();
                for other in &others {
                    registry.roster.note_gone(*other, Gone::Shunned);
                }
                self.let_go(&registry, &others);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The view that is installed.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.registry.lock().roster.view().cloned()
    }

    /// Waits until the view that is installed is not the one with this id.
    pub(crate) async fn view_other_than(&self, id: Option<ViewId>) -> Option<Arc<View>> {
        let mut changed = std::pin::pin!(self.viewed.notified());
        loop {
            // Before the look, so that no change falls between.
            changed.as_mut().enable();
            let view = self.view();
            if view.as_ref().map(|view| view.id()) != id {
                return view;
            }
            changed.as_mut().await;
            changed.set(self.viewed.notified());
        }
    }

    /// From now on hellos say this, and each peer knows its seat.
    fn tell(&self, registry: &Registry, me: Introduction) {
        let me = Arc::new(me);
        self.me.store(Arc::clone(&me));
        for handle in self.peers() {
            handle.note_view(Arc::clone(&me), registry.roster.seat(handle.id));
        }
    }

    /// At once, so that what is sent to them next is not judged by the view before.
    fn let_in(&self, registry: &Registry, change: &ViewChange) {
        let now = clock::now();
        let first = change.joined.contains(&self.me().member.id);
        let others = registry.roster.view().into_iter().flat_map(|view| view.members());
        let joined = others.map(|member| member.id).filter(|id| first || change.joined.contains(id));
        for handle in joined.filter_map(|id| self.peer(id)) {
            let mut peer = handle.peer.lock();
            if let Some((me, seat)) = handle.take_view() {
                peer.handle_view(now, me, seat);
            }
            drop(peer);
            handle.doorbell.ring();
        }
    }

    /// Takes nothing more for them and wakes whoever waits; the rest is their tasks' to do, which were rung.
    fn let_go(&self, registry: &Registry, left: &[MemberId]) {
        left.iter().for_each(|id| self.partings.end(*id));
        for handle in left.iter().filter_map(|id| self.peer(*id)) {
            handle.intake.lock().close(Cause::Departed);
            handle.note_view(self.me(), registry.roster.seat(handle.id));
        }
    }

    /// This process is another member from now on: every session ends, contacts begin anew, no view is installed.
    pub(crate) fn reincarnate(self: &Arc<Self>) -> Result<Member, Cause> {
        let mut registry = self.registry.lock();
        if registry.closed {
            return Err(Cause::Closed);
        }
        let old = self.me();
        let id = MemberId::from_parts(self.net.unix_millis(), clock::random());
        let member = Member { id, joined: None, ..old.member.clone() };
        self.me.store(Arc::new(Introduction {
            member: member.clone(),
            view: None,
            ..Introduction::clone(&old)
        }));
        registry.roster.begin_anew();
        self.viewed.notify_waiters();
        for handle in self.peers() {
            handle.peer.lock().abandon();
            handle.doorbell.ring();
        }
        self.renew_contacts(&mut registry, old.member.id, id);
        Ok(member)
    }

    /// Links to these are wanted, before anything is sent.
    pub(crate) fn preconnect(self: &Arc<Self>, members: impl IntoIterator<Item = MemberId>) {
        for handle in members.into_iter().filter_map(|id| self.peer_wanted(id)) {
            handle.peer.lock().preconnect(clock::now());
            handle.doorbell.ring();
        }
    }
}
