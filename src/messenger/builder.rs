//! Building and starting a messenger.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Messenger;
#[cfg(feature = "tls")]
use crate::config::tls::Tls;
use crate::config::{Bind, ConfigError, Limits, Raw, Settings, Timeouts};
use crate::driver::clock;
use crate::driver::guard::Guard;
use crate::driver::net::OsNet;
#[cfg(feature = "tls")]
use crate::driver::tls::TlsGuard;
use crate::driver::{Driver, Listener, Net};
use crate::member::{Endpoint, Member, MemberId, Views};
use crate::peer::Introduction;
use crate::wire::{BodyCheck, VERSIONS};

/// Why a messenger did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself or cannot be parsed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be bound.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// What was to be bound; the last one tried of a range.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The thread or the runtime of a [`blocking`](crate::blocking) messenger cannot be started.
    #[error("cannot start the messenger's own thread: {0}")]
    Thread(io::Error),
}

/// How a messenger is to be. Everything has a default; what contradicts itself is refused by [`Builder::start`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing happens before `start`"]
pub struct Builder {
    raw: Raw,
}

impl Builder {
    /// Where to listen: `10.0.0.5:7400`, `[::1]:7400`, `:7400` (any address), port 0 for any free port, or a range
    /// `10.0.0.5:7400-7410` for its first free one. Without this the messenger dials only.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.raw.bind = Some(address.into());
        self
    }

    /// Where others reach this member, if that is not what was bound (containers, address translation). May be called
    /// several times; the best first. Port 0 stands for the port that was bound.
    pub fn advertise(mut self, endpoint: impl Into<String>) -> Self {
        self.raw.advertise.push(endpoint.into());
        self
    }

    /// A name for people and certificates, up to 255 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.raw.name = name.into();
        self
    }

    /// A free attribute of this member.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.raw.labels.insert(key.into(), value.into());
        self
    }

    /// Environment and network. Both ends must agree, else the connection is refused with both names. Defaults:
    /// `development`, `default`.
    pub fn network(mut self, environment: impl Into<String>, network: impl Into<String>) -> Self {
        self.raw.environment = Some(environment.into());
        self.raw.network = Some(network.into());
        self.raw.network_open = false;
        self
    }

    /// The environment; which network it is, is left open, to be asked of a server there. Such a messenger only dials, and
    /// only servers ([`Views::None`](crate::Views)) answer it.
    pub fn any_network(mut self, environment: impl Into<String>) -> Self {
        self.raw.environment = Some(environment.into());
        self.raw.network_open = true;
        self
    }

    /// How the network's views are made; they decide who may send what is for members only. Default
    /// [`Views::Agreed`](crate::Views).
    pub fn views(mut self, views: Views) -> Self {
        self.raw.views = views;
        self
    }

    /// Mutual TLS 1.3 on every link, in and out. The member's name must be one that the certificate covers. A process is all
    /// TLS or all plain: nobody without a certificate gets in.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.raw.tls = Some(tls);
        self
    }

    /// Whether it is to be TLS: then names of peers are proven by their certificates.
    #[cfg(feature = "tls")]
    #[must_use]
    pub const fn has_tls(&self) -> bool {
        self.raw.tls.is_some()
    }

    /// Whether it is to be TLS: then names of peers are proven by their certificates.
    #[cfg(not(feature = "tls"))]
    #[must_use]
    pub const fn has_tls(&self) -> bool {
        false
    }

    /// Times; see [`Timeouts`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.raw.timeouts = timeouts;
        self
    }

    /// Bounds of memory; see [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.raw.limits = limits;
        self
    }

    /// After how long a contact gives up if nobody was ever met at its address.
    pub fn contact_give_up(mut self, after: Duration) -> Self {
        self.raw.timeouts.contact_give_up = after;
        self
    }

    /// Whether it could start, but for what only the system can say: nothing is bound.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ConfigError> {
        guard(&self.raw)?;
        Settings::try_from(self.raw.clone()).map(drop)
    }

    /// Binds and starts. Returns when connections are accepted. All tasks run in the runtime this is called in.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running.
    pub async fn start(self) -> Result<Messenger, StartError> {
        self.start_in(|settings| Arc::new(OsNet::new(settings.peer.link.liveness))).await
    }

    /// Starts in any network.
    pub(crate) async fn start_in(
        self,
        net: impl FnOnce(&Settings) -> Arc<dyn Net>,
    ) -> Result<Messenger, StartError> {
        let guard = guard(&self.raw)?;
        let mut settings = Settings::try_from(self.raw)?;
        if guard.is_some() {
            settings.peer.body_check = BodyCheck::Absent;
        }
        let net = net(&settings);
        let listener = match &settings.bind {
            Some(bind) => Some(listen(&*net, bind).await?),
            None => None,
        };
        Ok(start(&settings, net, listener, guard))
    }
}

/// What secures connections, if anything does.
#[cfg(feature = "tls")]
fn guard(raw: &Raw) -> Result<Option<Arc<dyn Guard>>, ConfigError> {
    let Some(tls) = &raw.tls else { return Ok(None) };
    tls.check(&raw.name, clock::since_unix())?;
    Ok(Some(Arc::new(TlsGuard::new(tls.clone()))))
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "with TLS it is not")]
fn guard(_raw: &Raw) -> Result<Option<Arc<dyn Guard>>, ConfigError> {
    Ok(None)
}

/// Starts over any network.
fn start(
    settings: &Settings,
    net: Arc<dyn Net>,
    listener: Option<Arc<dyn Listener>>,
    guard: Option<Arc<dyn Guard>>,
) -> Messenger {
    let local = listener.as_ref().and_then(|listener| listener.local_address().ok());
    let introduction = Introduction {
        versions: VERSIONS,
        environment: settings.environment.clone(),
        network: settings.network.clone(),
        network_open: settings.network_open,
        // Who has no views talks to anyone.
        strangers: settings.views == Views::None,
        member: member(settings, local, net.unix_millis()),
        view: None,
    };
    let driver = Driver::new(settings, introduction, net, guard);
    let messenger = Messenger::assemble(driver, settings.message_bytes, local);
    if let Some(listener) = listener {
        messenger.inner.shared.driver.accept(listener);
    }
    messenger
}

/// An unspecified address is never advertised: whoever binds one says what to advertise, or is reached by those who
/// know the address.
fn member(settings: &Settings, local: Option<SocketAddr>, unix_millis: u64) -> Member {
    let bound = local.map(Endpoint::from).filter(|endpoint| !endpoint.is_unusable());
    let port = local.map_or(0, |local| local.port());
    let advertised = settings.advertise.iter().map(|endpoint| endpoint.or_port(port));
    Member {
        id: MemberId::from_parts(unix_millis, clock::random()),
        endpoints: if settings.advertise.is_empty() {
            bound.into_iter().collect()
        } else {
            advertised.collect()
        },
        name: settings.name.clone(),
        labels: settings.labels.clone(),
        joined: None,
    }
}

async fn listen(net: &dyn Net, bind: &Bind) -> Result<Arc<dyn Listener>, StartError> {
    let failed = |address: String, source| StartError::Bind { address, source };
    let addresses: Vec<SocketAddr> = match bind.host.address() {
        Some(address) => vec![address],
        None => {
            let named = bind.host.to_string();
            let found = tokio::net::lookup_host(named.clone()).await;
            found.map_err(|error| failed(named, error))?.collect()
        }
    };
    let mut last = failed(bind.host.to_string(), io::ErrorKind::AddrNotAvailable.into());
    for port in bind.host.port()..=bind.last_port {
        for address in &addresses {
            let address = SocketAddr::new(address.ip(), port);
            match net.listen(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = failed(address.to_string(), error),
            }
        }
    }
    Err(last)
}
