//! Where one process runs: its address, its clock, its descriptors, and the gate before its tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{Network, ProcessId};
use crate::driver::gate::Gate;
use crate::driver::net::{BoxConn, BoxFuture, Listener, Net};
use crate::member::Endpoint;

/// When the simulated world begins; ids hold it.
const EPOCH_MILLIS: u64 = 1_700_000_000_000;

/// See the module's text.
#[derive(Debug)]
pub(in crate::testing) struct Host {
    network: Arc<Network>,
    process: ProcessId,
    gate: Arc<Gate>,
    began: tokio::time::Instant,
    /// How wrong its wall clock is.
    wrong_millis: AtomicI64,
}

impl Host {
    pub(in crate::testing) fn new(network: &Arc<Network>, process: ProcessId, wrong_millis: i64) -> Self {
        let (network, gate) = (Arc::clone(network), Arc::default());
        let began = network.began;
        Self { network, process, gate, began, wrong_millis: AtomicI64::new(wrong_millis) }
    }

    /// The wall clock jumps.
    pub(in crate::testing) fn jump(&self, millis: i64) {
        self.wrong_millis.fetch_add(millis, Ordering::Relaxed);
    }

    pub(in crate::testing) fn gate_of(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Net for Host {
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<io::Result<BoxConn>> {
        let (network, process) = (Arc::clone(&self.network), self.process);
        Box::pin(async move {
            let to = endpoint.address().ok_or(io::ErrorKind::AddrNotAvailable)?;
            network.connect(process, to).await
        })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Arc<dyn Listener>> {
        self.network.listen(self.process, address)?;
        Ok(Arc::new(Backlog { network: Arc::clone(&self.network), process: self.process, address }))
    }

    fn unix_millis(&self) -> u64 {
        let passed = tokio::time::Instant::now().duration_since(self.began);
        let now = EPOCH_MILLIS + u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        now.saturating_add_signed(self.wrong_millis.load(Ordering::Relaxed))
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        Some(Arc::clone(&self.gate))
    }
}

/// Connections that were not accepted yet.
struct Backlog {
    network: Arc<Network>,
    process: ProcessId,
    address: SocketAddr,
}

impl Listener for Backlog {
    fn accept(&self) -> BoxFuture<io::Result<(BoxConn, SocketAddr)>> {
        let (network, process) = (Arc::clone(&self.network), self.process);
        Box::pin(async move { std::future::poll_fn(|cx| network.poll_accept(process, cx)).await })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.network.stop_listening(self.process);
    }
}

/// What the operating system says when there are no descriptors (`EMFILE`).
pub(super) fn no_descriptors() -> io::Error {
    io::Error::from_raw_os_error(24)
}

/// How long a try of TCP's takes when a packet was lost.
pub(super) const RETRY: Duration = Duration::from_millis(200);
