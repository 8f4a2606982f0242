//! Judging who has failed: what the judge is told, and what it wants done.

use std::time::Instant;

use super::Desk;
use super::commit::Concern;
use crate::MemberId;
use crate::rendezvous::judge;
use crate::rendezvous::state::{Op, Why};
use crate::rendezvous::words::{Health, Report, ToNode};

impl Desk {
    pub(super) fn handle_heard(&mut self, now: Instant, from: MemberId) {
        if self.members.contains(&from) {
            self.heard.insert(from, now);
            self.judge.handle_heard(now, from);
        }
    }

    pub(super) fn handle_report(&mut self, now: Instant, from: MemberId, of: MemberId, what: Report) {
        if self.members.contains(&from) && self.members.contains(&of) {
            let what = match what {
                Report::Lost => judge::Report::Lost,
                Report::Heard => judge::Report::Heard,
            };
            self.judge.handle_report(now, from, of, what);
            self.do_what_the_judge_says();
        }
    }

    pub(super) fn handle_probed(&mut self, now: Instant, from: MemberId, suspect: MemberId, reached: bool) {
        if let Some(probe) = self.probes.remove(&(from, suspect)) {
            self.judge.handle_probed(now, from, probe, reached);
            self.do_what_the_judge_says();
        }
    }

    pub(super) fn run_judge(&mut self, now: Instant) {
        if self.judge.poll_timeout().is_some_and(|due| due <= now) {
            self.judge.handle_timeout(now);
        }
        self.do_what_the_judge_says();
    }

    fn do_what_the_judge_says(&mut self) {
        while let Some(action) = self.judge.poll_action() {
            match action {
                judge::Action::Ping => {
                    self.ping = true;
                    self.forget_versions();
                }
                judge::Action::Probe { probe, witness, suspect, within } => {
                    let free =
                        self.nodes.get(&witness).is_some_and(|node| node.feed.is_some() && node.has_room());
                    if free {
                        self.probes.insert((witness, suspect), probe);
                        self.tell(witness, ToNode::Probe { term: self.reign(), member: suspect, within });
                    }
                }
                judge::Action::Evict { member, since, why } => self.evict(member, since, &why),
                judge::Action::Health { member, health } => {
                    self.table.set(member, worded(health));
                    let fed: Vec<MemberId> = self
                        .nodes
                        .iter()
                        .filter(|(_, node)| node.feed.is_some())
                        .map(|(id, _)| *id)
                        .collect();
                    fed.into_iter().for_each(|id| self.line_up(id));
                }
            }
        }
    }

    fn evict(&mut self, member: MemberId, since: Instant, why: &judge::Evidence) {
        if self.leaving.contains_key(&member) || !self.members.contains(&member) {
            return;
        }
        tracing::warn!(%member, ?since, ?why, "a member is silent and goes");
        self.leaving.insert(member, Why::Silent);
        let leave = Op::Leave { member, why: Why::Silent };
        self.commit.push([(leave, Concern::Out(member, None))]);
    }

    /// Nodes read versions of everything; what nobody reads goes.
    fn forget_versions(&mut self) {
        let nodes = &self.nodes;
        self.versions.keep(|number| nodes.values().any(|node| node.reads(number)));
    }
}

/// As nodes are told.
const fn worded(health: judge::Health) -> Health {
    match health {
        judge::Health::Healthy => Health::Healthy,
        // It is reached by others.
        judge::Health::Suspected | judge::Health::Vouched { .. } => Health::Suspected,
        judge::Health::Silent { .. } => Health::Silent,
    }
}
