//! The file: every key there is. All of them may be left out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::value::{List, Size, Time};

/// One process: a rendezvous server, a node, or a tool that asks the servers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) environment: Option<String>,
    pub(crate) network: Option<String>,
    /// Of this process.
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) tls: TlsFiles,
    #[serde(default)]
    pub(crate) rendezvous: Server,
    #[serde(default)]
    pub(crate) node: Node,
    #[serde(default)]
    pub(crate) timeouts: Times,
    #[serde(default)]
    pub(crate) limits: Bounds,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// `karere rendezvous`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) bind: Option<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) peers: Option<List>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) join: Option<bool>,
    /// Whose certificates may change the cluster.
    pub(crate) admins: Option<List>,
    pub(crate) ping: Option<Time>,
    pub(crate) eviction: Option<Time>,
    pub(crate) probe: Option<Time>,
    pub(crate) settle: Option<Time>,
    pub(crate) gather: Option<Time>,
    pub(crate) heartbeat: Option<Time>,
    pub(crate) election_min: Option<Time>,
    pub(crate) election_max: Option<Time>,
}

/// `karere node`, and what tools need to know of a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// The servers.
    pub(crate) rendezvous: Option<List>,
    pub(crate) bind: Option<String>,
    pub(crate) advertise: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) silence: Option<Time>,
    pub(crate) frozen_after: Option<Time>,
    /// When it is frozen for so long, it leaves. Without it goes on.
    pub(crate) stop_after: Option<Time>,
}

/// The messenger's, as [`karere::Timeouts`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Times {
    pub(crate) ping: Option<Time>,
    pub(crate) liveness: Option<Time>,
    pub(crate) hello: Option<Time>,
    pub(crate) connect: Option<Time>,
    pub(crate) ack_delay: Option<Time>,
    pub(crate) redial_min: Option<Time>,
    pub(crate) redial_max: Option<Time>,
    pub(crate) contact_give_up: Option<Time>,
    pub(crate) resume_lease: Option<Time>,
    pub(crate) quarantine: Option<Time>,
    pub(crate) slow: Option<Time>,
    pub(crate) stuck: Option<Time>,
    pub(crate) unreachable: Option<Time>,
    pub(crate) idle: Option<Time>,
}

impl Times {
    /// Over these.
    pub(crate) fn over(&self, default: karere::Timeouts) -> karere::Timeouts {
        let over = |time: Option<Time>, otherwise| time.map_or(otherwise, |time| time.0);
        karere::Timeouts {
            ping: over(self.ping, default.ping),
            liveness: over(self.liveness, default.liveness),
            hello: over(self.hello, default.hello),
            connect: over(self.connect, default.connect),
            ack_delay: over(self.ack_delay, default.ack_delay),
            redial_min: over(self.redial_min, default.redial_min),
            redial_max: over(self.redial_max, default.redial_max),
            contact_give_up: over(self.contact_give_up, default.contact_give_up),
            resume_lease: over(self.resume_lease, default.resume_lease),
            quarantine: over(self.quarantine, default.quarantine),
            slow: over(self.slow, default.slow),
            stuck: over(self.stuck, default.stuck),
            unreachable: over(self.unreachable, default.unreachable),
            idle: over(self.idle, default.idle),
        }
    }
}

/// The messenger's, as [`karere::Limits`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds {
    pub(crate) process_bytes: Option<Size>,
    pub(crate) reserve_bytes: Option<Size>,
    pub(crate) queue_bytes: Option<Size>,
    pub(crate) credit_bytes: Option<Size>,
    pub(crate) message_bytes: Option<Size>,
    pub(crate) reassembly_bytes: Option<Size>,
    pub(crate) links: Option<usize>,
}

impl Bounds {
    /// Over the defaults.
    pub(crate) fn limits(&self) -> karere::Limits {
        let default = karere::Limits::default();
        let over = |size: Option<Size>, otherwise: usize| size.map_or(otherwise, |size| size.0 as usize);
        karere::Limits {
            process_bytes: over(self.process_bytes, default.process_bytes),
            reserve_bytes: over(self.reserve_bytes, default.reserve_bytes),
            queue_bytes: over(self.queue_bytes, default.queue_bytes),
            credit_bytes: self.credit_bytes.map_or(default.credit_bytes, |size| size.0),
            message_bytes: over(self.message_bytes, default.message_bytes),
            reassembly_bytes: over(self.reassembly_bytes, default.reassembly_bytes),
            links: self.links.unwrap_or(default.links),
        }
    }
}
