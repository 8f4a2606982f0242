//! A door for the fuzzer: one node, and servers that say anything, in words that are nearly right and in words that are not.
//!
//! Whatever they say: nothing panics; an older view is never installed, nor one without this node; the router hears of nobody who is not
//! up; what is kept is bounded; and the node always knows when it acts next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Client, CoreConfig, LeaseNews, OnFrozen, Output, PROBES_MAX, Phase, Ticket};
use crate::rendezvous::common::{
    Change, ClusterId, LeaseChange, MEMBERS_MAX, Refused, RoutesChange, Token, Why,
};
use crate::rendezvous::door::{Source, member};
use crate::rendezvous::words::{Everything, Health, Ping, Refusal, ToNode, ToServer};
use crate::router::{Route, RouteChange};
use crate::{Member, MemberId, ViewId};

const OPERATIONS_MAX: usize = 400;
const SERVERS: [u128; 3] = [1001, 1002, 1003];
const LEASES: [&str; 3] = ["a", "b", "c"];
/// Of one word, beside its routes: an entry of the log holds them.
const WORD_BYTES_MAX: usize = 24 * 1024;
/// What one input may ask for.
const OUTPUTS_MAX: usize = 3_000;
/// How often time may stand still for a node that wants to act.
const TURNS_MAX: usize = 8;
/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(10);

struct Run<'s, 'a> {
    source: &'s mut Source<'a>,
    now: Instant,
    client: Client,
    attempt: u64,
    met: Option<MemberId>,
    installed: Option<ViewId>,
    /// What the router knows.
    up: BTreeMap<MemberId, BTreeSet<Route>>,
    next_id: u128,
    tickets: Vec<(String, Ticket)>,
    held: BTreeMap<Ticket, Token>,
    probes: usize,
    begun: Instant,
    /// How often it became another member.
    reborn: u32,
    /// Bytes of parts that were said.
    poured: usize,
    over: bool,
}

pub(in crate::rendezvous) fn follower(now: Instant, source: &mut Source<'_>) {
    let mode = source.u8();
    let on_frozen = if mode & 1 == 0 { OnFrozen::GoOn } else { OnFrozen::Stop(Duration::from_secs(20)) };
    let config = CoreConfig { on_frozen, ..CoreConfig::default() };
    let servers = ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec();
    let mut run = Run {
        client: Client::new(config, servers, member(1), now, u64::from(mode)),
        source,
        now,
        attempt: 0,
        met: None,
        installed: None,
        up: BTreeMap::new(),
        next_id: 2000,
        tickets: Vec::new(),
        held: BTreeMap::new(),
        probes: 0,
        begun: now,
        reborn: 0,
        poured: 0,
        over: false,
    };
    run.settle();
    for _ in 0..OPERATIONS_MAX {
        if run.source.is_empty() || run.over {
            break;
        }
        run.operate();
        run.settle();
        run.check();
    }
}

impl Run<'_, '_> {
    fn operate(&mut self) {
        let (now, attempt) = (self.now, self.attempt);
        match self.source.u8() {
            0..=0x1f => self.meet(),
            0x20..=0x27 => self.client.handle_unmet(now, attempt, "nobody"),
            0x28..=0x2b => self.client.handle_gone(now, attempt),
            0x2c..=0x2f => {
                let server = self.server();
                self.client.handle_session_lost(now, server);
            }
            0x30..=0x33 => {
                let (server, is_up) = (self.server(), self.source.bit());
                self.client.handle_link(now, server, is_up);
            }
            0x34..=0x37 => {
                let server = self.server();
                self.client.handle_stuck(now, server);
            }
            0x38..=0x4f => self.pass_time(),
            0x50..=0x57 => self.ping(),
            0x58..=0x5f => self.announce(),
            0x60..=0x6f => self.lease(),
            0x70..=0x77 => {
                let (of, lost) = (self.anybody(), self.source.bit());
                self.client.handle_evidence(now, of, lost);
            }
            0x78 => self.client.handle_withdraw(),
            0x79 => self.client.handle_leave(),
            0x7a..=0x7f if self.probes > 0 => {
                self.probes -= 1;
                let (of, answered) = (self.anybody(), self.source.bit());
                self.client.handle_probed(of, answered);
            }
            0x7a..=0x7f => {}
            0x80.. => {
                let (from, word) = (self.server(), self.word());
                if let ToNode::Everything { piece, .. } = &word {
                    self.poured += piece.len();
                }
                self.client.handle_word(now, from, word);
            }
        }
    }

    fn meet(&mut self) {
        let how = self.source.u8();
        let server = SERVERS.get(usize::from(how % 3)).copied().unwrap_or(1001);
        // Now and then an answer to an attempt of before.
        let attempt = self.attempt - u64::from(how >= 0xf0).min(self.attempt);
        let server = member(server).id;
        self.client.handle_met(self.now, attempt, server);
        self.met = self.client.server().or(self.met);
    }

    /// The one that was met, mostly.
    fn server(&mut self) -> MemberId {
        let other = self.source.u8();
        match self.met {
            Some(met) if other < 0xf0 => met,
            Some(_) | None => member(1001 + u128::from(other % 3)).id,
        }
    }

    fn anybody(&mut self) -> MemberId {
        let who = self.source.u8();
        if who.is_multiple_of(8) { self.client.me.id } else { member(10 + u128::from(who % 8)).id }
    }

    fn pass_time(&mut self) {
        let how = self.source.u8();
        self.now = match (how, self.client.poll_timeout(self.now)) {
            (0..=0x7f, Some(at)) => self.now.max(at),
            _ => self.now + Duration::from_millis(u64::from(how) * 20),
        };
        self.client.handle_timeout(self.now);
    }

    fn ping(&mut self) {
        let (from, term) = (self.server(), self.source.near(self.client.term));
        let ping =
            Ping { term, number: self.source.number(), index: self.source.near(self.client.copy.index()) };
        if let Some(pong) = self.client.handle_ping(self.now, from, ping) {
            assert_eq!((pong.term, pong.number), (ping.term, ping.number));
        }
    }

    fn announce(&mut self) {
        let (added, removed) = (self.source.some(3, Source::route), self.source.some(3, Source::route));
        self.client.handle_announce(RouteChange { added, removed });
    }

    fn lease(&mut self) {
        let how = self.source.u8();
        if how & 1 == 0 || self.tickets.is_empty() {
            let name = LEASES.get(usize::from(how / 2 % 3)).copied().unwrap_or("a");
            if let Ok(ticket) = self.client.acquire(name, how & 0x40 == 0) {
                self.tickets.push((name.to_owned(), ticket));
            }
        } else {
            let (name, ticket) = self.tickets.swap_remove(usize::from(how / 2) % self.tickets.len());
            self.held.remove(&ticket);
            self.client.release(&name, ticket);
        }
    }

    // ---- what servers say ----

    fn word(&mut self) -> ToNode {
        let which = self.source.u8();
        let term = if which & 0x80 == 0 { self.client.term } else { self.source.near(self.client.term) };
        match which & 0x7f {
            0..=0x1f => ToNode::Welcome {
                term,
                cluster: self.cluster(),
                member: self.welcomed(),
                changes: self.source.near(self.client.routes.changes()),
            },
            0x20..=0x2f => self.everything(term),
            0x30..=0x4f => self.change(term),
            0x50..=0x57 => {
                let changes = self.source.near(self.client.routes.oldest().unwrap_or_default());
                ToNode::Registered { term, changes, refused: self.refused() }
            }
            0x58..=0x5d => {
                let changed = self.source.some(4, |source| {
                    let who = source.u8();
                    let health = match who & 3 {
                        0 => Health::Healthy,
                        1 => Health::Suspected,
                        _ => Health::Silent,
                    };
                    (member(10 + u128::from(who / 4 % 16)).id, health)
                });
                ToNode::Health { term, all: self.source.bit(), changed }
            }
            0x5e..=0x63 => {
                let member = self.anybody();
                ToNode::Probe { term, member, within: Duration::from_millis(self.source.number()) }
            }
            0x64..=0x69 => {
                let number = self.source.near(self.tickets.len() as u64);
                ToNode::Lease { term, number, refused: self.refused() }
            }
            0x6a..=0x6c => {
                let leader = self.source.some(1, |source| match source.u8() {
                    at @ 0..=0x7f => format!("{}:1", ["a", "b", "c", "d"][usize::from(at % 4)]),
                    _ => String::from_utf8_lossy(source.bytes(20)).into_owned(),
                });
                ToNode::NotLeader { term, leader: leader.into_iter().next() }
            }
            0x6d..=0x6e => ToNode::Later { term, after: Duration::from_millis(self.source.number()) },
            0x6f..=0x70 => ToNode::Refused { term, why: Refusal::AnotherHistory },
            0x71..=0x72 => {
                let why = self.refused().map_or(Refusal::AnotherHistory, Refusal::Refused);
                ToNode::Refused { term, why }
            }
            0x73..=0x75 => ToNode::Evicted { term, why: Some(Why::Silent) },
            0x76 => ToNode::Farewell { term },
            _ => {
                let most = usize::from(self.source.u8());
                let bytes = self.source.bytes(most);
                postcard::from_bytes(bytes).unwrap_or(ToNode::Farewell { term: 0 })
            }
        }
    }

    fn cluster(&mut self) -> ClusterId {
        let other = u128::from(self.source.u8() >= 0xe0);
        self.client.copy.cluster().filter(|_| other == 0).unwrap_or(ClusterId(7 + other))
    }

    /// This node as a member, mostly.
    fn welcomed(&mut self) -> Member {
        let how = self.source.u8();
        let joined = self.client.me.joined.unwrap_or(self.client.copy.view_id());
        let joined = Some(self.source.view(joined)).filter(|_| how < 0xf8);
        let who = if how & 7 == 7 { member(10) } else { self.client.me.clone() };
        Member { joined, ..who }
    }

    fn refused(&mut self) -> Option<Refused> {
        match self.source.u8() {
            0..=0x7f => None,
            0x80..=0x9f => Some(Refused::RoutesBehind(self.source.number())),
            0xa0..=0xbf => Some(Refused::Full("full".to_owned())),
            0xc0..=0xdf => Some(Refused::Held(self.anybody())),
            0xe0..=0xef => Some(Refused::Gone),
            0xf0.. => Some(Refused::NotMember),
        }
    }

    /// Members by chance, and this one mostly.
    fn members(&mut self) -> Vec<Member> {
        let me = self.client.me.clone();
        let mut members = if self.source.u8() < 0xe0 { vec![me] } else { Vec::new() };
        members.extend(self.source.some(4, |source| member(10 + u128::from(source.u8() % 8))));
        members
    }

    fn leases(&mut self) -> Vec<LeaseChange> {
        let me = self.client.me.id;
        self.source.some(2, |source| {
            let how = source.u8();
            let name = LEASES.get(usize::from(how % 3)).copied().unwrap_or("a").to_owned();
            let by = if how & 8 == 0 { me } else { member(11).id };
            LeaseChange { name, holder: (how & 16 == 0).then(|| (by, Token(source.number()))) }
        })
    }

    fn everything(&mut self, term: u64) -> ToNode {
        let how = self.source.u8();
        let newest = self.client.newest.unwrap_or(self.client.copy.view_id());
        let everything = Everything {
            cluster: self.cluster(),
            index: self.source.near(self.client.copy.index()),
            view: self.source.view(newest),
            members: self
                .members()
                .into_iter()
                .map(|member| (member, self.source.some(2, Source::route)))
                .collect(),
            leases: self.leases(),
        };
        let Ok(bytes) = postcard::to_stdvec(&everything) else { return ToNode::Farewell { term: 0 } };
        let bytes = if how & 0x0f == 0x0f { self.source.bytes(64).to_vec() } else { bytes };
        match how >> 4 {
            0 => {
                let (part, parts) = (self.source.u8().into(), self.source.number() as u32);
                ToNode::Everything { term, part, parts, piece: bytes.into() }
            }
            1 => ToNode::Everything { term, part: 0, parts: 2, piece: bytes.into() },
            2 => ToNode::Everything { term, part: 1, parts: 2, piece: Bytes::new() },
            _ => ToNode::Everything { term, part: 0, parts: 1, piece: bytes.into() },
        }
    }

    fn change(&mut self, term: u64) -> ToNode {
        let how = self.source.u8();
        if how >= 0xf0 {
            let most = usize::from(self.source.u8());
            return ToNode::Change { term, change: Bytes::copy_from_slice(self.source.bytes(most)) };
        }
        let at = self.client.copy.index();
        let after = if how & 0x0f == 0x0f { self.source.near(at) } else { at };
        let view = self.client.copy.view_id();
        let next = ViewId { number: view.number.saturating_add(1), ..view };
        let view = if how & 0x40 == 0 { next } else { self.source.view(view) };
        let joined = self.members();
        // Those who are there already cannot come; now and then a server says so.
        let known = self.client.copy.members();
        let comes = |one: &Member| how & 0x38 == 0x38 || !known.contains_key(&one.id);
        let mut change = Change {
            index: at.saturating_add(1 + u64::from(how & 3)),
            after,
            view: Some(view).filter(|_| how & 0x80 == 0),
            joined: joined.into_iter().filter(comes).collect(),
            ..Change::default()
        };
        change.left = self.source.some(2, |source| {
            let why = if source.bit() { Why::Silent } else { Why::Left };
            (member(10 + u128::from(source.u8() % 8)).id, why)
        });
        if how & 0x30 != 0x30 {
            change.left.retain(|(id, _)| self.client.copy.members().contains_key(id));
        }
        change.routes = self.source.some(3, |source| RoutesChange {
            member: member(10 + u128::from(source.u8() % 8)).id,
            anew: source.bit(),
            add: source.some(3, Source::route),
            remove: source.some(2, Source::route),
        });
        change.leases = self.leases();
        ToNode::Change { term, change: postcard::to_stdvec(&change).unwrap_or_default().into() }
    }

    // ---- what the node does ----

    /// Does all that is to be done now.
    fn settle(&mut self) {
        let mut outputs = 0;
        for _ in 0..TURNS_MAX {
            while let Some(output) = self.client.poll_output(self.now) {
                outputs += 1;
                assert!(outputs < OUTPUTS_MAX, "it never comes to rest: {output:?}");
                self.perform(output);
            }
            match self.client.poll_timeout(self.now) {
                Some(at) if at <= self.now => self.client.handle_timeout(self.now),
                Some(at) => {
                    return assert!(at <= self.now + WAIT_MAX.max(Duration::from_secs(20)), "it sleeps");
                }
                None => return assert!(self.over, "nothing wakes it up: {:?}", self.client.phase),
            }
        }
        panic!("it turns on the spot: {:?}", self.client.phase);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Seek { attempt, address } => {
                assert!(attempt > self.attempt && !address.is_empty());
                (self.attempt, self.met) = (attempt, None);
            }
            Output::Say(word) => self.say(&word),
            Output::View { down, view, up } => self.install(&down, &view, up),
            Output::Routes { member, anew, change } => {
                let Some(known) = self.up.get_mut(&member) else {
                    panic!("routes of {member}, who is not up")
                };
                if anew {
                    known.clear();
                }
                known.retain(|route| !change.removed.contains(route));
                known.extend(change.added);
            }
            Output::Reincarnate => {
                self.next_id += 1;
                self.reborn += 1;
                let most = 2 + (self.now - self.begun).as_millis() / super::user::REBORN_WAIT.as_millis();
                assert!(u128::from(self.reborn) <= most, "{} times", self.reborn);
                self.up.clear();
                self.held.clear();
                self.client.handle_reborn(self.now, member(self.next_id));
            }
            Output::Probe { member, within } => {
                assert!(member != self.client.me.id && within <= super::PROBE_MAX);
                self.probes += 1;
            }
            Output::Lease(ticket, LeaseNews::Granted(token)) => drop(self.held.insert(ticket, token)),
            Output::Lease(ticket, LeaseNews::Lost | LeaseNews::Refused(_)) => {
                self.held.remove(&ticket);
                self.tickets.retain(|(_, other)| *other != ticket);
            }
            Output::Standing(_) => {}
            Output::Left { .. } => self.over = true,
        }
    }

    fn say(&self, word: &ToServer) {
        assert!(
            self.client.server().is_some() || matches!(word, ToServer::Leave),
            "said to nobody: {word:?}"
        );
        let bytes = postcard::to_stdvec(word).map_or(usize::MAX, |bytes| bytes.len());
        assert!(bytes <= WORD_BYTES_MAX, "{bytes} bytes");
        if let ToServer::Hello { member, known, .. } = word {
            assert_eq!(member.id, self.client.me.id, "it says who it is");
            assert_eq!(known.view, self.installed.or(known.view), "it says what it has installed");
        }
    }

    fn install(&mut self, down: &[MemberId], view: &crate::View, up: Vec<MemberId>) {
        let me = self.client.me.id;
        assert!(
            self.installed.is_none_or(|before| view.id() > before),
            "{} after {:?}",
            view.id(),
            self.installed
        );
        assert!(view.contains(me), "a view without this node");
        self.installed = Some(view.id());
        for gone in down {
            assert!(self.up.remove(gone).is_some(), "who goes was not there");
        }
        for new in up {
            assert!(self.up.insert(new, BTreeSet::new()).is_none(), "who comes was there");
        }
        let there: BTreeSet<MemberId> = view.others(me).collect();
        assert_eq!(there, self.up.keys().copied().collect(), "the router and the view differ");
    }

    fn check(&self) {
        let client = &self.client;
        let members = client.copy.members().len();
        assert!(members <= MEMBERS_MAX);
        assert!(client.outputs.is_empty(), "all was done");
        assert!(
            client.early.keys().all(|id| client.copy.members().contains_key(id)),
            "routes of nobody are kept"
        );
        assert!(client.health.len() <= members, "health of nobody is kept");
        assert!(client.reports.len() <= members, "reports of nobody are kept");
        assert!(client.probes <= PROBES_MAX);
        assert!(client.copy.parts_bytes() <= self.poured);
        let (unsaid, all) = client.routes.backlog();
        assert!(unsaid <= 2 * all + super::routes::UNSAID_MORE, "{unsaid} of {all}");
        if let Phase::Following { .. } = client.phase {
            assert!(client.me.joined.is_some(), "who is let in has joined");
        }
        // Servers that lie may give one token for two names.
        let name =
            |held: &Ticket| self.tickets.iter().find(|(_, ticket)| ticket == held).map(|(name, _)| name);
        let mut tokens = BTreeSet::new();
        let once = self.held.iter().all(|(ticket, token)| tokens.insert((name(ticket), *token)));
        assert!(once, "two hold one lease");
    }
}
