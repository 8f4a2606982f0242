//! A whole node from the one setting: messenger, rendezvous and router.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::time::Duration;

use super::api::Rendezvous;
use super::servers::ServerList;
use super::setup::{OnFrozen, RendezvousBuilder, SetupError};
use super::standing::Standing;
use crate::rendezvous::words::{Ask, Told};
use crate::router::{Node, NodeBuilder};
use crate::{Builder, ContactError, HandlerError, Messenger, StartError};

/// Why a node has not joined. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The list of servers, or another setting, is wrong.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The messenger does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The messenger has a node, or follows a rendezvous, already.
    #[error(transparent)]
    Handler(#[from] HandlerError),
    /// No server answered in time.
    #[error("no rendezvous server answered for {within:?}; the last one tried, {address}: {why}")]
    NoServer {
        /// For how long.
        within: Duration,
        /// The last one that was tried.
        address: String,
        /// What came of it.
        why: String,
    },
    /// The servers do not let this node in.
    #[error("the rendezvous does not let this node in: {0}")]
    Refused(String),
    /// A server answered, but no leader let this node in, in time.
    #[error(
        "no leader of the rendezvous let this node in for {within:?}: a majority of its servers must run and reach each other"
    )]
    NoLeader {
        /// For how long.
        within: Duration,
    },
    /// The node was closed meanwhile.
    #[error("the node was closed while it joined")]
    Closed,
}

/// After how long a node that has never joined gives up.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How long a server has to answer which network it is.
const ANSWER: Duration = Duration::from_secs(3);
/// Between two rounds over servers that do not answer: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A node that has joined a network by its rendezvous: messenger, rendezvous and router in one. It is a [`Node`], by
/// dereference. Cheap to clone; the last clone, with the hubs and hosts made of it, closes it without a goodbye: see
/// [`Joined::leave`].
#[derive(Clone, Debug)]
pub struct Joined {
    node: Node,
    rendezvous: Rendezvous,
}

impl Deref for Joined {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Joined {
    /// How it stands with its servers, leases, members.
    #[must_use]
    pub const fn rendezvous(&self) -> &Rendezvous {
        &self.rendezvous
    }

    /// The router's side of it.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Waits until all routes of hosts that were started so far are known to the servers. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`NotRegistered`](super::NotRegistered).
    pub async fn registered(&self) -> Result<(), super::NotRegistered> {
        self.rendezvous.registered().await
    }

    /// Leaves in order: its routes go from every node, what was sent here before is handled, the servers decide that it has
    /// left and tell everybody, and the messenger says goodbye. Ends within `deadline` and some: what is not done then is not
    /// waited for. Cancelled, it has begun to leave; call it again.
    pub async fn leave(&self, deadline: Duration) {
        let messenger = self.node.messenger();
        let until = messenger.now() + deadline;
        let idle = async {
            self.rendezvous.withdraw().await;
            while self.node.open() != (0, 0, 0) {
                tokio::time::sleep(IDLE_CHECK).await;
            }
        };
        if tokio::time::timeout(deadline / 2, idle).await.is_err() {
            tracing::warn!(open = ?self.node.open(), "what is under way is not waited for any longer");
        }
        self.rendezvous.leave(until.saturating_duration_since(messenger.now())).await;
        self.node.close();
    }
}

/// How often it is looked whether a leaving node has still something to do.
const IDLE_CHECK: Duration = Duration::from_millis(5);

/// How a node is to join. Everything but the list of servers has a default.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `start`"]
pub struct JoinBuilder {
    servers: ServerList,
    rendezvous: RendezvousBuilder,
    messenger: Builder,
    node: NodeBuilder,
    bind: Option<String>,
    advertise: Vec<String>,
    environment: String,
    network: Option<String>,
    give_up: Duration,
}

impl JoinBuilder {
    fn new(servers: ServerList) -> Self {
        Self {
            rendezvous: RendezvousBuilder::new(servers.clone()),
            servers,
            messenger: Messenger::builder(),
            node: Node::builder(),
            bind: None,
            advertise: Vec::new(),
            environment: "development".to_owned(),
            network: None,
            give_up: GIVE_UP,
        }
    }

    /// How its messenger is to be: name, labels, certificates, times, bounds. What it says of addresses and the network does not
    /// count: see the other methods.
    pub fn messenger(mut self, messenger: Builder) -> Self {
        self.messenger = messenger;
        self
    }

    /// How its router is to be. What it says of its source does not count.
    pub fn router(mut self, node: NodeBuilder) -> Self {
        self.node = node;
        self
    }

    /// Where it listens, as [`Builder::bind`]. Default: any free port of every address.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.bind = Some(address.into());
        self
    }

    /// Where others reach it, as [`Builder::advertise`]. Default: the address by which it reaches its server, and the port that it
    /// listens on; so a node on the server's own machine that reaches it by 127.0.0.1 is not found by others.
    pub fn advertise(mut self, endpoint: impl Into<String>) -> Self {
        self.advertise.push(endpoint.into());
        self
    }

    /// The environment: that of the servers. Default `development`.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = environment.into();
        self
    }

    /// The network's name, which the servers must agree with. Default: whatever they say.
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.network = Some(network.into());
        self
    }

    /// After how long it gives up joining. Default 30 s. Once it has joined it never does.
    pub const fn give_up(mut self, after: Duration) -> Self {
        self.give_up = after;
        self
    }

    /// See [`RendezvousBuilder::silence`].
    pub fn silence(mut self, silence: Duration) -> Self {
        self.rendezvous = self.rendezvous.silence(silence);
        self
    }

    /// See [`RendezvousBuilder::frozen_after`].
    pub fn frozen_after(mut self, after: Duration) -> Self {
        self.rendezvous = self.rendezvous.frozen_after(after);
        self
    }

    /// See [`RendezvousBuilder::on_frozen`].
    pub fn on_frozen(mut self, policy: OnFrozen) -> Self {
        self.rendezvous = self.rendezvous.on_frozen(policy);
        self
    }

    /// Starts a messenger, joins, and routes. Dropping the future stops it all.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; nothing is left running.
    pub async fn start(self) -> Result<Joined, JoinError> {
        let (servers, rendezvous) = (self.servers.parse()?, self.rendezvous.clone().build()?);
        let asking = match &self.network {
            Some(network) => self.messenger.clone().network(&self.environment, network),
            None => self.messenger.clone().any_network(&self.environment),
        };
        let asking = asking.start().await?;
        let until = asking.now() + self.give_up;
        let asked = self.ask(&asking, &servers).await;
        asking.close().await;
        let asked = asked?;
        let mut messenger = self.messenger.clone().network(&self.environment, asked.network);
        // Whoever reached it by IPv4 is reached by it.
        let any = SocketAddr::new(
            match asked.local {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            },
            0,
        );
        messenger = messenger.bind(self.bind.clone().unwrap_or_else(|| any.to_string()));
        for endpoint in self.advertise.iter().cloned().chain(self.found(asked.local)) {
            messenger = messenger.advertise(endpoint);
        }
        let messenger = messenger.start().await?;
        let left = until.saturating_duration_since(messenger.now());
        match join(self.node, &messenger, &rendezvous, left, self.give_up).await {
            Ok(joined) => Ok(joined),
            Err(error) => {
                messenger.close().await;
                Err(error)
            }
        }
    }

    /// What is advertised if nothing else is said: never an address that nobody can dial.
    fn found(&self, local: IpAddr) -> Option<String> {
        self.advertise.is_empty().then(|| SocketAddr::new(local, 0).to_string())
    }

    /// Asks the servers, one after the other, which network this is; and by which address they are reached.
    async fn ask(&self, asking: &Messenger, servers: &[String]) -> Result<Asked, JoinError> {
        let (mut last, mut wait, mut refused) = ((String::new(), String::new()), AGAIN.0, 0);
        let asked = async {
            let mut at = super::shell::seed(asking.id()) as usize % servers.len().max(1);
            loop {
                for _ in servers {
                    let server = servers.get(at).cloned().unwrap_or_default();
                    at = (at + 1) % servers.len().max(1);
                    match ask_one(asking, &server).await {
                        Ok(asked) => return Ok(asked),
                        Err((for_good, why)) => {
                            refused = if for_good { refused + 1 } else { 0 };
                            last = (server, why);
                        }
                    }
                }
                if refused >= servers.len() {
                    // Every one of them: waiting does not mend it.
                    return Err(JoinError::Refused(last.1.clone()));
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGAIN.1);
            }
        };
        let asked = tokio::time::timeout(self.give_up, asked).await;
        asked.unwrap_or_else(|_late| {
            let (address, why) = last;
            Err(JoinError::NoServer { within: self.give_up, address, why })
        })
    }
}

/// What a server said.
struct Asked {
    network: String,
    /// The address of this side on the way to it.
    local: IpAddr,
}

/// `Err`: whether it is for good, and why.
async fn ask_one(asking: &Messenger, server: &str) -> Result<Asked, (bool, String)> {
    let contact = asking.contact_once(server).await.map_err(|error| {
        let for_good = matches!(error, ContactError::Refused { .. });
        (for_good, error.to_string())
    })?;
    let told = asking.request(&Ask::Network, contact.id(), ANSWER).await;
    let local = contact.local_address().map(|local| local.ip().to_canonical());
    match (told, local) {
        (Ok(Told::Network { network, .. }), Some(local)) => Ok(Asked { network, local }),
        (Ok(other), _) => Err((false, format!("{server} answers something else: {other:?}"))),
        (Err(error), _) => Err((false, format!("{server}: {error}"))),
    }
}

async fn join(
    node: NodeBuilder,
    messenger: &Messenger,
    rendezvous: &Rendezvous,
    left: Duration,
    within: Duration,
) -> Result<Joined, JoinError> {
    let node = node.source(rendezvous.clone()).start(messenger)?;
    match tokio::time::timeout(left, rendezvous.joined()).await {
        Ok(Ok(_me)) => Ok(Joined { node, rendezvous: rendezvous.clone() }),
        Ok(Err(_left)) => Err(JoinError::Closed),
        Err(_late) => Err(match &*rendezvous.standing().borrow() {
            Standing::Refused(why) => JoinError::Refused(why.clone()),
            _ => JoinError::NoLeader { within },
        }),
    }
}

impl Node {
    /// Joins the network of these rendezvous servers: the list of their addresses is the only setting. The messenger listens on
    /// a free port of every address, and advertises the address by which it reaches the server; environment `development`, the network is
    /// the servers'. See [`Node::joining`] for more.
    ///
    /// ```no_run
    /// use karere::router::Node;
    ///
    /// # async fn example() -> Result<(), karere::rendezvous::JoinError> {
    /// let node = Node::join("rdv1:7500,rdv2:7500,rdv3:7500").await?;
    /// let _hub = node.hub();
    /// node.leave(std::time::Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`JoinError`]; nothing is left running. It gives up after 30 s.
    pub async fn join(servers: impl Into<ServerList>) -> Result<Joined, JoinError> {
        Self::joining(servers).start().await
    }

    /// The same, with more to be said before [`JoinBuilder::start`].
    pub fn joining(servers: impl Into<ServerList>) -> JoinBuilder {
        JoinBuilder::new(servers.into())
    }
}

impl NodeBuilder {
    /// Routes over this messenger, and joins the network of this rendezvous, for those who bring both. For as long as it takes:
    /// whoever does not want that sets a time-out. The messenger must bind, or advertise an address.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; the messenger stays.
    pub async fn join(self, messenger: &Messenger, rendezvous: &Rendezvous) -> Result<Joined, JoinError> {
        join(self, messenger, rendezvous, Duration::MAX, Duration::MAX).await
    }
}
