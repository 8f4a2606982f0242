//! 100,000 routes of 1,000 nodes, told by a source.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use karere::router::{MessageKey, Node, Route, RouteSource, Routes};
use karere::{Kind, MemberId, Message, Messenger};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Job;
impl Message for Job {
    const KIND: Kind = Kind::new("bench.route", 1);
}

const NODES: u64 = 1_000;
const EACH: u32 = 100;

/// Tells what it is told to.
#[derive(Default)]
struct Told(Mutex<Option<Routes>>);

struct Source(Arc<Told>);

impl RouteSource for Source {
    fn start(self: Arc<Self>, _: &Messenger, routes: Routes) {
        *self.0.0.lock().unwrap() = Some(routes);
    }

    fn exchange(&self) -> bool {
        false
    }
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Routes of one node: each key is held by ten nodes.
fn routes_of(node: u64) -> Vec<Route> {
    let key = |at: u32| {
        let partition = (node % (NODES / 10)) as u32 * EACH + at;
        MessageKey::of::<Job>().in_partition(partition.to_le_bytes().to_vec())
    };
    (0..EACH).map(|at| Route { key: key(at), host: 1 + at }).collect()
}

pub(crate) async fn run(_: bool) {
    let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let told = Arc::<Told>::default();
    let node = Node::builder().source(Source(Arc::clone(&told))).start(&messenger).unwrap();
    let routes = told.0.lock().unwrap().clone().unwrap();
    let all: Vec<Vec<Route>> = (0..=NODES).map(routes_of).collect();
    let before = resident();
    let from = Instant::now();
    for (at, of) in all.iter().take(NODES as usize).enumerate() {
        let node = MemberId::from_parts(1, at as u128 + 1);
        routes.node_up(node);
        routes.replace(node, of.iter().cloned());
    }
    let learnt = from.elapsed();
    let count = node.external_routes().len();
    let bytes = (resident() - before) as f64 / count as f64;
    let from = Instant::now();
    let newcomer = MemberId::from_parts(1, u128::from(NODES) + 1);
    routes.node_up(newcomer);
    routes.replace(newcomer, all[NODES as usize].iter().cloned());
    let joined = from.elapsed();
    let from = Instant::now();
    routes.node_down(MemberId::from_parts(1, 1));
    let left = from.elapsed();
    // With nothing left to live: what a send costs beside the lookup.
    let hub = node.hub();
    let mut times = Vec::new();
    for at in 0..20_000_u32 {
        let partition = (at * 7919 % 10_000).to_le_bytes().to_vec();
        let from = Instant::now();
        let sent = hub.send(Job).partition(partition).time_to_live(Duration::ZERO).tracked();
        times.push(from.elapsed().as_nanos());
        drop(sent);
    }
    times.sort_unstable();
    println!(
        "routes: {count} of {NODES} nodes: learnt in {learnt:.1?} ({:.0} ns a route), {bytes:.0} bytes a route; a node of {EACH} joins in {joined:.1?}, leaves in {left:.1?}; \
         a send that is begun and expires {} / {} ns (p50 / p99)",
        learnt.as_nanos() as f64 / count as f64,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
}
