//! What hubs wait for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::super::envelope::{CALLBACK_KEYS_MAX, Correlation, Keys};
use super::super::key::KeyId;

/// A promise: who waits (`T`), and for what.
#[derive(Debug)]
struct Promise<T> {
    hub: u32,
    flow: Correlation,
    keys: Keys,
    deadline: Instant,
    /// Its deadline came in its turn.
    in_turn: bool,
    token: T,
}

/// Promises that are open. Each ends once: by an answer, a failure, its deadline, or because nobody waits any more.
#[derive(Debug)]
pub(crate) struct Promises<T> {
    open: HashMap<u64, Promise<T>, foldhash::fast::RandomState>,
    deadlines: Deadlines,
    next: u64,
}

/// When each promise's time is over. Most come in their turn, because most requests live as long as the ones before: they stand in a
/// queue, from which those that ended before go when they come to its front, or when they are the most of it. So a request
/// costs no search.
#[derive(Debug, Default)]
struct Deadlines {
    /// The next first; that one is open.
    queue: VecDeque<(Instant, u64)>,
    /// In the queue, and not open any more.
    ended: usize,
    others: BTreeSet<(Instant, u64)>,
}

/// Fewer that ended are not worth looking for.
const ENDED_MIN: usize = 64;

impl Deadlines {
    /// Whether it came in its turn.
    fn add(&mut self, at: Instant, id: u64) -> bool {
        let in_turn = self.queue.back().is_none_or(|(last, _)| *last <= at);
        if in_turn {
            self.queue.push_back((at, id));
        } else {
            self.others.insert((at, id));
        }
        in_turn
    }

    /// One in the queue is not open any more.
    fn close(&mut self, is_open: impl Fn(u64) -> bool) {
        self.ended += 1;
        while self.queue.pop_front_if(|(_, id)| !is_open(*id)).is_some() {
            self.ended = self.ended.saturating_sub(1);
        }
        if self.ended > ENDED_MIN && self.ended > self.queue.len() / 2 {
            self.queue.retain(|(_, id)| is_open(*id));
            self.ended = 0;
        }
    }

    /// The next one.
    fn first(&self) -> Option<(Instant, u64)> {
        self.queue.front().into_iter().chain(self.others.first()).min().copied()
    }
}

impl<T> Default for Promises<T> {
    fn default() -> Self {
        Self { open: HashMap::default(), deadlines: Deadlines::default(), next: 1 }
    }
}

/// Most promises of one process.
pub(crate) const PROMISES_MAX: usize = 1 << 20;

impl<T> Promises<T> {
    /// Opens one. `None`: too many, or nothing that could end it.
    pub(crate) fn open(
        &mut self,
        hub: u32,
        flow: Correlation,
        keys: Keys,
        deadline: Instant,
        token: T,
    ) -> Result<u64, T> {
        if self.open.len() >= PROMISES_MAX || keys.is_empty() || keys.len() > CALLBACK_KEYS_MAX {
            return Err(token);
        }
        let id = self.next;
        self.next += 1;
        let in_turn = self.deadlines.add(deadline, id);
        self.open.insert(id, Promise { hub, flow, keys, deadline, in_turn, token });
        Ok(id)
    }

    /// An answer, or a failure (`None`), for this promise of this hub's flow: who waits for it, if it does still, and for this.
    pub(crate) fn resolve(&mut self, hub: u32, id: u64, flow: Correlation, key: Option<KeyId>) -> Option<T> {
        let promise = self.open.get(&id)?;
        let fits =
            promise.hub == hub && promise.flow == flow && key.is_none_or(|key| promise.keys.contains(&key));
        if fits { self.close(id) } else { None }
    }

    /// Nobody waits any more.
    pub(crate) fn close(&mut self, id: u64) -> Option<T> {
        let promise = self.open.remove(&id)?;
        if promise.in_turn {
            self.deadlines.close(|id| self.open.contains_key(&id));
        } else {
            self.deadlines.others.remove(&(promise.deadline, id));
        }
        Some(promise.token)
    }

    /// The next whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(Correlation, T)> {
        let (_, id) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        let flow = self.open.get(&id)?.flow;
        self.close(id).map(|token| (flow, token))
    }

    /// When the next one's time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| at)
    }

    /// All of one hub, or all there are.
    pub(crate) fn drain(&mut self, hub: Option<u32>) -> Vec<T> {
        let fits = |promise: &Promise<T>| hub.is_none_or(|hub| hub == promise.hub);
        let mut ids: Vec<u64> =
            self.open.iter().filter(|(_, promise)| fits(promise)).map(|(id, _)| *id).collect();
        // In their order, so that a seed replays.
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.close(id)).collect()
    }

    /// All there are, in their order.
    pub(crate) fn drain_all(&mut self) -> Vec<(Correlation, T)> {
        let mut ids: Vec<_> = self.open.iter().map(|(id, promise)| (*id, promise.flow)).collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        ids.into_iter().filter_map(|(id, flow)| Some((flow, self.close(id)?))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;
    use crate::MemberId;

    proptest! {
        /// Against all deadlines in one order.
        #[test]
        fn deadlines_come_in_their_order_each_once_and_take_no_more_room_than_twice_what_is_open(
            steps in prop::collection::vec((0..8_u8, 0..40_u64), 1..600),
        ) {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let flow = Correlation { member: MemberId::from_parts(1, 1), number: 1 };
            let (mut promises, mut model) = (Promises::default(), BTreeSet::new());
            for (step, (how, number)) in steps.into_iter().enumerate() {
                let step = step as u64;
                match how {
                    // As long as most, or for some other time.
                    0..5 => {
                        let deadline = if how < 4 { step + 500 } else { number * 20 };
                        let id = promises.open(1, flow, smallvec![KeyId(1)], at(deadline), step).unwrap();
                        model.insert((deadline, id, step));
                    }
                    5 | 6 => {
                        let which = model.iter().nth(number as usize % model.len().max(1)).copied();
                        if let Some((deadline, id, token)) = which {
                            prop_assert_eq!(promises.close(id), Some(token));
                            model.remove(&(deadline, id, token));
                        }
                    }
                    _ => {
                        let now = number * 15;
                        while let Some((_, token)) = promises.expire(at(now)) {
                            let first = model.pop_first();
                            prop_assert!(first.is_some_and(|(deadline, _, its)| deadline <= now && its == token));
                        }
                        prop_assert!(model.first().is_none_or(|(deadline, ..)| *deadline > now));
                    }
                }
                prop_assert_eq!(promises.deadline(), model.first().map(|(deadline, ..)| at(*deadline)));
                prop_assert_eq!(promises.len(), model.len());
                let Deadlines { queue, others, .. } = &promises.deadlines;
                prop_assert!(queue.len() + others.len() <= 2 * model.len() + ENDED_MIN + 1);
            }
        }
    }
}
