//! What a leader's death costs nodes: when another leads, and when what a node registers is acknowledged again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::node::{NodePlace, Notes};
use super::server::{ServerPlace, server_address};
use crate::driver::clock;
use crate::testing::net::{Network, ProcessId, Weather};

const SERVERS: usize = 3;
const STEP: Duration = Duration::from_millis(2);
/// Everything comes to pass within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times after deaths, in virtual time.
#[derive(Clone, Debug, Default)]
struct Failovers {
    /// Of each death: until another leader may speak.
    led: Vec<Duration>,
    /// Of each death and node: until a change of its routes, made as the leader died, was acknowledged.
    registered: Vec<Duration>,
    /// Connections that the servers saw in all, from nodes and from each other.
    links: u64,
}

impl Failovers {
    /// The one of these times that so many of a hundred do not exceed.
    fn percentile(times: &[Duration], percent: usize) -> Duration {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or_default()
    }
}

struct Town {
    network: Arc<Network>,
    servers: Vec<ServerPlace>,
    nodes: Vec<NodePlace>,
    notes: Arc<Notes>,
    processes: usize,
    chance: fastrand::Rng,
}

/// Kills the leader so many times, each time when all is well. In a runtime of one thread whose clock is stopped.
async fn measure(seed: u64, nodes: usize, deaths: usize) -> Result<Failovers, String> {
    let millis = Duration::from_millis;
    let weather = Weather {
        delay_max: millis(1),
        jitter_max: millis(1),
        bytes_per_second: 200_000_000,
        window_bytes: 64 * 1024,
    };
    let mut town = Town {
        network: Network::new(seed, weather),
        servers: (0..SERVERS).map(ServerPlace::new).collect(),
        nodes: Vec::new(),
        notes: Arc::default(),
        processes: 0,
        chance: fastrand::Rng::with_seed(seed),
    };
    for at in 0..SERVERS {
        town.start_server(at).await?;
    }
    for at in 0..nodes {
        town.start_node(at).await?;
    }
    town.until(|town| town.all_well(nodes)).await?;
    let mut seen = Failovers::default();
    for _ in 0..deaths {
        // At any time between two pings.
        let calm = millis(town.chance.u64(3_000..4_500));
        tokio::time::sleep(calm).await;
        town.until(|town| town.all_well(nodes)).await?;
        town.lose_leader(&mut seen).await?;
    }
    let links = town.servers.iter().filter_map(|place| place.running.as_ref());
    seen.links = links.map(|running| running.server.books().links).sum();
    Ok(seen)
}

impl Town {
    fn process(&mut self) -> ProcessId {
        self.processes += 1;
        ProcessId(self.processes - 1)
    }

    async fn start_server(&mut self, at: usize) -> Result<(), String> {
        let peers: Vec<_> = (0..SERVERS).map(server_address).collect();
        let process = self.process();
        self.servers[at].start(&self.network, process, &peers, 0).await
    }

    async fn start_node(&mut self, at: usize) -> Result<(), String> {
        let servers: Vec<_> = (0..SERVERS).map(server_address).collect();
        let mut place = NodePlace::new(at);
        let process = self.process();
        place.start(&self.network, process, &servers, 0, &self.notes).await?;
        self.nodes.push(place);
        Ok(())
    }

    fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|place| place.speaks_in(clock::now()).is_some())
    }

    fn is_registered(&self, at: usize) -> bool {
        let running = self.nodes[at].running.as_ref();
        running.is_some_and(|one| one.rendezvous.registered_routes().is_some())
    }

    fn all_well(&self, nodes: usize) -> bool {
        let runs = self.servers.iter().all(|place| place.running.is_some());
        let well = |(at, place): (usize, &NodePlace)| place.sees() == nodes && self.is_registered(at);
        runs && self.leader().is_some() && self.nodes.iter().enumerate().all(well)
    }

    /// The leader's process dies, and comes again when everybody is served by the next.
    async fn lose_leader(&mut self, seen: &mut Failovers) -> Result<(), String> {
        let leader = self.leader().ok_or("nobody leads")?;
        self.servers[leader].end(&self.network, true, &mut self.chance);
        let died = clock::now();
        for place in &mut self.nodes {
            place.running.as_mut().ok_or("nobody runs")?.change_actors(&mut self.chance)?;
        }
        let mut waiting: Vec<usize> = (0..self.nodes.len()).collect();
        let mut led = None;
        // What was changed is announced by a task.
        tokio::time::sleep(STEP).await;
        while led.is_none() || !waiting.is_empty() {
            let passed = since(died)?;
            led = led.or_else(|| self.leader().map(|_| passed));
            let before = waiting.len();
            waiting.retain(|at| !self.is_registered(*at));
            seen.registered.extend(std::iter::repeat_n(passed, before - waiting.len()));
            tokio::time::sleep(STEP).await;
        }
        seen.led.extend(led);
        drop(self.notes.take());
        self.start_server(leader).await
    }

    async fn until(&self, come: impl Fn(&Self) -> bool) -> Result<(), String> {
        let began = clock::now();
        while !come(self) {
            since(began)?;
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}

fn since(began: Instant) -> Result<Duration, String> {
    let passed = clock::now().duration_since(began);
    if passed > PATIENCE { Err("it did not come to pass".to_owned()) } else { Ok(passed) }
}

fn all(seeds: std::ops::Range<u64>, nodes: usize, deaths: usize) -> Failovers {
    let mut all = Failovers::default();
    for seed in seeds {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let one = runtime.unwrap().block_on(measure(seed, nodes, deaths)).unwrap();
        all.led.extend(one.led);
        all.registered.extend(one.registered);
        all.links += one.links;
    }
    all
}

fn tell(all: &Failovers) -> Duration {
    for (what, times) in [("led", &all.led), ("registered", &all.registered)] {
        let [p50, p90, p99, most] = [50, 90, 99, 100].map(|of| Failovers::percentile(times, of));
        println!("{what}: {} times, p50 {p50:?}, p90 {p90:?}, p99 {p99:?}, most {most:?}", times.len());
    }
    println!("links {}", all.links);
    Failovers::percentile(&all.registered, 99)
}

#[test]
fn what_a_node_registers_is_acknowledged_soon_after_the_leader_died() {
    let p99 = tell(&all(1..4, 5, 8));
    assert!(p99 <= Duration::from_millis(800), "{p99:?}");
}

/// `KARERE_SEEDS`: how many.
#[test]
#[ignore = "a measurement: minutes"]
fn the_distribution_over_many_seeds() {
    let number =
        |name, otherwise| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (seeds, nodes, deaths) =
        (number("KARERE_SEEDS", 20), number("KARERE_NODES", 5), number("KARERE_DEATHS", 8));
    tell(&all(1..1 + seeds, nodes as usize, deaths as usize));
}
