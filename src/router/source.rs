//! Which nodes there are, and who tells of their routes: views and the routers themselves, a static list of addresses, or
//! somebody else ([`RouteSource`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::envelope::RouteRecord;
use super::key::MessageKey;
use super::node::Inner;
use crate::{Contact, Events, MemberId, Messenger, PeerEvent};

/// A route: a host of a node takes messages with this key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Route {
    /// What it takes.
    pub key: MessageKey,
    /// Which host of the node, from 1.
    pub host: u32,
}

/// This node's own routes have changed; those that are local are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteChange {
    /// New ones.
    pub added: Vec<Route>,
    /// Those that are no more.
    pub removed: Vec<Route>,
}

/// Who knows which nodes there are and what they handle. See [`Views`], the default, and [`StaticList`].
pub trait RouteSource: Send + Sync + 'static {
    /// The node begins: from now on what is learnt is told to `routes`. Must not wait; what takes time is spawned by
    /// [`Messenger::spawn`], and ends with [`Routes::closed`].
    fn start(self: Arc<Self>, messenger: &Messenger, routes: Routes);

    /// Whether routers tell each other their routes, by themselves. If not, [`RouteSource::announce`] is called instead.
    fn exchange(&self) -> bool {
        true
    }

    /// This node's own routes have changed. In their order. Must not wait, nor do anything with the node.
    fn announce(&self, change: RouteChange) {
        drop(change);
    }
}

/// By which a source tells a node what it has learnt. Does not keep the node: when that is gone, nothing happens.
#[derive(Clone, Debug)]
pub struct Routes {
    inner: Weak<Inner>,
    closed: tokio_util::sync::CancellationToken,
}

impl Routes {
    pub(crate) const fn new(inner: Weak<Inner>, closed: tokio_util::sync::CancellationToken) -> Self {
        Self { inner, closed }
    }

    /// A node may be sent to.
    pub fn node_up(&self, node: MemberId) {
        self.act(|inner| inner.act(|core, now| core.handle_node_up(now, node)));
    }

    /// A node is no more: its routes go, what it had is looked after.
    pub fn node_down(&self, node: MemberId) {
        self.act(|inner| inner.act(|core, now| core.handle_node_down(now, node)));
    }

    /// These are all routes of a node. They count once it is up.
    pub fn replace(&self, node: MemberId, routes: impl IntoIterator<Item = Route>) {
        let add = routes.into_iter().map(record).collect();
        self.act(|inner| inner.act(|core, now| core.handle_routes(now, node, true, add, &[])));
    }

    /// Routes of a node have changed.
    pub fn change(&self, node: MemberId, change: RouteChange) {
        let add = change.added.into_iter().map(record).collect();
        let remove: Vec<_> = change.removed.iter().map(|route| (route.key.id(), route.host)).collect();
        self.act(|inner| inner.act(|core, now| core.handle_routes(now, node, false, add, &remove)));
    }

    /// The messenger of this node is another member now, or has joined: who it is, is read from it. To be said before nodes are
    /// up that are so for the new one only; those of before are down for it.
    pub fn self_changed(&self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let (me, joined) = (inner.messenger.id(), inner.messenger.member().joined);
        let reborn = inner.reborn(me);
        inner.act(|core, now| {
            if reborn {
                core.handle_reborn(now, me);
            }
            core.set_joined(joined);
        });
    }

    /// Waits until the node is gone or closed. Cancel safe.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn act(&self, act: impl FnOnce(&Arc<Inner>)) {
        if let Some(inner) = self.inner.upgrade() {
            act(&inner);
        }
    }
}

fn record(Route { key, host }: Route) -> RouteRecord {
    RouteRecord { key, host }
}

/// Nodes are the members of the messenger's view; they tell each other their routes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Views;

impl RouteSource for Views {
    fn start(self: Arc<Self>, messenger: &Messenger, routes: Routes) {
        messenger.spawn(follow_views(routes));
    }
}

async fn follow_views(routes: Routes) {
    let mut known: BTreeSet<MemberId> = BTreeSet::new();
    let mut seen = None;
    loop {
        // Nothing here keeps the node, or its messenger, while it waits.
        let Some(other) = routes.inner.upgrade().map(|inner| inner.messenger.view_other_than(seen)) else {
            return;
        };
        let Some(view) = routes.closed.run_until_cancelled(other).await else { return };
        let Some(inner) = routes.inner.upgrade() else { return };
        seen = view.as_ref().map(|view| view.id());
        let there: BTreeSet<MemberId> =
            view.iter().flat_map(|view| view.members()).map(|member| member.id).collect();
        let (me, joined) = (inner.messenger.id(), inner.messenger.member().joined);
        let reborn = inner.reborn(me);
        inner.act(|core, now| {
            if reborn {
                core.handle_reborn(now, me);
                known.clear();
            }
            core.set_joined(joined);
            known.difference(&there).for_each(|gone| core.handle_node_down(now, *gone));
            there.difference(&known).for_each(|new| core.handle_node_up(now, *new));
        });
        known = there;
    }
}

/// Nodes are at these addresses; they tell each other their routes. For networks without views
/// ([`NodeBuilder::without_views`](super::NodeBuilder::without_views)): a node that is not reached for
/// [`Timeouts::unreachable`](crate::Timeouts) counts as gone, and is looked for again.
#[derive(Debug, Default)]
pub struct StaticList {
    addresses: Vec<String>,
}

impl StaticList {
    /// Of these. A node's own address may be among them.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self { addresses: addresses.into_iter().map(Into::into).collect() }
    }
}

/// How long after a search that failed the next begins.
const AGAIN: Duration = Duration::from_millis(200);

/// Where contacts are looked for again, by whom they were with.
type Met = Arc<Mutex<BTreeMap<MemberId, Arc<tokio::sync::Notify>>>>;

impl RouteSource for StaticList {
    fn start(self: Arc<Self>, messenger: &Messenger, routes: Routes) {
        let met = Met::default();
        for address in &self.addresses {
            let seeking = seek(messenger.clone(), routes.clone(), address.clone(), Arc::clone(&met));
            messenger.spawn(with_node(routes.clone(), seeking));
        }
        messenger.spawn(with_node(routes.clone(), lose(routes, messenger.events(), met)));
    }
}

async fn with_node(routes: Routes, task: impl Future<Output = ()>) {
    let _closed = routes.closed.run_until_cancelled(task).await;
}

/// Keeps a contact to whoever is at an address.
async fn seek(messenger: Messenger, routes: Routes, address: String, met: Met) {
    loop {
        let contact: Contact = match messenger.contact(&address).await {
            Ok(contact) => contact,
            Err(error) => {
                tracing::debug!(address, %error, "no node there yet");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let id = contact.id();
        if id == messenger.id() {
            return;
        }
        let gone = Arc::clone(met.lock().entry(id).or_default());
        let since = messenger.now();
        routes.node_up(id);
        gone.notified().await;
        met.lock().remove(&id);
        routes.node_down(id);
        // With it go the session and what waits in it, so that what it had is told.
        drop(contact);
        // Who is about to leave is found there as long as it drains.
        if messenger.now().saturating_duration_since(since) < AGAIN {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Tells who keeps a contact that it is over, and notices that this node has become another: its contacts stay, and begin anew.
async fn lose(routes: Routes, mut events: Events, met: Met) {
    while let Some(event) = events.next().await {
        routes.act(|inner| {
            let me = inner.messenger.id();
            if inner.reborn(me) {
                let all: Vec<MemberId> = met.lock().keys().copied().collect();
                inner.act(|core, now| {
                    core.handle_reborn(now, me);
                    all.into_iter().for_each(|id| core.handle_node_up(now, id));
                });
            }
        });
        let peer = match event {
            PeerEvent::Left { peer }
            | PeerEvent::Unreachable { peer, .. }
            | PeerEvent::Replaced { old: peer, .. } => peer,
            _ => continue,
        };
        if let Some(gone) = met.lock().get(&peer) {
            gone.notify_one();
        }
    }
}

/// What says that a node lost what it was sent, or is no more.
pub(crate) async fn follow_events(inner: Weak<Inner>, mut events: Events) {
    while let Some(event) = events.next().await {
        let Some(inner) = inner.upgrade() else { return };
        match event {
            PeerEvent::Disconnected { peer, .. } => inner.carrier.unlinked(peer),
            PeerEvent::SessionLost { peer } => {
                inner.carrier.settle(&inner, peer, false);
                inner.act(|core, _| core.handle_session_lost(peer));
            }
            PeerEvent::Left { peer }
            | PeerEvent::Replaced { old: peer, .. }
            | PeerEvent::Expelled { by: peer } => {
                inner.act(|core, now| core.handle_node_down(now, peer));
                // Also of one that was never known here, and was answered.
                inner.carrier.forget(peer);
            }
            _ => {}
        }
    }
}
