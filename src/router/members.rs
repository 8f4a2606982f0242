//! Which nodes there are: members of the view; and what the messenger says of them.

use std::collections::BTreeSet;
use std::sync::Weak;

use super::node::Inner;
use crate::{Events, MemberId, PeerEvent};

/// Nodes are the members of the view, whatever it is.
pub(crate) async fn follow_views(inner: Weak<Inner>) {
    let mut known: BTreeSet<MemberId> = BTreeSet::new();
    let mut seen = None;
    loop {
        // Nothing here keeps the node, or its messenger, while it waits.
        let Some(other) = inner.upgrade().map(|inner| inner.messenger.view_other_than(seen)) else { return };
        let view = other.await;
        let Some(inner) = inner.upgrade() else { return };
        seen = view.as_ref().map(|view| view.id());
        let now_known: BTreeSet<MemberId> =
            view.iter().flat_map(|view| view.members()).map(|member| member.id).collect();
        let (me, joined) = (inner.messenger.id(), inner.messenger.member().joined);
        let reborn = inner.reborn(me);
        inner.act(|core, now| {
            if reborn {
                core.handle_reborn(now, me);
                known.clear();
            }
            core.set_me(joined);
            known.difference(&now_known).for_each(|gone| core.handle_node_down(now, *gone));
            now_known.difference(&known).for_each(|new| core.handle_node_up(now, *new));
        });
        known = now_known;
    }
}

/// What says that a node lost what it was sent, or is no more.
pub(crate) async fn follow_events(inner: Weak<Inner>, mut events: Events) {
    while let Some(event) = events.next().await {
        let Some(inner) = inner.upgrade() else { return };
        match event {
            PeerEvent::SessionLost { peer } => {
                inner.carrier.settle(&inner, peer, false);
                inner.act(|core, _| core.handle_session_lost(peer));
            }
            PeerEvent::Left { peer }
            | PeerEvent::Replaced { old: peer, .. }
            | PeerEvent::Expelled { by: peer } => {
                inner.act(|core, now| core.handle_node_down(now, peer));
            }
            _ => {}
        }
    }
}
