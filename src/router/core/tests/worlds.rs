//! Random networks of cores: messages late, nodes that die, hosts that come and go. However it goes, each request ends once,
//! no message that is not idempotent is handled twice, and when all is over nothing is left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::envelope::Distribution;
use super::super::{Order, Work};
use super::net::*;

struct World {
    net: Net,
    rng: fastrand::Rng,
    hosts: Vec<(u64, u32)>,
    busy: Vec<(u64, Work<Blob>)>,
    /// By body: how often it was handled, and whether that may be more than once.
    handled: BTreeMap<u64, (u32, bool)>,
    next: u64,
    asked: BTreeMap<u64, Vec<u32>>,
}

const NODES: u64 = 4;

impl World {
    fn new(seed: u64) -> Self {
        let net = Net::of(NODES);
        let rng = fastrand::Rng::with_seed(seed);
        Self {
            net,
            rng,
            hosts: Vec::new(),
            busy: Vec::new(),
            handled: BTreeMap::new(),
            next: 1,
            asked: BTreeMap::new(),
        }
    }

    fn alive(&self) -> Vec<u64> {
        (1..=NODES).filter(|at| self.net.sides.contains_key(&member(*at))).collect()
    }

    fn body(&mut self, twice: bool) -> u64 {
        self.next += 1;
        self.handled.insert(self.next, (0, twice));
        self.next
    }

    fn step(&mut self) {
        let names = ["a", "b", "c"].map(key);
        let answer = key("answer");
        let alive = self.alive();
        let at = alive[self.rng.usize(..alive.len())];
        match self.rng.u32(..100) {
            0..30 => {
                let ways: Vec<_> =
                    self.net.ways.iter().filter(|(_, way)| !way.is_empty()).map(|(way, _)| *way).collect();
                if let Some((from, to)) = ways.get(self.rng.usize(..ways.len().max(1))).copied() {
                    self.net.deliver(from, to);
                }
            }
            30..50 => {
                let idempotent = self.rng.bool();
                let body = self.body(idempotent);
                let affinity = self.rng.bool().then(|| self.rng.u64(..4));
                let order = Order { idempotent, affinity, ..order(&names[self.rng.usize(..3)], body) };
                let token = body as u32;
                self.net.request(at, 1, token, &[&answer], order);
                self.asked.entry(at).or_default().push(token);
            }
            50..65 => {
                if let Some((at, host)) = self.hosts.get(self.rng.usize(..self.hosts.len().max(1))).copied()
                    && let Some(work) = self.net.work(at, host)
                {
                    let (times, twice) = self.handled.get_mut(&work.body.0).unwrap();
                    *times += 1;
                    assert!(*twice || *times == 1, "{:?} was handled {times} times", work.body);
                    self.busy.push((at, work));
                }
            }
            65..85 => {
                if !self.busy.is_empty() {
                    let (at, work) = self.busy.swap_remove(self.rng.usize(..self.busy.len()));
                    let outcome = match self.rng.u32(..10) {
                        0 => Err("no luck".to_owned()),
                        1 => Ok(Vec::new()),
                        2..6 => {
                            let body = self.body(false);
                            Ok(vec![product(&names[self.rng.usize(..3)], body)])
                        }
                        _ => Ok(vec![product(&answer, work.envelope.flow.number)]),
                    };
                    self.net.handled(at, &work, outcome);
                }
            }
            85..90 => {
                let some: Vec<_> = names.iter().filter(|_| self.rng.bool()).cloned().collect();
                if !some.is_empty() && self.hosts.len() < 12 {
                    let keys: Vec<_> =
                        some.into_iter().map(|key| (key, super::super::Scope::Network)).collect();
                    let host = self.net.act(at, |core, now| core.add_host(now, &keys)).unwrap();
                    self.hosts.push((at, host));
                }
            }
            90..92 => {
                if !self.hosts.is_empty() {
                    let (at, host) = self.hosts.swap_remove(self.rng.usize(..self.hosts.len()));
                    self.net.act(at, |core, now| core.remove_host(now, host));
                }
            }
            92 => {
                if alive.len() > 2 && self.rng.u32(..10) == 0 {
                    self.die(at);
                }
            }
            _ => {
                let time = Duration::from_millis(self.rng.u64(..40));
                self.net.now += time;
                for at in alive {
                    self.net.act(at, |core, now| core.handle_timeout(now));
                }
            }
        }
    }

    fn die(&mut self, at: u64) {
        self.net.sides.remove(&member(at));
        self.hosts.retain(|(other, _)| *other != at);
        self.busy.retain(|(other, _)| *other != at);
        self.asked.remove(&at);
        self.net.ways.retain(|(from, to), _| *from != member(at) && *to != member(at));
        for other in self.alive() {
            self.net.act(other, |core, now| core.handle_node_down(now, member(at)));
        }
    }

    /// Everything arrives, handlers answer at once, and time passes.
    fn end(&mut self) {
        for _ in 0..2_000 {
            self.net.settle();
            for (at, work) in std::mem::take(&mut self.busy) {
                self.net.handled(at, &work, Ok(Vec::new()));
            }
            for (at, host) in self.hosts.clone() {
                while let Some(work) = self.net.work(at, host) {
                    let (times, twice) = self.handled.get_mut(&work.body.0).unwrap();
                    *times += 1;
                    assert!(*twice || *times == 1, "{:?} was handled {times} times", work.body);
                    self.net.handled(at, &work, Ok(Vec::new()));
                }
            }
            self.net.pass(Duration::from_millis(20));
        }
        for at in self.alive() {
            let open = self.net.side(at).core.open();
            assert_eq!(open, (0, 0, 0), "node {at} is left with something");
            for token in self.asked.remove(&at).unwrap_or_default() {
                let answer = self.net.side(at).answers.remove(&token);
                assert!(answer.is_some(), "request {token} of node {at} never ended");
            }
            assert!(self.net.side(at).answers.is_empty(), "an answer that nobody asked for");
        }
    }
}

#[test]
fn whatever_happens_each_request_ends_once_and_nothing_is_handled_twice() {
    let seeds = std::env::var("ROUTER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.end();
    }
}

#[test]
fn an_order_to_all_is_no_request() {
    // A broadcast carries no callback, so nobody could wait for it.
    let mut net = Net::of(2);
    let all = key("all");
    let host = net.host(2, &[all.clone()]);
    net.submit(1, Order { to: Distribution::Broadcast, ..order(&all, 1) });
    net.settle();
    assert!(net.work(2, host).unwrap().envelope.callback.is_none());
}
