//! A log of one server, in memory: a stand-in until the real one is merged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::rendezvous::raft::{At, Machine};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Founding { missing: Vec<String> },
    Follower { term: u64, leader: Option<(u64, String)> },
    Leader { term: u64 },
    NotMember,
    Stopped { why: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) term: u64,
    pub(crate) until: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lost")]
pub(crate) struct ProposeError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log of one server")]
pub(crate) struct ChangeError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerSeen {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) votes: bool,
    pub(crate) matched: Option<u64>,
    pub(crate) lag: Option<u64>,
}

struct Inner {
    machine: Box<dyn Machine>,
    index: u64,
}

pub(crate) struct Log {
    address: String,
    inner: Arc<Mutex<Inner>>,
    standing: watch::Sender<Standing>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn open(machine: impl Machine, address: String) -> Self {
        let inner = Inner { machine: Box::new(machine), index: 0 };
        Self {
            address,
            inner: Arc::new(Mutex::new(inner)),
            standing: watch::Sender::new(Standing::Leader { term: 1 }),
        }
    }

    pub(crate) const fn id(&self) -> u64 {
        1
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(crate) fn lease(&self, now: Instant) -> Option<Lease> {
        Some(Lease { term: 1, until: now + Duration::from_millis(300) })
    }

    #[allow(clippy::unused_async, reason = "the real one waits")]
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        let mut inner = self.inner.lock();
        inner.index += 1;
        let at = At { term: 1, index: inner.index };
        Ok(inner.machine.apply(at, &command))
    }

    pub(crate) fn servers(&self) -> Vec<ServerSeen> {
        let index = self.inner.lock().index;
        let address = self.address.clone();
        vec![ServerSeen { id: 1, address, votes: true, matched: Some(index), lag: Some(0) }]
    }

    #[allow(clippy::unused_async, reason = "the real one waits")]
    pub(crate) async fn add(&self, _address: &str) -> Result<u64, ChangeError> {
        Err(ChangeError)
    }

    #[allow(clippy::unused_async, reason = "the real one waits")]
    pub(crate) async fn remove(&self, _which: &str) -> Result<u64, ChangeError> {
        Err(ChangeError)
    }

    #[allow(clippy::unused_async, reason = "the real one waits")]
    pub(crate) async fn snapshot(&self) -> Result<Bytes, ChangeError> {
        Ok(self.inner.lock().machine.snapshot())
    }
}
