//! Memory for what waits to be sent: one cap for the process, a reserve for each destination, and a share of the
//! rest that shrinks as the rest does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Limits of a [`Budget`], in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetLimits {
    /// All destinations together.
    pub(crate) process_bytes: usize,
    /// What a destination may always hold.
    pub(crate) reserve_bytes: usize,
    /// What a destination may hold at most.
    pub(crate) queue_bytes: usize,
}

/// The process's part: how much of what is not reserved is taken.
///
/// Shares follow the dynamic threshold of Choudhury and Hahne ("Dynamic queue length thresholds for shared-memory
/// packet switches", IEEE/ACM Transactions on Networking 6:2, 1998) with α = 1/4: a queue may hold a quarter of
/// what is still free of the shared part. One silent destination can so take a fifth of it at most, two of them a
/// third; there is always room for one more.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: BudgetLimits,
    destinations: AtomicUsize,
    /// What each destination may always hold: with many of them half of the cap is divided. Follows `destinations`.
    reserve: AtomicUsize,
    /// What is not reserved. Follows `destinations`.
    shareable: AtomicUsize,
    shared: AtomicUsize,
    /// Whether anybody waits, so that giving back costs no lock when nobody does.
    awaited: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Budget {
    pub(crate) fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            destinations: AtomicUsize::new(0),
            reserve: AtomicUsize::new(limits.reserve_bytes.min(limits.process_bytes / 2)),
            shareable: AtomicUsize::new(limits.process_bytes),
            shared: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            waiting: Mutex::new(Vec::new()),
        }
    }

    /// Woken when any destination gives back shared bytes. Register first, then try again.
    fn wake_at_room(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        self.awaited.store(true, Ordering::SeqCst);
    }

    fn wake_waiting(&self) {
        if self.awaited.load(Ordering::SeqCst) {
            let waiting = {
                let mut waiting = self.waiting.lock();
                self.awaited.store(false, Ordering::SeqCst);
                std::mem::take(&mut *waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// A destination comes (1) or goes (-1). Two at once may leave figures that are off by one destination until the
    /// next: a bound of memory, not of correctness.
    fn count_destinations(&self, change: isize) {
        let before = self.destinations.fetch_add(change.cast_unsigned(), Ordering::SeqCst);
        let destinations = before.wrapping_add_signed(change);
        let reserve = self.limits.reserve_bytes.min(self.limits.process_bytes / 2 / destinations.max(1));
        self.reserve.store(reserve, Ordering::Relaxed);
        let shareable = self.limits.process_bytes.saturating_sub(reserve * destinations);
        self.shareable.store(shareable, Ordering::Relaxed);
    }

    #[inline]
    fn reserve(&self) -> usize {
        self.reserve.load(Ordering::Relaxed)
    }

    #[inline]
    fn shared_free(&self) -> usize {
        self.shareable.load(Ordering::Relaxed).saturating_sub(self.shared.load(Ordering::Relaxed))
    }
}

/// Why there was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The destination holds what it may.
    Destination,
    /// The process holds what it may.
    Process,
}

/// A queue may hold one in so many parts of what is free (1/α).
const SHARE: usize = 4;

/// What a destination takes of the shared part in advance, so that a message costs no shared counter. A destination that
/// holds nothing shared has none.
const SLACK_BYTES: usize = 16 * 1024;

/// What one destination has taken of the process's budget; returns it when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    reserved: usize,
    shared: usize,
    /// Taken of the shared part and not used: the next small messages need not ask.
    slack: usize,
    /// Beyond every limit, for replies.
    extra: usize,
}

impl Account {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        budget.count_destinations(1);
        Self { budget, reserved: 0, shared: 0, slack: 0, extra: 0 }
    }

    /// Bytes taken in all.
    pub(crate) const fn taken(&self) -> usize {
        self.reserved + self.shared + self.extra
    }

    /// Takes `bytes`: of the reserve as long as it lasts, then, if `share` (the link is up), of the shared part. An
    /// empty queue takes a message of any size that the shared part can hold.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize, share: bool) -> Result<(), NoRoom> {
        if share && bytes <= self.slack {
            self.slack -= bytes;
            self.shared += bytes;
            return Ok(());
        }
        let reserve = self.budget.reserve();
        if self.shared == 0 && self.reserved + bytes <= reserve {
            self.reserved += bytes;
            return Ok(());
        }
        self.take_shared(bytes, reserve, share)
    }

    fn take_shared(&mut self, bytes: usize, reserve: usize, share: bool) -> Result<(), NoRoom> {
        let from_reserve = bytes.min(reserve.saturating_sub(self.reserved));
        let from_shared = bytes - from_reserve;
        if from_shared == 0 {
            self.reserved += bytes;
            return Ok(());
        }
        let queue_bytes = self.budget.limits.queue_bytes.max(if self.taken() == 0 { bytes } else { 0 });
        if !share || self.taken() + bytes > queue_bytes {
            return Err(NoRoom::Destination);
        }
        let rest = queue_bytes - self.taken() - from_reserve;
        if from_shared > self.slack && !self.refill(from_shared - self.slack, rest) {
            return Err(NoRoom::Process);
        }
        self.slack -= from_shared;
        self.shared += from_shared;
        self.reserved += from_reserve;
        Ok(())
    }

    /// Takes at least `bytes` more of the shared part, some in advance if there is plenty; with the slack there is at
    /// most `rest`, so that the slack never leads beyond the queue's limit.
    fn refill(&mut self, bytes: usize, rest: usize) -> bool {
        // A queue may hold its share of what is free; a lone large message may take all of it.
        let held = self.shared + self.slack;
        let free = self.budget.shared_free();
        let fits = |more: usize| (held + more) * SHARE <= free || (held == 0 && more <= free);
        let ample = (bytes + SLACK_BYTES).min(rest.saturating_sub(self.slack)).max(bytes);
        let Some(more) = [ample, bytes].into_iter().find(|more| fits(*more)) else { return false };
        self.budget.shared.fetch_add(more, Ordering::Relaxed);
        self.slack += more;
        true
    }

    /// Woken when the process has room again; see [`NoRoom::Process`]. Register first, then try again.
    pub(crate) fn wake_at_room(&self, waker: &Waker) {
        self.budget.wake_at_room(waker);
    }

    /// Whether `bytes` beyond the limits would be at most `most` in all.
    pub(crate) const fn has_extra(&self, bytes: usize, most: usize) -> bool {
        self.extra + bytes <= most
    }

    /// Takes bytes beyond the limits.
    pub(crate) const fn take_extra(&mut self, bytes: usize) {
        self.extra += bytes;
    }

    /// Gives bytes back: first what was taken beyond the limits, then shared ones, the reserve last.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.taken(), "gave back {bytes} of {}", self.taken());
        let extra = bytes.min(self.extra);
        self.extra -= extra;
        let shared = (bytes - extra).min(self.shared);
        self.shared -= shared;
        self.slack += shared;
        self.reserved = self.reserved.saturating_sub(bytes - extra - shared);
        let keep = if self.shared == 0 { 0 } else { SLACK_BYTES };
        if self.slack > keep {
            self.budget.shared.fetch_sub(self.slack - keep, Ordering::SeqCst);
            self.slack = keep;
            self.budget.wake_waiting();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give_back(self.taken());
        self.budget.count_destinations(-1);
        // Its reserve is shared now.
        self.budget.wake_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BudgetLimits =
        BudgetLimits { process_bytes: 1_000_000, reserve_bytes: 10_000, queue_bytes: 1_000_000 };

    fn fill(account: &mut Account) -> usize {
        while account.take(1000, true).is_ok() {}
        account.taken()
    }

    #[test]
    fn one_silent_destination_leaves_four_fifths_of_the_shared_part() {
        let budget = Arc::new(Budget::new(LIMITS));
        let mut others: Vec<_> = (0..9).map(|_| Account::new(Arc::clone(&budget))).collect();
        let mut silent = Account::new(Arc::clone(&budget));
        let held = fill(&mut silent);
        assert!((150_000..=210_000).contains(&held), "{held}");
        for other in &mut others {
            assert!(other.take(20_000, true).is_ok(), "always room for one more");
        }
    }

    #[test]
    fn the_cap_holds_however_many_there_are() {
        let budget = Arc::new(Budget::new(LIMITS));
        let mut all: Vec<_> = (0..300).map(|_| Account::new(Arc::clone(&budget))).collect();
        let held: usize = all.iter_mut().map(fill).sum();
        assert!(held <= LIMITS.process_bytes, "{held}");
        drop(all);
        assert_eq!(budget.shared.load(Ordering::Relaxed), 0);
        assert_eq!(fill(&mut Account::new(Arc::clone(&budget))) / 100_000, 2, "all was given back");
    }

    #[test]
    fn without_a_link_only_the_reserve_is_there() {
        let budget = Arc::new(Budget::new(LIMITS));
        let mut account = Account::new(budget);
        assert!(account.take(10_000, false).is_ok());
        assert_eq!(account.take(1, false), Err(NoRoom::Destination));
        assert!(account.take(1, true).is_ok());
    }

    #[test]
    fn a_message_larger_than_the_queue_passes_when_it_is_alone() {
        let budget = Arc::new(Budget::new(BudgetLimits { queue_bytes: 50_000, ..LIMITS }));
        let mut account = Account::new(budget);
        assert!(account.take(900_000, true).is_ok());
        assert_eq!(account.take(1, true), Err(NoRoom::Destination));
    }

    #[test]
    fn what_is_taken_in_advance_leads_beyond_no_limit_and_is_given_back() {
        let limits = BudgetLimits { queue_bytes: 100_000, ..LIMITS };
        for steps in [&[95_000, 5_000][..], &[50_000, 45_000, 5_000]] {
            let budget = Arc::new(Budget::new(limits));
            let mut account = Account::new(Arc::clone(&budget));
            let free = budget.shared_free();
            steps.iter().for_each(|bytes| account.take(*bytes, true).unwrap());
            assert_eq!(account.take(1, true), Err(NoRoom::Destination), "to the byte");
            account.give_back(60_000);
            assert_eq!(budget.shared.load(Ordering::Relaxed), 30_000 + SLACK_BYTES);
            account.give_back(40_000);
            assert_eq!((account.taken(), budget.shared_free()), (0, free));
        }
    }

    #[test]
    fn a_reserve_that_grows_is_used_though_something_shared_is_held() {
        let budget = Arc::new(Budget::new(LIMITS));
        let mut account = Account::new(Arc::clone(&budget));
        let others: Vec<_> = (0..99).map(|_| Account::new(Arc::clone(&budget))).collect();
        account.take(6_000, true).unwrap();
        assert_eq!((account.reserved, account.shared), (5_000, 1_000), "a hundredth of half");
        drop(others);
        account.take(4_000, false).unwrap();
        assert_eq!((account.reserved, account.shared), (9_000, 1_000));
        assert_eq!(account.taken(), 10_000);
    }

    #[test]
    fn replies_have_their_own_room_and_it_comes_back() {
        let budget = Arc::new(Budget::new(LIMITS));
        let mut account = Account::new(budget);
        account.take_extra(900);
        assert!(account.has_extra(100, 1000) && !account.has_extra(101, 1000));
        account.give_back(900);
        assert!(account.has_extra(1000, 1000));
    }
}
