//! A log, servers that know it, and one node that follows them. What a server says is what the real desk would: it decides by the
//! real state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{Client, CoreConfig, LeaseNews, Output, Ticket};
use crate::rendezvous::client::standing::Standing;
use crate::rendezvous::common::{ClusterId, Refused, Token, Why};
use crate::rendezvous::state::{Op, Outcome, State, encode};
use crate::rendezvous::words::{Everything, Ping, Refusal, Report, ToNode, ToServer};
use crate::router::{MessageKey, Route, RouteChange};
use crate::{Kind, Member, MemberId, ViewId};

pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) fn member(number: u128) -> Member {
    Member {
        id: MemberId::from_parts(1, number),
        endpoints: vec![format!("10.0.0.1:{}", 1000 + number % 60_000).parse().unwrap()],
        name: String::new(),
        labels: BTreeMap::new(),
        joined: None,
    }
}

pub(super) fn route(number: u64) -> Route {
    let name: &'static str = Box::leak(format!("test.route.{number}").into_boxed_str());
    Route { key: MessageKey::of_kind(Kind::new(name, 1)), host: 1 }
}

pub(super) fn adds(numbers: impl IntoIterator<Item = u64>) -> RouteChange {
    RouteChange { added: numbers.into_iter().map(route).collect(), removed: Vec::new() }
}

/// All that members know of a state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) view: ViewId,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) routes: BTreeMap<MemberId, BTreeSet<Route>>,
    pub(super) leases: BTreeMap<String, (MemberId, Token)>,
}

impl Seen {
    fn of(state: &State) -> Self {
        let routes = |member: &Member| (member.id, state.routes_of(member.id).cloned().collect());
        Self {
            view: state.view_id(),
            members: state.members().map(|member| (member.id, member.clone())).collect(),
            routes: state.members().map(routes).collect(),
            leases: state.leases().filter_map(|lease| Some((lease.name, lease.holder?))).collect(),
        }
    }
}

/// A log and what each of its states was.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) commands: Vec<Bytes>,
    pub(super) state: State,
    pub(super) seen: BTreeMap<u64, Seen>,
    cluster: ClusterId,
}

impl Log {
    pub(super) fn new(cluster: u128) -> Self {
        let cluster = ClusterId(cluster);
        let mut log = Self { commands: Vec::new(), state: State::default(), seen: BTreeMap::new(), cluster };
        log.decide(Op::Found { cluster });
        log
    }

    pub(super) fn decide(&mut self, op: Op) -> Outcome {
        self.decide_all(&[op]).remove(0)
    }

    pub(super) fn decide_all(&mut self, ops: &[Op]) -> Vec<Outcome> {
        let command = encode(ops);
        self.commands.push(command.clone());
        let outcomes = self.state.apply(self.commands.len() as u64, &command);
        self.seen.insert(self.state.index(), Seen::of(&self.state));
        outcomes
    }
}

/// One server, as the node sees it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: MemberId,
    pub(super) up: bool,
    /// It thinks that it leads, in this term.
    pub(super) leads: Option<u64>,
    /// What it has applied; the true leader everything.
    pub(super) state: State,
    pub(super) applied: usize,
    /// Up to which change the node was told; `None`: it is not welcome.
    fed: Option<u64>,
    hello: Option<(Member, u64)>,
    /// The node asked it for the leader, and is to be told of the next.
    asked: bool,
    /// It says "later" to whoever comes.
    pub(super) puts_off: bool,
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) begin: Instant,
    pub(super) log: Log,
    pub(super) servers: Vec<Server>,
    pub(super) term: u64,
    pub(super) client: Client,
    pub(super) me: MemberId,
    next_id: u128,
    /// The server that is spoken with, and the words under way.
    pub(super) at: Option<usize>,
    pub(super) out: VecDeque<ToServer>,
    pub(super) back: VecDeque<ToNode>,
    pub(super) standings: Vec<Standing>,
    pub(super) views: Vec<ViewId>,
    /// Who was asked, and when.
    pub(super) sought: Vec<(Duration, String)>,
    /// What the router knows.
    pub(super) up: BTreeMap<MemberId, BTreeSet<Route>>,
    pub(super) leases: BTreeMap<Ticket, LeaseNews>,
    pub(super) reborn: usize,
    pub(super) probes: Vec<MemberId>,
    pub(super) left: bool,
    pub(super) part_bytes: usize,
    /// What the leader was told of others.
    pub(super) reports: Vec<(MemberId, Report)>,
    /// Whom servers that do not lead name, whoever leads.
    pub(super) named: Option<&'static str>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(CoreConfig::default(), seed)
    }

    pub(super) fn with(config: CoreConfig, seed: u64) -> Self {
        Self::listed(&["a:1", "b:1", "c:1"], config, seed)
    }

    /// The node knows these of the servers.
    pub(super) fn listed(list: &[&str], config: CoreConfig, seed: u64) -> Self {
        let now = Instant::now();
        let servers: Vec<String> = list.iter().map(|one| (*one).to_owned()).collect();
        let me = member(1);
        let server = |number: u128| Server {
            id: member(1_000_000 + number).id,
            up: true,
            leads: None,
            state: State::default(),
            applied: 0,
            fed: None,
            hello: None,
            asked: false,
            puts_off: false,
        };
        let mut world = Self {
            now,
            begin: now,
            log: Log::new(7),
            servers: (0..3).map(server).collect(),
            term: 0,
            me: me.id,
            client: Client::new(config, servers, me, now, seed),
            next_id: 2_000_000,
            at: None,
            out: VecDeque::new(),
            back: VecDeque::new(),
            standings: Vec::new(),
            views: Vec::new(),
            sought: Vec::new(),
            up: BTreeMap::new(),
            leases: BTreeMap::new(),
            reborn: 0,
            probes: Vec::new(),
            left: false,
            part_bytes: 64,
            reports: Vec::new(),
            named: None,
        };
        world.elect(0);
        world
    }

    pub(super) fn fresh_id(&mut self) -> MemberId {
        self.next_id += 1;
        member(self.next_id).id
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.up && server.leads == Some(self.term))
    }

    /// This server leads from now on, with all that was decided. Those of before do not know. Whoever asked is told.
    pub(super) fn elect(&mut self, at: usize) {
        self.elect_unheard(at);
        let Some(here) = self.at.filter(|here| std::mem::take(&mut self.servers[*here].asked)) else {
            return;
        };
        let leader = ["a:1", "b:1", "c:1"][at].to_owned();
        self.back.push_back(match here == at {
            true => ToNode::Later { term: self.term, after: Duration::ZERO },
            false => ToNode::NotLeader { term: self.term, leader: Some(leader) },
        });
    }

    /// The same, and no other server hears of it.
    pub(super) fn elect_unheard(&mut self, at: usize) {
        self.term += 1;
        self.servers[at].leads = Some(self.term);
        self.catch_up();
    }

    pub(super) fn catch_up(&mut self) {
        let Some(at) = self.leader() else { return };
        let server = &mut self.servers[at];
        while server.applied < self.log.commands.len() {
            let command = &self.log.commands[server.applied];
            server.applied += 1;
            server.state.apply(server.applied as u64, command);
        }
    }

    /// The process of a server ends; what it said and heard is lost with it.
    pub(super) fn stop(&mut self, at: usize) {
        self.servers[at].up = false;
        self.servers[at].leads = None;
        self.break_session(at);
        self.servers[at].id = self.fresh_id();
    }

    pub(super) fn break_session(&mut self, at: usize) {
        (self.servers[at].fed, self.servers[at].hello) = (None, None);
        self.servers[at].asked = false;
        if self.at == Some(at) {
            self.at = None;
            self.out.clear();
            self.back.clear();
        }
    }

    /// Another log, as after all disks were lost.
    pub(super) fn replace_log(&mut self, log: Log) {
        self.log = log;
        for at in 0..3 {
            self.stop(at);
            let server = &mut self.servers[at];
            (server.up, server.state, server.applied) = (true, State::default(), 0);
        }
        self.elect(0);
    }

    pub(super) fn decide(&mut self, op: Op) -> Outcome {
        let outcome = self.log.decide(op);
        self.catch_up();
        outcome
    }

    pub(super) fn join_other(&mut self, number: u128) -> MemberId {
        let other = member(number);
        let id = other.id;
        self.decide(Op::Join { member: other, keep: false });
        id
    }

    // ---- time and words ----

    /// Does what the client wants done.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.client.poll_output(self.now) {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Seek { attempt, address } => {
                self.sought.push((self.now - self.begin, address.clone()));
                if let Some(before) = self.at {
                    self.break_session(before);
                }
                let at = ["a:1", "b:1", "c:1"].iter().position(|known| **known == *address);
                match at.filter(|at| self.servers[*at].up) {
                    Some(at) => {
                        self.at = Some(at);
                        let id = self.servers[at].id;
                        self.client.handle_met(self.now, attempt, id);
                    }
                    None => self.client.handle_unmet(self.now, attempt, "nobody"),
                }
            }
            Output::Say(word) => {
                if self.at.is_some() {
                    self.out.push_back(word);
                }
            }
            Output::View { down, view, up } => {
                assert!(self.views.last().is_none_or(|last| view.id() > *last), "views only grow");
                assert!(view.contains(self.me), "a view without this node is never installed");
                self.views.push(view.id());
                for gone in down {
                    assert!(self.up.remove(&gone).is_some(), "who goes was there");
                }
                for new in up {
                    assert!(self.up.insert(new, BTreeSet::new()).is_none(), "who comes was not there");
                }
                let there: BTreeSet<MemberId> = view.others(self.me).collect();
                assert_eq!(there, self.up.keys().copied().collect());
            }
            Output::Routes { member, anew, change } => {
                let known = self.up.get_mut(&member).expect("routes are told of those who are up");
                if anew {
                    known.clear();
                }
                known.retain(|route| !change.removed.contains(route));
                known.extend(change.added);
            }
            Output::Reincarnate => {
                self.reborn += 1;
                self.up.clear();
                let me = Member { id: self.fresh_id(), ..member(1) };
                self.me = me.id;
                // The session of before is over; the contact is the same.
                self.out.clear();
                self.back.clear();
                if let Some(at) = self.at {
                    (self.servers[at].fed, self.servers[at].hello) = (None, None);
                }
                self.client.handle_reborn(self.now, me);
            }
            Output::Probe { member: of, .. } => {
                self.probes.push(of);
                self.client.handle_probed(of, true);
            }
            Output::Lease(ticket, news) => drop(self.leases.insert(ticket, news)),
            Output::Standing(standing) => self.standings.push(standing),
            Output::Left { .. } => self.left = true,
        }
    }

    pub(super) fn standing(&self) -> &Standing {
        self.standings.last().unwrap_or(&Standing::Seeking)
    }

    /// A word of the node gets to its server.
    pub(super) fn deliver_out(&mut self) -> bool {
        let Some(at) = self.at else { return false };
        let Some(word) = self.out.pop_front() else { return false };
        let answers = self.answer(at, word);
        self.back.extend(answers);
        true
    }

    /// A word of the server gets to the node.
    pub(super) fn deliver_back(&mut self) -> bool {
        let Some(at) = self.at else { return false };
        self.feed(at);
        let Some(word) = self.back.pop_front() else { return false };
        let from = self.servers[at].id;
        self.client.handle_word(self.now, from, word);
        self.drain();
        true
    }

    pub(super) fn ping(&mut self) {
        let Some(at) = self.at else { return };
        let server = &self.servers[at];
        let (Some(term), Some(_)) = (server.leads, server.fed) else { return };
        let ping = Ping { term, number: 1, index: server.state.index() };
        let from = server.id;
        let _pong = self.client.handle_ping(self.now, from, ping);
        self.drain();
    }

    /// Everything that can be delivered is.
    pub(super) fn settle(&mut self) {
        self.drain();
        while self.deliver_out() || self.deliver_back() {
            self.drain();
        }
    }

    /// Time goes on, with pings every second, and everything is delivered.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now < end {
            let ping = self.begin + Duration::from_secs((self.now - self.begin).as_secs() + 1);
            let next = self.client.poll_timeout(self.now).map_or(end, |at| at.max(self.now + MS));
            let to = end.min(ping).min(next);
            let pings = to == ping;
            self.now = to;
            if pings {
                self.ping();
            }
            self.client.handle_timeout(self.now);
            self.settle();
        }
    }

    pub(super) fn announce(&mut self, change: RouteChange) {
        self.client.handle_announce(change);
        self.drain();
    }

    // ---- what a server does ----

    fn answer(&mut self, at: usize, word: ToServer) -> Vec<ToNode> {
        let leader = self.leader().map(|at| ["a:1", "b:1", "c:1"][at].to_owned());
        let leader = self.named.map(str::to_owned).or(leader);
        if self.servers[at].puts_off {
            return vec![ToNode::Later { term: self.term, after: Duration::from_secs(1) }];
        }
        let real = self.leader() == Some(at);
        let Some(term) = self.servers[at].leads else {
            let hello = matches!(word, ToServer::Hello { .. });
            self.servers[at].asked |= hello;
            return if hello { vec![ToNode::NotLeader { term: self.term, leader }] } else { Vec::new() };
        };
        match word {
            ToServer::Hello { member, known, .. } => {
                assert_eq!(member.id, self.me, "it says who it is");
                self.servers[at].fed = None;
                self.servers[at].hello = None;
                let state = &self.servers[at].state;
                let ours = known.cluster.is_none_or(|cluster| Some(cluster) == state.cluster());
                if ours && known.term > term {
                    return Vec::new();
                }
                let seen = known.view.unwrap_or(ViewId { generation: 0, number: 0 });
                if !ours && seen.generation >= state.view_id().generation {
                    return vec![ToNode::Refused { term, why: Refusal::AnotherHistory }];
                }
                if state.is_gone(member.id) || (member.joined.is_some() && state.member(member.id).is_none())
                {
                    return vec![ToNode::Evicted { term, why: Some(Why::Silent) }];
                }
                if state.member(member.id).is_none() {
                    if !real {
                        // It decides nothing without a majority.
                        return Vec::new();
                    }
                    self.decide(Op::Join { member: member.clone(), keep: false });
                }
                self.servers[at].hello = Some((member, known.index));
                self.welcome(at, term, known.view.is_some() && ours && known.cluster.is_some())
            }
            _ if self.servers[at].fed.is_none() || !real => Vec::new(),
            ToServer::Routes { from, to, add, remove } => {
                match self.decide(Op::Routes { member: self.me, from, to, add, remove }) {
                    Outcome::Refused(why) => {
                        vec![ToNode::Registered { term, changes: to, refused: Some(why) }]
                    }
                    Outcome::Done | Outcome::Already => {
                        let changes = self.log.state.changes_of(self.me).unwrap_or_default();
                        vec![ToNode::Registered { term, changes, refused: None }]
                    }
                }
            }
            ToServer::Lease { number, op } => {
                let refused = match self.decide(Op::Lease { member: self.me, op }) {
                    Outcome::Refused(why) => Some(why),
                    Outcome::Done | Outcome::Already => None,
                };
                vec![ToNode::Lease { term, number, refused }]
            }
            ToServer::Leave => {
                self.decide(Op::Leave { member: self.me, why: Why::Left });
                self.servers[at].fed = None;
                vec![ToNode::Farewell { term }]
            }
            ToServer::Report { of, what } => {
                self.reports.push((of, what));
                Vec::new()
            }
            ToServer::Probed { .. } => Vec::new(),
        }
    }

    fn welcome(&mut self, at: usize, term: u64, resumes: bool) -> Vec<ToNode> {
        let part_bytes = self.part_bytes;
        let server = &mut self.servers[at];
        let Some((hello, index)) = server.hello.take() else { return Vec::new() };
        let state = &server.state;
        let (Some(cluster), Some(member)) = (state.cluster(), state.member(hello.id)) else {
            return Vec::new();
        };
        let changes = state.changes_of(hello.id).unwrap_or_default();
        let mut said = vec![ToNode::Welcome { term, cluster, member: member.clone(), changes }];
        if resumes && (index == state.index() || state.change_after(index).is_some()) {
            server.fed = Some(index);
            return said;
        }
        server.fed = Some(state.index());
        let bytes = Bytes::from(postcard::to_stdvec(&everything(state, cluster)).unwrap());
        let pieces: Vec<Bytes> = bytes.chunks(part_bytes).map(Bytes::copy_from_slice).collect();
        let parts = pieces.len() as u32;
        let part =
            |(part, piece): (usize, Bytes)| ToNode::Everything { term, part: part as u32, parts, piece };
        said.extend(pieces.into_iter().enumerate().map(part));
        said
    }

    /// What changed, since the node was told last.
    fn feed(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let (Some(term), Some(fed)) = (server.leads, &mut server.fed) else { return };
        while let Some((index, change)) = server.state.change_after(*fed) {
            *fed = index;
            self.back.push_back(ToNode::Change { term, change });
        }
    }

    // ---- what must hold ----

    /// The copy is a state that the log had, and the router knows the routes of that state.
    pub(super) fn check(&self, logs: &[&Log]) {
        let copy = self.client.copy();
        if copy.index() == 0 {
            return;
        }
        let log = logs.iter().copied().chain([&self.log]).find(|log| Some(log.cluster) == copy.cluster());
        let seen = log.and_then(|log| log.seen.get(&copy.index())).expect("a place that the log has");
        assert_eq!(copy.view_id(), seen.view);
        assert_eq!(*copy.members(), seen.members);
        assert_eq!(*copy.leases(), seen.leases);
        if !self.up.is_empty() {
            let others = seen.routes.iter().filter(|(id, _)| **id != self.me);
            let others: BTreeMap<_, _> = others.map(|(id, routes)| (*id, routes.clone())).collect();
            assert_eq!(self.up, others, "at {}", copy.index());
        }
    }
}

pub(super) fn everything(state: &State, cluster: ClusterId) -> Everything {
    Everything {
        cluster,
        index: state.index(),
        view: state.view_id(),
        members: state
            .members()
            .map(|member| (member.clone(), state.routes_of(member.id).cloned().collect()))
            .collect(),
        leases: state.leases().collect(),
    }
}

/// What the log refuses for want of room.
pub(super) fn full() -> Refused {
    Refused::Full("full".to_owned())
}
