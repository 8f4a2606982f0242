//! Other nodes: that they come and go, what they are told of this one's routes, and what they tell of theirs.

use std::collections::HashMap;
use std::time::Instant;

use super::super::envelope::{ActorRef, Body, Control, Failure, RouteRecord};
use super::super::key::KeyId;
use super::{Answer, Core, Early, News, Node, Output, Source, UNHEARD, UNHEARD_TRIES};
use crate::{MemberId, ViewId};

/// Nodes that are not known and told of routes, and how often one of them may until it tells all anew; of no more routes than a node
/// may have.
const EARLY_NODES_MAX: usize = 256;
const EARLY_MAX: usize = 256;
/// Nodes that were here and are not, and may come back.
const GONE_MAX: usize = 1024;
/// Members that this node was, and remembers.
const WAS_MAX: usize = 64;

impl<B: Body + Clone, T> Core<B, T> {
    // ---- nodes that come and go ----

    /// This node, once it has joined or become another.
    pub(crate) fn set_joined(&mut self, joined: Option<ViewId>) {
        self.joined = joined;
    }

    /// This node is another member from now on: all that it was to others is over.
    pub(crate) fn handle_reborn(&mut self, now: Instant, me: MemberId) {
        if me == self.me {
            return;
        }
        let all: Vec<_> = self.nodes.keys().copied().collect();
        all.into_iter().for_each(|id| self.handle_node_down(now, id));
        let was = std::mem::replace(&mut self.me, me);
        self.table.set_me(me);
        if self.was.len() >= WAS_MAX {
            self.was.pop_front();
        }
        self.was.push_back(was);
        // Answers go to who it was.
        for (flow, token) in self.promises.drain_all() {
            let outcome = Err(Failure::Departed(was));
            self.outputs
                .push_back(Output::Resolve { token, answer: Answer { outcome, flow, hops: 0, trail: None } });
        }
        let rename = |to: &mut ActorRef| {
            if to.node == was {
                to.node = me;
            }
        };
        self.lanes.rename(|lane| rename(&mut lane.0), |(_, to)| rename(to));
        for job in self.jobs.values_mut() {
            if let Source::Here { lane, .. } = &mut job.source {
                rename(&mut lane.0);
            }
        }
    }

    /// A node may be sent to.
    pub(crate) fn handle_node_up(&mut self, now: Instant, id: MemberId) {
        if id == self.me {
            return;
        }
        let node = self.nodes.entry(id).or_insert_with(Node::new);
        node.up = true;
        self.news(id, |news| news.all = true);
        let gone = self.gone.iter().position(|gone| *gone == id);
        if let Some(at) = gone {
            self.gone.remove(at);
        }
        // It may never have missed this node, and then tells what it told before only when it is asked.
        if self.unheard.contains(&id) {
            self.ask_unheard(now, id, 0);
        } else if gone.is_some() {
            self.ask_all(id);
        }
        self.take_early(now, id);
        self.release(now, id);
    }

    /// A node is no more: its routes go, what waits for it goes elsewhere, and what was sent to it is looked after.
    pub(crate) fn handle_node_down(&mut self, now: Instant, id: MemberId) {
        self.table.forget(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let was_up = std::mem::replace(&mut node.up, false);
        node.news = News::default();
        let done = std::mem::take(&mut node.done);
        self.owing.remove(&id);
        self.asked.remove(&id);
        self.drop_idle(id);
        if !done.is_empty() {
            self.control(id, Control::Done(done));
        }
        self.outputs.push_back(Output::Settle { node: id });
        if was_up {
            self.note_gone(id);
        }
        let waiting = self.lanes.close(|to| to.node == id);
        waiting.into_iter().for_each(|(flow, to)| self.again(now, flow, Some(to)));
    }

    pub(crate) fn is_up(&self, id: MemberId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.up)
    }

    /// Nodes that may be sent to.
    pub(crate) fn nodes_up(&self) -> Vec<MemberId> {
        self.nodes.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect()
    }

    /// A node that is not there, and of which nothing is left.
    pub(super) fn drop_idle(&mut self, id: MemberId) {
        if self.nodes.get(&id).is_some_and(|node| !node.up && node.sent.is_empty() && node.shared.is_empty())
        {
            self.nodes.remove(&id);
        }
    }

    fn note_gone(&mut self, id: MemberId) {
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(id);
    }

    // ---- what they are told of routes ----

    /// The session with a node is lost, though the node is there: so is what either has said and the other not heard.
    pub(crate) fn handle_session_lost(&mut self, id: MemberId) {
        if self.nodes.get(&id).is_some_and(|node| node.up) {
            self.news(id, |news| news.all = true);
        }
    }

    /// Something that a node is to be told of this one's routes. It is put together when it is sent: so it goes in the order in which
    /// it came about, whoever sends it.
    pub(super) fn news(&mut self, to: MemberId, add: impl FnOnce(&mut News)) {
        // One that is not there is told of all of them when it is.
        let Some(node) = self.nodes.get_mut(&to).filter(|node| node.up && self.config.exchange) else {
            return;
        };
        let waits = !node.news.is_empty();
        add(&mut node.news);
        if !waits && !node.news.is_empty() {
            self.outputs.push_back(Output::News { to });
        }
    }

    /// What a node is to be told of this one's routes, by now.
    pub(crate) fn take_news(&mut self, to: MemberId) -> Option<Control> {
        let node = self.nodes.get_mut(&to).filter(|node| node.up && !node.news.is_empty())?;
        let News { all, add, remove } = std::mem::take(&mut node.news);
        Some(if all {
            Control::Routes { all, add: self.table.announced(), remove: Vec::new() }
        } else {
            Control::Routes { all, add, remove }
        })
    }

    // ---- what they tell ----

    /// These may have told this node of their routes before it listened. They are asked once they are up.
    pub(crate) fn set_unheard(&mut self, nodes: impl IntoIterator<Item = MemberId>) {
        self.unheard = nodes.into_iter().collect();
    }

    fn ask_all(&mut self, of: MemberId) {
        if self.config.exchange {
            self.control(of, Control::Discover(Vec::new()));
        }
    }

    fn ask_unheard(&mut self, now: Instant, id: MemberId, tries: u32) {
        self.ask_all(id);
        if self.config.exchange && tries < UNHEARD_TRIES {
            let at = now + UNHEARD * (1 << tries);
            self.asked.insert(id, (at, tries + 1));
            self.wake_by(at);
        } else {
            self.asked.remove(&id);
        }
    }

    /// Those that have not answered are asked again.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let due: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(id, (_, tries))| (*id, *tries))
            .collect();
        due.into_iter().for_each(|(id, tries)| self.ask_unheard(now, id, tries));
    }

    /// What a node tells of its routes.
    pub(crate) fn handle_routes(
        &mut self,
        now: Instant,
        from: MemberId,
        all: bool,
        add: Vec<RouteRecord>,
        remove: &[(KeyId, u32)],
    ) {
        if from == self.me {
            return;
        }
        if !self.nodes.get(&from).is_some_and(|node| node.up) {
            return self.note_early(from, Early { all, add, remove: remove.to_vec() });
        }
        if all {
            self.table.forget(from);
            self.unheard.remove(&from);
            self.asked.remove(&from);
        }
        for (id, host) in remove {
            self.table.unlearn(ActorRef { node: from, host: *host }, *id);
        }
        for record in add {
            let id = record.key.id();
            if self.table.learn(from, record) {
                self.found(now, id);
            }
        }
    }

    /// Routes of a node that is not known: it may be before long, or it is no more. They count only once it is known.
    fn note_early(&mut self, from: MemberId, early: Early) {
        let at = self.early.iter().position(|(node, _)| *node == from).unwrap_or_else(|| {
            if self.early.len() >= EARLY_NODES_MAX {
                self.early.pop_front();
            }
            self.early.push_back((from, Vec::new()));
            self.early.len() - 1
        });
        let Some((_, said)) = self.early.get_mut(at) else { return };
        if early.all {
            said.clear();
        }
        let routes = |early: &Early| early.add.len() + early.remove.len();
        let room = self.config.routes_max.saturating_sub(said.iter().map(routes).sum());
        if said.len() < EARLY_MAX && routes(&early) <= room {
            return said.push(early);
        }
        // What is left of it would be wrong: the node is asked for all once it is known.
        self.early.remove(at);
        self.note_gone(from);
    }

    /// A node is known now: what it said before.
    fn take_early(&mut self, now: Instant, from: MemberId) {
        let Some(at) = self.early.iter().position(|(node, _)| *node == from) else { return };
        for Early { all, add, remove } in self.early.remove(at).map(|(_, said)| said).unwrap_or_default() {
            self.handle_routes(now, from, all, add, &remove);
        }
    }
}

impl<B> Node<B> {
    pub(super) fn new() -> Self {
        Self {
            up: false,
            news: News { all: false, add: Vec::new(), remove: Vec::new() },
            sent: HashMap::default(),
            done: Vec::new(),
            shared: std::collections::BTreeMap::new(),
        }
    }
}
