//! Servers and nodes of one network, and the books of all of them.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::labs::books::uneven;
use crate::labs::network::{Network, Tried};
use crate::labs::process;
use crate::process::{Worker, at, holds};
use crate::report::Form;
use crate::support::network::{Servers, karere};
use crate::worker::{Job, unix_ms};

const PORT: u16 = 7500;
/// For each wait: far beyond every promise.
const DEADLINE: Duration = Duration::from_secs(90);
/// Messages a second from each node to each other.
pub(crate) const RATE: u64 = 50;

/// Times of the servers in the short form. The long one has the defaults.
const SHORT: &str = "[rendezvous]
ping = \"250ms\"
eviction = \"2s\"
probe = \"500ms\"
settle = \"500ms\"
[timeouts]
ping = \"500ms\"
liveness = \"1500ms\"
";

pub(crate) struct World {
    // Before the network, so that they are ended first.
    pub(crate) nodes: Vec<Worker>,
    pub(crate) servers: Servers,
    network: Option<Network>,
    started: usize,
    /// See [`Job`].
    rate: u64,
    look_ms: u64,
    _directory: tempfile::TempDir,
}

impl World {
    /// Three servers, and so many nodes that have joined and talk to each other.
    pub(crate) fn on_loopback(nodes: usize, form: Form) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let servers = Servers::start(3, directory.path(), &more(&directory, form));
        Self::new(servers, None, directory).meet(nodes, |_| None)
    }

    /// The same without messages between nodes, and nodes that look seldom enough for many of them.
    pub(crate) fn quiet(nodes: usize, form: Form) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let servers = Servers::start(3, directory.path(), &more(&directory, form));
        let this = Self { rate: 0, look_ms: 5, ..Self::new(servers, None, directory) };
        this.meet(nodes, |_| None)
    }

    fn new(servers: Servers, network: Option<Network>, directory: tempfile::TempDir) -> Self {
        Self {
            nodes: Vec::new(),
            servers,
            network,
            started: 0,
            rate: RATE,
            look_ms: 1,
            _directory: directory,
        }
    }

    /// The same, each on a host of its own: servers on the first three.
    pub(crate) fn on_hosts(nodes: usize, form: Form) -> Tried<Self> {
        let network = Network::new(3 + nodes)?;
        let directory = tempfile::tempdir().unwrap();
        let addresses = (0..3).map(|host| format!("{}:{PORT}", Network::address(host))).collect();
        let names: Vec<String> = (0..3).map(|host| network.host(host).name().to_owned()).collect();
        let starts = move |at: usize| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &names[at]]).arg(karere().get_program());
            command
        };
        let more = more(&directory, form);
        let servers = Servers::start_at(addresses, directory.path(), &more, Box::new(starts));
        Ok(Self::new(servers, Some(network), directory).meet(nodes, |at| Some(3 + at)))
    }

    fn meet(mut self, nodes: usize, host: impl Fn(usize) -> Option<usize>) -> Self {
        self.servers.wait_for_leader();
        for at in 0..nodes {
            let node = self.start_node(host(at));
            self.nodes.push(node);
        }
        let all: Vec<usize> = (0..nodes).collect();
        self.wait_until_all_see_all(&all);
        if self.rate > 0 {
            self.wait_for_traffic(&all);
        }
        self
    }

    /// One more process.
    pub(crate) fn start_node(&mut self, host: Option<usize>) -> Worker {
        let exe = std::env::current_exe().unwrap();
        let (command, bind) = match (host, &self.network) {
            (Some(host), Some(network)) => {
                let mut command = network.host(host).enter();
                command.arg(exe);
                (command, format!("{}:7400", Network::address(host)))
            }
            _ => (Command::new(exe), "127.0.0.1:0".to_owned()),
        };
        self.started += 1;
        let name = format!("node-{}", self.started);
        let (rate, look_ms) = (self.rate, self.look_ms);
        Worker::start(command, &Job { rendezvous: self.servers.list(), bind, name, rate, look_ms })
    }

    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().unwrap()
    }

    #[track_caller]
    pub(crate) fn wait<T>(&mut self, what: &str, found: impl FnMut(&mut Self) -> Option<T>) -> T {
        process::until(what, DEADLINE, self, found, Self::story)
    }

    /// Each of these is a member, and has all of these and nobody else in its view.
    pub(crate) fn all_see_all(&mut self, of: &[usize]) -> bool {
        let mut ids: Vec<String> = of.iter().map(|at| self.nodes[*at].id()).collect();
        ids.sort();
        of.iter().all(|at| {
            let node = &mut self.nodes[*at];
            node.is_joined() && node.last("view").is_some_and(|view| members(&view) == ids)
        })
    }

    #[track_caller]
    pub(crate) fn wait_until_all_see_all(&mut self, of: &[usize]) {
        self.wait("all to see all", |this| this.all_see_all(of).then_some(()));
    }

    /// Something new has come to each of these from each other one of them.
    #[track_caller]
    pub(crate) fn wait_for_traffic(&mut self, of: &[usize]) {
        let ids: Vec<String> = of.iter().map(|at| self.nodes[*at].id()).collect();
        let flows: Vec<Value> =
            of.iter().map(|at| self.nodes[*at].ask("totals")["traffic"]["from"].clone()).collect();
        self.wait("messages to flow", |this| {
            let all = of.iter().zip(&flows).all(|(at, before)| {
                let now = this.nodes[*at].ask("totals")["traffic"]["from"].clone();
                let me = this.nodes[*at].id();
                ids.iter().filter(|id| **id != me).all(|id| now[id].as_u64() > before[id].as_u64())
            });
            all.then_some(())
        });
    }

    /// When each of these said first that its view has, or has not, this member: after a moment, in milliseconds.
    #[track_caller]
    pub(crate) fn seen_ms(&mut self, by: &[usize], id: &str, is_in: bool, moment: f64) -> Vec<f64> {
        let seen = |node: &mut Worker| {
            node.when("a view", "view", moment, |view| holds(&view["members"], id) == is_in) - moment
        };
        by.iter().map(|at| seen(&mut self.nodes[*at])).collect()
    }

    /// Members that some node saw go, from a moment on.
    pub(crate) fn dropped(&mut self, from_ms: f64) -> Vec<String> {
        let mut gone = Vec::new();
        for node in &mut self.nodes {
            let views = node.all("view", 0.0);
            for (before, after) in
                views.iter().zip(views.iter().skip(1)).filter(|(_, after)| at(after) >= from_ms)
            {
                let stays = members(after);
                gone.extend(members(before).into_iter().filter(|id| !stays.contains(id)));
            }
        }
        gone.sort();
        gone.dedup();
        gone
    }

    /// Stops the messages and waits until each of these has all that the others sent it, acknowledged; then checks that nothing was lost,
    /// doubled, out of order or meant for another, and that the books balance. How many there were.
    #[track_caller]
    pub(crate) fn settle(&mut self, between: &[usize]) -> u64 {
        between.iter().for_each(|at| self.nodes[*at].order("pause"));
        let totals = self.wait("all to be received and acknowledged", |this| {
            let totals: Vec<_> = between.iter().map(|at| this.nodes[*at].ask("totals")).collect();
            let is_settled = totals.iter().all(|one| one["settled"] == true);
            (is_settled && unequal(&totals).is_none()).then_some(totals)
        });
        let mut count = 0;
        for one in &totals {
            assert_eq!((&one["balance"], &one["misdirected"]), (&true.into(), &0.into()), "{one}");
            let traffic = &one["traffic"];
            for wrong in ["lost", "twice", "out_of_order"] {
                assert_eq!(traffic[wrong], 0, "{wrong}: {one}");
            }
            count += traffic["received"].as_u64().unwrap();
        }
        between.iter().for_each(|at| self.nodes[*at].order("resume"));
        count
    }

    /// Each of these finds exactly the routes that each other has; how many.
    #[track_caller]
    pub(crate) fn routes_agree(&mut self, between: &[usize]) -> usize {
        self.wait("all to be registered", |this| {
            between.iter().all(|at| this.nodes[*at].ask("own")["registered"] == true).then_some(())
        });
        let mut all: Vec<(String, String)> = Vec::new();
        for who in between {
            let (id, own) = (self.nodes[*who].id(), self.nodes[*who].ask("own"));
            let keys = own["keys"].as_array().unwrap().iter();
            all.extend(keys.map(|key| (key.as_str().unwrap().to_owned(), id.clone())));
        }
        all.sort();
        self.wait("all routes to be known to all", |this| {
            let agree = between.iter().all(|who| {
                let me = this.nodes[*who].id();
                let others = this.nodes[*who].ask("others");
                let known: Vec<(String, String)> = serde_json::from_value(others["routes"].clone()).unwrap();
                let expected: Vec<_> = all.iter().filter(|(_, at)| *at != me).cloned().collect();
                known == expected
            });
            agree.then_some(())
        });
        all.len()
    }

    /// Messages that came to these, and the longest time that one of them heard nothing of another of them, since the last call.
    pub(crate) fn count(&mut self, of: &[usize]) -> Count {
        let ids: Vec<String> = of.iter().map(|at| self.nodes[*at].id()).collect();
        let mut count = Count { messages: 0, silent_ms: 0, at_ms: unix_ms() };
        for at in of {
            let said = self.nodes[*at].ask("count");
            count.messages += said["count"].as_u64().unwrap();
            let silent = ids.iter().filter_map(|id| said["silent_ms"][id].as_u64()).max().unwrap_or_default();
            count.silent_ms = count.silent_ms.max(silent);
        }
        count
    }

    pub(crate) fn story(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(Worker::story).collect();
        let servers = self.servers.running.iter().zip(&self.servers.addresses);
        let servers = servers.map(|(server, address)| match server {
            Some(server) => process::story(&format!("server {address}"), server),
            None => format!("server {address}: dead"),
        });
        let servers: Vec<_> = servers.collect();
        format!("\nnow: {}\n{}\n{}", unix_ms(), servers.join("\n"), nodes.join("\n"))
    }
}

/// See [`World::count`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    messages: u64,
    pub(crate) silent_ms: u64,
    at_ms: f64,
}

impl Count {
    /// Messages a second since then.
    pub(crate) fn rate_since(self, before: Count) -> f64 {
        (self.messages - before.messages) as f64 * 1e3 / (self.at_ms - before.at_ms)
    }
}

fn more(directory: &tempfile::TempDir, form: Form) -> String {
    let config = directory.path().join("karere.toml");
    std::fs::write(&config, form.pick(SHORT, "")).unwrap();
    format!("--config {}", config.display())
}

/// Of a view, sorted.
pub(crate) fn members(view: &Value) -> Vec<String> {
    let mut members: Vec<String> = serde_json::from_value(view["members"].clone()).unwrap();
    members.sort();
    members
}

/// Where what was queued, acknowledged and received differs between two.
fn unequal(totals: &[Value]) -> Option<String> {
    for ours in totals {
        for theirs in totals.iter().filter(|theirs| theirs["id"] != ours["id"]) {
            let (from, to) = (&ours["id"], &theirs["id"]);
            let sent = &ours["traffic"]["sent"][to.as_str().unwrap()];
            let received = &theirs["traffic"]["from"][from.as_str().unwrap()];
            let uneven = uneven(&format!("{from} to {to}"), sent, received);
            if uneven.is_some() {
                return uneven;
            }
        }
    }
    None
}
