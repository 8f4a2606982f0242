//! What the tasks of a server share: the messenger, the log, what was decided, and the desk while this server leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::admins::Admins;
use super::askers::Askers;
use super::desk::{Desk, DeskConfig, Order, Ordered};
use super::machine::Applied;
use super::standing::ServerStanding;
use crate::rendezvous::raft::{Log, Standing, Store};
use crate::rendezvous::state::{ClusterId, State};
use crate::rendezvous::words::reign;
use crate::{MemberId, Messenger};

/// While it may not speak though it leads, it looks again so often.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) messenger: Messenger,
    pub(super) log: Log,
    store: Store,
    pub(super) applied: Applied,
    pub(super) config: DeskConfig,
    pub(super) environment: String,
    pub(super) network: String,
    /// All its chance.
    pub(super) seed: u64,
    desk: Mutex<Option<Desk>>,
    /// Rings when the desk has something to do.
    pub(super) bell: Notify,
    /// Rings when who asked too much may ask again.
    pub(super) room: Notify,
    pub(super) standing: watch::Sender<ServerStanding>,
    pub(super) stop: CancellationToken,
    orders: Mutex<Orders>,
    pub(super) askers: Mutex<Askers>,
    pub(super) admins: Admins,
    pub(super) copies: Mutex<Copies>,
}

/// Who waits for the desk's answer.
#[derive(Debug, Default)]
struct Orders {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Ordered>>,
}

/// Snapshots that tools are fetching, the newest last.
#[derive(Debug, Default)]
pub(super) struct Copies(pub(super) Vec<(MemberId, Bytes)>);

impl Office {
    pub(super) fn new(
        messenger: Messenger,
        (log, store): (Log, Store),
        applied: Applied,
        config: DeskConfig,
        (environment, network): (String, String),
        admins: Admins,
        seed: u64,
    ) -> Self {
        // Whether it leads is seen in a moment.
        let standing = ServerStanding::of(&log.standing().borrow(), None);
        Self {
            messenger,
            log,
            store,
            applied,
            config,
            environment,
            network,
            seed,
            desk: Mutex::new(None),
            bell: Notify::new(),
            room: Notify::new(),
            standing: watch::Sender::new(standing),
            stop: CancellationToken::new(),
            orders: Mutex::default(),
            askers: Mutex::default(),
            admins,
            copies: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.messenger.now()
    }

    /// Does something at the desk, which knows how long it may speak; `None` where this server does not lead.
    pub(super) fn at_desk<T>(&self, act: impl FnOnce(&mut Desk, &State, Instant) -> T) -> Option<T> {
        let mut desk = self.desk.lock();
        let desk = desk.as_mut()?;
        let now = self.renew(desk);
        Some(act(desk, &self.applied.read(), now))
    }

    /// Tells a desk until when it may speak, and says what time it is.
    pub(super) fn renew(&self, desk: &mut Desk) -> Instant {
        let now = self.now();
        let lease = self.log.lease(now).filter(|lease| lease.term == desk.term());
        desk.handle_lease(now, lease.map(|lease| lease.until));
        now
    }

    /// The desk of this term, or none. Says to whom the one before has spoken.
    pub(super) fn set_desk(&self, desk: Option<Desk>) -> Vec<MemberId> {
        let before = std::mem::replace(&mut *self.desk.lock(), desk);
        // Whoever waits at the desk looks again, and tools are told.
        self.room.notify_waiters();
        self.orders.lock().waiting.clear();
        before.map(|desk| desk.audience()).unwrap_or_default()
    }

    /// The term of the desk, if there is one.
    pub(super) fn desk_term(&self) -> Option<u64> {
        self.desk.lock().as_ref().map(Desk::term)
    }

    /// The one that this server belongs to, as its disk knows it; who leads belongs to one.
    pub(super) fn cluster(&self) -> ClusterId {
        ClusterId(self.store.identity().cluster.unwrap_or_default())
    }

    /// Has something decided. `None`: this server does not lead, or not any more.
    pub(super) async fn order(&self, order: Order) -> Option<Ordered> {
        let (tell, told) = oneshot::channel();
        let number = {
            let mut orders = self.orders.lock();
            orders.next += 1;
            let number = orders.next;
            orders.waiting.insert(number, tell);
            number
        };
        let taken = self.at_desk(|desk, state, now| desk.handle_order(now, state, number, order));
        if taken.is_none() {
            self.orders.lock().waiting.remove(&number);
            return None;
        }
        self.bell.notify_one();
        told.await.ok()
    }

    pub(super) fn answer(&self, number: u64, how: Ordered) {
        if let Some(tell) = self.orders.lock().waiting.remove(&number) {
            let _gone = tell.send(how);
        }
    }

    /// As nodes are told of a term.
    pub(super) fn reign(&self, term: u64) -> u64 {
        reign(self.applied.read().view_id().generation, term)
    }

    /// Why this peer may not change anything of the cluster, if so.
    pub(super) fn refuses(&self, peer: MemberId) -> Option<String> {
        self.admins
            .are_named()
            .then(|| self.admins.refuses(self.messenger.name_of(peer).as_deref()))
            .flatten()
    }

    /// The term, and where the leader is, as far as this server knows.
    pub(super) fn leader(&self) -> (u64, Option<String>) {
        match &*self.log.standing().borrow() {
            Standing::Follower { term, leader } => (*term, leader.clone().map(|(_, address)| address)),
            Standing::Leader { term } => (*term, None),
            Standing::Founding { .. } | Standing::NotMember | Standing::Stopped { .. } => (0, None),
        }
    }
}
