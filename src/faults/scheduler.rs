//! Follows the timeline on the real clock: hands its faults to the connections, ends the spells.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::plan::{Episode, Fault, Hits, Rate, draws};
use super::shared::{Shared, delay};
use super::timeline::Timeline;

/// Keeps the draws of who is hit apart from the others.
const STREAM: u64 = u64::from_be_bytes(*b"who hits");

/// Runs until the timeline ends, the proxy is healed or it stops.
pub(super) async fn follow(shared: Arc<Shared>) {
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        () = shared.healed.cancelled() => {}
        () = Scheduler::new(&shared).run() => {}
    }
}

struct Scheduler<'a> {
    shared: &'a Shared,
    timeline: Timeline,
    who: fastrand::Rng,
    delay_ends: Option<Instant>,
    rate_ends: Option<Instant>,
}

impl Scheduler<'_> {
    fn new(shared: &Shared) -> Scheduler<'_> {
        Scheduler {
            shared,
            timeline: Timeline::new(&shared.plan),
            who: draws(shared.plan.seed, STREAM, 0),
            delay_ends: None,
            rate_ends: None,
        }
    }

    async fn run(mut self) {
        let mut next = self.timeline.next();
        loop {
            let next_at = next.and_then(|episode| self.after(self.shared.started, Some(episode.at_ms)));
            let Some(wake_at) = [next_at, self.delay_ends, self.rate_ends].into_iter().flatten().min() else {
                return;
            };
            sleep_until(wake_at).await;
            self.end_spells(wake_at);
            if let Some(episode) = next.filter(|_| next_at == Some(wake_at)) {
                self.begin(episode);
                next = self.timeline.next();
            }
        }
    }

    /// A time too far away for the clock never comes.
    fn after(&self, from: Instant, ms: Option<u64>) -> Option<Instant> {
        from.checked_add(Duration::from_millis(ms?))
    }

    fn begin(&mut self, Episode { fault, lasts_ms, .. }: Episode) {
        match fault {
            Fault::Delay { ms } => {
                self.shared.change(|weather| weather.spell_delay = Some(delay(ms)));
                self.delay_ends = self.after(Instant::now(), lasts_ms);
            }
            Fault::Rate { bytes_per_second, buffer_bytes } => {
                let rate = Rate { bytes_per_second, buffer_bytes };
                self.shared.change(|weather| weather.spell_rate = Some(rate));
                self.rate_ends = self.after(Instant::now(), lasts_ms);
            }
            Fault::Refuse { ms } => self.shared.change(|_| self.shared.refuse(ms)),
            Fault::Reset
            | Fault::Cut { .. }
            | Fault::Flip { .. }
            | Fault::Silence { .. }
            | Fault::OneWay { .. } => {
                let hits = self.shared.plan.hits;
                let who = &mut self.who;
                // Drawn even when nobody is there, so that later draws do not depend on it.
                let draw = who.usize(..);
                self.shared.order(fault, true, |live| match hits {
                    Hits::All => {}
                    Hits::One => *live = live.get(draw % live.len().max(1)).copied().into_iter().collect(),
                });
            }
        }
    }

    fn end_spells(&mut self, now: Instant) {
        if self.delay_ends.take_if(|ends| *ends <= now).is_some() {
            self.shared.change(|weather| weather.spell_delay = None);
        }
        if self.rate_ends.take_if(|ends| *ends <= now).is_some() {
            self.shared.change(|weather| weather.spell_rate = None);
        }
    }
}
