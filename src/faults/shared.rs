//! What the handle, the acceptor, the scheduler and the connections of one proxy share.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counts::{Budgets, Counters, FaultCounts};
use super::events::FaultEvent;
use super::plan::{Fault, Plan, Rate};
use super::registry::{Order, Registry};

/// A longer delay is cut down to this, so that no sum of times overflows.
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// More than a broadcast channel for a display could need; it is allocated at the start.
const EVENTS_LEN_MAX: usize = 1 << 16;

/// What holds for all connections, new ones too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weather {
    /// Between spells.
    pub(super) calm_delay: Duration,
    pub(super) calm_rate: Option<Rate>,
    pub(super) spell_delay: Option<Duration>,
    pub(super) spell_rate: Option<Rate>,
    /// How often everything was healed; what was armed or ordered before the last time is void.
    pub(super) heals: u32,
}

impl Weather {
    pub(super) fn of(plan: &Plan) -> Weather {
        let calm_delay = delay(plan.delay_ms.unwrap_or(0));
        Weather { calm_delay, calm_rate: plan.rate, ..Weather::default() }
    }

    pub(super) fn delay(&self) -> Duration {
        self.spell_delay.unwrap_or(self.calm_delay)
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        self.spell_rate.or(self.calm_rate)
    }
}

/// Milliseconds as a delay within bounds.
pub(super) fn delay(ms: u64) -> Duration {
    Duration::from_millis(ms).min(DELAY_MAX)
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) started: Instant,
    pub(super) counters: Counters,
    pub(super) budgets: Budgets,
    pub(super) weather: watch::Sender<Weather>,
    /// The proxy stops.
    pub(super) stop: CancellationToken,
    /// The scheduler stops.
    pub(super) healed: CancellationToken,
    pub(super) tasks: TaskTracker,
    events: broadcast::Sender<FaultEvent>,
    registry: Mutex<Registry>,
    target: Mutex<SocketAddr>,
    refuse_until: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(plan: Plan, target: SocketAddr) -> Shared {
        Shared {
            started: Instant::now(),
            counters: Counters::default(),
            budgets: Budgets::new(&plan.schedule),
            weather: watch::Sender::new(Weather::of(&plan)),
            stop: CancellationToken::new(),
            healed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            events: broadcast::Sender::new(plan.events_len.clamp(1, EVENTS_LEN_MAX)),
            registry: Mutex::new(Registry::new(plan.connections_max.max(1))),
            target: Mutex::new(target),
            refuse_until: Mutex::new(None),
            plan,
        }
    }

    /// A fault took effect: counts it and tells it.
    pub(super) fn note(&self, connection: u64, fault: Fault, detail: impl FnOnce() -> String) {
        self.counters.fault(&fault);
        tracing::debug!(connection, ?fault, "fault");
        if self.events.receiver_count() > 0 {
            let event = FaultEvent { at: self.started.elapsed(), connection, fault, detail: detail() };
            // The last listener may have gone since; then nobody wants it.
            let _ = self.events.send(event);
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<FaultEvent> {
        self.events.subscribe()
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// Hands a fault to the connections `choose` keeps of the live ones; returns how many it reached.
    pub(super) fn order(&self, fault: Fault, scheduled: bool, choose: impl FnOnce(&mut Vec<u64>)) -> usize {
        let order = Order { fault, scheduled, heals: self.weather.borrow().heals };
        let registry = self.registry();
        let mut live = registry.live();
        choose(&mut live);
        live.into_iter().filter(|connection| registry.order(*connection, order)).count()
    }

    pub(super) fn refuse(&self, ms: u64) {
        *lock(&self.refuse_until) = Instant::now().checked_add(Duration::from_millis(ms).min(DELAY_MAX));
    }

    /// How long new connections are still refused, if they are.
    pub(super) fn refuses(&self) -> Option<Duration> {
        let left = (*lock(&self.refuse_until))?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// A change of the weather by the schedule: none once it is healed.
    pub(super) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_if_modified(|weather| {
            let goes_on = weather.heals == 0;
            if goes_on {
                change(weather);
            }
            goes_on
        });
    }

    pub(super) fn target(&self) -> SocketAddr {
        *lock(&self.target)
    }

    pub(super) fn set_target(&self, target: SocketAddr) {
        *lock(&self.target) = target;
    }

    pub(super) fn counts(&self) -> FaultCounts {
        let registry = self.registry();
        let live = registry.live().len() as u64;
        FaultCounts { live, held: registry.held() as u64, ..self.counters.read() }
    }
}

/// What these mutexes guard is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
