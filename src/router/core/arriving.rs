//! What comes from other nodes: messages, answers, words of routers; and what became of messages to them. Who they are is in `nodes`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::super::envelope::{
    ActorRef, Body, Control, Distribution, Failure, FlowHead, ReplyHead, Returned, RouteRecord,
};
use super::{Answer, BUSY, Core, DONE_DELAY, DONE_MANY, Flow, Held, Output, Sent, Source, Told, Work};
use crate::{Cause, Lost, MemberId};

/// Callers that are waited for, and answers for one of them.
const HELD_CALLERS_MAX: usize = 1024;
const HELD_MAX: usize = 1024;

impl<B: Body + Clone, T> Core<B, T> {
    // ---- what became of what was sent ----

    /// Answers that waited for their caller.
    pub(super) fn release(&mut self, now: Instant, id: MemberId) {
        for Held { until, head, body, job } in self.held.remove(&id).unwrap_or_default() {
            if until > now {
                let left_ms = millis(until.saturating_duration_since(now));
                let head = ReplyHead { left_ms, ..head };
                self.outputs.push_back(Output::Reply { to: id, head, body, job });
            } else if let Some(job) = job {
                self.placed(now, job);
            }
        }
    }

    /// What became of a message to a node that has not said that it was handled.
    pub(crate) fn handle_lost(&mut self, now: Instant, from: MemberId, number: u64, lost: Lost) {
        let Some(Sent { lane, flow }) = self.take_sent(from, number) else { return };
        self.give_lane_back(now, lane);
        let direct = matches!(flow.envelope.to, Distribution::Node(_) | Distribution::Actor(_));
        match lost {
            // It waited for a link as long as it lived.
            Lost::NotSent(Cause::Expired) if direct || flow.expires <= now => {
                self.end(now, flow, Failure::Expired);
            }
            Lost::NotSent(_) if !direct => self.again(now, flow, Some(lane.0)),
            Lost::Indeterminate(_) if flow.envelope.idempotent && !direct => {
                self.again(now, Flow { doubt: Some(from), ..flow }, Some(lane.0));
            }
            Lost::NotSent(_) | Lost::Indeterminate(_) => self.end(now, flow, Failure::Departed(from)),
        }
    }

    /// A message to a node that cannot be encoded.
    pub(crate) fn handle_unsendable(&mut self, now: Instant, to: MemberId, number: u64, why: String) {
        let Some(Sent { lane, flow }) = self.take_sent(to, number) else { return };
        self.give_lane_back(now, lane);
        self.end(now, flow, Failure::Handler(why));
    }

    /// Numbers of what a node has not said to be done.
    pub(crate) fn sent_to(&self, node: MemberId) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            self.nodes.get(&node).map(|node| node.sent.keys().copied().collect()).unwrap_or_default();
        // In their order, so that a seed replays.
        numbers.sort_unstable();
        numbers
    }

    /// Whether it is one of them.
    pub(crate) fn is_sent(&self, node: MemberId, number: u64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.sent.contains_key(&number))
    }

    fn take_sent(&mut self, from: MemberId, number: u64) -> Option<Sent<B>> {
        let node = self.nodes.get_mut(&from)?;
        let sent = node.sent.remove(&number);
        self.drop_idle(from);
        sent
    }

    pub(super) fn give_lane_back(&mut self, now: Instant, lane: super::LaneId) {
        if let Some((flow, to)) = self.lanes.give_back(lane) {
            self.dispatch(now, flow, to);
        }
    }

    // ---- messages ----

    /// A message of another node. `false`: it breaks a bound, and was dropped.
    pub(crate) fn handle_flow(&mut self, now: Instant, from: MemberId, head: FlowHead, body: B) -> bool {
        let FlowHead { number, host, left_ms, mut envelope } = head;
        if !envelope.is_sound() {
            return false;
        }
        // The way here.
        let on_arrival = Arc::make_mut(&mut envelope);
        on_arrival.hops = on_arrival.hops.saturating_add(1);
        if envelope.hops > self.config.hops_max {
            // Its sender allows more.
            self.fail(&envelope, Some(body), Failure::Limit, None);
            self.control(from, Control::Done(vec![number]));
            return true;
        }
        let (key, tell) = (envelope.key, envelope.tell);
        let hosts: SmallVec<[u32; 4]> = match host {
            0 => self.table.hosts_with(key, true).into(),
            host => self.table.holds(host, key, true).then_some(host).into_iter().collect(),
        };
        let bytes = body.bytes();
        if hosts.is_empty() || !self.nodes.contains_key(&from) {
            // A node that is not known yet is not refused for good.
            let why = if hosts.is_empty() { Returned::NotHere } else { Returned::Busy };
            self.control(from, Control::Returned { number, why });
            return true;
        }
        if self.queued_bytes.saturating_add(bytes * hosts.len()) > self.config.queued_bytes_max {
            self.control(from, Control::Returned { number, why: Returned::Busy });
            return true;
        }
        self.queued_bytes += bytes * hosts.len();
        if hosts.len() > 1
            && let Some(node) = self.nodes.get_mut(&from)
        {
            node.shared.insert(number, hosts.len());
        }
        let expires = now + Duration::from_millis(left_ms.into());
        // The last has what came, and no copy of it.
        let (last, others) = hosts.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
        for host in others.iter().copied() {
            let job = self.job(host, Source::Elsewhere { from, number, bytes });
            self.enqueue(host, Work { job, envelope: Arc::clone(&envelope), body: body.clone(), expires });
        }
        let job = self.job(last, Source::Elsewhere { from, number, bytes });
        self.enqueue(last, Work { job, envelope, body, expires });
        if tell {
            self.control(from, Control::Accepted(number));
        }
        true
    }

    /// An answer of another node, or of this one.
    pub(crate) fn handle_reply(&mut self, head: ReplyHead, body: Option<B>) {
        let ReplyHead { hub, promise, flow, hops, outcome, trail, .. } = head;
        let key = outcome.as_ref().ok().copied();
        let Some(token) = self.promises.resolve(hub, promise, flow, key) else {
            self.counts.late += 1;
            return;
        };
        let outcome = match (outcome, body) {
            (Ok(key), Some(body)) => Ok((key, body)),
            (Ok(key), None) => Err(Failure::Unroutable(key)),
            (Err(failure), _) => Err(failure),
        };
        self.outputs.push_back(Output::Resolve { token, answer: Answer { outcome, flow, hops, trail } });
    }

    /// The messenger does not know the caller: its view does not hold it yet, or not any more.
    pub(crate) fn handle_unknown_caller(
        &mut self,
        now: Instant,
        to: MemberId,
        head: ReplyHead,
        body: Option<B>,
        job: Option<u64>,
    ) {
        let until = now + Duration::from_millis(head.left_ms.into());
        let known = self.held.len();
        let room = self.held.get(&to).map_or(known < HELD_CALLERS_MAX, |held| held.len() < HELD_MAX);
        if room {
            self.held.entry(to).or_default().push(Held { until, head, body, job });
            self.sweep_by(now + super::SWEEP);
        } else if let Some(job) = job {
            self.placed(now, job);
        }
    }

    /// What another router says.
    pub(crate) fn handle_control(&mut self, now: Instant, from: MemberId, control: Control) {
        match control {
            Control::Done(numbers) => {
                for number in numbers {
                    if let Some(Sent { lane, flow }) = self.take_sent(from, number) {
                        self.tell(flow.watch, Told::Handled);
                        self.give_lane_back(now, lane);
                    }
                }
            }
            Control::Accepted(number) => {
                let sent = self.nodes.get(&from).and_then(|node| node.sent.get(&number));
                let watch = sent.and_then(|sent| sent.flow.watch);
                self.tell(watch, Told::Accepted);
            }
            Control::Returned { number, why } => self.handle_returned(now, from, number, why),
            Control::Routes { all, add, remove } => self.handle_routes(now, from, all, add, &remove),
            Control::Discover(keys) if keys.is_empty() => self.news(from, |news| news.all = true),
            Control::Discover(keys) => {
                let held = |record: &RouteRecord| keys.contains(&record.key.id());
                let add: Vec<_> = self.table.announced().into_iter().filter(held).collect();
                self.news(from, |news| news.add.extend(add));
            }
        }
    }

    /// It was certainly not handled.
    fn handle_returned(&mut self, now: Instant, from: MemberId, number: u64, why: Returned) {
        let Some(Sent { lane, flow }) = self.take_sent(from, number) else { return };
        self.counts.returned += 1;
        self.give_lane_back(now, lane);
        match why {
            Returned::NotHere => {
                let key = flow.envelope.key;
                if lane.0.host == 0 {
                    let nodes = self.table.hosts_of(from, key);
                    nodes
                        .into_iter()
                        .for_each(|host| _ = self.table.unlearn(ActorRef { node: from, host }, key));
                    return self.end(now, flow, Failure::Unroutable(key));
                }
                self.table.unlearn(lane.0, key);
                self.again(now, flow, Some(lane.0));
            }
            Returned::Expired => self.tell(flow.watch, Told::Failed(Failure::Expired)),
            Returned::Busy => self.retry(now + BUSY, flow),
        }
    }

    // ---- what this node owes others ----

    /// Whether a message of this node went to several hosts here.
    pub(super) fn is_shared(&self, from: MemberId, number: u64) -> bool {
        self.nodes.get(&from).is_some_and(|node| node.shared.contains_key(&number))
    }

    pub(super) fn owe(&mut self, now: Instant, to: MemberId, number: u64) {
        if let Some(node) = self.nodes.get_mut(&to)
            && let Some(left) = node.shared.get_mut(&number)
        {
            *left -= 1;
            if *left > 0 {
                return;
            }
            node.shared.remove(&number);
        }
        let Some(node) = self.nodes.get_mut(&to).filter(|node| node.up) else {
            // It may be missed here and have missed nothing: then it waits for this word. If it is gone, the messenger knows.
            self.drop_idle(to);
            return self.control(to, Control::Done(vec![number]));
        };
        node.done.push(number);
        if node.done.len() >= DONE_MANY {
            let done = std::mem::take(&mut node.done);
            self.owing.remove(&to);
            self.control(to, Control::Done(done));
        } else {
            self.owing.insert(to);
            let at = *self.done_at.get_or_insert(now + DONE_DELAY);
            self.wake_by(at);
        }
    }

    pub(super) fn settle_debts(&mut self) {
        self.done_at = None;
        for to in std::mem::take(&mut self.owing) {
            let done = self.nodes.get_mut(&to).map(|node| std::mem::take(&mut node.done)).unwrap_or_default();
            if !done.is_empty() {
                self.control(to, Control::Done(done));
            }
        }
    }
}

/// As it travels: what is less than a millisecond is one.
pub(super) fn millis(left: Duration) -> u32 {
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}
