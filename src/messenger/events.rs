//! What happened to peers, for whoever listens: bounded for each listener, and never in the messenger's way.

mod queue;

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::limits::SUBSCRIBERS_MAX;
use crate::peer::PeerEvent;
use queue::Queue;

/// Where events come from. Whoever tells one waits for nobody: it is put into each listener's queue.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    mailboxes: ArcSwap<Vec<Arc<Mailbox>>>,
}

#[derive(Debug, Default)]
struct Mailbox {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    queue: Queue,
    waker: Option<Waker>,
    closed: bool,
}

impl Hub {
    /// For everyone who listens now.
    pub(crate) fn tell(&self, event: &PeerEvent) {
        for mailbox in self.mailboxes.load().iter() {
            mailbox.change(|inside| inside.queue.push(event.clone()));
        }
    }

    pub(crate) fn subscribe(self: &Arc<Self>) -> Events {
        let mailbox = Arc::new(Mailbox::default());
        let before = self.mailboxes.rcu(|all| {
            let mut all = Vec::clone(all);
            if all.len() < SUBSCRIBERS_MAX {
                all.push(Arc::clone(&mailbox));
            }
            all
        });
        if before.len() >= SUBSCRIBERS_MAX {
            tracing::error!("{SUBSCRIBERS_MAX} listen to events already: one more hears nothing");
            mailbox.change(|inside| inside.closed = true);
        }
        Events { mailbox, hub: Arc::downgrade(self) }
    }

    fn unsubscribe(&self, mailbox: &Arc<Mailbox>) {
        self.mailboxes.rcu(|all| {
            let mut all = Vec::clone(all);
            all.retain(|other| !Arc::ptr_eq(other, mailbox));
            all
        });
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.mailboxes.load().iter().for_each(|mailbox| mailbox.change(|inside| inside.closed = true));
    }
}

impl Mailbox {
    fn change(&self, change: impl FnOnce(&mut Inside)) {
        let mut inside = self.inside.lock();
        change(&mut inside);
        let waker = inside.waker.take();
        drop(inside);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Events from the moment of [`Messenger::events`](crate::Messenger::events) on, in the order in which they happened.
/// Dropping it ends the subscription.
///
/// It never holds anything up. A listener that is 1,024 events behind gets, until it has caught up, only the newest event
/// of each kind and peer. If that is not enough, the oldest are dropped and counted ([`Events::missed`]),
/// [`PeerEvent::Left`] and [`PeerEvent::Replaced`] last.
#[derive(Debug)]
pub struct Events {
    mailbox: Arc<Mailbox>,
    hub: Weak<Hub>,
}

impl Events {
    /// The next event; `None` when the messenger is gone and everything was taken. Cancel safe.
    pub async fn next(&mut self) -> Option<PeerEvent> {
        poll_fn(|cx| {
            let mut inside = self.mailbox.inside.lock();
            if let Some(event) = inside.queue.pop() {
                return Poll::Ready(Some(event));
            }
            if inside.closed {
                return Poll::Ready(None);
            }
            inside.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next event, if there is one already.
    #[must_use = "the event is taken"]
    pub fn try_next(&mut self) -> Option<PeerEvent> {
        self.mailbox.inside.lock().queue.pop()
    }

    /// How many events this listener has missed by being slow. Those that a newer one of their kind and peer replaced
    /// are not counted.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.mailbox.inside.lock().queue.missed()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.unsubscribe(&self.mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;
    use crate::limits::EVENTS_MAX;
    use crate::member::MemberId;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn connected(of: u128) -> PeerEvent {
        PeerEvent::Connected { peer: MemberId::from_parts(1, of) }
    }

    fn poll(events: &mut Events, woken: &Arc<Woken>) -> Poll<Option<PeerEvent>> {
        let waker = Waker::from(Arc::clone(woken));
        pin!(events.next()).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn each_listener_gets_what_happens_from_its_beginning_on() {
        let hub = Arc::new(Hub::default());
        hub.tell(&connected(1));
        let mut first = hub.subscribe();
        hub.tell(&connected(2));
        let mut second = hub.subscribe();
        hub.tell(&connected(3));
        assert_eq!(
            [first.try_next(), first.try_next(), first.try_next()],
            [Some(connected(2)), Some(connected(3)), None]
        );
        assert_eq!([second.try_next(), second.try_next()], [Some(connected(3)), None]);
    }

    #[test]
    fn a_listener_that_waits_is_woken_once_and_one_that_stopped_waiting_loses_nothing() {
        let (hub, woken) = (Arc::new(Hub::default()), Arc::new(Woken::default()));
        let mut events = hub.subscribe();
        // Each future is dropped here before it is ready.
        assert_eq!(poll(&mut events, &woken), Poll::Pending);
        assert_eq!(poll(&mut events, &woken), Poll::Pending);
        hub.tell(&connected(1));
        hub.tell(&connected(2));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&mut events, &woken), Poll::Ready(Some(connected(1))));
        assert_eq!(poll(&mut events, &woken), Poll::Ready(Some(connected(2))));
        assert_eq!(poll(&mut events, &woken), Poll::Pending);
    }

    #[test]
    fn when_the_messenger_is_gone_what_is_left_is_given_and_then_nothing() {
        let (hub, woken) = (Arc::new(Hub::default()), Arc::new(Woken::default()));
        let mut events = hub.subscribe();
        assert_eq!(poll(&mut events, &woken), Poll::Pending);
        hub.tell(&connected(1));
        drop(hub);
        assert_eq!(poll(&mut events, &woken), Poll::Ready(Some(connected(1))));
        assert_eq!(poll(&mut events, &woken), Poll::Ready(None));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn dropping_the_messenger_wakes_whoever_waits() {
        let (hub, woken) = (Arc::new(Hub::default()), Arc::new(Woken::default()));
        let mut events = hub.subscribe();
        assert_eq!(poll(&mut events, &woken), Poll::Pending);
        drop(hub);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&mut events, &woken), Poll::Ready(None));
    }

    #[test]
    fn dropping_a_subscription_makes_room_for_another_and_beyond_the_bound_one_ends_at_once() {
        let (hub, woken) = (Arc::new(Hub::default()), Arc::new(Woken::default()));
        let mut all: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| hub.subscribe()).collect();
        let mut surplus = hub.subscribe();
        assert_eq!(poll(&mut surplus, &woken), Poll::Ready(None));
        assert_eq!(hub.mailboxes.load().len(), SUBSCRIBERS_MAX);
        drop(surplus);
        drop(all.pop());
        let mut another = hub.subscribe();
        assert_eq!(hub.mailboxes.load().len(), SUBSCRIBERS_MAX);
        hub.tell(&connected(1));
        assert_eq!(another.try_next(), Some(connected(1)));
        drop((all, another));
        assert!(hub.mailboxes.load().is_empty());
    }

    #[test]
    fn a_listener_that_is_behind_costs_the_others_nothing() {
        let hub = Arc::new(Hub::default());
        let (slow, mut quick) = (hub.subscribe(), hub.subscribe());
        for of in 0..2 * EVENTS_MAX as u128 {
            hub.tell(&connected(of));
            assert_eq!(quick.try_next(), Some(connected(of)));
        }
        assert_eq!((slow.missed(), quick.missed()), (EVENTS_MAX as u64, 0));
    }
}
