//! What a join and a change of routes cost, by the number of nodes: how much the leader says, and when everybody knows.

use std::sync::Arc;
use std::time::Duration;

use super::node::{NodePlace, Notes};
use super::plan::Plan;
use super::server::{ServerPlace, server_address};
use crate::driver::clock;
use crate::testing::net::{Network, ProcessId};

const SERVERS: usize = 3;
const STEP: Duration = Duration::from_millis(1);
/// A network of this size is there within this.
const PATIENCE: Duration = Duration::from_secs(300);

/// What one thing cost.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Cost {
    /// Messages that the leader sent.
    pub messages: u64,
    /// Their bytes, with their headers.
    pub bytes: u64,
    /// In virtual time, until everybody knew.
    pub until_all_know: Duration,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Scale {
    /// Nodes that were there.
    pub nodes: usize,
    /// All of them joined at once: in virtual time, until each had the view of all.
    pub all_joined: Duration,
    /// How many views that took.
    pub views: u64,
    /// One more node joins.
    pub join: Cost,
    /// One of them takes one more message.
    pub route: Cost,
}

struct Town {
    network: Arc<Network>,
    servers: Vec<ServerPlace>,
    nodes: Vec<NodePlace>,
    notes: Arc<Notes>,
}

/// Measures a network of so many nodes. In a runtime of one thread whose clock is stopped.
///
/// # Errors
///
/// What did not come to pass.
pub(in crate::testing) async fn measure(nodes: usize) -> Result<Scale, String> {
    let plan = Plan::of(&mut fastrand::Rng::with_seed(1));
    let network = Network::new(1, plan.weather);
    let servers = (0..SERVERS).map(ServerPlace::new).collect();
    let mut town = Town { network, servers, nodes: Vec::new(), notes: Arc::default() };
    town.found().await?;
    let mut scale = Scale { nodes, ..Scale::default() };
    let began = clock::now();
    for _ in 0..nodes {
        town.begin_node().await?;
    }
    town.until(|town| town.all_see(nodes)).await?;
    scale.all_joined = clock::now().duration_since(began);
    scale.views = town.nodes.first().and_then(NodePlace::view_id).map_or(0, |view| view.number);
    town.rest().await;
    scale.join = {
        let before = town.said();
        let began = clock::now();
        town.begin_node().await?;
        town.until(|town| town.all_see(nodes + 1)).await?;
        town.cost(before, began)
    };
    town.rest().await;
    scale.route = {
        let before = town.said();
        let began = clock::now();
        let mut chance = fastrand::Rng::with_seed(1);
        let first = town.nodes.first_mut().and_then(|place| place.running.as_mut());
        first.ok_or("nobody runs")?.change_actors(&mut chance)?;
        let own = |town: &Town| town.nodes.first().map_or(0, NodePlace::own_routes);
        town.until(|town| town.nodes.iter().skip(1).all(|place| place.known_routes() == own(town))).await?;
        town.cost(before, began)
    };
    Ok(scale)
}

impl Town {
    async fn found(&mut self) -> Result<(), String> {
        let peers: Vec<_> = (0..SERVERS).map(server_address).collect();
        for (at, place) in self.servers.iter_mut().enumerate() {
            place.start(&self.network, ProcessId(at), &peers, 0).await?;
        }
        self.until(|town| town.leader().is_some()).await?;
        // It is over what a fresh cluster waits.
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok(())
    }

    async fn begin_node(&mut self) -> Result<(), String> {
        let (at, servers) = (self.nodes.len(), (0..SERVERS).map(server_address).collect::<Vec<_>>());
        let mut place = NodePlace::new(at);
        place.start(&self.network, ProcessId(SERVERS + at), &servers, 0, &self.notes).await?;
        self.nodes.push(place);
        Ok(())
    }

    fn leader(&self) -> Option<&ServerPlace> {
        self.servers.iter().find(|place| place.speaks_in(clock::now()).is_some())
    }

    fn all_see(&self, count: usize) -> bool {
        self.nodes.iter().all(|place| place.sees() == count)
    }

    /// What the leader has said.
    fn said(&self) -> (u64, u64) {
        let books = self.leader().and_then(|place| place.running.as_ref()).map(|one| one.server.books());
        books.map_or((0, 0), |books| (books.queued, books.bytes_written))
    }

    fn cost(&self, before: (u64, u64), began: std::time::Instant) -> Cost {
        let after = self.said();
        Cost {
            messages: after.0.saturating_sub(before.0),
            bytes: after.1.saturating_sub(before.1),
            until_all_know: clock::now().duration_since(began),
        }
    }

    async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(self.notes.take());
    }

    async fn until(&self, come: impl Fn(&Self) -> bool) -> Result<(), String> {
        let most = clock::now() + PATIENCE;
        while !come(self) {
            if clock::now() > most {
                return Err(format!("{} nodes, and it did not come to pass", self.nodes.len()));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}
