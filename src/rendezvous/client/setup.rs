//! How a node is to follow its rendezvous.

use std::time::Duration;

use super::api::Rendezvous;
use super::core::CoreConfig;
use super::servers::ServerList;
use crate::EndpointError;

/// Far beyond what anybody wants; sums of it stay within what the clock can say.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What is wrong with what was set. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// An address of the list cannot be parsed.
    #[error("in the list of rendezvous servers: {0}")]
    Address(#[from] EndpointError),
    /// An address of the list at which nobody can be.
    #[error(
        "in the list of rendezvous servers: nobody can be reached at `{text}`; give the address of a server"
    )]
    NobodyThere {
        /// What was given.
        text: String,
    },
    /// The list is empty.
    #[error("the list of rendezvous servers has no address; write rdv1:7500,rdv2:7500,rdv3:7500")]
    NoServers,
    /// The list is too long.
    #[error("the list of rendezvous servers has {given} addresses, at most {most} are allowed")]
    TooManyServers {
        /// How many.
        given: usize,
        /// The bound.
        most: usize,
    },
    /// Two times that contradict each other.
    #[error("{what}: {why}")]
    Contradiction {
        /// The setting.
        what: &'static str,
        /// What it must be.
        why: &'static str,
    },
}

/// What a node does when no view can come, because no leader of the servers is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFrozen {
    /// It goes on with the last view and routes, for as long as it takes.
    #[default]
    GoOn,
    /// After so long it leaves and closes its messenger. Not below [`RendezvousBuilder::frozen_after`].
    Stop(Duration),
}

/// How a node is to follow its rendezvous. Everything but the list of servers has a default.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct RendezvousBuilder {
    servers: ServerList,
    config: CoreConfig,
}

impl RendezvousBuilder {
    pub(super) fn new(servers: ServerList) -> Self {
        Self { servers, config: CoreConfig::default() }
    }

    /// After how long without a ping or a word of its server a node goes to the next one. Default 3 s: three pings.
    pub const fn silence(mut self, silence: Duration) -> Self {
        self.config.silence = silence;
        self
    }

    /// After how long without a leader the node says that it is [`Standing::Frozen`](super::Standing::Frozen). Default 3 s; not below
    /// `silence`.
    pub const fn frozen_after(mut self, after: Duration) -> Self {
        self.config.frozen_after = after;
        self
    }

    /// What it does then. Default: it goes on.
    pub const fn on_frozen(mut self, policy: OnFrozen) -> Self {
        self.config.on_frozen = policy;
        self
    }

    /// Checks it all. Nothing is sent before a messenger is given, by a node ([`RouteSource`](crate::router::RouteSource))
    /// or by [`Rendezvous::start`].
    ///
    /// # Errors
    ///
    /// [`SetupError`].
    pub fn build(self) -> Result<Rendezvous, SetupError> {
        let servers = self.servers.parse()?;
        let CoreConfig { silence, frozen_after, on_frozen, .. } = self.config;
        let wrong = |what, why| Err(SetupError::Contradiction { what, why });
        if silence < Duration::from_millis(10) || silence > Duration::from_secs(3600) {
            return wrong("silence", "must be from 10 ms to an hour");
        }
        if frozen_after < silence {
            return wrong(
                "frozen_after",
                "must not be below silence: until then the leader may still be there",
            );
        }
        let stop_after = match on_frozen {
            OnFrozen::Stop(after) => after,
            OnFrozen::GoOn => Duration::ZERO,
        };
        if frozen_after > TIME_MAX || stop_after > TIME_MAX {
            return wrong("frozen_after and on_frozen", "must be at most a year");
        }
        if matches!(on_frozen, OnFrozen::Stop(after) if after < frozen_after) {
            return wrong("on_frozen", "cannot stop before it is frozen: not below frozen_after");
        }
        Ok(Rendezvous::new(servers, self.config))
    }
}
