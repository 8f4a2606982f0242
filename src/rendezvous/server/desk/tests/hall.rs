//! A desk, the state it reads, and nodes that take what they are told strictly in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::rendezvous::judge::JudgeConfig;
use crate::rendezvous::server::desk::{Desk, DeskConfig, Order, Ordered, Saying};
use crate::rendezvous::state::{Change, ClusterId, Op, Outcome, State, encode};
use crate::rendezvous::words::{Everything, Known, Pong, Refusal, ToNode, ToServer, term_in};
use crate::router::{MessageKey, Route};
use crate::{Kind, Member, MemberId, ViewId};

pub(super) const TERM: u64 = 7;
pub(super) const CLUSTER: ClusterId = ClusterId(0xC1);
pub(super) const PING: Duration = Duration::from_secs(1);
pub(super) const SETTLE: Duration = Duration::from_secs(2);
pub(super) const GATHER: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_millis(300);

pub(super) fn config() -> DeskConfig {
    let eviction = Duration::from_secs(5);
    let judge = JudgeConfig::new(PING, eviction, Duration::from_secs(2), SETTLE).unwrap();
    DeskConfig { judge, settle: SETTLE, gather: GATHER }
}

pub(super) fn view(generation: u64, number: u64) -> ViewId {
    ViewId { generation, number }
}

/// A process that runs as number `n`, at an address of its own.
pub(super) fn member(n: u64) -> Member {
    Member {
        id: MemberId::from_parts(1_000 + n, u128::from(n)),
        endpoints: vec![format!("10.0.{}.{}:7400", n / 250, n % 250 + 1).parse().unwrap()],
        name: String::new(),
        labels: BTreeMap::new(),
        joined: None,
    }
}

pub(super) fn id(n: u64) -> MemberId {
    member(n).id
}

pub(super) fn route(host: u32) -> Route {
    Route { key: MessageKey::of_kind(Kind::new("desk.test", 1)), host }
}

/// A node's copy of what it was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Copy {
    pub(super) known: Known,
    pub(super) member: Option<Member>,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) routes: BTreeMap<MemberId, BTreeSet<Route>>,
    pub(super) registered: u64,
    /// Whether it is fed: welcomed, and not ended since.
    pub(super) fed: bool,
    /// What was on its way when it said hello comes once more after its welcome, up to this change.
    again: u64,
    parts: Vec<u8>,
    next_part: u32,
}

impl Copy {
    /// Takes a word in. Panics where it does not follow from what was said before.
    pub(super) fn take(&mut self, word: &ToNode) {
        match word {
            ToNode::Welcome { term, cluster, member, changes } => {
                (self.known.term, self.registered, self.fed) = (*term, *changes, true);
                self.known.cluster = Some(*cluster);
                self.member = Some(member.clone());
                self.again = self.known.index;
                self.parts.clear();
            }
            ToNode::Everything { part, parts, piece, .. } => {
                assert!(self.fed, "everything to one who is not welcome");
                if *part == 0 {
                    (self.next_part, self.parts) = (0, Vec::new());
                }
                assert_eq!(*part, self.next_part, "parts come in order");
                self.next_part += 1;
                self.parts.extend_from_slice(piece);
                if part + 1 == *parts {
                    let all: Everything = postcard::from_bytes(&self.parts).unwrap();
                    assert!(all.index >= self.known.index, "nobody is taken back");
                    (self.known.index, self.known.view) = (all.index, Some(all.view));
                    self.members = all.members.iter().map(|(one, _)| (one.id, one.clone())).collect();
                    let routes = all.members.into_iter();
                    self.routes =
                        routes.map(|(one, routes)| (one.id, routes.into_iter().collect())).collect();
                }
            }
            ToNode::Change { change, .. } => {
                assert!(self.fed, "a change to one who is not welcome");
                self.apply(postcard::from_bytes(change).unwrap());
            }
            ToNode::Registered { changes, refused: None, .. } => {
                assert!(*changes > self.registered, "told once");
                self.registered = *changes;
            }
            ToNode::Evicted { .. } | ToNode::Farewell { .. } | ToNode::Refused { .. } => self.fed = false,
            _ => {}
        }
    }

    fn apply(&mut self, change: Change) {
        if change.index <= self.again {
            return;
        }
        assert_eq!(change.after, self.known.index, "a gap");
        self.known.index = change.index;
        self.known.view = change.view.or(self.known.view);
        for (gone, _) in change.left {
            self.members.remove(&gone);
            self.routes.remove(&gone);
        }
        for member in change.joined {
            self.routes.insert(member.id, BTreeSet::new());
            self.members.insert(member.id, member);
        }
        for routes in change.routes {
            let of = self.routes.entry(routes.member).or_default();
            if routes.anew {
                of.clear();
            }
            routes.remove.iter().for_each(|route| {
                of.remove(route);
            });
            of.extend(routes.add);
        }
    }
}

pub(super) struct Hall {
    pub(super) state: State,
    pub(super) desk: Desk,
    pub(super) now: Instant,
    pub(super) index: u64,
    /// Whether a majority hears it.
    pub(super) leased: bool,
    /// Whether the log decides at once.
    pub(super) decides: bool,
    pub(super) proposed: VecDeque<Bytes>,
    pub(super) commands: usize,
    /// Whose queue is full: what they are to be told waits here.
    pub(super) full: BTreeMap<MemberId, Option<ToNode>>,
    /// Who answers pings.
    pub(super) alive: BTreeSet<MemberId>,
    pub(super) said: Vec<(MemberId, ToNode)>,
    pub(super) copies: BTreeMap<MemberId, Copy>,
    pub(super) answers: Vec<(u64, Ordered)>,
    pub(super) pings: usize,
}

/// A state that has begun.
pub(super) fn founded() -> State {
    let mut state = State::default();
    state.apply(1, &encode(&[Op::Found { cluster: CLUSTER }]));
    state
}

impl Hall {
    /// A leader over this state.
    pub(super) fn over(state: State, index: u64) -> Self {
        let now = Instant::now();
        let desk = Desk::new(config(), TERM, CLUSTER, 3, now, now + LEASE, &state);
        Self {
            state,
            desk,
            now,
            index,
            leased: true,
            decides: true,
            proposed: VecDeque::new(),
            commands: 0,
            full: BTreeMap::new(),
            alive: BTreeSet::new(),
            said: Vec::new(),
            copies: BTreeMap::new(),
            answers: Vec::new(),
            pings: 0,
        }
    }

    /// The first leader of all, which has settled.
    pub(super) fn open() -> Self {
        let mut hall = Self::over(State::default(), 0);
        hall.pump();
        hall.advance(SETTLE);
        hall
    }

    /// The same, with members.
    pub(super) fn with(members: impl IntoIterator<Item = u64>) -> Self {
        let mut hall = Self::open();
        members.into_iter().for_each(|n| hall.join(n));
        hall.said.clear();
        hall
    }

    pub(super) fn join(&mut self, n: u64) {
        self.alive.insert(id(n));
        self.hello(n);
        assert!(self.state.member(id(n)).is_some(), "{:?}", self.said.last());
    }

    /// What the node says of itself and knows, from its copy.
    pub(super) fn hello(&mut self, n: u64) {
        let copy = self.copies.entry(id(n)).or_default();
        let member = copy.member.clone().unwrap_or_else(|| member(n));
        let known = copy.known;
        self.hears(n, ToServer::Hello { member, known, changes: 0 });
    }

    pub(super) fn hears(&mut self, n: u64, word: ToServer) {
        self.handed(n, word).expect("room");
    }

    pub(super) fn handed(&mut self, n: u64, word: ToServer) -> Result<(), Box<ToServer>> {
        self.renew();
        let done = self.desk.handle_message(self.now, &self.state, id(n), word);
        self.pump();
        done
    }

    pub(super) fn order(&mut self, number: u64, order: Order) {
        self.renew();
        self.desk.handle_order(self.now, &self.state, number, order);
        self.pump();
    }

    pub(super) fn renew(&mut self) {
        let until = self.leased.then(|| self.now + LEASE);
        self.desk.handle_lease(self.now, until);
    }

    /// Applies one command, wherever it comes from.
    pub(super) fn apply(&mut self, command: &[u8]) -> Vec<Outcome> {
        self.index += 1;
        self.state.apply(self.index, command)
    }

    /// The log decides what was proposed.
    pub(super) fn decide(&mut self) {
        if let Some(command) = self.proposed.pop_front() {
            let outcomes = self.apply(&command);
            self.desk.handle_decided(self.now, &self.state, Some(outcomes));
        }
    }

    pub(super) fn pump(&mut self) {
        loop {
            self.renew();
            self.desk.handle_applied(self.now, &self.state);
            self.desk.handle_timeout(self.now, &self.state);
            if let Some(command) = self.desk.poll_proposal(self.now) {
                self.commands += 1;
                self.proposed.push_back(command);
            }
            if let Some((ping, to)) = self.desk.poll_ping(self.now) {
                self.pings += 1;
                for one in to.into_iter().filter(|one| self.alive.contains(one)) {
                    let pong = Pong { term: ping.term, number: ping.number };
                    self.desk.handle_pong(self.now, one, pong);
                }
            }
            while let Some(saying) = self.desk.poll_send(self.now, &self.state) {
                self.said_now(saying);
            }
            while let Some(answer) = self.desk.poll_answer() {
                self.answers.push(answer);
            }
            if !self.decides || self.proposed.is_empty() {
                return;
            }
            self.decide();
        }
    }

    fn said_now(&mut self, Saying { to, what }: Saying) {
        assert!(self.leased || matches!(what, ToNode::Later { .. }), "outside its lease: {what:?}");
        assert_eq!(term_in(what.reign()), TERM);
        assert!(!to.is_empty());
        for one in to {
            match self.full.get_mut(&one) {
                Some(waits) => {
                    assert!(waits.is_none(), "it was told that there is no room");
                    *waits = Some(what.clone());
                    self.desk.handle_blocked(one);
                }
                None => self.told(one, &what),
            }
        }
    }

    fn told(&mut self, one: MemberId, what: &ToNode) {
        self.copies.entry(one).or_default().take(what);
        self.said.push((one, what.clone()));
    }

    /// There is room for what it was to be told.
    pub(super) fn room(&mut self, one: MemberId) {
        if let Some(Some(waited)) = self.full.remove(&one) {
            self.told(one, &waited);
            self.desk.handle_room(one);
        }
        self.pump();
    }

    /// Room for one word, and no more.
    pub(super) fn room_for_one(&mut self, one: MemberId) {
        if let Some(waited) = self.full.get_mut(&one).and_then(Option::take) {
            self.told(one, &waited);
            self.desk.handle_room(one);
        }
        self.pump();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(next) = self.desk.poll_timeout().filter(|next| *next <= until) {
            // An input at least every millisecond, or a desk that asks for the past would never get on.
            self.now = next.max(self.now + Duration::from_millis(1)).min(until);
            self.pump();
            if self.now == until {
                break;
            }
        }
        self.now = until;
        self.pump();
    }

    pub(super) fn copy(&self, n: u64) -> &Copy {
        &self.copies[&id(n)]
    }

    /// Whether what a node was told is what holds.
    pub(super) fn is_current(&self, n: u64) -> bool {
        let copy = self.copy(n);
        let members: BTreeMap<_, _> = self.state.members().map(|one| (one.id, one.clone())).collect();
        let routes: BTreeMap<_, BTreeSet<_>> = self
            .state
            .members()
            .map(|one| (one.id, self.state.routes_of(one.id).cloned().collect()))
            .collect();
        copy.known.index == self.state.index() && copy.members == members && copy.routes == routes
    }

    pub(super) fn heard_by(&self, n: u64) -> Vec<&ToNode> {
        self.said.iter().filter(|(one, _)| *one == id(n)).map(|(_, word)| word).collect()
    }

    pub(super) fn refusal(&self, n: u64) -> Option<Refusal> {
        match self.heard_by(n).last() {
            Some(ToNode::Refused { why, .. }) => Some(why.clone()),
            _ => None,
        }
    }
}

/// Routes of a node, as its change `to`.
pub(super) fn routes(from: u64, to: u64, hosts: impl IntoIterator<Item = u32>) -> ToServer {
    ToServer::Routes { from, to, add: hosts.into_iter().map(route).collect(), remove: Vec::new() }
}
