//! Hosts of this node, their routes, and what waits for them.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::envelope::{ActorRef, Body, Control, Distribution, Failure, Returned, RouteRecord};
use super::super::key::{KeyId, MessageKey};
use super::{Core, Flow, Host, Job, Output, Refused, Scope, Source, Work};

impl<B: Body + Clone, T> Core<B, T> {
    // ---- hosts and routes of this node ----

    /// A host of these keys: all are registered, or none.
    pub(crate) fn add_host(&mut self, now: Instant, keys: &[(MessageKey, Scope)]) -> Result<u32, Refused> {
        let host = self.next_host;
        self.table.register(host, keys)?;
        self.next_host += 1;
        self.hosts.insert(host, Host { queue: VecDeque::new(), running: 0, running_max: usize::MAX });
        self.announce_added(now, host, keys);
        Ok(host)
    }

    /// No more handlers of a host run at once than this.
    pub(crate) fn bound_host(&mut self, host: u32, running_max: usize) {
        if let Some(host) = self.hosts.get_mut(&host) {
            host.running_max = running_max;
        }
    }

    pub(super) fn announce_added(&mut self, now: Instant, host: u32, keys: &[(MessageKey, Scope)]) {
        let shared = keys.iter().filter(|(_, scope)| *scope == Scope::Network);
        let add: Vec<_> = shared.map(|(key, _)| RouteRecord { key: key.clone(), host }).collect();
        if !add.is_empty() {
            self.announce(add, Vec::new());
        }
        for (key, _) in keys {
            self.found(now, key.id());
        }
    }

    /// Others are to hear of it: from this router, or from whoever tells them instead.
    pub(super) fn announce(&mut self, add: Vec<RouteRecord>, remove: Vec<RouteRecord>) {
        if !self.config.exchange {
            self.announcements.push_back((add, remove));
            return self.outputs.push_back(Output::Announce);
        }
        let remove: Vec<_> = remove.iter().map(|route| (route.key.id(), route.host)).collect();
        for to in self.nodes_up() {
            self.news(to, |news| {
                news.add.retain(|route| !remove.contains(&(route.key.id(), route.host)));
                news.add.extend_from_slice(&add);
                news.remove.extend_from_slice(&remove);
            });
        }
    }

    /// What is to be announced next. In the order in which it happened, if one asks at a time.
    pub(crate) fn take_announcement(&mut self) -> Option<(Vec<RouteRecord>, Vec<RouteRecord>)> {
        self.announcements.pop_front()
    }

    /// A host takes these no more; what waits for it goes elsewhere.
    pub(crate) fn remove_routes(&mut self, now: Instant, host: u32, ids: &[KeyId]) {
        let shared = |id: &KeyId| {
            // Its name goes with the last that has it.
            let key = self.table.key(*id).cloned()?;
            let scope = self.table.unregister(host, *id);
            (scope == Some(Scope::Network)).then_some(RouteRecord { key, host })
        };
        let remove: Vec<_> = ids.iter().filter_map(shared).collect();
        if !remove.is_empty() {
            self.announce(Vec::new(), remove);
        }
        let me = ActorRef { node: self.me, host };
        // First those that wait for room at it: what it gives back makes room.
        let left: Vec<_> = self.lanes.sift(|(flow, to)| *to != me || !ids.contains(&flow.envelope.key));
        left.into_iter().for_each(|(flow, _)| self.again(now, flow, Some(me)));
        let Some(waiting) = self.hosts.get_mut(&host) else { return };
        let (go, stay) = waiting.queue.drain(..).partition(|work: &Work<B>| ids.contains(&work.envelope.key));
        waiting.queue = stay;
        let go: VecDeque<Work<B>> = go;
        go.into_iter().for_each(|work| self.give_back(now, work, host));
    }

    /// A host ends.
    pub(crate) fn remove_host(&mut self, now: Instant, host: u32) {
        let ids = self.table.keys_of(host);
        self.remove_routes(now, host, &ids);
        self.hosts.remove(&host);
    }

    /// What a host here did not begin.
    pub(super) fn give_back(&mut self, now: Instant, work: Work<B>, host: u32) {
        let Work { job, envelope, body, expires } = work;
        let Some(Job { source, .. }) = self.jobs.remove(&job) else { return };
        match source {
            Source::Here { lane, watch, parent, doubt } => {
                let next = self.lanes.give_back(lane);
                let flow = Flow { envelope, body, expires, parent, watch, tries: 0, doubt };
                self.again(now, flow, Some(ActorRef { node: self.me, host }));
                next.into_iter().for_each(|(flow, to)| self.dispatch(now, flow, to));
            }
            Source::Elsewhere { from, number, bytes } => {
                self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
                if self.is_shared(from, number) {
                    // Others here may have handled it.
                    return self.owe(now, from, number);
                }
                // To all hosts here: there may be another by now, which others know of.
                let to_all = matches!(envelope.to, Distribution::Actor(ActorRef { host: 0, .. }));
                let why = if to_all { Returned::Busy } else { Returned::NotHere };
                self.control(from, Control::Returned { number, why });
            }
        }
    }

    /// The message that has just come, to be handled where it came: if nothing waits before it, and one more handler may run. Then
    /// nobody is woken for it.
    pub(crate) fn begin_at_once(&mut self, now: Instant, host: u32) -> Option<Work<B>> {
        // Only what was the first in its queue wakes its host.
        if !matches!(self.outputs.back(), Some(Output::Wake(woken)) if *woken == host) {
            return None;
        }
        let work = self.next_work(now, host)?;
        self.outputs.pop_back();
        if let Some(job) = self.jobs.get_mut(&work.job) {
            job.at_once = true;
        }
        Some(work)
    }

    /// The next message for a host, if one more of its handlers may run.
    pub(crate) fn next_work(&mut self, now: Instant, host: u32) -> Option<Work<B>> {
        loop {
            let of = self.hosts.get_mut(&host).filter(|of| of.running < of.running_max)?;
            let work = of.queue.pop_front()?;
            let Some(job) = self.jobs.get(&work.job) else { continue };
            if let Source::Elsewhere { bytes, .. } = job.source {
                self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
            }
            if work.expires > now {
                self.counts.delivered += 1;
                if let Some(of) = self.hosts.get_mut(&host) {
                    of.running += 1;
                }
                return Some(work);
            }
            // Nobody waits for it any more.
            self.fail(&work.envelope, Some(work.body), Failure::Expired, None);
            self.drop_expired(now, work.job);
        }
    }
}
