//! The simulated network for tests of modules: messengers in virtual time, whose roads can be blocked and whose processes can be
//! frozen and killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::net::{Host, Network, ProcessId, Weather};
use crate::{Builder, Messenger, StartError};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Lab {
    network: Arc<Network>,
    next: AtomicUsize,
}

/// One run of a process.
#[derive(Debug)]
pub(crate) struct Run {
    network: Arc<Network>,
    process: ProcessId,
    host: Arc<Host>,
}

impl Lab {
    /// A network as in one building.
    pub(crate) fn new(seed: u64) -> Self {
        let weather = Weather {
            delay_max: Duration::from_millis(3),
            jitter_max: Duration::from_millis(2),
            bytes_per_second: 100_000_000,
            window_bytes: 1024 * 1024,
        };
        Self { network: Network::new(seed, weather), next: AtomicUsize::new(0) }
    }

    /// Starts a process at an address.
    pub(crate) async fn start(
        &self,
        address: SocketAddr,
        builder: Builder,
    ) -> Result<(Messenger, Run), StartError> {
        let process = ProcessId(self.next.fetch_add(1, Ordering::Relaxed));
        self.network.add(process, address);
        let host = Arc::new(Host::new(&self.network, process, 0));
        let net = Arc::clone(&host);
        let messenger = builder.bind(address.to_string()).start_in(|_| net).await?;
        Ok((messenger, Run { network: Arc::clone(&self.network), process, host }))
    }

    /// Nothing gets from one of two addresses to the other, either way.
    pub(crate) fn part(&self, one: SocketAddr, other: SocketAddr) {
        self.network.block(one, other);
        self.network.block(other, one);
    }

    /// Nothing gets from one address to the other.
    pub(crate) fn block(&self, from: SocketAddr, to: SocketAddr) {
        self.network.block(from, to);
    }

    /// What is under way from one address to the other arrives after all, late.
    pub(crate) fn free(&self, from: SocketAddr, to: SocketAddr) {
        self.network.free(from, to);
    }

    /// Every road is free.
    pub(crate) fn heal(&self) {
        self.network.free_all();
    }
}

impl Run {
    /// As SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.host.gate_of().shut();
    }

    /// As SIGCONT.
    pub(crate) fn thaw(&self) {
        self.host.gate_of().open();
    }

    /// As SIGKILL; `silently`: the machine with it, so that nobody's connection is reset.
    pub(crate) fn kill(&self, silently: bool) {
        self.network.kill(self.process, silently);
        self.host.gate_of().kill();
    }
}
