//! Building and starting a server.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::admins::Admins;
use super::data::default_directory;
use super::desk::DeskConfig;
use super::handle::Server;
use super::listen::listen;
use super::machine::Applied;
use super::office::Office;
use super::run::run;
use super::times::{ServerTimes, TimesError};
#[cfg(feature = "tls")]
use crate::Tls;
use crate::rendezvous::raft::{Disk, Log, LogConfig, Names, OpenError, Store};
use crate::{Endpoint, EndpointError, HandlerError, Messenger, StartError, Timeouts, Views};

/// The port of a server, where none is given.
const BIND: &str = ":7500";
/// What a messenger takes where nothing is said of the network.
const ENVIRONMENT: &str = "development";
const NETWORK: &str = "default";

/// Why a server did not start. Nothing is left running; what is on the disk is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Its messenger did not start: the address cannot be bound, or its configuration contradicts itself.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Times that contradict each other.
    #[error(transparent)]
    Times(#[from] TimesError),
    /// An address of another server cannot be parsed.
    #[error("in the list of servers: {0}")]
    Peer(#[from] EndpointError),
    /// Nobody says where the others reach this server.
    #[error(
        "the other servers are to reach this one, and it was bound to {bound}, which is no address of one machine: say which \
         (`advertise`)"
    )]
    NoAddress {
        /// What was bound.
        bound: String,
    },
    /// There is no place to keep the log.
    #[error(
        "no data directory was given, and there is neither STATE_DIRECTORY nor HOME to choose one: give one (`data`)"
    )]
    NoDirectory,
    /// The data directory cannot be used: it belongs to another network, or is damaged, full, in use or refused. The text says what to do.
    #[error("{0}")]
    Data(String),
    /// The log does not begin. The text says why.
    #[error("{0}")]
    Log(String),
    /// Only certain peers are to change the cluster, and nothing proves who they are.
    #[error(
        "`admins` says whose certificates may change the cluster, and there are none without TLS: anybody could give such a name"
    )]
    NothingProves,
    /// The messenger has handlers of a server already.
    #[error(transparent)]
    Handlers(#[from] HandlerError),
}

/// Where the log is kept.
#[derive(Debug, Default)]
enum Keep {
    #[default]
    Default,
    Directory(PathBuf),
    Memory,
    /// Of a simulation, or one that fails.
    #[cfg(any(test, feature = "testing"))]
    Disk(Disk),
}

/// How a server is to be. Everything has a default; what contradicts itself is refused by [`ServerBuilder::start`].
#[derive(Debug)]
#[must_use = "nothing happens before `start`"]
pub struct ServerBuilder {
    messenger: crate::Builder,
    bind: String,
    advertise: Option<String>,
    environment: String,
    network: String,
    timeouts: Timeouts,
    times: ServerTimes,
    keep: Keep,
    peers: Vec<String>,
    join: bool,
    admins: Admins,
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            messenger: Messenger::builder().views(Views::None),
            bind: BIND.to_owned(),
            advertise: None,
            environment: ENVIRONMENT.to_owned(),
            network: NETWORK.to_owned(),
            timeouts: ServerTimes::messenger(),
            times: ServerTimes::default(),
            keep: Keep::Default,
            peers: Vec::new(),
            join: false,
            admins: Admins::default(),
        }
    }

    /// The directory of this server, and of no other: its vote, its log and its snapshots. It is made if it is not there.
    ///
    /// Default: `rendezvous/ENVIRONMENT.NETWORK` below `$STATE_DIRECTORY` (systemd), `$XDG_STATE_HOME/karere` or
    /// `~/.local/state/karere`. A server that comes back with another directory, or an emptied one, is another server.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.keep = Keep::Directory(directory.into());
        self
    }

    /// Keeps everything in memory: with the process the whole history is gone, and nodes that live through it are told so. For tests and
    /// for trying things out.
    pub fn in_memory(mut self) -> Self {
        self.keep = Keep::Memory;
        self
    }

    /// Where to listen, as for [`Builder::bind`](crate::Builder::bind). Default `:7500`.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.bind = address.into();
        self
    }

    /// Where nodes and the other servers reach this one, if that is not what was bound. Needed where any address is bound and there are
    /// other servers. It is kept in the log: a server that moves is removed and added again.
    pub fn advertise(mut self, endpoint: impl Into<String>) -> Self {
        self.advertise = Some(endpoint.into());
        self
    }

    /// The servers of the cluster, the same list on each of them; this one may be among them. Only the first start needs it: after that
    /// the log knows who they are. Without it the server is alone, and needs no quorum.
    pub fn peers(mut self, peers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.peers.extend(peers.into_iter().map(Into::into));
        self
    }

    /// Founds nothing with an empty directory, but waits to be added to a cluster that runs (`karere rendezvous add`).
    pub const fn join(mut self, join: bool) -> Self {
        self.join = join;
        self
    }

    /// Environment and network, as for [`Builder::network`](crate::Builder::network). Defaults: `development`, `default`. A data
    /// directory belongs to one of them for good.
    pub fn network(mut self, environment: impl Into<String>, network: impl Into<String>) -> Self {
        (self.environment, self.network) = (environment.into(), network.into());
        self
    }

    /// How its messenger is to be: name, labels, certificates, bounds. What it says of addresses, times, views and the network does not
    /// count: see the other methods.
    pub fn messenger(mut self, messenger: crate::Builder) -> Self {
        self.messenger = messenger.views(Views::None);
        self
    }

    /// A name for people and certificates, up to 255 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.messenger = self.messenger.name(name);
        self
    }

    /// Mutual TLS 1.3, as for [`Builder::tls`](crate::Builder::tls). Nodes and the other servers need it too.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.messenger = self.messenger.tls(tls);
        self
    }

    /// Who may change the cluster: add and remove servers, evict members, recover, fetch a snapshot. Peers whose name, which their
    /// certificate covers, is one of these; others are told so. With an empty list nobody may. Needs TLS.
    ///
    /// Without this, whoever reaches the servers may: with TLS all who have a certificate of the network, without TLS everybody.
    pub fn admins(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.admins = Admins::named(names);
        self
    }

    /// Times of the server; see [`ServerTimes`].
    pub const fn times(mut self, times: ServerTimes) -> Self {
        self.times = times;
        self
    }

    /// Times of its messenger; see [`Timeouts`]. Default: ping 1 s, liveness 3 s, redials at most 200 ms apart, the rest as everywhere.
    pub const fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The directory that it will keep its log in; `None` if that is memory, or there is none to choose.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        match &self.keep {
            #[cfg(any(test, feature = "testing"))]
            Keep::Disk(_) => None,
            Keep::Memory => None,
            Keep::Directory(path) => Some(path.clone()),
            Keep::Default => {
                default_directory(&self.environment, &self.network, |name| std::env::var_os(name))
            }
        }
    }

    /// Whether it could start, but for what only the system and the disk can say: nothing is bound or opened.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ServerError> {
        self.times.check(&self.timeouts)?;
        self.endpoints()?;
        self.configured().check().map_err(StartError::from)?;
        self.check_admins()?;
        let alone = self.peers.is_empty() && !self.join;
        match self.any_host() {
            Some(_any) if !alone && self.advertise.is_none() => {
                Err(ServerError::NoAddress { bound: self.bind.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Opens the log and starts. Returns when nodes are listened to; whether there is a leader, [`Server::standing`] says. All tasks run
    /// in the runtime this is called in. Cancelled, nothing is left running.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; nothing is left running, and what is on the disk is as it was.
    pub async fn start(self) -> Result<Server, ServerError> {
        self.start_in(crate::Builder::start).await
    }

    /// Starts in any network: `start` is what starts the messenger there.
    pub(crate) async fn start_in<F>(
        mut self,
        start: impl FnOnce(crate::Builder) -> F,
    ) -> Result<Server, ServerError>
    where
        F: Future<Output = Result<Messenger, StartError>>,
    {
        let desk = self.times.check(&self.timeouts)?;
        let peers = self.endpoints()?;
        self.check_admins()?;
        let disk = self.disk()?;
        let messenger = start(self.configured()).await?;
        match self.open(&messenger, disk, desk, peers).await {
            Ok((office, address)) => Ok(Server::new(office, address)),
            Err(why) => {
                messenger.close().await;
                Err(why)
            }
        }
    }
}

impl ServerBuilder {
    /// The other servers, each as it is written everywhere.
    fn endpoints(&self) -> Result<Vec<String>, EndpointError> {
        self.peers.iter().map(|peer| Ok(peer.parse::<Endpoint>()?.to_string())).collect()
    }

    fn check_admins(&self) -> Result<(), ServerError> {
        let proves = self.messenger.has_tls() || !self.admins.are_named();
        if proves { Ok(()) } else { Err(ServerError::NothingProves) }
    }

    fn configured(&self) -> crate::Builder {
        let messenger = self.messenger.clone().bind(&self.bind).timeouts(self.timeouts);
        let messenger = messenger.network(&self.environment, &self.network);
        match &self.advertise {
            Some(advertise) => messenger.advertise(advertise),
            None => messenger,
        }
    }

    /// The port, if any address is bound.
    pub(super) fn any_host(&self) -> Option<u16> {
        let (host, ports) = self.bind.rsplit_once(':')?;
        let any = host.is_empty() || ["0.0.0.0", "[::]"].contains(&host);
        any.then(|| ports.split('-').next()?.parse().ok()).flatten()
    }

    pub(super) fn names(&self) -> Names {
        Names { environment: self.environment.clone(), network: self.network.clone() }
    }

    pub(super) fn advertised(&self) -> Option<String> {
        self.advertise.clone()
    }

    pub(super) fn bound(&self) -> &str {
        &self.bind
    }

    /// Keeps it there.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "for the simulation")]
    pub(crate) fn on_disk(mut self, disk: Disk) -> Self {
        self.keep = Keep::Disk(disk);
        self
    }

    /// A disk that was handed in is handed out once.
    pub(super) fn disk(&mut self) -> Result<Disk, ServerError> {
        match &self.keep {
            #[cfg(any(test, feature = "testing"))]
            Keep::Disk(_) => match std::mem::take(&mut self.keep) {
                Keep::Disk(disk) => Ok(disk),
                Keep::Default | Keep::Directory(_) | Keep::Memory => Err(ServerError::NoDirectory),
            },
            Keep::Memory => Ok(Disk::of_backend(redb::backends::InMemoryBackend::new())),
            Keep::Directory(path) => Ok(Disk::in_directory(path)),
            Keep::Default => self.directory().map(Disk::in_directory).ok_or(ServerError::NoDirectory),
        }
    }

    /// Opens the log over a messenger that runs, and listens.
    async fn open(
        &self,
        messenger: &Messenger,
        disk: Disk,
        desk: DeskConfig,
        peers: Vec<String>,
    ) -> Result<(Arc<Office>, Endpoint), ServerError> {
        let address = self.address(messenger, peers.is_empty() && !self.join)?;
        let names = self.names();
        // Both are drawn anew at each start, from what makes this run's id unique.
        let chance = messenger.id().to_bytes();
        let (fresh_id, seed) = (half(&chance, 0) ^ half(&chance, 8), half(&chance, 8));
        let store =
            Store::open(disk, &names, fresh_id).await.map_err(|why| ServerError::Data(why.to_string()))?;
        let log = LogConfig {
            join: self.join,
            heartbeat: self.times.heartbeat,
            election_min: self.times.election_min,
            election_max: self.times.election_max,
            ..LogConfig::new(address.to_string(), peers)
        };
        let applied = Applied::default();
        let log =
            Log::open(messenger, store.clone(), applied.clone(), log, seed).await.map_err(
                |why| match why {
                    OpenError::Store(why) => ServerError::Data(why.to_string()),
                    OpenError::Handlers(why) => ServerError::Handlers(why),
                    why @ (OpenError::Config(_) | OpenError::Raft(_)) => ServerError::Log(why.to_string()),
                },
            )?;
        let names = (names.environment, names.network);
        let office = Arc::new(Office::new(
            messenger.clone(),
            (log, store),
            applied,
            desk,
            names,
            self.admins.clone(),
            seed,
        ));
        listen(&office)?;
        messenger.spawn(run(Arc::clone(&office)));
        Ok((office, address))
    }

    /// Where the others reach it. Alone, it need not be reached by other servers.
    fn address(&self, messenger: &Messenger, alone: bool) -> Result<Endpoint, ServerError> {
        let member = messenger.member();
        if let Some(endpoint) = member.endpoints.first() {
            return Ok(endpoint.clone());
        }
        match messenger.local_address() {
            Some(bound) if alone => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())).into()),
            Some(_) | None => Err(ServerError::NoAddress { bound: self.bind.clone() }),
        }
    }
}

/// Eight of sixteen bytes, as a number.
fn half(bytes: &[u8; 16], from: usize) -> u64 {
    bytes.iter().skip(from).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
