//! What waits for one listener: bounded, in the order in which it happened.
//!
//! A listener that keeps up gets everything. Once it is behind by as many events as there is room for, only the newest of
//! each topic (peer and kind) stays, until it has caught up: so a link that flaps pushes nothing out but its own past.
//! Only then the oldest go and are counted; what nothing later says again (`Left`, `Replaced`) goes last.

use std::collections::{BTreeMap, HashMap};

use crate::limits::EVENTS_MAX;
use crate::peer::{PeerEvent, Topic};

/// See the module's text. Events are kept by their number, in the order of occurrence.
#[derive(Debug, Default)]
pub(super) struct Queue {
    next: u64,
    passing: BTreeMap<u64, PeerEvent>,
    /// Nothing later says these again.
    lasting: BTreeMap<u64, PeerEvent>,
    /// Where the one event of each topic is. `None`: the listener keeps up.
    newest: Option<HashMap<Topic, u64>>,
    missed: u64,
}

impl Queue {
    pub(super) fn push(&mut self, event: PeerEvent) {
        if self.newest.is_none() && self.len() >= EVENTS_MAX {
            self.coalesce();
        }
        let number = self.next;
        self.next += 1;
        if let Some(newest) = &mut self.newest
            && let Some(before) = newest.insert(event.topic(), number)
        {
            self.remove(before);
        }
        if self.len() >= EVENTS_MAX {
            self.drop_oldest();
        }
        let events = if event.is_final() { &mut self.lasting } else { &mut self.passing };
        events.insert(number, event);
    }

    pub(super) fn pop(&mut self) -> Option<PeerEvent> {
        let first = |events: &BTreeMap<u64, PeerEvent>| events.keys().next().copied();
        let events = match (first(&self.passing), first(&self.lasting)) {
            (Some(passing), Some(lasting)) if lasting < passing => &mut self.lasting,
            (Some(_), _) => &mut self.passing,
            (None, _) => &mut self.lasting,
        };
        let event = events.pop_first().map(|(_, event)| event);
        match (&event, &mut self.newest) {
            // It has caught up.
            (None, newest) => *newest = None,
            (Some(event), Some(newest)) => {
                newest.remove(&event.topic());
            }
            (Some(_), None) => {}
        }
        event
    }

    /// How many were dropped though nothing later replaced them.
    pub(super) const fn missed(&self) -> u64 {
        self.missed
    }

    fn len(&self) -> usize {
        self.passing.len() + self.lasting.len()
    }

    /// From now on there is one event of each topic.
    fn coalesce(&mut self) {
        let mut newest = HashMap::with_capacity(EVENTS_MAX);
        for events in [&mut self.passing, &mut self.lasting] {
            for (number, event) in events.iter() {
                newest.insert(event.topic(), *number);
            }
            events.retain(|number, event| newest.get(&event.topic()) == Some(number));
        }
        self.newest = Some(newest);
    }

    fn remove(&mut self, number: u64) {
        if self.passing.remove(&number).is_none() {
            self.lasting.remove(&number);
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.passing.pop_first().or_else(|| self.lasting.pop_first());
        if let Some((_, event)) = oldest {
            self.missed += 1;
            if let Some(newest) = &mut self.newest {
                newest.remove(&event.topic());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::member::MemberId;
    use crate::peer::Disconnect;

    fn id(of: usize) -> MemberId {
        MemberId::from_parts(1, of as u128)
    }

    fn connected(of: usize) -> PeerEvent {
        PeerEvent::Connected { peer: id(of) }
    }

    fn disconnected(of: usize, reason: Disconnect) -> PeerEvent {
        PeerEvent::Disconnected { peer: id(of), reason }
    }

    fn left(of: usize) -> PeerEvent {
        PeerEvent::Left { peer: id(of) }
    }

    fn all(queue: &mut Queue) -> Vec<PeerEvent> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn a_listener_that_keeps_up_gets_everything_in_order() {
        let mut queue = Queue::default();
        for round in 0..10 {
            let told: Vec<_> = (0..EVENTS_MAX)
                .map(|at| match at % 3 {
                    0 => connected(1),
                    1 => disconnected(1, Disconnect::End),
                    _ => left(at),
                })
                .collect();
            told.iter().for_each(|event| queue.push(event.clone()));
            assert_eq!(all(&mut queue), told, "round {round}");
        }
        assert_eq!(queue.missed(), 0);
    }

    #[test]
    fn a_link_that_flaps_a_hundred_thousand_times_pushes_out_nothing_but_its_own_past() {
        let mut queue = Queue::default();
        let others =
            [left(7), connected(8), PeerEvent::Slow { peer: id(9), blocked: Duration::from_secs(1) }];
        others.iter().for_each(|event| queue.push(event.clone()));
        for _ in 0..100_000 {
            queue.push(connected(1));
            queue.push(disconnected(1, Disconnect::Reset));
        }
        queue.push(disconnected(1, Disconnect::Silence));
        queue.push(connected(1));
        let last = [disconnected(1, Disconnect::Silence), connected(1)];
        assert_eq!(all(&mut queue), [&others[..], &last[..]].concat(), "the newest of each, in order");
        assert_eq!(queue.missed(), 0);
    }

    #[test]
    fn a_flap_before_the_queue_is_full_makes_room_for_others_as_well() {
        let mut queue = Queue::default();
        for _ in 0..EVENTS_MAX / 2 {
            queue.push(connected(1));
            queue.push(disconnected(1, Disconnect::End));
        }
        for of in 2..EVENTS_MAX {
            queue.push(connected(of));
        }
        let seen = all(&mut queue);
        assert_eq!((seen.len(), queue.missed()), (EVENTS_MAX, 0));
        assert_eq!(seen[2..], (2..EVENTS_MAX).map(connected).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_that_the_oldest_go_and_are_counted() {
        let mut queue = Queue::default();
        for of in 0..EVENTS_MAX + 10 {
            queue.push(connected(of));
        }
        assert_eq!(queue.missed(), 10);
        assert_eq!(all(&mut queue), (10..EVENTS_MAX + 10).map(connected).collect::<Vec<_>>());
    }

    #[test]
    fn who_left_and_who_was_replaced_go_last() {
        let mut queue = Queue::default();
        let replaced = |by| PeerEvent::Replaced { old: id(1), new: id(by) };
        let last = [left(5), replaced(6), replaced(7)];
        last.iter().for_each(|event| queue.push(event.clone()));
        for of in 0..3 * EVENTS_MAX {
            queue.push(connected(of));
        }
        assert_eq!(queue.missed(), 2 * EVENTS_MAX as u64 + 3);
        assert_eq!(all(&mut queue)[..3], last, "older than all others that stayed");
        for of in 0..EVENTS_MAX + 2 {
            queue.push(left(of));
        }
        assert_eq!(queue.missed(), 2 * EVENTS_MAX as u64 + 5, "nothing is kept without bound");
        assert_eq!(all(&mut queue), (2..EVENTS_MAX + 2).map(left).collect::<Vec<_>>());
    }

    #[test]
    fn a_listener_that_has_caught_up_gets_everything_again() {
        let mut queue = Queue::default();
        for _ in 0..2 * EVENTS_MAX {
            queue.push(connected(1));
        }
        assert_eq!(all(&mut queue), [connected(1)]);
        for _ in 0..5 {
            queue.push(connected(1));
        }
        assert_eq!(all(&mut queue).len(), 5);
    }

    #[test]
    fn what_was_taken_is_not_looked_for_again() {
        let mut queue = Queue::default();
        for of in 0..=EVENTS_MAX {
            queue.push(connected(of));
        }
        assert_eq!(queue.pop(), Some(connected(1)));
        queue.push(connected(1));
        queue.push(connected(2));
        let seen = all(&mut queue);
        assert_eq!(seen.len(), EVENTS_MAX);
        assert_eq!(seen[EVENTS_MAX - 2..], [connected(1), connected(2)]);
        assert_eq!(queue.missed(), 1);
    }
}
