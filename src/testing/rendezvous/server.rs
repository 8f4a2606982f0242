//! A server's place in a world: its disk, and its process while one runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::rendezvous::Server;
use crate::rendezvous::doors::Disk;
use crate::testing::net::{Host, Network, ProcessId};
use crate::testing::platter::Platter;

/// A server that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: ProcessId,
    pub(super) server: Server,
    pub(super) host: Arc<Host>,
    pub(super) frozen: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct ServerPlace {
    pub(super) address: SocketAddr,
    pub(super) disk: Platter,
    pub(super) running: Option<Running>,
}

impl ServerPlace {
    pub(super) fn new(at: usize) -> Self {
        Self { address: server_address(at), disk: Platter::default(), running: None }
    }

    /// Starts a process on the disk as it is.
    pub(super) async fn start(
        &mut self,
        network: &Arc<Network>,
        process: ProcessId,
        peers: &[SocketAddr],
        wrong_millis: i64,
    ) -> Result<(), String> {
        network.add(process, self.address);
        let host = Arc::new(Host::new(network, process, wrong_millis));
        let net = Arc::clone(&host);
        let builder = Server::builder().bind(self.address.to_string());
        let builder = builder.peers(peers.iter().map(SocketAddr::to_string));
        let builder = builder.on_disk(Disk::of_backend(self.disk.clone()));
        let started = builder.start_in(|messenger| messenger.start_in(|_| net)).await;
        let server = started.map_err(|error| format!("no server at {}: {error}", self.address))?;
        self.running = Some(Running { process, server, host, frozen: false });
        Ok(())
    }

    /// The process is no more. Without power, what was not synced is lost in part.
    pub(super) fn end(&mut self, network: &Network, power: bool, chance: &mut fastrand::Rng) {
        let Some(running) = self.running.take() else { return };
        running.host.gate_of().kill();
        network.kill(running.process, !power);
        // The handle of the process before may still be on its way out: it writes to a disk that nobody reads.
        self.disk = if power { Platter::holding(self.disk.bytes()) } else { self.disk.after_the_cut(chance) };
    }

    /// The last change that its machine has come to.
    pub(super) fn knows(&self) -> Option<u64> {
        Some(self.running.as_ref()?.server.with_state(|state| state.index()))
    }

    /// The term in which it may speak, whether it stands still or not.
    pub(super) fn speaks_in(&self, now: Instant) -> Option<u64> {
        self.running.as_ref()?.server.speaks_in(now)
    }
}

pub(super) fn server_address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 1 + at as u8], 7500))
}
