//! A server, as its user holds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::builder::ServerBuilder;
use super::office::Office;
use super::standing::ServerStanding;
use crate::Endpoint;

/// One server of a rendezvous. Alone it needs no configuration; 3 or 5 of them go on while most of them live.
///
/// It has a messenger of its own, so a process may be a server and a node as well. Dropped, it ends as if its process had been killed;
/// [`Server::close`] waits for that.
///
/// ```
/// use karere::rendezvous::Server;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production: `.data("/var/lib/karere")`, and `.peers(["rdv1:7500", "rdv2:7500", "rdv3:7500"])` on each of three.
/// let server = Server::builder().in_memory().bind("127.0.0.1:0").start().await?;
/// server.leads().await;
/// println!("nodes join {}", server.address());
/// server.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server that is dropped ends"]
pub struct Server {
    office: Arc<Office>,
    address: Endpoint,
}

impl Server {
    /// How a server is to be.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    pub(super) fn new(office: Arc<Office>, address: Endpoint) -> Self {
        Self { office, address }
    }

    /// Where nodes and other servers reach it: what it advertises, else what it was bound to; if that is any address, this machine's
    /// loopback address.
    #[must_use]
    pub const fn address(&self) -> &Endpoint {
        &self.address
    }

    /// The address that was bound, with the port that was found.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.office.messenger.local_address()
    }

    /// How it stands, now and from now on.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<ServerStanding> {
        self.office.standing.subscribe()
    }

    /// Waits until it leads; for ever if it never does. Cancel safe.
    pub async fn leads(&self) {
        let mut standing = self.standing();
        if standing.wait_for(ServerStanding::leads).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends at once: nodes find the next leader, which has lost nothing that was acknowledged. Returns within some 2 s; then the data
    /// directory is free. Cancelled, it ends all the same.
    pub async fn close(self) {
        self.office.stop.cancel();
        self.office.messenger.close().await;
    }

    /// Ends in order: takes no new work, lets what was said to nodes and servers arrive, says goodbye, then closes. What is not done within
    /// `deadline` is given up. Cancelled, it ends at once.
    pub async fn leave(self, deadline: Duration) {
        self.office.stop.cancel();
        self.office.messenger.leave(deadline).await;
    }
}

/// What the simulation sees.
#[cfg(feature = "testing")]
impl Server {
    /// The term in which it may speak now.
    pub(crate) fn speaks_in(&self, now: std::time::Instant) -> Option<u64> {
        self.office.log.lease(now).map(|lease| lease.term)
    }

    pub(crate) fn books(&self) -> crate::Books {
        self.office.messenger.stats().total()
    }

    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&crate::rendezvous::doors::State) -> T) -> T {
        look(&self.office.applied.read())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.office.stop.cancel();
    }
}
