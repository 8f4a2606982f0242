//! How far what came from each member is handled: what [`wait_handled`](super::Messenger::wait_handled) waits for. Pure
//! but for the bell that it rings.
//!
//! Deliveries of a stream are handled in order, so one number says what is done. Positions count records of a
//! stream over all sessions that one peer task had; a *span* is what one session added.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{LEDGER_MEMBERS_MAX, LEDGER_SESSIONS};
use crate::member::MemberId;
use crate::wire::{Epoch, Protocol, StreamId};

/// Wakes those who wait for handlers; costs one load when nobody does.
#[derive(Debug, Default)]
pub(super) struct Bell {
    waiters: AtomicUsize,
    rung: Notify,
}

impl Bell {
    pub(super) fn ring(&self) {
        if self.waiters.load(SeqCst) > 0 {
            self.rung.notify_waiters();
        }
    }

    /// Waits until `look` finds something. Looks at once, and again whenever it is rung.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let _counted = Counted::new(&self.waiters);
        loop {
            let mut rung = std::pin::pin!(self.rung.notified());
            // Before looking, so that nothing is missed.
            rung.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            rung.await;
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(waiters: &'a AtomicUsize) -> Self {
        waiters.fetch_add(1, SeqCst);
        Self(waiters)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Where a session's records of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    /// One beyond the last that was delivered.
    pub(super) end: u64,
}

/// One stream's deliveries to one peer task.
#[derive(Debug)]
pub(super) struct Track {
    stream: StreamId,
    bell: Arc<Bell>,
    delivered: AtomicU64,
    handled: AtomicU64,
    /// The session of the last delivery.
    epoch: AtomicU64,
    /// Where the last sessions began, oldest first.
    starts: Mutex<VecDeque<(Epoch, u64)>>,
}

impl Track {
    fn new(stream: StreamId, bell: Arc<Bell>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { stream, bell, delivered: zero(), handled: zero(), epoch: zero(), starts: Mutex::default() }
    }

    /// So many records more are delivered. One task calls it.
    pub(super) fn deliver(&self, epoch: Epoch, records: u64) {
        if self.epoch.load(SeqCst) != epoch.0 {
            let mut starts = self.starts.lock();
            self.epoch.store(epoch.0, SeqCst);
            if starts.len() >= LEDGER_SESSIONS {
                starts.pop_front();
            }
            starts.push_back((epoch, self.delivered.load(SeqCst)));
        }
        self.delivered.fetch_add(records, SeqCst);
    }

    /// So many more of them are handled, in order.
    pub(super) fn handle(&self, records: u64) {
        self.handled.fetch_add(records, SeqCst);
        self.bell.ring();
    }

    /// All before this position are handled. The caller rings.
    fn handle_to(&self, position: u64) {
        self.handled.fetch_max(position, SeqCst);
    }

    /// Records that are delivered and not handled.
    pub(super) fn unhandled(&self) -> u64 {
        let handled = self.handled.load(SeqCst);
        self.delivered.load(SeqCst).saturating_sub(handled)
    }

    pub(super) fn handled(&self) -> u64 {
        self.handled.load(SeqCst)
    }

    pub(super) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// What the session of this epoch delivered; `None` if it delivered nothing, or long ago.
    pub(super) fn span(&self, epoch: Epoch) -> Option<Span> {
        let starts = self.starts.lock();
        let at = starts.iter().position(|(of, _)| *of == epoch)?;
        let (_, start) = starts.get(at)?;
        let end = starts.get(at + 1).map_or_else(|| self.delivered.load(SeqCst), |(_, next)| *next);
        Some(Span { start: *start, end })
    }

    /// The last session that delivered something, and how many records.
    pub(super) fn last(&self) -> Option<(Epoch, u64)> {
        let starts = self.starts.lock();
        let (epoch, start) = starts.back()?;
        Some((*epoch, self.delivered.load(SeqCst) - start))
    }
}

/// A track of requests, which may be called off before those that came earlier are done.
#[derive(Debug)]
pub(super) struct Unordered {
    track: Arc<Track>,
    /// Where those begin that are not done.
    open: Mutex<BTreeSet<u64>>,
}

impl Unordered {
    pub(super) fn new(track: Arc<Track>) -> Self {
        Self { track, open: Mutex::default() }
    }

    /// A message of so many records is delivered; gives its position for [`Unordered::done`].
    pub(super) fn deliver(&self, epoch: Epoch, records: u64) -> u64 {
        let mut open = self.open.lock();
        let position = self.track.delivered.load(SeqCst);
        open.insert(position);
        self.track.deliver(epoch, records);
        position
    }

    pub(super) fn done(&self, position: u64) {
        {
            let mut open = self.open.lock();
            open.remove(&position);
            let all = || self.track.delivered.load(SeqCst);
            self.track.handle_to(open.first().copied().unwrap_or_else(all));
        }
        self.track.bell.ring();
    }
}

/// What one peer task took in.
#[derive(Debug, Default)]
struct Inner {
    tracks: Vec<Arc<Track>>,
    /// Sessions that are over: our epoch and the peer's, oldest first.
    ended: VecDeque<(Epoch, Epoch)>,
    /// No other session follows.
    closed: bool,
}

/// What became of a session that a member names by its own epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It is over. Our epoch of it.
    Over(Epoch),
    /// A later one was here: whatever it was, nothing more comes of it.
    Forgotten,
    /// It may be the present one, or one to come.
    NotOver,
}

/// One peer task's part of the ledger.
#[derive(Debug)]
pub(super) struct Intakes {
    bell: Arc<Bell>,
    inner: Mutex<Inner>,
    /// Those of peer tasks before, of the same member, whose handlers were not done when this one began.
    before: Vec<Arc<Intakes>>,
}

impl Intakes {
    /// Whether this stream's messages are handled by the application.
    pub(super) fn counts(stream: StreamId) -> bool {
        stream.protocol() != Protocol::BYTES && stream.protocol() != Protocol::REPLIES
    }

    /// The track of a stream that has none yet.
    pub(super) fn track(&self, stream: StreamId) -> Arc<Track> {
        let track = Arc::new(Track::new(stream, Arc::clone(&self.bell)));
        if Self::counts(stream) {
            self.inner.lock().tracks.push(Arc::clone(&track));
        }
        track
    }

    /// Whether handlers of messages that came by an earlier peer task may still run.
    pub(super) const fn follows(&self) -> bool {
        !self.before.is_empty()
    }

    /// Waits until all that came on this stream by earlier peer tasks is handled.
    pub(super) async fn until_first(&self, stream: StreamId) {
        let is_done = |one: &Arc<Self>| {
            let inner = one.inner.lock();
            inner.tracks.iter().filter(|track| track.stream == stream).all(|track| track.unhandled() == 0)
        };
        self.bell.until(|| self.before.iter().all(is_done).then_some(())).await;
    }

    /// A session is over: nothing more comes of it. `last`: no other follows.
    pub(super) fn session_over(&self, ours: Epoch, theirs: Option<Epoch>, last: bool) {
        {
            let mut inner = self.inner.lock();
            inner.closed |= last;
            if let Some(theirs) = theirs {
                if inner.ended.len() >= LEDGER_SESSIONS {
                    inner.ended.pop_front();
                }
                inner.ended.push_back((ours, theirs));
            }
        }
        self.bell.ring();
    }

    /// Whether nothing more comes, and what came in this protocol is handled.
    pub(super) fn is_over(&self, protocol: Protocol) -> bool {
        let inner = self.inner.lock();
        let mut tracks = inner.tracks.iter().filter(|track| track.stream.protocol() == protocol);
        inner.closed && tracks.all(|track| track.unhandled() == 0)
    }

    fn is_handled(&self) -> bool {
        self.inner.lock().tracks.iter().all(|track| track.unhandled() == 0)
    }
}

/// All members of which something came. See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) bell: Arc<Bell>,
    members: Mutex<HashMap<MemberId, VecDeque<Arc<Intakes>>>>,
}

impl Ledger {
    /// A peer task begins. `is_peer` says of whom there is one now.
    pub(super) fn open(&self, member: MemberId, is_peer: impl Fn(MemberId) -> bool) -> Arc<Intakes> {
        let mut members = self.members.lock();
        let before = members.get(&member).into_iter().flatten().filter(|one| !one.is_handled());
        let before = before.cloned().collect();
        let intakes = Arc::new(Intakes { bell: Arc::clone(&self.bell), inner: Mutex::default(), before });
        if members.len() >= LEDGER_MEMBERS_MAX {
            members.retain(|member, all| is_peer(*member) || !all.iter().all(|one| one.is_handled()));
        }
        let all = members.entry(member).or_default();
        if all.len() >= LEDGER_SESSIONS
            && let Some(at) = all.iter().position(|one| one.is_handled())
        {
            all.remove(at);
        }
        all.push_back(Arc::clone(&intakes));
        intakes
    }

    fn intakes(&self, member: MemberId) -> Vec<Arc<Intakes>> {
        self.members.lock().get(&member).into_iter().flatten().cloned().collect()
    }

    /// What the sessions of one member took in, but for the one that `lives`: the last.
    pub(super) fn over(&self, member: MemberId, lives: bool) -> Vec<Arc<Intakes>> {
        let mut intakes = self.intakes(member);
        if lives {
            intakes.pop();
        }
        intakes
    }

    /// The tracks of one member.
    pub(super) fn tracks(&self, member: MemberId) -> Vec<Arc<Track>> {
        self.intakes(member).iter().flat_map(|one| one.inner.lock().tracks.clone()).collect()
    }

    pub(super) fn members(&self) -> Vec<MemberId> {
        self.members.lock().keys().copied().collect()
    }

    /// What became of the session that the member knows by `theirs`. `present`: its epoch of the present one.
    pub(super) fn past(&self, member: MemberId, theirs: Epoch, present: Option<Epoch>) -> Past {
        let intakes = self.intakes(member);
        let mut highest = Epoch::UNKNOWN;
        // One that was ended from outside may not have said so yet, though the next has begun.
        let mut said = true;
        for (at, one) in intakes.iter().enumerate() {
            let inner = one.inner.lock();
            said &= inner.closed || at + 1 == intakes.len();
            for (our, their) in &inner.ended {
                if *their == theirs {
                    return Past::Over(*our);
                }
                highest = highest.max(*their);
            }
        }
        let later = highest > theirs || (said && present.is_some_and(|present| present > theirs));
        if later { Past::Forgotten } else { Past::NotOver }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Class;

    fn stream() -> StreamId {
        StreamId::new(Protocol::APPLICATION, Class::Normal, true)
    }

    fn member(number: u128) -> MemberId {
        MemberId::from_parts(1, number)
    }

    #[test]
    fn a_span_is_what_one_session_delivered() {
        let track = Track::new(stream(), Arc::default());
        assert_eq!((track.span(Epoch(1)), track.last()), (None, None));
        track.deliver(Epoch(1), 5);
        track.deliver(Epoch(1), 2);
        assert_eq!(track.span(Epoch(1)), Some(Span { start: 0, end: 7 }));
        track.deliver(Epoch(4), 3);
        assert_eq!(track.span(Epoch(1)), Some(Span { start: 0, end: 7 }));
        assert_eq!(track.span(Epoch(4)), Some(Span { start: 7, end: 10 }));
        assert_eq!(track.span(Epoch(2)), None);
        assert_eq!((track.last(), track.unhandled()), (Some((Epoch(4), 3)), 10));
        track.handle(8);
        assert_eq!((track.handled(), track.unhandled()), (8, 2));
    }

    #[test]
    fn what_is_done_out_of_turn_counts_only_when_all_before_it_is() {
        let track = Arc::new(Track::new(stream(), Arc::default()));
        let requests = Unordered::new(Arc::clone(&track));
        let first = requests.deliver(Epoch(1), 1);
        let large = requests.deliver(Epoch(1), 4);
        let third = requests.deliver(Epoch(1), 1);
        requests.done(third);
        assert_eq!(track.handled(), 0);
        requests.done(first);
        assert_eq!(track.handled(), 1);
        requests.done(large);
        assert_eq!((track.handled(), track.unhandled()), (6, 0));
    }

    #[test]
    fn the_ledger_keeps_the_last_sessions_of_a_member_and_what_is_not_handled() {
        let ledger = Ledger::default();
        let one = ledger.open(member(1), |_| true);
        let slow = one.track(stream());
        slow.deliver(Epoch(1), 1);
        one.session_over(Epoch(1), Some(Epoch(9)), true);
        for _ in 0..3 * LEDGER_SESSIONS {
            ledger.open(member(1), |_| true);
        }
        assert_eq!(ledger.past(member(1), Epoch(9), None), Past::Over(Epoch(1)));
        assert_eq!(ledger.tracks(member(1)).len(), 1);
        assert!(ledger.intakes(member(1)).len() <= LEDGER_SESSIONS);
        slow.handle(1);
        for _ in 0..LEDGER_SESSIONS {
            ledger.open(member(1), |_| true);
        }
        assert!(ledger.tracks(member(1)).is_empty());
    }

    #[test]
    fn a_session_is_over_when_it_said_so_or_a_later_one_is_here() {
        let ledger = Ledger::default();
        let past = |theirs, present: Option<u64>| ledger.past(member(1), Epoch(theirs), present.map(Epoch));
        assert_eq!(past(5, None), Past::NotOver, "it may come");
        let one = ledger.open(member(1), |_| true);
        assert_eq!((past(5, Some(5)), past(6, Some(5))), (Past::NotOver, Past::NotOver));
        assert_eq!(past(4, Some(5)), Past::Forgotten);
        one.session_over(Epoch(2), Some(Epoch(5)), false);
        assert_eq!((past(5, None), past(4, None)), (Past::Over(Epoch(2)), Past::Forgotten));
        assert_eq!(past(6, None), Past::NotOver);
        ledger.open(member(1), |_| true);
        assert_eq!(past(7, Some(9)), Past::NotOver, "the one before has not said that it is over");
        one.session_over(Epoch(3), Some(Epoch(7)), true);
        assert_eq!((past(7, Some(9)), past(8, Some(9))), (Past::Over(Epoch(3)), Past::Forgotten));
    }

    #[test]
    fn the_number_of_members_that_are_gone_is_bounded() {
        let ledger = Ledger::default();
        for number in 0..3 * LEDGER_MEMBERS_MAX as u128 {
            ledger.open(member(number), |_| false);
        }
        assert!(ledger.members().len() <= LEDGER_MEMBERS_MAX);
    }

    #[tokio::test]
    async fn a_bell_wakes_whoever_waits_and_forgets_them() {
        let bell = Arc::new(Bell::default());
        let track = Arc::new(Track::new(stream(), Arc::clone(&bell)));
        let waiting = {
            let (bell, track) = (Arc::clone(&bell), Arc::clone(&track));
            tokio::spawn(async move { bell.until(|| (track.handled() == 3).then_some(())).await })
        };
        for _ in 0..3 {
            tokio::task::yield_now().await;
            track.handle(1);
        }
        waiting.await.unwrap();
        assert_eq!(bell.waiters.load(SeqCst), 0);
    }
}
