//! Requests of one sender, class and depth: one is handled after the other, in the order they came; any of them may be
//! called off before its turn and during it. Pure.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::limits::REQUEST_OVERHEAD_BYTES;
use crate::wire::StreamId;

#[derive(Debug)]
enum State<C> {
    Waiting(C),
    Running(CancellationToken),
}

#[derive(Debug)]
struct Held<C> {
    state: State<C>,
    /// What it is charged.
    cost: usize,
}

#[derive(Debug)]
struct Work<C> {
    /// Ids in order; those that were called off stay until they are passed over.
    order: VecDeque<u64>,
    held: HashMap<u64, Held<C>>,
    cost: usize,
    /// A task works here.
    manned: bool,
}

/// What became of a request that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put<C> {
    /// It waits for its turn. `true`: a task is to be started for it.
    Waits(bool),
    /// Too much waits.
    Busy(C),
    /// One with this id is there: the sender is wrong.
    Twice(C),
}

/// What calling a request off did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CalledOff<C> {
    /// Its turn will not come.
    Waiting(C),
    /// Its handler was told to stop.
    Running,
    /// It is not here: done, or never came.
    Unknown,
}

/// See the module's text. `C` is what a request needs to be handled.
#[derive(Debug)]
pub(super) struct Lane<C> {
    pub(super) stream: StreamId,
    pub(super) depth: u8,
    most: usize,
    work: Mutex<Work<C>>,
}

impl<C> Lane<C> {
    /// Holds requests that are charged `most` bytes together, or one of any size.
    pub(super) fn new(stream: StreamId, depth: u8, most: usize) -> Self {
        let work = Work { order: VecDeque::new(), held: HashMap::new(), cost: 0, manned: false };
        Self { stream, depth, most, work: Mutex::new(work) }
    }

    /// A request of so many record bytes came.
    pub(super) fn put(&self, id: u64, bytes: usize, call: C) -> Put<C> {
        let mut work = self.work.lock();
        let work = &mut *work;
        let cost = bytes + REQUEST_OVERHEAD_BYTES;
        if work.cost + cost > self.most && !work.held.is_empty() {
            return Put::Busy(call);
        }
        match work.held.entry(id) {
            Entry::Occupied(_) => return Put::Twice(call),
            Entry::Vacant(place) => place.insert(Held { state: State::Waiting(call), cost }),
        };
        work.cost += cost;
        work.tidy();
        work.order.push_back(id);
        Put::Waits(!std::mem::replace(&mut work.manned, true))
    }

    /// The next one to be handled, and what tells that it is called off. `None`: none waits, and the task that asks
    /// ends. [`Lane::finish`] follows.
    pub(super) fn next(&self) -> Option<(u64, C, CancellationToken)> {
        let mut work = self.work.lock();
        while let Some(id) = work.order.pop_front() {
            let Some(held) = work.held.get_mut(&id) else { continue };
            let stop = CancellationToken::new();
            match std::mem::replace(&mut held.state, State::Running(stop.clone())) {
                State::Waiting(call) => return Some((id, call, stop)),
                // Not in the order any more.
                running @ State::Running(_) => held.state = running,
            }
        }
        work.manned = false;
        None
    }

    /// Its handler is done, or was stopped.
    pub(super) fn finish(&self, id: u64) {
        let _call = self.work.lock().remove(id);
    }

    /// Nobody waits for the reply any more.
    pub(super) fn call_off(&self, id: u64) -> CalledOff<C> {
        let mut work = self.work.lock();
        let stop = match work.held.get(&id).map(|held| &held.state) {
            None => return CalledOff::Unknown,
            Some(State::Running(stop)) => stop.clone(),
            Some(State::Waiting(_)) => {
                return work.remove(id).map_or(CalledOff::Unknown, CalledOff::Waiting);
            }
        };
        drop(work);
        stop.cancel();
        CalledOff::Running
    }

    /// Drops everything; how many there were.
    pub(super) fn clear(&self) -> u64 {
        let held = {
            let mut work = self.work.lock();
            work.order.clear();
            work.cost = 0;
            std::mem::take(&mut work.held)
        };
        held.len() as u64
    }
}

impl<C> Work<C> {
    fn remove(&mut self, id: u64) -> Option<C> {
        let held = self.held.remove(&id)?;
        self.cost -= held.cost;
        match held.state {
            State::Waiting(call) => Some(call),
            State::Running(_) => None,
        }
    }

    /// Ids that were called off do not gather behind a handler that takes its time.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.held.len() + 64 {
            self.order.retain(|id| self.held.contains_key(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Class, Protocol};

    fn lane(most: usize) -> Lane<u64> {
        Lane::new(StreamId::new(Protocol::REQUESTS, Class::Normal, true), 0, most)
    }

    fn next(lane: &Lane<u64>) -> Option<u64> {
        lane.next().map(|(id, call, _)| {
            assert_eq!(id, call);
            id
        })
    }

    #[test]
    fn requests_are_handled_in_order_by_one_task_at_a_time() {
        let lane = lane(10_000);
        assert_eq!(lane.put(1, 10, 1), Put::Waits(true));
        assert_eq!(lane.put(2, 10, 2), Put::Waits(false));
        assert_eq!(next(&lane), Some(1));
        assert_eq!(lane.put(3, 10, 3), Put::Waits(false));
        assert_eq!(lane.put(1, 10, 1), Put::Twice(1), "also while it runs");
        lane.finish(1);
        assert_eq!(next(&lane), Some(2));
        lane.finish(2);
        assert_eq!(next(&lane), Some(3));
        lane.finish(3);
        assert_eq!(next(&lane), None);
        assert_eq!(lane.put(4, 10, 4), Put::Waits(true), "the task has ended");
    }

    #[test]
    fn one_that_is_called_off_never_gets_its_turn_and_one_that_runs_is_told() {
        let lane = lane(10_000);
        for id in 1..=3 {
            lane.put(id, 10, id);
        }
        let (_, _, stop) = lane.next().unwrap();
        assert_eq!(lane.call_off(2), CalledOff::Waiting(2));
        assert_eq!(lane.call_off(2), CalledOff::Unknown);
        assert!(!stop.is_cancelled());
        assert_eq!(lane.call_off(1), CalledOff::Running);
        assert!(stop.is_cancelled());
        lane.finish(1);
        assert_eq!(next(&lane), Some(3));
    }

    #[test]
    fn what_waits_is_bounded_and_its_room_comes_back_however_it_ends() {
        let most = 3 * (REQUEST_OVERHEAD_BYTES + 10);
        let lane = lane(most);
        for round in 0..100u64 {
            let id = |at: u64| round * 10 + at;
            for at in 0..3 {
                assert!(matches!(lane.put(id(at), 10, id(at)), Put::Waits(_)), "round {round}");
            }
            assert_eq!(lane.put(id(9), 10, id(9)), Put::Busy(id(9)));
            let first = next(&lane).unwrap();
            lane.call_off(id(1));
            lane.finish(first);
            let last = next(&lane).unwrap();
            assert_eq!(last, id(2));
            lane.finish(last);
        }
        assert!(matches!(lane.put(1, most * 5, 1), Put::Waits(_)), "one of any size when nothing waits");
        assert_eq!(lane.put(2, 0, 2), Put::Busy(2));
        assert_eq!(lane.clear(), 1);
        assert!(matches!(lane.put(2, 0, 2), Put::Waits(_)));
    }

    #[test]
    fn ids_that_were_called_off_do_not_gather_behind_a_slow_one() {
        let lane = lane(10_000);
        lane.put(0, 10, 0);
        assert_eq!(next(&lane), Some(0));
        for id in 1..10_000 {
            lane.put(id, 10, id);
            lane.call_off(id);
        }
        assert!(lane.work.lock().order.len() < 100);
        lane.put(10_000, 10, 10_000);
        assert_eq!(next(&lane), Some(10_000));
    }
}
