//! Configuration: what a user writes, and what it becomes once it was checked. Parsed once, at the start.

#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;
use crate::link::LinkConfig;
use crate::member::{Endpoint, EndpointError, Views};
use crate::peer::{BackoffConfig, HealthConfig, PeerConfig};
use crate::session::{BudgetLimits, InboxLimits, SessionConfig};

/// Times. All may be changed; they are checked against each other at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A link idle for so long is pinged. Default 1.5 s.
    pub ping: Duration,
    /// A link silent for so long, or that takes no byte for so long, is replaced. Default 5 s; at least two pings.
    pub liveness: Duration,
    /// From connected to answered. Default 3 s.
    pub hello: Duration,
    /// From dialled to connected. Default 3 s.
    pub connect: Duration,
    /// At the latest after this an acknowledgement goes alone. Default 20 ms.
    pub ack_delay: Duration,
    /// The first redial comes within this. Default 50 ms.
    pub redial_min: Duration,
    /// Redials are at most so far apart. Default 5 s.
    pub redial_max: Duration,
    /// A contact gives up after this if nobody was ever met at its address. Default 30 s.
    pub contact_give_up: Duration,
    /// How long the accepting side keeps the session of a peer that dialled and is gone. Default 60 s.
    pub resume_lease: Duration,
    /// How long messages from a peer that has joined are held until a view here includes it. Default 30 s.
    pub quarantine: Duration,
    /// Something has waited for a peer's credit for so long: event [`Slow`](crate::PeerEvent::Slow). Default 1 s; at
    /// least two `ack_delay`, because credit comes with acknowledgements.
    pub slow: Duration,
    /// A record is not acknowledged for so long: event [`Stuck`](crate::PeerEvent::Stuck). Default 5 s, the default of
    /// `liveness`; at least two `ack_delay`.
    pub stuck: Duration,
    /// No link for so long though it is dialled: event [`Unreachable`](crate::PeerEvent::Unreachable). Default 5 s; not
    /// below `connect`, because a dial gets its time.
    pub unreachable: Duration,
    /// A link that carried no message for so long is closed, unless a [`Contact`](crate::Contact) holds it on either
    /// side; the session stays, and the next message dials again. `Duration::MAX`: never. Default 5 minutes; at least
    /// one ping.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            ping: limits::PING,
            liveness: limits::LIVENESS,
            hello: limits::HELLO,
            connect: limits::CONNECT,
            ack_delay: limits::ACK_DELAY,
            redial_min: limits::REDIAL_MIN,
            redial_max: limits::REDIAL_MAX,
            contact_give_up: limits::CONTACT_GIVE_UP,
            resume_lease: limits::RESUME_LEASE,
            quarantine: limits::QUARANTINE,
            slow: limits::SLOW,
            stuck: limits::STUCK,
            unreachable: limits::UNREACHABLE,
            idle: limits::IDLE,
        }
    }
}

/// Bounds of memory, in bytes, and of links. All may be changed; they are checked against each other at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What waits to be sent or acknowledged, for all destinations together. Default 256 MiB.
    pub process_bytes: usize,
    /// What each destination may always hold, link or no link. Default 64 KiB.
    pub reserve_bytes: usize,
    /// What one destination may hold at most, while its link is up. Default 2 MiB.
    pub queue_bytes: usize,
    /// What a sender may have under way to one of our handlers, per stream. Default 1 MiB.
    pub credit_bytes: u64,
    /// The largest message, sent or received. Default 64 MiB.
    pub message_bytes: usize,
    /// What received messages larger than the credit may take while they are put together. Default 128 MiB.
    pub reassembly_bytes: usize,
    /// Links up at once; above it those that have been idle for longest are closed, as by [`Timeouts::idle`]. Links of
    /// contacts count and stay, and so do those on which something is under way, so more may be up. Default 1024.
    pub links: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            process_bytes: limits::PROCESS_BYTES,
            reserve_bytes: limits::RESERVE_BYTES,
            queue_bytes: limits::QUEUE_BYTES,
            credit_bytes: limits::CREDIT_BYTES,
            message_bytes: limits::MESSAGE_BYTES_MAX,
            reassembly_bytes: limits::REASSEMBLY_BYTES,
            links: limits::LINKS_MAX,
        }
    }
}

/// As the user wrote it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) bind: Option<String>,
    pub(crate) advertise: Vec<String>,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) environment: Option<String>,
    pub(crate) network: Option<String>,
    /// Whatever the network is called.
    pub(crate) network_open: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) views: Views,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Tls>,
}

/// What is wrong with a configuration. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An address cannot be parsed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A range of ports that is empty or cannot be parsed.
    #[error("`{text}` is no range of ports; write HOST:7400-7410, the lower port first")]
    Ports {
        /// What was given.
        text: String,
    },
    /// An advertised address at which nobody can be reached.
    #[error("cannot advertise `{endpoint}`: nobody can be reached there; give the address others dial")]
    Unreachable {
        /// What was given.
        endpoint: String,
    },
    /// A text that is too long for the wire.
    #[error("the {what} has {bytes} bytes, at most {most} are allowed")]
    TooLong {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// Certificates or keys that cannot be used.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Two settings that contradict each other.
    #[error("{what}: {why}")]
    Contradiction {
        /// The setting.
        what: &'static str,
        /// What it must be.
        why: &'static str,
    },
}

/// Where to listen: a host and the ports to be tried in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) host: Endpoint,
    pub(crate) last_port: u16,
}

impl Bind {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let ports = || ConfigError::Ports { text: text.to_owned() };
        let any =
            if let Some(port) = text.strip_prefix(':') { format!("[::]:{port}") } else { text.to_owned() };
        let (first, last) = match any.rsplit_once('-') {
            Some((first, last)) if last.bytes().all(|b| b.is_ascii_digit()) && first.contains(':') => {
                (first.to_owned(), Some(last.parse::<u16>().map_err(|_| ports())?))
            }
            Some(_) | None => (any, None),
        };
        let host: Endpoint = first.parse()?;
        let last_port = last.unwrap_or(host.port());
        if last_port < host.port() || (last.is_some() && host.port() == 0) {
            return Err(ports());
        }
        Ok(Self { host, last_port })
    }
}

/// Checked: everything here fits together.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) bind: Option<Bind>,
    pub(crate) advertise: Vec<Endpoint>,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) environment: String,
    pub(crate) network: String,
    pub(crate) network_open: bool,
    pub(crate) views: Views,
    pub(crate) peer: PeerConfig,
    pub(crate) budget: BudgetLimits,
    pub(crate) message_bytes: usize,
    pub(crate) reassembly_bytes: usize,
    pub(crate) contact_give_up: Duration,
    pub(crate) links: usize,
}

/// All labels together, so that a hello stays below its limit.
const LABEL_BYTES_MAX: usize = 3 * 1024;

impl TryFrom<Raw> for Settings {
    type Error = ConfigError;

    fn try_from(raw: Raw) -> Result<Self, ConfigError> {
        check_times(&raw.timeouts)?;
        check_limits(&raw.limits)?;
        let environment = raw.environment.unwrap_or_else(|| "development".to_owned());
        let network = raw.network.unwrap_or_else(|| "default".to_owned());
        most("name", raw.name.len(), limits::MEMBER_NAME_BYTES_MAX)?;
        most("environment's name", environment.len(), limits::NETWORK_NAME_BYTES_MAX)?;
        most("network's name", network.len(), limits::NETWORK_NAME_BYTES_MAX)?;
        most("number of labels", raw.labels.len(), limits::LABELS_MAX)?;
        let label_bytes = raw.labels.iter().map(|(key, value)| key.len() + value.len() + 6).sum();
        most("text of all labels", label_bytes, LABEL_BYTES_MAX)?;
        most("number of advertised addresses", raw.advertise.len(), limits::ENDPOINTS_MAX)?;
        let bound = raw.bind.is_some();
        let advertise = raw.advertise.iter().map(|text| advertised(text, bound)).collect::<Result<_, _>>()?;
        must(
            !(raw.network_open && bound),
            "any_network",
            "is for a messenger that only dials: it must not bind",
        )?;
        let (times, bounds) = (raw.timeouts, raw.limits);
        Ok(Self {
            bind: raw.bind.as_deref().map(Bind::parse).transpose()?,
            advertise,
            name: raw.name,
            labels: raw.labels,
            environment,
            network,
            network_open: raw.network_open,
            views: raw.views,
            peer: PeerConfig {
                session: SessionConfig {
                    inbox: InboxLimits {
                        credit_bytes: bounds.credit_bytes,
                        message_bytes_max: bounds.message_bytes,
                    },
                    ack_delay: times.ack_delay,
                    quarantine: times.quarantine,
                },
                link: LinkConfig { ping: times.ping, liveness: times.liveness },
                backoff: BackoffConfig { min: times.redial_min, max: times.redial_max },
                health: HealthConfig {
                    slow: times.slow,
                    stuck: times.stuck,
                    unreachable: times.unreachable,
                    grace: times.ping,
                },
                connect: times.connect,
                hello: times.hello,
                lease: times.resume_lease,
                idle: times.idle,
                // Plain, until whoever starts it says otherwise.
                body_check: Default::default(),
            },
            budget: BudgetLimits {
                process_bytes: bounds.process_bytes,
                reserve_bytes: bounds.reserve_bytes,
                queue_bytes: bounds.queue_bytes,
            },
            message_bytes: bounds.message_bytes,
            reassembly_bytes: bounds.reassembly_bytes,
            contact_give_up: times.contact_give_up,
            links: bounds.links,
        })
    }
}

fn advertised(text: &str, bound: bool) -> Result<Endpoint, ConfigError> {
    let endpoint: Endpoint = text.parse()?;
    // Port 0: the one that is bound.
    let seen = if bound { endpoint.or_port(1) } else { endpoint.clone() };
    if seen.is_unusable() {
        return Err(ConfigError::Unreachable { endpoint: text.to_owned() });
    }
    Ok(endpoint)
}

fn most(what: &'static str, bytes: usize, most: usize) -> Result<(), ConfigError> {
    if bytes <= most { Ok(()) } else { Err(ConfigError::TooLong { what, bytes, most }) }
}

fn must(holds: bool, what: &'static str, why: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Contradiction { what, why }) }
}

fn check_times(times: &Timeouts) -> Result<(), ConfigError> {
    let least = Duration::from_millis(1);
    let all = [times.ping, times.liveness, times.hello, times.connect, times.redial_min, times.redial_max];
    must(all.iter().all(|time| *time >= least), "timeouts", "each must be at least 1 ms")?;
    must(
        times.ping * 2 <= times.liveness,
        "ping",
        "must be at most half of liveness, or a lost ping is a dead link",
    )?;
    must(times.ack_delay * 2 <= times.ping, "ack_delay", "must be at most half of ping")?;
    must(times.redial_min <= times.redial_max, "redial_min", "must not be above redial_max")?;
    must(times.resume_lease >= times.liveness, "resume_lease", "must not be below liveness")?;
    must(times.quarantine >= least, "quarantine", "must be at least 1 ms")?;
    must(times.contact_give_up >= times.hello, "contact_give_up", "must not be below hello")?;
    let two_acks = times.ack_delay * 2;
    must(
        times.slow >= two_acks,
        "slow",
        "must be at least two ack_delay: credit comes with acknowledgements",
    )?;
    must(times.stuck >= two_acks, "stuck", "must be at least two ack_delay, or what is on its way is stuck")?;
    must(times.idle >= times.ping, "idle", "must not be below ping")?;
    must(times.unreachable >= times.connect, "unreachable", "must not be below connect: a dial gets its time")
}

fn check_limits(bounds: &Limits) -> Result<(), ConfigError> {
    let credit = bounds.credit_bytes >= limits::CREDIT_BYTES_MIN;
    must(credit, "credit_bytes", "must be at least 128 KiB: a whole chunk must pass")?;
    must(bounds.links >= 1, "links", "must be at least 1")?;
    must(bounds.reserve_bytes >= 1024, "reserve_bytes", "must be at least 1 KiB")?;
    must(bounds.reserve_bytes <= bounds.queue_bytes, "reserve_bytes", "must not be above queue_bytes")?;
    must(bounds.queue_bytes <= bounds.process_bytes, "queue_bytes", "must not be above process_bytes")?;
    must(bounds.message_bytes <= u32::MAX as usize / 2, "message_bytes", "must be below 2 GiB")?;
    let fits = bounds.message_bytes <= bounds.reassembly_bytes;
    must(fits, "message_bytes", "must not be above reassembly_bytes, or the largest could never come")?;
    let fits = bounds.message_bytes * 2 <= bounds.process_bytes;
    must(fits, "message_bytes", "must be at most half of process_bytes, or the largest could never go")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> Result<Bind, ConfigError> {
        Bind::parse(text)
    }

    #[test]
    fn a_bind_is_an_address_any_address_or_a_range_of_ports() {
        assert_eq!(bind("127.0.0.1:7400").unwrap().last_port, 7400);
        assert_eq!(bind(":7400").unwrap().host.to_string(), "[::]:7400");
        assert_eq!(bind("127.0.0.1:7400-7410").unwrap().last_port, 7410);
        assert_eq!(bind("my-host:7400").unwrap().host.name(), Some("my-host"));
        for bad in ["127.0.0.1:7410-7400", "127.0.0.1:0-5", "127.0.0.1:1-99999"] {
            assert!(matches!(bind(bad), Err(ConfigError::Ports { .. })), "{bad}");
        }
        assert!(matches!(bind("127.0.0.1"), Err(ConfigError::Endpoint(_))));
    }

    #[test]
    fn contradictions_are_refused_with_the_setting_they_are_in() {
        let times = |change: fn(&mut Timeouts)| {
            let mut raw = Raw::default();
            change(&mut raw.timeouts);
            Settings::try_from(raw).unwrap_err().to_string()
        };
        assert!(times(|t| t.ping = t.liveness).starts_with("ping:"));
        assert!(times(|t| t.hello = Duration::ZERO).starts_with("timeouts:"));
        assert!(times(|t| t.redial_min = Duration::from_secs(60)).starts_with("redial_min:"));
        assert!(times(|t| t.idle = Duration::ZERO).starts_with("idle:"));
        assert!(times(|t| t.resume_lease = Duration::from_secs(1)).starts_with("resume_lease:"));
        assert!(times(|t| t.slow = t.ack_delay).starts_with("slow:"));
        assert!(times(|t| t.stuck = t.ack_delay).starts_with("stuck:"));
        assert!(times(|t| t.unreachable = t.connect / 2).starts_with("unreachable:"));
        assert!(times(|t| t.slow = Duration::ZERO).contains("slow"));
        let bounds = |change: fn(&mut Limits)| {
            let mut raw = Raw::default();
            change(&mut raw.limits);
            Settings::try_from(raw).unwrap_err().to_string()
        };
        assert!(bounds(|l| l.credit_bytes = 1000).starts_with("credit_bytes:"));
        assert!(bounds(|l| l.message_bytes = l.process_bytes).starts_with("message_bytes:"));
        assert!(bounds(|l| l.links = 0).starts_with("links:"));
        assert!(bounds(|l| l.queue_bytes = 1).starts_with("reserve_bytes:"));
    }

    #[test]
    fn what_cannot_be_reached_is_not_advertised() {
        for bad in ["0.0.0.0:7400", "[::]:7400", "10.0.0.1:0"] {
            let raw = Raw { advertise: vec![bad.to_owned()], ..Raw::default() };
            assert!(matches!(Settings::try_from(raw), Err(ConfigError::Unreachable { .. })), "{bad}");
        }
        // Port 0 is the one that is bound, if one is.
        let bound = |advertise: &str| {
            let (bind, advertise) = (Some("0.0.0.0:0".to_owned()), vec![advertise.to_owned()]);
            Settings::try_from(Raw { bind, advertise, ..Raw::default() })
        };
        assert_eq!(bound("10.0.0.1:0").unwrap().advertise[0].or_port(7).to_string(), "10.0.0.1:7");
        assert!(matches!(bound("0.0.0.0:0"), Err(ConfigError::Unreachable { .. })));
    }

    #[test]
    fn who_leaves_the_network_open_only_dials() {
        let open = |bind: Option<&str>| {
            let bind = bind.map(str::to_owned);
            Settings::try_from(Raw { bind, network_open: true, ..Raw::default() })
                .map(|settings| settings.network_open)
        };
        assert!(open(None).unwrap());
        assert!(open(Some(":0")).unwrap_err().to_string().starts_with("any_network:"));
    }
}
