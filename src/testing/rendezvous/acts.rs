//! What is done in a world of a rendezvous, and what goes wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::node::{NodePlace, Note, Running, node_address};
use super::server::server_address;
use super::watch::WELL;
use super::world::{Later, Sent, World};
use crate::rendezvous::doors::{Ask, Told as Answer};
use crate::testing::net::{Host, Told};
use crate::testing::platter::Platter;
use crate::{Messenger, Views};

/// After a break of one connection it is replaced within this: liveness, a dial, a hello.
const LINK_BACK: Duration = Duration::from_secs(10);

impl World {
    pub(super) async fn act(&mut self) {
        if self.chance.u32(..100) < self.plan.faults {
            let fault = Fault::choose(&mut self.chance);
            if !self.plan.spares_nodes || fault.spares_nodes() {
                return self.fail(fault);
            }
        }
        let at = self.chance.usize(..self.plan.nodes);
        match self.chance.u8(..10) {
            0 | 1 => self.change_actors_if_it_runs(at),
            2 => self.act_on_lease(at),
            _ => {
                let to = self.chance.usize(..self.plan.nodes);
                if to != at {
                    self.send(at, to);
                }
            }
        }
    }

    fn change_actors_if_it_runs(&mut self, at: usize) {
        if self.nodes[at].running.as_ref().is_some_and(|running| !running.leaving && !running.frozen) {
            self.change_actors(at);
        }
    }

    /// To another member of the view of this one.
    pub(super) fn send(&mut self, from: usize, to: usize) {
        let Some(to) = self.nodes[to].running.as_ref().map(Running::id) else { return };
        let Some(running) = self.nodes[from].running.as_ref().filter(|one| !one.leaving && !one.frozen)
        else {
            return;
        };
        let (messenger, from) = (running.messenger.clone(), running.id());
        if messenger.view().is_none_or(|view| !view.contains(to)) || !messenger.knows(to) {
            return;
        }
        let number = self.watch.sent(from, to);
        match messenger.send_with_receipt(&Running::numbered(number), to) {
            Ok(receipt) => self.sent.push(Sent { from, to, number, receipt }),
            Err(_) => self.watch.not_sent(from, to),
        }
    }

    fn act_on_lease(&mut self, at: usize) {
        let name = ["north", "south"][self.chance.usize(..2)];
        let notes = Arc::clone(&self.notes);
        let drops = self.chance.bool();
        let Some(running) = self.nodes[at].running.as_mut().filter(|one| !one.leaving) else { return };
        if drops && !running.leases.is_empty() {
            drop(running.leases.remove(0));
            return;
        }
        let (rendezvous, messenger) = (running.rendezvous.clone(), running.messenger.clone());
        running.spawn(async move {
            if let Ok(Ok(lease)) =
                tokio::time::timeout(Duration::from_secs(10), rendezvous.acquire(name)).await
            {
                let (cluster, to) = (rendezvous.cluster(), messenger.id());
                notes.add(Note::Granted { name: name.to_owned(), cluster, to, lease });
            }
        });
    }

    // ---- what goes wrong ----

    fn fail(&mut self, fault: Fault) {
        self.say(|_| format!("{fault:?}"));
        let server = self.chance.usize(..self.plan.servers);
        let node = self.chance.usize(..self.plan.nodes);
        match fault {
            Fault::ServerKilled => self.end_server(server, true),
            Fault::ServerPowerLoss => self.end_server(server, false),
            Fault::ServerFrozen => self.freeze_server(server),
            Fault::LeaderKilled | Fault::LeaderFrozen => {
                let Some(leader) = self.leader() else { return };
                if fault == Fault::LeaderKilled {
                    self.end_server(leader, true)
                } else {
                    self.freeze_server(leader)
                }
            }
            Fault::AllServersKilled => (0..self.plan.servers).for_each(|at| self.end_server(at, true)),
            Fault::ServerCutOff => self.cut_off_server(server),
            Fault::ServerOneWay => self.make_deaf(server),
            Fault::Split => self.split(),
            Fault::NodeKilled => self.end_node(node),
            Fault::NodeFrozen => self.freeze_node(node),
            Fault::NodeCutOff => self.cut_off_node(node),
            Fault::NodeDoubted => {
                if !self.doubt(node) {
                    return;
                }
            }
            Fault::NodeAndLeader => self.silence_with_leader(node),
            Fault::NodeLeaves => self.leave(node),
            Fault::Connection => self.break_connection(),
            Fault::WallClock => {
                let millis = self.chance.i64(-1_000_000..1_000_000);
                if let Some(running) = &self.nodes[node].running {
                    running.host.jump(millis);
                }
            }
        }
        self.hit(fault);
    }

    fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|place| place.speaks_in(self.now).is_some())
    }

    fn end_server(&mut self, at: usize, power: bool) {
        let network = Arc::clone(&self.network);
        self.servers[at].end(&network, power, &mut self.chance);
        let again = self.now + self.millis(50, 8_000);
        self.later.add(again, Later::ServerBegins(at));
    }

    fn freeze_server(&mut self, at: usize) {
        let until = self.now + self.millis(50, 6_000);
        if let Some(running) = self.servers[at].running.as_mut().filter(|running| !running.frozen) {
            running.frozen = true;
            running.host.gate_of().shut();
            self.later.add(until, Later::ServerGoesOn(at));
        }
    }

    fn end_node(&mut self, at: usize) {
        let silently = self.chance.bool();
        let network = Arc::clone(&self.network);
        self.nodes[at].end(&network, silently);
        let again = self.now + self.millis(50, 8_000);
        self.later.add(again, Later::NodeBegins(at));
    }

    fn freeze_node(&mut self, at: usize) {
        let until = self.now + self.millis(100, 12_000);
        if let Some(running) = self.nodes[at].running.as_mut().filter(|running| !running.frozen) {
            running.frozen = true;
            running.host.gate_of().shut();
            self.nodes[at].is_ill_until(until);
            self.later.add(until, Later::NodeGoesOn(at));
        }
    }

    /// It leaves in order, for as long as it takes, and then its process ends.
    fn leave(&mut self, at: usize) {
        let time = self.millis(500, 6_000);
        let Some(running) = self.nodes[at].running.as_mut().filter(|one| !one.leaving && !one.frozen) else {
            return;
        };
        running.leaving = true;
        let rendezvous = running.rendezvous.clone();
        running.spawn(async move { rendezvous.leave(time).await });
        let end = self.now + time + Duration::from_millis(500);
        self.nodes[at].is_ill_until(end);
        self.later.add(end, Later::NodeEnds(at));
    }

    fn block(&mut self, from: SocketAddr, to: SocketAddr, time: Duration) {
        self.network.block(from, to);
        self.later.add(self.now + time, Later::Free(from, to));
    }

    fn block_both(&mut self, one: SocketAddr, other: SocketAddr, time: Duration) {
        self.block(one, other, time);
        self.block(other, one, time);
    }

    /// From the other servers; from some nodes as well.
    fn cut_off_server(&mut self, at: usize) {
        let (here, time) = (server_address(at), self.millis(200, 9_000));
        for other in (0..self.plan.servers).filter(|other| *other != at) {
            self.block_both(here, server_address(other), time);
        }
        for node in 0..self.plan.nodes {
            if self.chance.bool() {
                self.block_both(here, node_address(node), time);
                self.nodes[node].is_ill_until(self.now + time + LINK_BACK);
            }
        }
    }

    /// It is not heard, or does not hear, by some.
    fn make_deaf(&mut self, at: usize) {
        let (here, time, hears) = (server_address(at), self.millis(200, 9_000), self.chance.bool());
        let all = (0..self.plan.servers).filter(|other| *other != at).map(server_address);
        let mut others: Vec<SocketAddr> = all.collect();
        for node in 0..self.plan.nodes {
            if self.chance.bool() {
                others.push(node_address(node));
                self.nodes[node].is_ill_until(self.now + time + LINK_BACK);
            }
        }
        for other in others {
            let (from, to) = if hears { (here, other) } else { (other, here) };
            self.block(from, to, time);
        }
    }

    /// Servers and nodes, each on one of two sides.
    fn split(&mut self) {
        let time = self.millis(500, 15_000);
        let servers = (0..self.plan.servers).map(server_address);
        let all: Vec<SocketAddr> = servers.chain((0..self.plan.nodes).map(node_address)).collect();
        let sides: Vec<bool> = all.iter().map(|_| self.chance.bool()).collect();
        for (one, here) in all.iter().zip(&sides) {
            for (other, there) in all.iter().zip(&sides) {
                if here != there {
                    self.block(*one, *other, time);
                }
            }
        }
        let until = self.now + time + LINK_BACK;
        self.nodes.iter_mut().for_each(|place| place.is_ill_until(until));
    }

    /// From everybody, or from the servers, or from one other node.
    fn cut_off_node(&mut self, at: usize) {
        let (here, time, which) = (node_address(at), self.millis(200, 12_000), self.chance.u8(..3));
        if which < 2 {
            (0..self.plan.servers).for_each(|server| self.block_both(here, server_address(server), time));
        }
        let others: Vec<usize> = (0..self.plan.nodes).filter(|other| *other != at).collect();
        match which {
            0 => others.iter().for_each(|other| self.block_both(here, node_address(*other), time)),
            1 => {}
            _ => {
                if let Some(other) = self.chance.choice(&others) {
                    self.block_both(here, node_address(*other), time);
                }
            }
        }
        self.nodes[at].is_ill_until(self.now + time + LINK_BACK);
    }

    /// The leader does not hear it, and one other says that it does not either: that is not enough where somebody else is. Of those
    /// who are touched there is one at a time, so that all others are good witnesses; `false`: not now.
    fn doubt(&mut self, at: usize) -> bool {
        let there = |place: &NodePlace| place.running.as_ref().is_some_and(|one| !one.leaving && !one.frozen);
        let is_time = self.doubted.is_none_or(|until| until + LINK_BACK + WELL <= self.now);
        if !self.plan.spares_nodes || !is_time || self.plan.nodes < 3 || !self.nodes.iter().all(there) {
            return false;
        }
        let (here, time) = (node_address(at), self.millis(6_000, 20_000));
        let other = (at + self.chance.usize(1..self.plan.nodes)) % self.plan.nodes;
        (0..self.plan.servers).for_each(|server| self.block_both(here, server_address(server), time));
        self.block_both(here, node_address(other), time);
        self.doubted = Some(self.now + time);
        true
    }

    /// What a new leader knows of a node is that it does not hear it.
    fn silence_with_leader(&mut self, at: usize) {
        if self.chance.bool() {
            self.end_node(at)
        } else {
            self.freeze_node(at)
        }
        if let Some(leader) = self.leader() {
            self.end_server(leader, true);
        }
    }

    fn break_connection(&mut self) {
        let open = self.network.seen();
        let Some(seen) = self.chance.choice(&open) else { return };
        let told = [Told::Both, Told::Only(0), Told::Only(1), Told::Nobody][self.chance.usize(..4)];
        let side = self.chance.usize(..2);
        match self.chance.u8(..4) {
            0 => self.network.cut_after(seen.conn, side, self.chance.u64(..5_000), told),
            1 => self.network.bend_after(seen.conn, side, self.chance.u64(..5_000)),
            2 => self.network.silence_one_way(seen.conn, side),
            _ => self.network.break_conn(seen.conn, told),
        }
        let until = self.now + LINK_BACK + Duration::from_secs(10);
        for place in &mut self.nodes {
            if place.running.as_ref().is_some_and(|running| seen.ends.contains(&running.process)) {
                place.is_ill_until(until);
            }
        }
    }

    // ---- lost disks ----

    /// All servers die, and their disks with them.
    pub(super) fn lose_disks(&mut self) {
        self.disks_lost = true;
        self.say(|_| "all disks are lost".to_owned());
        for at in 0..self.plan.servers {
            self.end_server(at, true);
            self.servers[at].disk = Platter::default();
        }
        self.log_begins_anew();
        let at = self.now + self.millis(12_000, 20_000);
        self.later.add(at, Later::Recover);
    }

    /// An operator says so to one server after the other, until the leader has done it.
    pub(super) async fn recover(&mut self) {
        let process = self.next_process();
        let address = SocketAddr::from(([10, 0, 2, 1], 7400));
        self.network.add(process, address);
        let host = Arc::new(Host::new(&self.network, process, 0));
        let builder = Messenger::builder().views(Views::None);
        let Ok(tool) = builder.start_in(|_| host).await else { return };
        let servers: Vec<SocketAddr> = (0..self.plan.servers).map(server_address).collect();
        // What it is told is of no account: it is said until it is done, as a person would.
        tokio::spawn(async move {
            for server in servers.iter().cycle().take(60) {
                let told = tokio::time::timeout(Duration::from_secs(2), async {
                    let contact = tool.contact(server.to_string()).await.ok()?;
                    tool.request(&Ask::Recover, contact.id(), Duration::from_secs(2)).await.ok()
                });
                if let Ok(Some(Answer::Done)) = told.await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            tool.close().await;
        });
    }
}
