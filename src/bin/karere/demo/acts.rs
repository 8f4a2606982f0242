//! What breaks, in which order, and how fast the file may go meanwhile. Each fault really happens, and is mended, before
//! the next one comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use karere::faults::{Direction, Ending, Fault, FaultEvent, FaultEvents, Proxy, Rate};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::output::{self, Failure};
use crate::progress::Line;

/// A fault that has not happened, or is not mended, after this is a failure: six times the liveness of a link.
const ACT: Duration = Duration::from_secs(30);
/// A cut or flip waits for its byte; if the connection is idle that long, another is tried.
const HAPPEN: Duration = Duration::from_secs(5);
/// How often the proxy is asked for a new connection.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Before the file's end faults stop, so that it ends in time.
const QUIET_END: Duration = Duration::from_secs(2);
/// What one silent link costs: the default liveness, and some.
const SILENT_COST: Duration = Duration::from_secs(6);
/// The slowest pace. Slower, pings would wait too long behind data.
const PACE_MIN: u64 = 256 * 1024;
/// Buffers at the usual pace.
const PACE_BUFFER_BYTES: u32 = 64 * 1024;
/// Small buffers in a spell of low bandwidth; tells it from the usual pace.
const SPELL_BUFFER_BYTES: u32 = 4 * 1024;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Reset,
    Cut,
    Flip,
    Silence,
    OneWay,
    Delay,
    Rate,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Reset, Kind::Cut, Kind::Flip, Kind::Silence, Kind::OneWay, Kind::Delay, Kind::Rate];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Reset => "reset",
            Kind::Cut => "cut",
            Kind::Flip => "bit flip",
            Kind::Silence => "black hole",
            Kind::OneWay => "one way",
            Kind::Delay => "delay",
            Kind::Rate => "slow line",
        }
    }

    fn is_silent(self) -> bool {
        matches!(self, Kind::Silence | Kind::OneWay)
    }

    /// Whether the connection is lost by it.
    fn breaks(self) -> bool {
        !matches!(self, Kind::Delay | Kind::Rate)
    }

    /// What is told of it.
    fn of(fault: &Fault) -> Option<Kind> {
        match fault {
            Fault::Reset => Some(Kind::Reset),
            Fault::Cut { .. } => Some(Kind::Cut),
            Fault::Flip { .. } => Some(Kind::Flip),
            Fault::Silence { .. } => Some(Kind::Silence),
            Fault::OneWay { .. } => Some(Kind::OneWay),
            Fault::Delay { .. } => Some(Kind::Delay),
            Fault::Rate { buffer_bytes: SPELL_BUFFER_BYTES, .. } => Some(Kind::Rate),
            _ => None,
        }
    }
}

/// How often each kind has happened.
pub(super) type Faults = BTreeMap<Kind, u64>;

/// One thing to do.
#[derive(Debug, Clone, Copy)]
struct Act {
    kind: Kind,
    direction: Direction,
}

/// Breaks things through the proxy, from a seed.
pub(super) struct Conductor<'a> {
    proxy: &'a Proxy,
    events: FaultEvents,
    rng: fastrand::Rng,
    size: u64,
    time: Duration,
    started: Instant,
    todo: VecDeque<Act>,
    faults: Faults,
}

impl<'a> Conductor<'a> {
    pub(super) fn new(proxy: &'a Proxy, seed: u64, size: u64, time: Duration) -> Conductor<'a> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let act = |kind, direction| Act { kind, direction };
        let mut todo: Vec<Act> = Kind::ALL.map(|kind| act(kind, Direction::Up)).into();
        todo.extend([Kind::Cut, Kind::Flip, Kind::OneWay].map(|kind| act(kind, Direction::Down)));
        rng.shuffle(&mut todo);
        Conductor {
            proxy,
            events: proxy.events(),
            rng,
            size,
            time,
            started: Instant::now(),
            todo: todo.into(),
            faults: Faults::new(),
        }
    }

    /// What has happened.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// So fast that the file lasts until everything has happened, judged by what was handed over so far.
    pub(super) fn set_pace(&self, handed: u64) {
        let left = self.size.saturating_sub(handed);
        let silent = self.todo.iter().filter(|act| act.kind.is_silent()).count();
        let still = SILENT_COST * u32::try_from(silent).unwrap_or(u32::MAX);
        let time = self.time.saturating_sub(self.started.elapsed()).saturating_sub(still);
        // Each act that is left takes a second or two in which data flows.
        let least = Duration::from_secs(2) * u32::try_from(self.todo.len() + 1).unwrap_or(u32::MAX);
        let pace = left as f64 / time.max(least).as_secs_f64();
        let bytes_per_second = (pace as u64).max(PACE_MIN);
        self.proxy.set_rate(Some(Rate { bytes_per_second, buffer_bytes: PACE_BUFFER_BYTES }));
    }

    /// Everything once, then more of it until the time is over. Not cancel safe.
    ///
    /// # Errors
    /// If a fault does not happen, or is not mended, in time.
    pub(super) async fn conduct(
        &mut self,
        mut progress: watch::Receiver<Option<Line>>,
    ) -> Result<(), Failure> {
        acked_beyond(&mut progress, 0).await?;
        loop {
            self.set_pace(last(&progress).map_or(0, |line| line.bytes));
            sleep(Duration::from_millis(self.rng.u64(50..450))).await;
            let Some(act) = self.next_act() else { break };
            self.perform(act, &mut progress).await?;
        }
        self.proxy.heal();
        self.say("quiet", "no more faults; the rest at full speed");
        Ok(())
    }

    fn next_act(&mut self) -> Option<Act> {
        if let Some(act) = self.todo.pop_front() {
            return Some(act);
        }
        if self.started.elapsed() + QUIET_END >= self.time {
            return None;
        }
        let cheap =
            [Kind::Reset, Kind::Reset, Kind::Cut, Kind::Cut, Kind::Flip, Kind::Flip, Kind::Delay, Kind::Rate];
        let kind = self.rng.choice(cheap)?;
        let direction = if self.rng.u8(..4) > 0 { Direction::Up } else { Direction::Down };
        Some(Act { kind, direction })
    }

    async fn perform(
        &mut self,
        act: Act,
        progress: &mut watch::Receiver<Option<Line>>,
    ) -> Result<(), Failure> {
        let late =
            |what: &str| Failure::new(format!("{} {what} within {} s", act.kind.name(), ACT.as_secs()));
        let event = timeout(ACT, self.happen(act)).await.map_err(|_| late("did not happen"))?;
        let (at, connections) = (Instant::now(), self.proxy.counts().connections);
        let resent = last(progress).map_or(0, |line| line.books.resent);
        *self.faults.entry(act.kind).or_default() += 1;
        self.say(act.kind.name(), &format!("connection {}: {}", event.connection, describe(&event.fault)));
        if act.kind.breaks() {
            let renewed = async {
                while self.proxy.counts().connections <= connections {
                    sleep(LOOK_EVERY).await;
                }
            };
            timeout(ACT, renewed).await.map_err(|_| late("was not mended"))?;
        } else {
            sleep(Duration::from_millis(self.rng.u64(1200..2000))).await;
            self.proxy.set_delay(None);
            self.set_pace(last(progress).map_or(0, |line| line.bytes));
        }
        let lasted = at.elapsed().as_secs_f64();
        let line = timeout(ACT, flow(progress)).await.map_err(|_| late("was not mended"))??;
        let again = line.books.resent.saturating_sub(resent);
        let how = if act.kind.breaks() { "a new connection after" } else { "over after" };
        self.say("", &format!("{how} {lasted:.2} s, {again} messages resent, data flows"));
        Ok(())
    }

    /// Breaks it, again if need be, until the proxy says that it is broken.
    async fn happen(&mut self, act: Act) -> FaultEvent {
        loop {
            while self.events.try_next().is_some() {}
            if self.proxy.counts().live == 0 {
                sleep(LOOK_EVERY).await;
                continue;
            }
            self.inject(act);
            let events = &mut self.events;
            let found = timeout(HAPPEN, async {
                while let Some(event) = events.next().await {
                    if Kind::of(&event.fault) == Some(act.kind) {
                        return Some(event);
                    }
                }
                None
            });
            if let Ok(Some(event)) = found.await {
                return event;
            }
        }
    }

    fn inject(&mut self, Act { kind, direction }: Act) {
        let rng = &mut self.rng;
        // The way back carries little: acknowledgements.
        let after_bytes = match direction {
            Direction::Up => rng.u64(..200_000),
            Direction::Down => rng.u64(..400),
        };
        let fault = match kind {
            Kind::Reset => Fault::Reset,
            Kind::Cut => {
                let ending = if rng.bool() { Ending::Fin } else { Ending::Rst };
                Fault::Cut { direction, after_bytes, ending }
            }
            Kind::Flip => Fault::Flip { direction, after_bytes, bit: rng.u8(..8) },
            Kind::Silence => Fault::Silence { drain: false },
            Kind::OneWay => Fault::OneWay { silent: direction, drain: false },
            // These two for all connections, new ones too, until they are lifted.
            Kind::Delay => {
                return self.proxy.set_delay(Some(Duration::from_millis(rng.u64(100..400))));
            }
            Kind::Rate => {
                let bytes_per_second = rng.u64(PACE_MIN..2 * PACE_MIN);
                let rate = Rate { bytes_per_second, buffer_bytes: SPELL_BUFFER_BYTES };
                return self.proxy.set_rate(Some(rate));
            }
        };
        self.proxy.inject(fault);
    }

    fn say(&self, what: &str, text: &str) {
        output::say(&format!("{:6.1} s  {what:<10}  {text}", self.started.elapsed().as_secs_f64()));
    }
}

fn last(progress: &watch::Receiver<Option<Line>>) -> Option<Line> {
    progress.borrow().clone()
}

/// Waits until data is acknowledged again. The first line from now on is the mark: the last one may be older than the
/// fault.
async fn flow(progress: &mut watch::Receiver<Option<Line>>) -> Result<Line, Failure> {
    progress.mark_unchanged();
    // If the sender is gone, the next wait says so.
    let _ = progress.changed().await;
    let acked = last(progress).map_or(0, |line| line.books.acked);
    acked_beyond(progress, acked).await
}

/// Waits until more than this was acknowledged.
async fn acked_beyond(progress: &mut watch::Receiver<Option<Line>>, acked: u64) -> Result<Line, Failure> {
    let found = progress.wait_for(|line| line.as_ref().is_some_and(|line| line.books.acked > acked));
    let line = found.await.ok().and_then(|line| line.clone());
    line.ok_or_else(|| Failure::new("the sender ended before the faults did"))
}

fn describe(fault: &Fault) -> String {
    let way = |direction: &Direction| match direction {
        Direction::Up => "to the receiver",
        Direction::Down => "to the sender",
    };
    match fault {
        Fault::Reset => "both ends get ECONNRESET".to_owned(),
        Fault::Cut { direction, after_bytes, ending } => {
            let end = match ending {
                Ending::Fin => "end of file",
                Ending::Rst => "reset",
            };
            format!("{end} after byte {after_bytes} {}", way(direction))
        }
        Fault::Flip { direction, after_bytes, bit } => {
            format!("bit {bit} of byte {after_bytes} {} is wrong", way(direction))
        }
        Fault::Silence { .. } => "nothing passes any more, and nothing closes".to_owned(),
        Fault::OneWay { silent, .. } => format!("nothing passes any more {}", way(silent)),
        Fault::Delay { ms } => format!("every byte {ms} ms later"),
        Fault::Rate { bytes_per_second, buffer_bytes } => {
            format!("{} KB/s through buffers of {buffer_bytes} bytes", bytes_per_second / 1000)
        }
        other => format!("{other:?}"),
    }
}
