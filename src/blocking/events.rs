//! Events for threads: a bounded channel that never holds the messenger up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio_util::sync::CancellationToken;

use super::Messenger;
use crate::limits::{EVENTS_MAX, LISTENERS_MAX, ROOM_RECHECK};
use crate::messenger::Events;
use crate::peer::PeerEvent;

impl Messenger {
    /// Events of peers from now on. The channel holds 1,024; a reader that is more than twice that behind misses some in the
    /// middle, never the newest ([`Messenger::missed_events`]). Disconnected when the messenger has closed, and when 32
    /// others listen that came later.
    #[must_use]
    pub fn events(&self) -> Receiver<PeerEvent> {
        let (to, listener) = bounded(EVENTS_MAX);
        let stop = self.core.listening.child_token();
        let oldest = {
            let mut listeners = self.core.listeners.lock();
            listeners.push_back(stop.clone());
            if listeners.len() > LISTENERS_MAX { listeners.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            oldest.cancel();
        }
        let bridge = Bridge { to, missed: Arc::clone(&self.core.missed), stop };
        self.core.own.spawn(bridge.run(self.core.messenger.events()));
        listener
    }

    /// How many events all listeners together have missed by being slow.
    #[must_use]
    pub fn missed_events(&self) -> u64 {
        self.core.missed.load(Ordering::Relaxed)
    }
}

struct Bridge {
    to: Sender<PeerEvent>,
    missed: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Bridge {
    async fn run(self, mut events: Events) {
        let mut missed = 0;
        loop {
            // What has happened is told before the end.
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                () = self.stop.cancelled() => None,
            };
            self.missed.fetch_add(events.missed() - missed, Ordering::Relaxed);
            missed = events.missed();
            let Some(event) = event else { return };
            if !self.offer(event).await {
                return;
            }
        }
    }

    /// Puts an event into the channel. While that is full, the messenger's own buffer fills, and then loses its oldest.
    async fn offer(&self, mut event: PeerEvent) -> bool {
        loop {
            match self.to.try_send(event) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => event = back,
            }
            let again = tokio::time::sleep(ROOM_RECHECK);
            if self.stop.run_until_cancelled(again).await.is_none() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::MemberId;
    use crate::messenger::Hub;

    fn event(number: usize) -> PeerEvent {
        PeerEvent::Connected { peer: MemberId::from_parts(0, number as u128) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_reads_nothing_gets_the_oldest_and_the_newest_and_the_rest_is_counted() {
        let hub = Arc::<Hub>::default();
        let (to, listener) = bounded(EVENTS_MAX);
        let (missed, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let bridge = Bridge { to, missed: Arc::clone(&missed), stop: stop.clone() };
        let bridge = tokio::spawn(bridge.run(hub.subscribe()));
        let count = 5 * EVENTS_MAX;
        for number in 0..count {
            hub.tell(&event(number));
            tokio::task::yield_now().await;
        }
        assert_eq!(listener.len(), EVENTS_MAX, "bounded, and nobody waited for the listener");
        let mut came = Vec::new();
        for _ in 0..10 {
            came.extend(listener.try_iter());
            tokio::time::sleep(ROOM_RECHECK).await;
        }
        assert_eq!(came[..EVENTS_MAX], (0..EVENTS_MAX).map(event).collect::<Vec<_>>());
        let newest = count - EVENTS_MAX..count;
        assert_eq!(came[came.len() - EVENTS_MAX..], newest.map(event).collect::<Vec<_>>());
        assert_eq!(came.len() as u64 + missed.load(Ordering::Relaxed), count as u64);
        stop.cancel();
        bridge.await.unwrap();
        assert!(listener.recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_happened_is_told_before_the_end() {
        let hub = Arc::<Hub>::default();
        let (to, listener) = bounded(EVENTS_MAX);
        let bridge = Bridge { to, missed: Arc::default(), stop: CancellationToken::new() };
        bridge.stop.cancel();
        let events = hub.subscribe();
        (0..3).for_each(|number| hub.tell(&event(number)));
        bridge.run(events).await;
        assert_eq!(listener.iter().collect::<Vec<_>>(), (0..3).map(event).collect::<Vec<_>>());
    }
}
