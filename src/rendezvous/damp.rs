//! What would be said of the same one again and again is said once a minute. Sans-IO.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Of the same one something is said again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Of so many at once; what concerns more of them in a minute is not said at all.
const KEPT_MAX: usize = 128;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Damped<K> {
    said: BTreeMap<K, Said>,
}

impl<K> Default for Damped<K> {
    fn default() -> Self {
        Self { said: BTreeMap::new() }
    }
}

#[derive(Debug)]
struct Said {
    at: Instant,
    unsaid: u64,
}

impl<K: Ord> Damped<K> {
    /// It happened to this one. Whether that is to be said, and how often it was not said since the last time.
    pub(crate) fn note(&mut self, now: Instant, of: K) -> Option<u64> {
        if let Some(said) = self.said.get_mut(&of) {
            if now.saturating_duration_since(said.at) < AGAIN {
                said.unsaid = said.unsaid.saturating_add(1);
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.unsaid));
        }
        if self.said.len() >= KEPT_MAX {
            self.said.retain(|_, said| now.saturating_duration_since(said.at) < AGAIN);
        }
        if self.said.len() >= KEPT_MAX {
            return None;
        }
        self.said.insert(of, Said { at: now, unsaid: 0 });
        Some(0)
    }
}

/// How many errors are logged meanwhile, in this thread.
#[cfg(test)]
pub(crate) fn errors_of(act: impl FnOnce()) -> usize {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    struct Count(Arc<AtomicUsize>);

    impl Subscriber for Count {
        fn enabled(&self, of: &Metadata<'_>) -> bool {
            *of.level() == Level::ERROR
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    let count = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Count(Arc::clone(&count)), act);
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_with_how_often_it_was_not() {
        let (mut damped, begin) = (Damped::default(), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        assert_eq!(damped.note(at(0), "one"), Some(0));
        assert_eq!(damped.note(at(1), "one"), None);
        assert_eq!(damped.note(at(2), "other"), Some(0), "another is another");
        assert_eq!(damped.note(at(59), "one"), None);
        assert_eq!(damped.note(at(60), "one"), Some(2));
        assert_eq!(damped.note(at(61), "one"), None);
    }

    #[test]
    fn nothing_grows_however_many_there_are_and_the_first_of_the_next_minute_are_said() {
        let (mut damped, begin) = (Damped::default(), Instant::now());
        let said = (0..10_000).filter(|of| damped.note(begin, *of).is_some()).count();
        assert_eq!((said, damped.said.len()), (KEPT_MAX, KEPT_MAX));
        assert_eq!(damped.note(begin + AGAIN, 99_999), Some(0));
        assert_eq!(damped.said.len(), 1);
    }
}
