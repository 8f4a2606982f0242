//! The times of a server, and how they hold together.

use std::time::Duration;

use super::desk::DeskConfig;
use crate::Timeouts;
use crate::rendezvous::common::COMES_BACK;
use crate::rendezvous::judge::JudgeConfig;

/// Far beyond what anybody wants; sums of it stay within what the clock can say.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Times of a server. All may be changed, the same on all servers of a cluster; they are checked against each other at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTimes {
    /// The leader pings every member so often. Default 1 s, at least 10 ms. Nodes count three pings as silence.
    pub ping: Duration,
    /// A member that has not answered for so long is silent, and goes if nobody else reaches it either. Default 5 s; at least four
    /// pings, and not below the messenger's [`Timeouts::liveness`]: a hung link is to be replaced first.
    pub eviction: Duration,
    /// Another member that is asked whether it reaches a silent one has to answer within this. Default 2 s, at least 20 ms, and not above
    /// `eviction`.
    pub probe: Duration,
    /// What nodes need to find a new leader: it gives everybody so much more time before it judges, and a cluster without members waits
    /// for so long before it lets in the first, because one that knows a lost history would say so. Default 2 s; not below a ping.
    pub settle: Duration,
    /// After a recovery, members of before are waited for so long, and keep their places. Default 3 s; at least 2.5 s, within which they
    /// ask again, and not below a ping.
    pub gather: Duration,
    /// Between two signs of life of the leader to the other servers. Default 50 ms; at most a third of `election_min`.
    pub heartbeat: Duration,
    /// A server that has not heard the leader stands for election after a time between this and `election_max`. Default 160 ms.
    pub election_min: Duration,
    /// See `election_min`. Nine tenths of it are the leader's lease: without a majority's answer it is silent after that. Default
    /// 260 ms; two of them are below `eviction`, so that a change of leaders is nobody's silence.
    pub election_max: Duration,
}

impl Default for ServerTimes {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            ping: millis(1_000),
            eviction: millis(5_000),
            probe: millis(2_000),
            settle: millis(2_000),
            gather: millis(3_000),
            heartbeat: millis(50),
            election_min: millis(160),
            election_max: millis(260),
        }
    }
}

/// Times that contradict each other. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct TimesError {
    /// The setting.
    pub what: &'static str,
    /// What it must be, and why.
    pub why: String,
}

impl ServerTimes {
    /// The times of a server's messenger, where nothing else is said: it dials others again at most 150 ms apart, and notices a dead link sooner than others do, because members
    /// are judged by it.
    #[must_use]
    pub fn messenger() -> Timeouts {
        Timeouts {
            ping: Duration::from_secs(1),
            liveness: Duration::from_secs(3),
            // Below the shortest election: the server that is back must be asked for its vote at once, not after a back-off.
            redial_max: Duration::from_millis(150),
            ..Timeouts::default()
        }
    }

    /// What the desk needs of them, once all of them hold together with those of the messenger.
    pub(super) fn check(&self, messenger: &Timeouts) -> Result<DeskConfig, TimesError> {
        let must =
            |holds: bool, what, why: String| if holds { Ok(()) } else { Err(TimesError { what, why }) };
        let judge = JudgeConfig::new(self.ping, self.eviction, self.probe, self.settle)
            .map_err(|why| TimesError { what: "ping, eviction and probe", why: why.to_string() })?;
        let Self { ping, eviction, probe, settle, gather, heartbeat, election_min, election_max } = *self;
        must(heartbeat >= Duration::from_millis(1), "heartbeat", "must be at least 1 ms".to_owned())?;
        must(
            heartbeat.saturating_mul(3) <= election_min,
            "heartbeat",
            format!(
                "must be at most a third of election_min ({election_min:?}), or two that are lost cost the leader its place"
            ),
        )?;
        must(
            election_min < election_max,
            "election_min",
            format!(
                "must be below election_max ({election_max:?}), or servers stand for election together for ever"
            ),
        )?;
        must(
            election_max.saturating_mul(2) <= eviction,
            "election_max",
            format!(
                "must be at most half of eviction ({eviction:?}), or a change of leaders looks like a member's silence"
            ),
        )?;
        must(
            settle >= ping,
            "settle",
            format!("must not be below ping ({ping:?}): nodes find a leader by its pings"),
        )?;
        must(
            gather >= ping.max(COMES_BACK),
            "gather",
            format!(
                "must be at least {COMES_BACK:?}, and not below ping ({ping:?}): members that were refused before a recovery ask again \
                 within that, and whoever comes too late loses its id"
            ),
        )?;
        must(
            gather.max(heartbeat).max(election_max) <= TIME_MAX,
            "gather, heartbeat and election_max",
            format!("must be at most {TIME_MAX:?}"),
        )?;
        must(
            probe <= eviction,
            "probe",
            format!(
                "must not be above eviction ({eviction:?}): nobody may be sure for longer than that that a member is gone"
            ),
        )?;
        must(
            messenger.liveness <= eviction,
            "eviction",
            format!(
                "must not be below the messenger's liveness ({:?}): a hung link is to be replaced before its member counts as silent",
                messenger.liveness
            ),
        )?;
        must(
            messenger.resume_lease >= eviction,
            "eviction",
            format!(
                "must not be above the messenger's resume_lease ({:?}): a member that is not judged yet keeps its session",
                messenger.resume_lease
            ),
        )?;
        Ok(DeskConfig { judge, settle, gather })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: fn(&mut ServerTimes, &mut Timeouts)) -> String {
        let (mut times, mut messenger) = (ServerTimes::default(), ServerTimes::messenger());
        change(&mut times, &mut messenger);
        times.check(&messenger).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_hold_together() {
        assert!(ServerTimes::default().check(&ServerTimes::messenger()).is_ok());
    }

    #[test]
    fn impossible_times_are_refused_with_the_setting_and_the_reason() {
        let millis = Duration::from_millis;
        for (text, part) in [
            (refused(|t, _| t.ping = Duration::from_millis(1)), "10ms"),
            (refused(|t, _| t.eviction = t.ping * 3), "eviction"),
            (refused(|t, _| t.probe = Duration::ZERO), "probe"),
            (refused(|t, _| t.heartbeat = Duration::ZERO), "heartbeat: must be at least"),
            (refused(|t, _| t.heartbeat = t.election_min / 2), "heartbeat: must be at most a third"),
            (refused(|t, _| t.election_min = t.election_max), "election_min: must be below"),
            (
                refused(|t, _| t.election_max = Duration::from_millis(2_501)),
                "election_max: must be at most half",
            ),
            (refused(|t, _| t.settle = t.ping / 2), "settle: must not be below ping"),
            (
                refused(|t, _| t.gather = COMES_BACK - Duration::from_millis(1)),
                "gather: must be at least 2.5s",
            ),
            (
                refused(|t, _| (t.ping, t.settle, t.eviction) = (t.gather * 2, t.gather * 2, t.gather * 8)),
                "gather: ",
            ),
            (refused(|t, _| t.gather = Duration::MAX), "gather, heartbeat and election_max: must be at most"),
            (refused(|t, _| t.heartbeat = Duration::MAX), "heartbeat: must be at most a third"),
            (refused(|t, _| t.election_max = Duration::MAX), "election_max: must be at most half"),
            (refused(|t, _| t.ping = Duration::MAX), "eviction"),
            (refused(|t, _| t.settle = Duration::MAX), "at most"),
            (refused(|t, _| t.probe = t.eviction * 2), "probe: must not be above eviction"),
            (refused(|_, m| m.liveness = Duration::from_secs(6)), "messenger's liveness"),
            (refused(|_, m| m.resume_lease = Duration::from_secs(4)), "messenger's resume_lease"),
        ] {
            assert!(text.contains(part), "{text}");
        }
        let short = ServerTimes {
            ping: millis(50),
            eviction: millis(800),
            probe: millis(400),
            settle: millis(100),
            ..ServerTimes::default()
        };
        let messenger = Timeouts { ping: millis(100), liveness: millis(500), ..ServerTimes::messenger() };
        assert!(short.check(&messenger).is_ok(), "short times are possible where they hold together");
    }
}
