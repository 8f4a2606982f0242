//! A node that does what the test says, and keeps a copy of what it is told, strictly in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::LONG;
use crate::rendezvous::state::{Change, ClusterId, Why};
use crate::rendezvous::words::{Everything, Known, Ping, Pong, ToNode, ToServer};
use crate::router::{MessageKey, Route};
use crate::{Contact, Kind, Member, MemberId, Messenger, ViewId};

pub(in super::super) struct Node {
    pub(in super::super) messenger: Messenger,
    contact: Option<Contact>,
    words: mpsc::Receiver<(MemberId, ToNode)>,
    pub(in super::super) pings: mpsc::Receiver<Ping>,
    answers: Arc<AtomicBool>,
    parts: Vec<u8>,
    // ---- its copy ----
    pub(in super::super) member: Member,
    pub(in super::super) known: Known,
    pub(in super::super) members: BTreeMap<MemberId, Member>,
    pub(in super::super) left: Vec<(MemberId, Why)>,
    pub(in super::super) routes: BTreeMap<MemberId, BTreeSet<Route>>,
}

/// A route of that name.
pub(in super::super) fn route(name: &'static str) -> Route {
    Route { key: MessageKey::of_kind(Kind::new(name, 1)), host: 1 }
}

impl Node {
    pub(in super::super) async fn start() -> Self {
        Self::start_as(Messenger::builder().bind("127.0.0.1:0")).await
    }

    pub(in super::super) async fn start_as(builder: crate::Builder) -> Self {
        let messenger = builder.start().await.unwrap();
        // Small: a node that is not asked for words takes few in, and withholds credit.
        let (tell, words) = mpsc::channel(64);
        let (tell_ping, pings) = mpsc::channel(4096);
        let answers = Arc::new(AtomicBool::new(true));
        messenger
            .add_handler(move |from, word: ToNode| {
                let tell = tell.clone();
                async move { tell.send((from, word)).await.unwrap_or_default() }
            })
            .unwrap();
        let (weak, answering) = (messenger.clone(), Arc::clone(&answers));
        messenger
            .add_handler(move |from, ping: Ping| {
                if answering.load(Ordering::Relaxed) {
                    let pong = Pong { term: ping.term, number: ping.number };
                    let _report = weak.datagram(&pong, [from], Duration::from_secs(1));
                }
                let _full = tell_ping.try_send(ping);
                std::future::ready(())
            })
            .unwrap();
        Self {
            member: messenger.member(),
            messenger,
            contact: None,
            words,
            pings,
            answers,
            parts: Vec::new(),
            known: Known::default(),
            members: BTreeMap::new(),
            left: Vec::new(),
            routes: BTreeMap::new(),
        }
    }

    pub(in super::super) const fn id(&self) -> MemberId {
        self.member.id
    }

    /// Whether it answers pings.
    pub(in super::super) fn answers(&self, whether: bool) {
        self.answers.store(whether, Ordering::Relaxed);
    }

    /// Comes again as another member, of which nothing is known.
    pub(in super::super) fn reincarnate(&mut self) {
        self.messenger.reincarnate().unwrap();
        self.member = self.messenger.member();
        (self.known, self.contact) = (Known::default(), None);
        self.members.clear();
        self.routes.clear();
    }

    pub(in super::super) async fn go_to(&mut self, address: &str) {
        self.contact = Some(timeout(LONG, self.messenger.contact(address)).await.unwrap().unwrap());
    }

    pub(in super::super) fn say(&self, word: &ToServer) {
        let to = self.contact.as_ref().unwrap().id();
        assert!(self.messenger.send(word, [to]).unwrap().is_complete());
    }

    /// Whom it is in contact with.
    pub(in super::super) fn server(&self) -> MemberId {
        self.contact.as_ref().unwrap().id()
    }

    pub(in super::super) fn hello(&self) {
        self.say(&ToServer::Hello { member: self.member.clone(), known: self.known, changes: 0 });
    }

    /// The next word of whom it is in contact with, taken into its copy.
    pub(in super::super) async fn next(&mut self) -> ToNode {
        loop {
            let (from, word) = timeout(LONG, self.words.recv()).await.expect("a word").unwrap();
            // A server that it left may have said something before.
            if from == self.server() {
                self.take(&word);
                return word;
            }
        }
    }

    /// The first word of this kind; what comes before it is taken in.
    pub(in super::super) async fn until<T>(
        &mut self,
        mut wanted: impl FnMut(&Self, &ToNode) -> Option<T>,
    ) -> T {
        loop {
            let word = self.next().await;
            if let Some(found) = wanted(self, &word) {
                return found;
            }
        }
    }

    /// Waits until its copy is so.
    pub(in super::super) async fn until_copy(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            self.next().await;
        }
    }

    /// Says hello at an address, follows the leader, and waits until its copy holds itself.
    pub(in super::super) async fn join(&mut self, address: &str) {
        self.go_to(address).await;
        self.hello();
        loop {
            match self.next().await {
                ToNode::NotLeader { leader: Some(leader), .. } => {
                    self.go_to(&leader).await;
                    self.hello();
                }
                ToNode::NotLeader { leader: None, .. } => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    self.hello();
                }
                ToNode::Later { after, .. } => {
                    tokio::time::sleep(after).await;
                    self.hello();
                }
                ToNode::Welcome { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        self.until_copy(|node| node.members.contains_key(&node.id())).await;
    }

    fn take(&mut self, word: &ToNode) {
        match word {
            ToNode::Welcome { term, cluster, member, .. } => {
                self.known.cluster = Some(*cluster);
                self.known.term = *term;
                self.member = member.clone();
            }
            ToNode::Everything { part, parts, piece, .. } => {
                if *part == 0 {
                    self.parts.clear();
                }
                self.parts.extend_from_slice(piece);
                if part + 1 == *parts {
                    let all: Everything = postcard::from_bytes(&self.parts).unwrap();
                    self.become_all(all);
                }
            }
            ToNode::Change { change, .. } => self.apply(postcard::from_bytes(change).unwrap()),
            _ => {}
        }
    }

    fn become_all(&mut self, all: Everything) {
        assert!(
            self.known.view.is_none_or(|view| view <= all.view || self.known.cluster != Some(all.cluster))
        );
        (self.known.index, self.known.view) = (all.index, Some(all.view));
        self.members = all.members.iter().map(|(member, _)| (member.id, member.clone())).collect();
        self.routes = all
            .members
            .into_iter()
            .map(|(member, routes)| (member.id, routes.into_iter().collect()))
            .collect();
    }

    fn apply(&mut self, change: Change) {
        assert_eq!(change.after, self.known.index, "a gap");
        assert!(change.index > change.after);
        self.known.index = change.index;
        if let Some(view) = change.view {
            assert!(self.known.view.is_some_and(|before| before < view), "views only grow");
            self.known.view = Some(view);
        }
        for (id, why) in change.left {
            self.members.remove(&id);
            self.routes.remove(&id);
            self.left.push((id, why));
        }
        for member in change.joined {
            self.members.insert(member.id, member);
        }
        for routes in change.routes {
            let of = self.routes.entry(routes.member).or_default();
            if routes.anew {
                of.clear();
            }
            for route in &routes.remove {
                of.remove(route);
            }
            of.extend(routes.add);
        }
    }

    pub(in super::super) fn view(&self) -> ViewId {
        self.known.view.unwrap()
    }

    pub(in super::super) fn cluster(&self) -> ClusterId {
        self.known.cluster.unwrap()
    }
}
