//! Time, what must hold at any, and the end of it all.

use std::time::Duration;

use super::super::Source;
use super::{NODES, Run, Side, member};
use crate::MemberId;

impl Run {
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // A step for each time that something wants to be called, as the timer does.
        for _ in 0..1_000 {
            let next = self.sides.values().filter_map(|side| side.core.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let all: Vec<MemberId> = self.sides.keys().copied().collect();
            for at in all {
                self.act(at, |core, now| core.handle_timeout(now));
            }
        }
        self.now = end;
    }

    pub(super) fn check(&self) {
        for Side { core, .. } in self.sides.values() {
            assert!(core.outputs.is_empty(), "something is not done");
            let queued = core.hosts.values().flat_map(|host| &host.queue);
            let elsewhere = queued.filter_map(|work| match core.jobs.get(&work.job)?.source {
                Source::Elsewhere { bytes, .. } => Some(bytes),
                Source::Here { .. } => None,
            });
            assert_eq!(elsewhere.sum::<usize>(), core.queued_bytes, "bytes of others that wait");
            assert!(core.table.own().count() <= core.config.routes_max);
            let (mut told, mut after) = (0, None);
            loop {
                let page = core.table.page(after);
                told += page.internal.len() + page.external.len();
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(told, core.table.own().count() + core.table.others().count());
        }
    }

    /// All that is on its way comes, all work ends, all nodes go, all time passes.
    pub(super) fn finish(&mut self) {
        for _ in 0..100 {
            let ways: Vec<_> =
                self.ways.iter().filter(|(_, way)| !way.is_empty()).map(|(way, _)| *way).collect();
            for (from, to) in &ways {
                self.deliver(*from, *to);
            }
            for at in 1..=NODES {
                self.next_work(member(at));
                self.handled(member(at));
            }
            if ways.is_empty() {
                self.pass(Duration::from_millis(20));
            }
        }
        for at in 1..=NODES {
            for other in 1..=NODES + 2 {
                self.act(member(at), |core, now| core.handle_node_down(now, member(other)));
            }
        }
        self.pass(Duration::from_secs(60));
        for at in 1..=NODES {
            while self.sides.get(&member(at)).is_some_and(|side| !side.busy.is_empty()) {
                self.handled(member(at));
                self.next_work(member(at));
            }
            for host in self.sides.get(&member(at)).map(|side| side.hosts.clone()).unwrap_or_default() {
                self.act(member(at), |core, now| core.remove_host(now, host));
            }
        }
        // Answers wait for callers as long as strangers say.
        self.pass(Duration::from_millis(u64::from(u32::MAX) + 1_000));
        self.check();
        assert!(self.open.is_empty(), "requests that never end: {:?}", self.open);
        for Side { core, .. } in self.sides.values() {
            assert_eq!((core.open(), core.lanes.under_way(), core.queued_bytes), ((0, 0, 0), 0, 0));
            assert!(core.nodes.is_empty() && core.held.is_empty() && core.owing.is_empty());
        }
    }
}
