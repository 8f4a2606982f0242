//! Where a message goes: to a provider that has room, or it waits for one, or for somebody who handles it.

use std::sync::Arc;
use std::time::Instant;

use super::super::envelope::{ActorRef, Body, Control, Distribution, Envelope, Failure, FlowHead, TRAIL_MAX};
use super::super::key::KeyId;
use super::lanes::LaneId;
use super::table::Wish;
use super::{BUSY, Core, Flow, Output, SWEEP, Sent, Source, TRIES_MAX, Told, Work, node_insert};

impl<B: Body + Clone, T> Core<B, T> {
    /// Finds a provider, or lets it wait for one, or fails it.
    pub(super) fn place(&mut self, now: Instant, flow: Flow<B>, but: Option<ActorRef>) {
        if flow.expires <= now {
            return self.end(now, flow, Failure::Expired);
        }
        let Envelope { key, depth, affinity, .. } = *flow.envelope;
        let wish =
            Wish { preference: self.config.preference, affinity, node: None, from_outside: false, but };
        match flow.envelope.to {
            Distribution::Broadcast => return self.broadcast(now, flow),
            Distribution::Actor(to) if but == Some(to) || !self.knows(to, key) => {
                return self.end(now, flow, Failure::Unroutable(key));
            }
            Distribution::Actor(to) => return self.assign(now, flow, to),
            Distribution::Unicast | Distribution::Node(_) => {}
        }
        let node = if let Distribution::Node(node) = flow.envelope.to { Some(node) } else { None };
        let Self { table, lanes, .. } = self;
        let chosen = table.choose(key, Wish { node, ..wish }, |to| lanes.has_room((to, depth)));
        match chosen {
            Some(to) => self.assign(now, flow, to),
            None if node.is_some() => self.end(now, flow, Failure::Unroutable(key)),
            None => self.discover(now, flow),
        }
    }

    pub(super) fn knows(&self, to: ActorRef, key: KeyId) -> bool {
        match to {
            ActorRef { node, host } if node == self.me => self.table.holds(host, key, false),
            // All hosts of a node.
            ActorRef { node, host: 0 } => !self.table.hosts_of(node, key).is_empty(),
            to => self.table.has(to, key),
        }
    }

    pub(super) fn discover(&mut self, now: Instant, flow: Flow<B>) {
        let (key, until) = (flow.envelope.key, flow.expires.min(now + self.config.grace));
        match self.discovery.wait(now, key, until, flow) {
            Ok(true) => {
                self.wake_by(until);
                self.counts.discoveries += 1;
                let up: Vec<_> = self.nodes.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
                up.into_iter().for_each(|to| self.control(to, Control::Discover(vec![key])));
            }
            Ok(false) => self.wake_by(until),
            Err(flow) => self.end(now, flow, Failure::Unroutable(key)),
        }
    }

    /// Somebody holds this key now.
    pub(super) fn found(&mut self, now: Instant, id: KeyId) {
        self.discovery.found(id).into_iter().for_each(|flow| self.place(now, flow, None));
    }

    /// One for each host here and each other node; they have nothing to come back to.
    pub(super) fn broadcast(&mut self, now: Instant, flow: Flow<B>) {
        let key = flow.envelope.key;
        let me = self.me;
        let here = self.table.hosts_with(key, false).into_iter().map(|host| ActorRef { node: me, host });
        let there = self.table.nodes_with(key).into_iter().map(|node| ActorRef { node, host: 0 });
        let all: Vec<_> = here.chain(there).collect();
        let Some(last) = all.len().checked_sub(1) else {
            return self.end(now, flow, Failure::Unroutable(key));
        };
        if let Some(parent) = flow.parent {
            self.hold(parent, last);
        }
        for (at, to) in all.into_iter().enumerate() {
            let copy = Flow {
                // Each copy has its own place, and goes nowhere else.
                envelope: Arc::new(Envelope {
                    callback: None,
                    to: Distribution::Actor(to),
                    ..Envelope::clone(&flow.envelope)
                }),
                body: flow.body.clone(),
                // It is told when the last has its place.
                watch: flow.watch.filter(|_| at == last),
                ..flow
            };
            self.assign(now, copy, to);
        }
    }

    pub(super) fn assign(&mut self, now: Instant, flow: Flow<B>, to: ActorRef) {
        let lane = (to, flow.envelope.depth);
        if self.lanes.take(lane) {
            self.dispatch(now, flow, to);
        } else {
            self.lanes.wait(lane, (flow, to));
            self.sweep_by(now + SWEEP);
        }
    }

    /// It has its place in the lane.
    pub(super) fn dispatch(&mut self, now: Instant, flow: Flow<B>, to: ActorRef) {
        let lane = (to, flow.envelope.depth);
        if to.node != self.me {
            return self.forward(now, flow, lane);
        }
        let Flow { envelope, body, expires, parent, watch, doubt, .. } = flow;
        if !self.hosts.contains_key(&to.host) {
            let flow = Flow { envelope, body, expires, parent, watch, tries: 0, doubt };
            let next = self.lanes.give_back(lane);
            self.again(now, flow, Some(to));
            next.into_iter().for_each(|(flow, to)| self.dispatch(now, flow, to));
            return;
        }
        let job = self.job(to.host, Source::Here { lane, watch, parent, doubt });
        self.tell(watch, Told::Placed);
        self.tell(watch, Told::Accepted);
        self.enqueue(to.host, Work { job, envelope, body, expires });
    }

    pub(super) fn enqueue(&mut self, host: u32, mut work: Work<B>) {
        let here = ActorRef { node: self.me, host };
        if work.envelope.trail.as_ref().is_some_and(|trail| trail.len() < TRAIL_MAX) {
            Arc::make_mut(&mut work.envelope).trail.get_or_insert_default().push(here);
        }
        if let Some(queue) = self.hosts.get_mut(&host).map(|host| &mut host.queue) {
            queue.push_back(work);
            if queue.len() == 1 {
                self.outputs.push_back(Output::Wake(host));
            }
        }
    }

    pub(super) fn forward(&mut self, now: Instant, mut flow: Flow<B>, lane: LaneId) {
        let to = lane.0;
        let left = flow.expires.saturating_duration_since(now);
        let known = self.nodes.get(&to.node).map(|node| node.up);
        if known != Some(true) || flow.envelope.hops >= self.config.hops_max {
            let next = self.lanes.give_back(lane);
            match known {
                _ if flow.envelope.hops >= self.config.hops_max => self.end(now, flow, Failure::Limit),
                // Its routes came before the view that holds it, which is about to be seen.
                None => self.retry(now + BUSY, flow),
                Some(_) => {
                    self.table.forget(to.node);
                    self.again(now, flow, Some(to));
                }
            }
            next.into_iter().for_each(|(flow, to)| self.dispatch(now, flow, to));
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let envelope = Arc::clone(&flow.envelope);
        let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        let head = FlowHead { number, host: to.host, left_ms, envelope };
        let body = flow.body.clone();
        let parent = flow.parent.take();
        let watch = flow.watch;
        node_insert(&mut self.nodes, to.node, number, Sent { lane, flow });
        self.counts.forwarded += 1;
        self.outputs.push_back(Output::Send { to: to.node, head, body });
        // Behind it: who goes on when its message has its place must not overtake it.
        self.tell(watch, Told::Placed);
        if let Some(parent) = parent {
            self.placed(now, parent);
        }
    }

    /// To another provider, if there is one.
    pub(super) fn again(&mut self, now: Instant, mut flow: Flow<B>, but: Option<ActorRef>) {
        flow.tries += 1;
        self.counts.rerouted += 1;
        if flow.tries >= TRIES_MAX {
            let key = flow.envelope.key;
            return self.end(now, flow, Failure::Unroutable(key));
        }
        self.place(now, flow, but);
    }
}
