//! Three servers, and what a test does with them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use super::{LONG, short, timeouts};
use crate::rendezvous::server::{Server, ServerStanding};

pub(super) struct Cluster {
    pub(super) addresses: Vec<String>,
    pub(super) servers: Vec<Option<Server>>,
    directory: tempfile::TempDir,
}

/// Ports that were free a moment ago.
fn ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|one| one.local_addr().unwrap().port()).collect()
}

impl Cluster {
    /// All of them run; one leads.
    pub(super) async fn of(count: usize) -> Self {
        let addresses = ports(count).iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut cluster = Self { addresses, servers: Vec::new(), directory: tempfile::tempdir().unwrap() };
        for at in 0..count {
            cluster.servers.push(None);
            cluster.start(at).await;
        }
        cluster.leader().await;
        cluster
    }

    pub(super) fn data(&self, at: usize) -> PathBuf {
        self.directory.path().join(at.to_string())
    }

    /// Starts a server, over what its disk holds.
    pub(super) async fn start(&mut self, at: usize) {
        let builder = Server::builder()
            .data(self.data(at))
            .bind(&self.addresses[at])
            .peers(&self.addresses)
            .times(short())
            .timeouts(timeouts());
        self.servers[at] = Some(builder.start().await.unwrap());
    }

    /// Which one leads, once all that run agree.
    pub(super) async fn leader(&self) -> usize {
        timeout(LONG, async {
            loop {
                let running =
                    || self.servers.iter().enumerate().filter_map(|(at, one)| Some((at, one.as_ref()?)));
                let standings = running().map(|(at, one)| (at, one.standing().borrow().clone()));
                let standings: Vec<(usize, ServerStanding)> = standings.collect();
                let leading: Vec<usize> =
                    standings.iter().filter(|(_, one)| one.leads()).map(|(at, _)| *at).collect();
                if let [leader] = leading[..] {
                    let follows = |one: &ServerStanding| match one {
                        ServerStanding::Follows { leader: Some(of), .. } => *of == self.addresses[leader],
                        other => other.leads(),
                    };
                    if standings.iter().all(|(_, one)| follows(one)) {
                        return leader;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("a leader")
    }

    /// Ends a server at once.
    pub(super) async fn close(&mut self, at: usize) {
        self.servers[at].take().unwrap().close().await;
    }

    pub(super) async fn end(mut self) {
        for server in self.servers.iter_mut().filter_map(Option::take) {
            server.close().await;
        }
    }
}
