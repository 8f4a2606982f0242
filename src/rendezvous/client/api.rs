//! The handle by which a process follows its rendezvous.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::core::{Client, CoreConfig, LeaseNews, Output, Ticket};
use super::lease::{Lease, LeaseError, Want};
use super::servers::ServerList;
use super::setup::RendezvousBuilder;
use super::shell;
use super::standing::Standing;
use crate::rendezvous::common::Refused;
use crate::rendezvous::words::{Health, Ping, ToNode};
use crate::router::{RouteChange, RouteSource, Routes};
use crate::{HandlerError, Member, MemberId, Messenger, View};

/// Words of a server wait for their turn while so much is to be done; so its stream's credit is withheld.
const BACKLOG_MAX: usize = 256;

/// Why routes are not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRegistered {
    /// The servers do not take some of the routes that this node has now. The others are registered; these cannot be found by
    /// other nodes until they are removed and added again.
    #[error("some routes are not registered: {0}")]
    Refused(String),
    /// It has left, or was closed.
    #[error("the node has left its rendezvous")]
    Closed,
}

/// Follows the servers of a network: keeps this process a member, its messenger's view and its router's routes up to date, and
/// goes on with what it knows while no server is there. Cheap to clone; the last clone, and the last [`Lease`], ends it.
///
/// ```no_run
/// use karere::Messenger;
/// use karere::rendezvous::Rendezvous;
/// use karere::router::Node;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let rendezvous = Rendezvous::builder("rdv1:7500,rdv2:7500,rdv3:7500").build()?;
/// let messenger = Messenger::builder().bind("10.0.0.5:7400").start().await?;
/// let node = Node::builder().source(rendezvous.clone()).start(&messenger)?;
/// rendezvous.joined().await?;
/// // Hosts are started here; then:
/// rendezvous.registered().await?;
/// # drop(node);
/// rendezvous.leave(std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Rendezvous {
    pub(super) inner: Arc<Inner>,
    _alive: Arc<Alive>,
}

/// Ends the task when the last handle is gone.
struct Alive(CancellationToken);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(super) struct Inner {
    servers: Vec<String>,
    config: CoreConfig,
    core: Mutex<Option<Client>>,
    pub(super) messenger: OnceLock<Messenger>,
    /// Something has happened to the core.
    pub(super) bell: Notify,
    /// There is room for more words.
    pub(super) room: Notify,
    standing: watch::Sender<Standing>,
    /// How many announcements there were, how many are decided, and why not all routes are taken.
    progress: watch::Sender<(u64, u64, Option<Refused>)>,
    leases: Mutex<BTreeMap<Ticket, watch::Sender<Option<LeaseNews>>>>,
    pub(super) ended: CancellationToken,
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendezvous").field("servers", &self.inner.servers).finish_non_exhaustive()
    }
}

impl Rendezvous {
    /// How it is to be: one text with commas between the addresses of the servers, or a list of texts. See [`ServerList`].
    pub fn builder(servers: impl Into<ServerList>) -> RendezvousBuilder {
        RendezvousBuilder::new(servers.into())
    }

    pub(super) fn new(servers: Vec<String>, config: CoreConfig) -> Self {
        let ended = CancellationToken::new();
        let inner = Inner {
            servers,
            config,
            core: Mutex::new(None),
            messenger: OnceLock::new(),
            bell: Notify::new(),
            room: Notify::new(),
            standing: watch::Sender::new(Standing::Seeking),
            progress: watch::Sender::new((0, 0, None)),
            leases: Mutex::default(),
            ended: ended.clone(),
        };
        Self { inner: Arc::new(inner), _alive: Arc::new(Alive(ended)) }
    }

    /// Begins to follow the servers, for a process without a router: one with a router is begun by its node, whose
    /// [`source`](crate::router::NodeBuilder::source) this is. The messenger must bind, or advertise an address, and have views
    /// that are [`Agreed`](crate::Views::Agreed); the handle keeps it open.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]: something follows a rendezvous by this messenger already. Nothing has changed.
    pub fn start(&self, messenger: &Messenger) -> Result<(), HandlerError> {
        self.begin(messenger, None)
    }

    fn begin(&self, messenger: &Messenger, routes: Option<Routes>) -> Result<(), HandlerError> {
        let weak = Arc::downgrade(&self.inner);
        messenger.add_handler(move |from: MemberId, word: ToNode| {
            let inner = weak.upgrade();
            async move {
                if let Some(inner) = inner {
                    inner.take_word(from, word).await;
                }
            }
        })?;
        let weak = Arc::downgrade(&self.inner);
        messenger.add_handler(move |from: MemberId, ping: Ping| {
            if let Some(inner) = weak.upgrade() {
                inner.answer_ping(from, ping);
            }
            async {}
        })?;
        let seed = shell::seed(messenger.id());
        let Inner { servers, config, .. } = &*self.inner;
        let now = messenger.now();
        let client = Client::new(*config, servers.clone(), messenger.member(), now, seed);
        if self.inner.messenger.set(messenger.clone()).is_ok() {
            *self.inner.core.lock() = Some(client);
            messenger.spawn(shell::run(Arc::clone(&self.inner), messenger.clone(), routes));
        }
        Ok(())
    }

    /// How this node stands; follow it by [`changed`](watch::Receiver::changed). Of what changes quickly only the last may be seen.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.subscribe()
    }

    /// Waits until this node is a member and has installed a view, and says which member it is. For as long as it takes: whoever
    /// does not want that sets a time-out. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`NotRegistered::Closed`]: it has left, or was closed.
    pub async fn joined(&self) -> Result<Member, NotRegistered> {
        let mut standing = self.standing();
        let over = |standing: &Standing| standing.is_joined() || *standing == Standing::Left;
        let joined = standing.wait_for(over).await.is_ok_and(|standing| standing.is_joined());
        match self.inner.messenger.get() {
            Some(messenger) if joined => Ok(messenger.member()),
            Some(_) | None => Err(NotRegistered::Closed),
        }
    }

    /// The view that is installed.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.inner.messenger.get().and_then(Messenger::view)
    }

    /// The members of the view, this one among them, with their health as the leader said it last. Empty before there is a view.
    #[must_use]
    pub fn members(&self) -> Vec<(Member, Health)> {
        self.inner.core.lock().as_ref().map(Client::members).unwrap_or_default()
    }

    /// Waits until all routes that were announced so far are decided by the servers: from then on no loss of a server loses
    /// them, and every node learns them. While no leader is heard, it waits for one. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`NotRegistered`].
    pub async fn registered(&self) -> Result<(), NotRegistered> {
        let announced = self.inner.core.lock().as_ref().map_or(0, |core| core.routes().progress().0);
        let mut progress = self.inner.progress.subscribe();
        let decided = progress.wait_for(|(_, registered, _)| *registered >= announced);
        let decided = self.inner.ended.run_until_cancelled(decided).await;
        match decided {
            Some(Ok(progress)) => match &progress.2 {
                Some(why) => Err(NotRegistered::Refused(why.to_string())),
                None => Ok(()),
            },
            Some(Err(_)) | None => Err(NotRegistered::Closed),
        }
    }

    /// Waits until this node holds the named lease, which at most one member of the network does: behind those that hold it or
    /// wait for it already, also in this process. While no leader is heard, it waits for one. Cancel safe: a dropped future
    /// waits no more.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]; nothing is held.
    pub async fn acquire(&self, name: impl AsRef<str>) -> Result<Lease, LeaseError> {
        Want::new(&self.inner, name.as_ref(), true)?.granted().await
    }

    /// As [`Rendezvous::acquire`], but gives up if another member holds it. Waits for the leader's answer. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`LeaseError`], with [`LeaseError::Held`]; nothing is held.
    pub async fn try_acquire(&self, name: impl AsRef<str>) -> Result<Lease, LeaseError> {
        Want::new(&self.inner, name.as_ref(), false)?.granted().await
    }

    /// Takes this node out of the network in order: its routes go first, then the servers decide that it has left, and every
    /// node knows; then its messenger leaves. What is not done within `deadline` is not waited for; without a leader the others
    /// hear of it by its silence. Leases end. Cancelled, it has begun to leave; call it again.
    pub async fn leave(&self, deadline: Duration) {
        let Some(messenger) = self.inner.messenger.get() else { return };
        let until = messenger.now() + deadline;
        // Half of the time for the servers: the sessions with the others get the rest.
        let servers = async {
            self.withdraw().await;
            self.inner.act(Client::handle_leave);
            let mut standing = self.standing();
            let _over = standing.wait_for(|standing| *standing == Standing::Left).await;
        };
        let decided = self.inner.ended.run_until_cancelled(tokio::time::timeout(deadline / 2, servers)).await;
        if !matches!(decided, Some(Ok(()))) {
            tracing::warn!("the servers have not said that this node has left: they will find out");
        }
        messenger.leave(until.saturating_duration_since(messenger.now())).await;
        self.inner.end();
    }

    /// This node's routes go, everywhere, if a leader is heard. New ones are not announced any more.
    pub(super) async fn withdraw(&self) {
        let hears = self.inner.standing.borrow().is_joined();
        self.inner.act(Client::handle_withdraw);
        if hears {
            let _closed = self.registered().await;
        }
    }
}

/// What the simulation sees.
#[cfg(all(feature = "rendezvous", feature = "testing"))]
impl Rendezvous {
    /// All its routes, if the servers have said of all of them that they are decided.
    pub(crate) fn registered_routes(&self) -> Option<std::collections::BTreeSet<crate::router::Route>> {
        self.inner.core.lock().as_ref()?.routes().registered_routes()
    }

    /// Whose history this node goes by.
    pub(crate) fn cluster(&self) -> Option<crate::rendezvous::doors::ClusterId> {
        self.inner.core.lock().as_ref()?.cluster()
    }
}

impl RouteSource for Rendezvous {
    fn start(self: Arc<Self>, messenger: &Messenger, routes: Routes) {
        if let Err(error) = self.begin(messenger, Some(routes)) {
            tracing::error!(%error, "a rendezvous is followed by this messenger already");
            self.inner.standing.send_replace(Standing::Refused(error.to_string()));
        }
    }

    fn exchange(&self) -> bool {
        false
    }

    fn announce(&self, change: RouteChange) {
        self.inner.act(|core| core.handle_announce(change));
    }
}

impl Inner {
    /// Lets something happen to the core; what is to be done then, the task does.
    pub(super) fn act(&self, happen: impl FnOnce(&mut Client)) {
        if let Some(core) = &mut *self.core.lock() {
            happen(core);
        }
        self.bell.notify_one();
    }

    /// The next thing to be done.
    pub(super) fn next_output(&self, messenger: &Messenger) -> Option<Output> {
        self.core.lock().as_mut()?.poll_output(messenger.now())
    }

    /// When something is to happen though nothing is heard.
    pub(super) fn next_timeout(&self, messenger: &Messenger) -> Option<std::time::Instant> {
        self.core.lock().as_ref()?.poll_timeout(messenger.now())
    }

    async fn take_word(&self, from: MemberId, word: ToNode) {
        let Some(messenger) = self.messenger.get() else { return };
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // From here on no call is missed.
            room.as_mut().enable();
            if let Some(core) = &mut *self.core.lock()
                && core.backlog() < BACKLOG_MAX
            {
                core.handle_word(messenger.now(), from, word);
                break;
            }
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = room => {}
            }
        }
        self.bell.notify_one();
    }

    fn answer_ping(&self, from: MemberId, ping: Ping) {
        let Some(messenger) = self.messenger.get() else { return };
        let pong = self.core.lock().as_mut().and_then(|core| core.handle_ping(messenger.now(), from, ping));
        if let Some(pong) = pong {
            // Best effort, as the ping was.
            let _dropped = messenger.datagram(&pong, from, Duration::from_secs(1));
            self.bell.notify_one();
        }
    }

    /// Shows what the core has come to.
    pub(super) fn publish(&self) {
        let progress = self.core.lock().as_ref().map(|core| core.routes().progress());
        if let Some(progress) = progress {
            self.progress.send_if_modified(|shown| std::mem::replace(shown, progress.clone()) != progress);
        }
    }

    pub(super) fn show(&self, standing: Standing) {
        self.standing.send_replace(standing);
    }

    /// A want, and where its news come.
    pub(super) fn want(
        &self,
        name: &str,
        wait: bool,
    ) -> Result<(Ticket, watch::Receiver<Option<LeaseNews>>), LeaseError> {
        if self.ended.is_cancelled() {
            return Err(LeaseError::Closed);
        }
        let mut core = self.core.lock();
        let core = core.as_mut().ok_or(LeaseError::Closed)?;
        let ticket = core.acquire(name, wait)?;
        let (tell, news) = watch::channel(None);
        self.leases.lock().insert(ticket, tell);
        self.bell.notify_one();
        Ok((ticket, news))
    }

    pub(super) fn release(&self, name: &str, ticket: Ticket) {
        self.leases.lock().remove(&ticket);
        self.act(|core| core.release(name, ticket));
    }

    pub(super) fn tell_lease(&self, ticket: Ticket, news: LeaseNews) {
        if let Some(tell) = self.leases.lock().get(&ticket) {
            tell.send_replace(Some(news));
        }
    }

    /// Nothing is followed any more: whoever waits is told so.
    pub(super) fn end(&self) {
        self.ended.cancel();
        self.leases.lock().clear();
        self.show(Standing::Left);
    }
}
