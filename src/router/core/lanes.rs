//! How much of what is under way each actor may hold: a window for each of its hosts and each depth of flows.
//!
//! What is sent to a host counts until the host is done with it *and* all that came of it is done here, or has left. So a
//! slow actor holds up those who send to it, and nobody else; and nobody is held up for ever: what waits at one depth waits
//! for room at the next only, flows end at a depth, and there nothing comes of anything (a structured buffer pool: Merlin
//! and Schweitzer, Deadlock Avoidance in Store-and-Forward Networks, 1980). Two actors that send each other more than
//! either holds are thus no deadlock.

use std::collections::{HashMap, VecDeque};

use super::super::envelope::ActorRef;

/// Messages that a host may hold from one sender at one depth. Some milliseconds of work of a quick actor; a quarter is told
/// at once when it is done, so a window is never empty for want of word.
pub(crate) const WINDOW: usize = 256;

/// A host, and a depth.
pub(crate) type LaneId = (ActorRef, u16);

/// What is under way to one host, at one depth.
#[derive(Debug)]
struct Lane<F> {
    under_way: usize,
    waiting: VecDeque<F>,
}

/// See the module's text. `F` is what waits.
#[derive(Debug)]
pub(crate) struct Lanes<F> {
    lanes: HashMap<LaneId, Lane<F>, foldhash::fast::RandomState>,
    waiting: usize,
}

impl<F> Default for Lanes<F> {
    fn default() -> Self {
        Self { lanes: HashMap::default(), waiting: 0 }
    }
}

impl<F> Lanes<F> {
    pub(crate) fn has_room(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_none_or(|lane| lane.under_way < WINDOW && lane.waiting.is_empty())
    }

    /// All that wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes a place, if there is one and nobody waits for it.
    pub(crate) fn take(&mut self, id: LaneId) -> bool {
        let lane = self.lanes.entry(id).or_insert_with(|| Lane { under_way: 0, waiting: VecDeque::new() });
        let free = lane.under_way < WINDOW && lane.waiting.is_empty();
        lane.under_way += usize::from(free);
        free
    }

    /// Waits for a place, behind those that wait.
    pub(crate) fn wait(&mut self, id: LaneId, flow: F) {
        let lane = self.lanes.entry(id).or_insert_with(|| Lane { under_way: 0, waiting: VecDeque::new() });
        lane.waiting.push_back(flow);
        self.waiting += 1;
    }

    /// Places that are taken.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn under_way(&self) -> usize {
        self.lanes.values().map(|lane| lane.under_way).sum()
    }

    /// A place is free; whoever has it next.
    #[must_use]
    pub(crate) fn give_back(&mut self, id: LaneId) -> Option<F> {
        let lane = self.lanes.get_mut(&id)?;
        debug_assert!(lane.under_way > 0, "given back and never taken");
        lane.under_way = lane.under_way.saturating_sub(1);
        let next = lane.waiting.pop_front();
        if next.is_some() {
            lane.under_way += 1;
            self.waiting -= 1;
        } else if lane.under_way == 0 {
            self.lanes.remove(&id);
        }
        next
    }

    /// Hosts have another name.
    pub(crate) fn rename(&mut self, mut lane: impl FnMut(&mut LaneId), mut flow: impl FnMut(&mut F)) {
        let lanes = std::mem::take(&mut self.lanes);
        self.lanes = lanes
            .into_iter()
            .map(|(mut id, mut of)| {
                lane(&mut id);
                of.waiting.iter_mut().for_each(&mut flow);
                (id, of)
            })
            .collect();
    }

    /// The host is no more: who waited for it.
    pub(crate) fn close(&mut self, mut gone: impl FnMut(ActorRef) -> bool) -> Vec<F> {
        let mut out = Vec::new();
        self.lanes.retain(|(to, depth), lane| {
            let stays = !gone(*to);
            if !stays {
                out.push(((*to, *depth), std::mem::take(&mut lane.waiting)));
            }
            stays
        });
        self.in_order(out)
    }

    /// In the order of the lanes, so that a seed replays.
    fn in_order(&mut self, mut out: Vec<(LaneId, VecDeque<F>)>) -> Vec<F> {
        out.sort_unstable_by_key(|(id, _)| *id);
        let out: Vec<F> = out.into_iter().flat_map(|(_, flows)| flows).collect();
        self.waiting -= out.len();
        out
    }

    /// Those that wait no longer.
    pub(crate) fn sift(&mut self, mut stays: impl FnMut(&F) -> bool) -> Vec<F> {
        let mut out = Vec::new();
        for (id, lane) in self.lanes.iter_mut().filter(|(_, lane)| !lane.waiting.is_empty()) {
            let (keep, go) = lane.waiting.drain(..).partition(|flow| stays(flow));
            lane.waiting = keep;
            out.push((*id, go));
        }
        self.lanes.retain(|_, lane| lane.under_way > 0 || !lane.waiting.is_empty());
        self.in_order(out)
    }
}
