//! The one place that knows the messenger's API: starting, dialling, the books, what an error means.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use karere::{
    Builder, ByteStream, ConfigError, Contact, ContactError, Messenger, StartError, StreamError, Tls,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::output::{CODE_USAGE, Failure};

/// The most data of a byte stream in one message (`poll_write` of [`ByteStream`]).
const MESSAGE_BYTES_MAX: u64 = 32 * 1024;

/// The library takes no shorter time to give up on an address than a handshake may take (3 s); shorter ones are kept
/// here.
const GIVE_UP_MIN: Duration = Duration::from_secs(5);

/// Both ends must agree on these.
#[derive(Debug, Clone, Args)]
pub(crate) struct Network {
    /// The environment: production, test, ... By default `development`.
    #[arg(long, env = "KARERE_ENVIRONMENT")]
    pub(crate) environment: Option<String>,
    /// The network within the environment. By default `default`; nodes and tools take that of the rendezvous servers.
    #[arg(long, env = "KARERE_NETWORK")]
    pub(crate) network: Option<String>,
    /// The authorities that are trusted (PEM). With it every connection is mutual TLS 1.3; without it, plain.
    #[arg(long, value_name = "FILE", env = "KARERE_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The own certificate, and what leads to an authority behind it (PEM).
    #[arg(long, value_name = "FILE", env = "KARERE_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the own certificate (PEM).
    #[arg(long, value_name = "FILE", env = "KARERE_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The name of this member. With certificates: one that its own is for, by itself the first.
    #[arg(long, env = "KARERE_NAME")]
    pub(crate) name: Option<String>,
}

impl Network {
    /// # Errors
    /// If the certificates cannot be used.
    fn builder(&self) -> Result<Builder, Failure> {
        let or =
            |said: &Option<String>, otherwise: &str| said.clone().unwrap_or_else(|| otherwise.to_owned());
        let (environment, network) = (or(&self.environment, "development"), or(&self.network, "default"));
        let mut builder = Messenger::builder().network(environment, network);
        let mut name = self.name.clone();
        match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (None, None, None) => {}
            (Some(authorities), Some(chain), Some(key)) => {
                let tls = Tls::from_files(authorities, chain, key).map_err(|error| {
                    Failure::new(error.to_string()).tries("`karere certs --help`, for development")
                })?;
                name = name.or_else(|| tls.names().into_iter().next());
                builder = builder.tls(tls);
            }
            // Never plain where somebody meant to be secret.
            _ => {
                let failure = Failure::new("--tls-ca, --tls-cert and --tls-key belong together");
                return Err(failure.tries("all three, or none").code(CODE_USAGE));
            }
        }
        Ok(builder.name(name.unwrap_or_default()))
    }
}

/// A messenger that listens.
///
/// # Errors
/// If the address cannot be bound. Nothing runs then.
pub(crate) async fn listen(bind: &str, network: &Network) -> Result<(Messenger, SocketAddr), Failure> {
    let builder = network.builder()?.bind(bind);
    let messenger = builder.start().await.map_err(|error| start_failure(bind, &error))?;
    let address = messenger.local_address().ok_or_else(|| Failure::new("the messenger does not listen"))?;
    Ok((messenger, address))
}

fn start_failure(bind: &str, error: &StartError) -> Failure {
    match error {
        StartError::Config(ConfigError::Tls(error)) => Failure::new(error.to_string()),
        error => bind_failure(bind, &error.to_string()),
    }
}

pub(crate) fn bind_failure(bind: &str, error: &str) -> Failure {
    let what = if error.contains("bind") { error.to_owned() } else { format!("cannot bind {bind}: {error}") };
    let failure = Failure::new(what);
    let lower = error.to_lowercase();
    let (host, port) = bind.rsplit_once(':').unwrap_or((bind, ""));
    if lower.contains("in use") {
        let first = port.parse::<u16>().unwrap_or(7400);
        let range = format!("{host}:{first}-{}", first.saturating_add(10));
        let tries = format!("--bind {host}:0 for any free port, or --bind {range} for the first free one");
        return failure.by("another process on this machine").tries(tries);
    }
    if lower.contains("permission") {
        let by = "the system: ports below 1024 are for privileged processes";
        return failure.by(by).tries(format!("--bind {host}:7400"));
    }
    if lower.contains("cannot assign") || lower.contains("not available") {
        let tries = format!("--bind :{port} for all addresses of this machine");
        return failure.by("no interface of this machine has this address").tries(tries);
    }
    failure.tries("--bind 127.0.0.1:7400, or --bind :7400 for all addresses of this machine")
}

/// A messenger that only dials, and gives up on an address after this time or [`GIVE_UP_MIN`].
///
/// # Errors
/// If it cannot start.
pub(crate) async fn dialler(network: &Network, give_up: Duration) -> Result<Messenger, Failure> {
    network
        .builder()?
        .contact_give_up(give_up.max(GIVE_UP_MIN))
        .start()
        .await
        .map_err(|error| Failure::new(format!("cannot start the messenger: {error}")))
}

/// A contact with whoever is at the address, and a byte stream to it.
///
/// # Errors
/// If nobody answers within the time, or whoever is there refuses. Nothing was sent then.
pub(crate) async fn dial(
    messenger: &Messenger,
    to: &str,
    expected: Option<&str>,
    protocol: &str,
    give_up: Duration,
) -> Result<(Contact, ByteStream), Failure> {
    // `:7400` is this machine.
    let address = if to.starts_with(':') { format!("127.0.0.1{to}") } else { to.to_owned() };
    let meeting = async {
        match expected {
            Some(name) => messenger.contact_named(&address, name).await,
            None => messenger.contact(&address).await,
        }
    };
    let met = if give_up < GIVE_UP_MIN {
        let late = |_| nobody(to, &format!("no answer within {} s", give_up.as_secs_f64()));
        timeout(give_up, meeting).await.map_err(late)?
    } else {
        meeting.await
    };
    let contact = met.map_err(|error| contact_failure(to, &error))?;
    let stream = messenger.open_stream(contact.id(), protocol).await.map_err(|error| {
        Failure::new(format!("cannot open a stream to {to}: {error}")).state("nothing was sent")
    })?;
    Ok((contact, stream))
}

fn nobody(to: &str, last: &str) -> Failure {
    let failure = Failure::new(format!("nobody was met at {to}: {last}")).state("nothing was sent");
    failure.tries(format!(
        "start `karere listen --bind {to}` there, check the way to it, or wait longer with --timeout"
    ))
}

fn contact_failure(to: &str, error: &ContactError) -> Failure {
    let failure = |what: String| Failure::new(what).state("nothing was sent");
    match error {
        ContactError::Address(..) => failure(error.to_string()),
        ContactError::Refused { why, .. } => {
            let tries = if why.contains("TLS") || why.contains("certificate") {
                "--tls-ca, --tls-cert and --tls-key at both ends; --tls-name if the certificate there is for a name"
            } else {
                "the same --environment and --network at both ends, and the same version"
            };
            failure(format!("{to} refuses: {why}")).by(format!("the process at {to}")).tries(tries)
        }
        ContactError::GaveUp { last, .. } => nobody(to, last),
        _ => failure(format!("cannot reach {to}: {error}")),
    }
}

/// Gives a stream up and tells the other side why.
pub(crate) fn abort(stream: ByteStream, reason: &str) {
    stream.abort(reason);
}

/// How a stream broke, out of an error of reading or writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The other side gave it up, and says why.
    Aborted(String),
    /// The session is gone, and the stream with it.
    SessionLost(String),
    /// Anything else.
    Other(String),
}

impl Broken {
    pub(crate) fn of(error: &io::Error) -> Broken {
        match error.get_ref().and_then(|source| source.downcast_ref::<StreamError>()) {
            Some(StreamError::Aborted { reason }) => Broken::Aborted(reason.clone()),
            Some(StreamError::SessionLost(cause)) => Broken::SessionLost(cause.to_string()),
            Some(other) => Broken::Other(other.to_string()),
            None => Broken::Other(error.to_string()),
        }
    }
}

/// The messenger's books: what became of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Books {
    /// Messages taken for sending.
    pub(crate) messages: u64,
    /// Acknowledged by the other process.
    pub(crate) acked: u64,
    /// Never handed to a write.
    pub(crate) not_sent: u64,
    /// May have arrived; nobody will ever know.
    pub(crate) indeterminate: u64,
    /// None of these yet.
    pub(crate) pending: u64,
    /// Sent again after a link broke.
    pub(crate) resent: u64,
    /// Came again and were dropped.
    pub(crate) duplicates_dropped: u64,
    /// Links after the first.
    pub(crate) reconnects: u64,
    /// Bytes of messages written and not acknowledged now.
    pub(crate) unacked_bytes: u64,
}

impl Books {
    /// The books of all peers, also of those that are gone.
    pub(crate) fn of(messenger: &Messenger) -> Books {
        let stats = messenger.stats();
        let total = stats.total();
        let streams = stats.peers.iter().flat_map(|peer| &peer.streams);
        Books {
            messages: total.queued,
            acked: total.acked,
            not_sent: total.not_sent,
            indeterminate: total.indeterminate,
            pending: total.pending,
            resent: total.resent,
            duplicates_dropped: total.duplicates,
            reconnects: total.links.saturating_sub(1),
            unacked_bytes: streams.map(|stream| stream.unacked_bytes).sum(),
        }
    }

    /// Bytes that may have arrived, at most.
    pub(crate) fn indeterminate_bytes_max(&self) -> u64 {
        self.indeterminate.saturating_mul(MESSAGE_BYTES_MAX)
    }

    /// Every message is in exactly one place.
    pub(crate) fn are_balanced(&self) -> bool {
        self.messages == self.acked + self.not_sent + self.indeterminate + self.pending
    }
}
