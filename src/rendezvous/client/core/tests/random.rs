//! Random histories: leaders of different terms, restarts, lost words, gaps, evictions, other members that come and go. At each step the
//! copy is a state that the log had, and views only grow (`World` looks at both); in the end everything is known everywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{LeaseNews, Ticket};
use super::world::{Log, MS, World, adds, member, route};
use crate::rendezvous::client::standing::Standing;
use crate::rendezvous::common::{LeaseOp, Why};
use crate::rendezvous::state::Op;
use crate::router::RouteChange;

struct Walk {
    world: World,
    random: fastrand::Rng,
    next_member: u128,
    own: std::collections::BTreeSet<u64>,
    wants: BTreeMap<Ticket, String>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self {
            world: World::new(seed),
            random,
            next_member: 100,
            own: Default::default(),
            wants: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..25 => drop(self.world.deliver_out()),
            25..55 => drop(self.world.deliver_back()),
            55..65 => self.pass_time(),
            65..68 => self.world.ping(),
            68..70 => drop(self.world.back.pop_front()),
            70..80 => self.others(),
            80..87 => self.announce(),
            87..92 => self.lease(),
            92..94 => self.restart(),
            94..97 => self.elect(),
            97 => drop(self.world.decide(Op::Leave { member: self.world.me, why: Why::Silent })),
            98 => {
                if let Some(at) = self.world.at {
                    self.world.break_session(at);
                    let server = self.world.servers[at].id;
                    self.world.client.handle_session_lost(self.world.now, server);
                    self.world.at = Some(at);
                }
            }
            _ => self.world.part_bytes = self.random.usize(16..400),
        }
        self.world.drain();
    }

    fn pass_time(&mut self) {
        self.world.now += MS * self.random.u32(1..1_500);
        self.world.client.handle_timeout(self.world.now);
    }

    fn others(&mut self) {
        if self.world.leader().is_none() {
            return;
        }
        let others: Vec<_> = self
            .world
            .log
            .state
            .members()
            .map(|member| member.id)
            .filter(|id| *id != self.world.me)
            .collect();
        let some = (!others.is_empty()).then(|| others[self.random.usize(0..others.len())]);
        match (self.random.u32(0..6), some) {
            (0 | 1, _) | (_, None) => {
                self.next_member += 1;
                self.world.join_other(self.next_member);
            }
            (2, Some(other)) => drop(self.world.decide(Op::Leave { member: other, why: Why::Left })),
            (3, Some(other)) => {
                let name = format!("lease{}", self.random.u32(0..3));
                let op = if self.random.bool() {
                    LeaseOp::Acquire { name, wait: true }
                } else {
                    LeaseOp::Release { name }
                };
                self.world.decide(Op::Lease { member: other, op });
            }
            (_, Some(other)) => {
                let from = self.world.log.state.changes_of(other).unwrap();
                let (add, remove) =
                    (vec![route(self.random.u64(0..20))], vec![route(self.random.u64(0..20))]);
                self.world.decide(Op::Routes { member: other, from, to: from + 1, add, remove });
            }
        }
    }

    fn announce(&mut self) {
        let number = self.random.u64(0..15);
        let change = if self.own.remove(&number) {
            RouteChange { added: Vec::new(), removed: vec![route(number)] }
        } else {
            self.own.insert(number);
            adds([number])
        };
        self.world.announce(change);
    }

    fn lease(&mut self) {
        let name = format!("lease{}", self.random.u32(0..3));
        if self.random.bool() {
            if let Ok(ticket) = self.world.client.acquire(&name, self.random.bool()) {
                self.wants.insert(ticket, name);
            }
        } else if let Some(ticket) =
            self.wants.keys().nth(self.random.usize(0..self.wants.len().max(1))).copied()
        {
            let name = self.wants.remove(&ticket).unwrap();
            self.world.client.release(&name, ticket);
            self.world.leases.remove(&ticket);
        }
    }

    fn restart(&mut self) {
        let at = self.random.usize(0..3);
        if self.world.servers[at].up {
            let met = self.world.at == Some(at);
            self.world.stop(at);
            if met && self.random.bool() {
                // The connection ends; else only silence says so.
                let attempt = self.world.client.attempts;
                self.world.client.handle_gone(self.world.now, attempt);
            }
        } else {
            self.world.servers[at].up = true;
        }
    }

    fn elect(&mut self) {
        let at = self.random.usize(0..3);
        if !self.world.servers[at].up {
            return;
        }
        if self.random.bool() {
            // Those of before know that they lead no more.
            self.world.servers.iter_mut().for_each(|server| server.leads = None);
            (0..3).filter(|other| *other != at && self.world.at == Some(*other)).for_each(drop);
        }
        self.world.elect(at);
    }

    /// Faults are over: one leader, and everything gets there.
    fn heal(&mut self) {
        for at in 0..3 {
            self.world.servers[at].up = true;
            self.world.servers[at].leads = None;
        }
        self.world.elect(1);
        self.world.run(Duration::from_secs(30));
    }

    fn check_end(&mut self, seed: u64) {
        let world = &mut self.world;
        assert!(world.standing().is_joined(), "seed {seed}: {:?}", world.standing());
        assert_eq!(world.client.copy().index(), world.log.state.index(), "seed {seed}");
        let own: Vec<_> = world.log.state.routes_of(world.me).cloned().collect();
        let mut expected: Vec<_> = self.own.iter().map(|number| route(*number)).collect();
        expected.sort();
        assert_eq!(own, expected, "seed {seed}: registered routes are never forgotten");
        let (announced, registered, refused) = world.client.routes().progress();
        assert_eq!((announced, refused), (registered, None), "seed {seed}");
        // Whoever thinks that it holds a lease does; and what the log gives to this node, somebody here holds.
        let held = |news: &LeaseNews| if let LeaseNews::Granted(token) = news { Some(*token) } else { None };
        let mut here: Vec<_> =
            self.wants.keys().filter_map(|ticket| held(world.leases.get(ticket)?)).collect();
        let mut there: Vec<_> = world
            .log
            .state
            .leases()
            .filter_map(|lease| lease.holder)
            .filter(|(by, _)| *by == world.me)
            .map(|(_, token)| token)
            .collect();
        here.sort();
        there.sort();
        assert_eq!(here, there, "seed {seed}");
    }
}

#[test]
fn through_any_history_the_copy_is_a_state_of_the_log_and_nothing_registered_is_forgotten() {
    let (mut reborn, mut views, mut sought) = (0, 0, 0);
    for seed in 0..300 {
        let mut walk = Walk::new(seed);
        for _ in 0..400 {
            walk.step();
            walk.world.check(&[]);
        }
        walk.heal();
        walk.world.check(&[]);
        walk.check_end(seed);
        reborn += walk.world.reborn;
        views += walk.world.views.len();
        sought += walk.world.sought.len();
    }
    assert!(reborn > 100 && views > 1_500 && sought > 3_000, "{reborn} {views} {sought}");
}

#[test]
fn a_history_that_was_lost_is_never_mixed_with_the_one_that_goes_on() {
    for seed in 0..60 {
        let mut walk = Walk::new(seed);
        for _ in 0..150 {
            walk.step();
        }
        walk.heal();
        walk.check_end(seed);
        let old = std::mem::replace(&mut walk.world.log, Log::new(7));
        let mut other = Log::new(9);
        other.decide(Op::Join { member: member(77), keep: false });
        let (views, reborn) = (walk.world.views.len(), walk.world.reborn);
        walk.world.replace_log(other);
        walk.world.run(Duration::from_secs(10));
        assert_eq!((walk.world.views.len(), walk.world.reborn), (views, reborn), "seed {seed}");
        assert!(matches!(walk.world.standing(), Standing::Refused(_)), "seed {seed}");
        walk.world.check(&[&old]);
        let generation = walk.world.views.last().unwrap().generation;
        walk.world.decide(Op::Recover { above: generation });
        if seed % 2 == 0 {
            let me = walk.world.client.me.clone();
            walk.world.decide(Op::Join { member: me, keep: true });
        }
        walk.world.run(Duration::from_secs(10));
        walk.world.check(&[&old]);
        walk.check_end(seed);
        assert_eq!(
            walk.world.reborn - reborn,
            (seed % 2) as usize,
            "seed {seed}: who was collected keeps its id"
        );
    }
}
