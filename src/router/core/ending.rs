//! How work and flows end: handled, answered, failed, too late.

use std::sync::Arc;
use std::time::Instant;

use super::super::envelope::{
    Body, Control, Distribution, Envelope, Failure, ReplyHead, Returned, TRAIL_MAX, clip,
};
use super::super::key::KeyId;
use super::arriving::millis;
use super::{Answer, Core, Flow, Output, Product, SWEEP, Source, Told};

impl<B: Body + Clone, T> Core<B, T> {
    /// A handler is done: what came of it goes its way. What waits for the handler's place waits until all of it has its own.
    ///
    /// `envelope` and `expires` are those of the work.
    pub(crate) fn handle_handled(
        &mut self,
        now: Instant,
        job: u64,
        envelope: &Arc<Envelope>,
        expires: Instant,
        outcome: Result<Vec<Product<B>>, String>,
    ) {
        self.handled_at = Some(now);
        match outcome {
            Ok(products) => {
                self.hold(job, products.len());
                products.into_iter().for_each(|product| self.emit(now, job, envelope, expires, product));
            }
            Err(text) => {
                self.fail(envelope, None, Failure::Handler(clip(&text)), Some(job));
            }
        }
        self.finish_handling(now, job);
    }

    pub(super) fn finish_handling(&mut self, now: Instant, job: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.handled = true;
            let (host, at_once) = (job.host, job.at_once);
            if let Some(of) = self.hosts.get_mut(&host) {
                of.running = of.running.saturating_sub(1);
                // Who was woken meanwhile found that as many run as may.
                if at_once && !of.queue.is_empty() {
                    self.outputs.push_back(Output::Wake(host));
                }
            }
        }
        self.finish(now, job);
    }

    /// One of the messages that came of a message.
    fn emit(&mut self, now: Instant, job: u64, of: &Envelope, expires: Instant, product: Product<B>) {
        let Product { key, body, to, affinity, idempotent } = product;
        let broadcast = to == Distribution::Broadcast;
        let callback = of.callback.as_ref().filter(|_| !broadcast);
        if let Some(callback) = callback.filter(|callback| callback.keys.contains(&key)) {
            let head = ReplyHead {
                hub: callback.hub,
                promise: callback.promise,
                flow: of.flow,
                hops: of.hops,
                outcome: Ok(key),
                trail: of.trail.clone(),
                left_ms: millis(expires.saturating_duration_since(now)),
            };
            return self.reply(now, callback.member, head, Some(body), Some(job));
        }
        let envelope = Envelope {
            key,
            flow: of.flow,
            hops: of.hops,
            depth: of.depth.saturating_add(1),
            to,
            idempotent,
            tell: false,
            callback: callback.cloned(),
            affinity,
            trace: of.trace,
            trail: of.trail.clone(),
        };
        let envelope = Arc::new(envelope);
        let flow = Flow { envelope, body, expires, parent: Some(job), watch: None, tries: 0, doubt: None };
        if flow.envelope.depth > self.config.depth_max {
            return self.end(now, flow, Failure::Limit);
        }
        self.place(now, flow, None);
    }

    fn reply(
        &mut self,
        now: Instant,
        to: crate::MemberId,
        mut head: ReplyHead,
        body: Option<B>,
        job: Option<u64>,
    ) {
        if to == self.me || self.was.contains(&to) {
            // Promises of who this node was have ended.
            self.handle_reply(head, body);
            if let Some(job) = job {
                self.placed(now, job);
            }
            return;
        }
        head.hops = head.hops.saturating_add(1);
        if let Some(trail) = head.trail.as_mut() {
            trail.truncate(TRAIL_MAX);
        }
        self.outputs.push_back(Output::Reply { to, head, body, job });
    }

    /// As [`Core::placed`], a moment after the work was handled. Whether something is to be done for it.
    pub(crate) fn placed_lately(&mut self, job: u64) -> bool {
        if let Some(now) = self.handled_at {
            self.placed(now, job);
        }
        !self.outputs.is_empty()
    }

    /// Something that came of this work has its place.
    pub(crate) fn placed(&mut self, now: Instant, job: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            debug_assert!(job.open > 0, "placed more than came of it");
            job.open = job.open.saturating_sub(1);
        }
        self.finish(now, job);
    }

    fn finish(&mut self, now: Instant, id: u64) {
        if !self.jobs.get(&id).is_some_and(|job| job.handled && job.open == 0) {
            return;
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        match job.source {
            Source::Here { lane, watch, parent, .. } => {
                self.tell(watch, Told::Handled);
                self.give_lane_back(now, lane);
                if let Some(parent) = parent {
                    self.placed(now, parent);
                }
            }
            Source::Elsewhere { from, number, .. } => self.owe(now, from, number),
        }
    }

    /// A message that no handler began, because its time was over.
    pub(super) fn drop_expired(&mut self, now: Instant, job: u64) {
        let Some(job) = self.jobs.remove(&job) else { return };
        match job.source {
            Source::Here { lane, watch, parent, .. } => {
                self.tell(watch, Told::Failed(Failure::Expired));
                self.give_lane_back(now, lane);
                if let Some(parent) = parent {
                    self.placed(now, parent);
                }
            }
            Source::Elsewhere { from, number, .. } if self.is_shared(from, number) => {
                self.owe(now, from, number);
            }
            Source::Elsewhere { from, number, .. } => {
                self.control(from, Control::Returned { number, why: Returned::Expired });
            }
        }
    }

    /// A flow ends without having been delivered.
    pub(super) fn end(&mut self, now: Instant, flow: Flow<B>, why: Failure) {
        let Flow { envelope, body, parent, watch, doubt, .. } = flow;
        let why = match (why, doubt) {
            // Nobody is left who takes it, and one of those before perhaps did.
            (Failure::Unroutable(_), Some(node)) => Failure::Departed(node),
            (why, _) => why,
        };
        self.tell(watch, Told::Failed(why.clone()));
        debug_assert!(!(envelope.callback.is_some() && envelope.to == Distribution::Broadcast));
        self.fail(&envelope, Some(body), why, None);
        if let Some(parent) = parent {
            self.placed(now, parent);
        }
    }

    /// Tells whoever waits for the flow, and the hook for what is dead. `job`: the work that it came of is done when it is told.
    pub(super) fn fail(&mut self, envelope: &Arc<Envelope>, body: Option<B>, why: Failure, job: Option<u64>) {
        if let Some(callback) = &envelope.callback {
            let head = ReplyHead {
                hub: callback.hub,
                promise: callback.promise,
                flow: envelope.flow,
                hops: envelope.hops,
                outcome: Err(why.clone()),
                trail: envelope.trail.clone(),
                left_ms: 1_000,
            };
            if callback.member == self.me || self.was.contains(&callback.member) {
                self.handle_reply(head, None);
            } else if why != Failure::Expired {
                if let Some(job) = job {
                    self.hold(job, 1);
                }
                // Who waits knows by its own clock when its time is over.
                let hops = head.hops.saturating_add(1);
                let head = ReplyHead { hops, ..head };
                self.outputs.push_back(Output::Reply { to: callback.member, head, body: None, job });
            }
        }
        if let Some(body) = body {
            self.counts.dead += 1;
            self.outputs.push_back(Output::Dead { envelope: Arc::clone(envelope), body, why });
        }
    }

    // ---- promises ----

    /// Nobody waits for this any more.
    pub(crate) fn drop_promise(&mut self, id: u64) -> Option<T> {
        self.promises.close(id)
    }

    /// A hub is gone, or all of them: their promises end as `why` says.
    pub(crate) fn close_promises(&mut self, hub: Option<u32>) -> Vec<T> {
        self.promises.drain(hub)
    }

    // ---- time ----

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.alarm = None;
        self.handle_deadlines(now);
        if let Some(next) = self.poll_timeout() {
            self.wake_by(next);
        }
    }

    /// What is sent again after a while.
    pub(super) fn retry(&mut self, at: Instant, flow: Flow<B>) {
        self.retries.push_back((at, flow));
        self.wake_by(at);
    }

    /// What waits is looked through by then.
    pub(super) fn sweep_by(&mut self, at: Instant) {
        let at = *self.sweep_at.get_or_insert(at);
        self.wake_by(at);
    }

    fn handle_deadlines(&mut self, now: Instant) {
        while let Some((flow, token)) = self.promises.expire(now) {
            let answer = Answer { outcome: Err(Failure::Expired), flow, hops: 0, trail: None };
            self.outputs.push_back(Output::Resolve { token, answer });
        }
        if self.done_at.is_some_and(|at| at <= now) {
            self.settle_debts();
        }
        for flow in self.discovery.expire(now) {
            let key: KeyId = flow.envelope.key;
            self.end(now, flow, Failure::Unroutable(key));
        }
        while self.retries.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, flow)) = self.retries.pop_front()
        {
            self.place(now, flow, None);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
        self.ask_again(now);
    }

    /// What has waited too long.
    fn sweep(&mut self, now: Instant) {
        // Callers that came to be known just when they were not.
        let nodes = &self.nodes;
        let known = self.held.keys().filter(|id| nodes.get(id).is_some_and(|node| node.up));
        let known: Vec<_> = known.copied().collect();
        known.into_iter().for_each(|id| self.release(now, id));
        let over = self.lanes.sift(|(flow, _)| flow.expires > now);
        over.into_iter().for_each(|(flow, _)| self.end(now, flow, Failure::Expired));
        let mut jobs = Vec::new();
        self.held.retain(|_, held| {
            held.retain(|held| {
                let stays = held.until > now;
                if !stays {
                    jobs.extend(held.job);
                }
                stays
            });
            !held.is_empty()
        });
        jobs.into_iter().for_each(|job| self.placed(now, job));
        let more = self.lanes.waiting() > 0 || !self.held.is_empty();
        self.sweep_at = more.then(|| now + SWEEP);
    }
}
