//! What the tasks of one log share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::Raft;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::asking::{Append, Questions};
use super::config::LogConfig;
use super::founding::Founding;
use super::lease::Leases;
use super::peers::Peers;
use super::standing::Standing;
use super::store::{Store, StoreError};
use super::tasks::Context;
use super::types::{ServerId, Types};
use super::wire::{Ask, Introduction, Question, Refusal, Reply};
use crate::{Class, Messenger};

/// Questions that are worked on at the same time: some for each server. What comes beyond is dropped, as any datagram may be.
pub(super) const ANSWERING_MAX: usize = 64;
/// Commands that are on their way into the log.
pub(super) const PROPOSING_MAX: usize = 256;

/// What was not believed, counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) wrong_cluster: AtomicU64,
    pub(super) wrong_server: AtomicU64,
    pub(super) nonsense: AtomicU64,
    pub(super) unasked: AtomicU64,
}

impl Counts {
    pub(super) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// See the module's text.
pub(super) struct House {
    pub(super) me: ServerId,
    pub(super) config: LogConfig,
    pub(super) messenger: Messenger,
    pub(super) context: Context,
    pub(super) store: Store,
    pub(super) raft: OnceLock<Raft<Types>>,
    pub(super) peers: Arc<Peers>,
    pub(super) questions: Mutex<Questions>,
    pub(super) leases: Mutex<Leases>,
    /// Who was seen to lead in the newest term.
    pub(super) leaders: Mutex<BTreeMap<u64, ServerId>>,
    pub(super) standing: watch::Sender<Standing>,
    /// What there is to say of it before there is a cluster.
    pub(super) founding: watch::Sender<Founding>,
    /// Held while the cluster becomes known, so that none is founded meanwhile.
    pub(super) joining: tokio::sync::Mutex<()>,
    /// Held while servers come or go: one change at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    pub(super) answering: Arc<Semaphore>,
    pub(super) proposing: Semaphore,
    pub(super) counts: Counts,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nobody was met at the address yet, or there is no link now.
    #[error("there is no link")]
    NoLink,
    #[error("no answer in time")]
    Late,
    /// The answer says why.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It is no answer to that.
    #[error("the answer makes no sense")]
    Nonsense,
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let me = format_args!("{:016x}", self.me);
        f.debug_struct("House").field("me", &me).field("standing", &self.standing).finish_non_exhaustive()
    }
}

impl House {
    pub(super) fn raft(&self) -> Option<&Raft<Types>> {
        self.raft.get()
    }

    pub(super) fn cluster(&self) -> Option<u128> {
        self.store.identity().cluster
    }

    pub(super) fn introduction(&self) -> Introduction {
        let listed = u16::try_from(self.config.others().len() + 1).unwrap_or(u16::MAX);
        Introduction { server: self.me, cluster: self.cluster(), listed, joins: self.config.join }
    }

    /// This server is of that cluster from now on, if it was of none.
    pub(super) async fn join_cluster(&self, cluster: u128) -> Result<(), StoreError> {
        let _alone = self.joining.lock().await;
        if self.cluster().is_none() {
            tracing::info!(
                server = format_args!("{:016x}", self.me),
                cluster = format_args!("{cluster:032x}"),
                "joined"
            );
            self.store.set_cluster(cluster).await?;
            self.founding.send_replace(Founding::Over);
        }
        Ok(())
    }

    /// Asks whoever is at an address, and waits at most so long. An answer that comes later still holds up the lease.
    pub(super) async fn ask(
        &self,
        address: &str,
        to: Option<ServerId>,
        what: Question,
        time: Duration,
    ) -> Result<Reply, Unanswered> {
        let is_of_a_cluster = !matches!(what, Question::Who(_));
        if is_of_a_cluster && self.cluster().is_none() {
            // It is being founded: nothing is said before the disk knows of which.
            drop(self.joining.lock().await);
        }
        let member = self.peers.at(address).ok_or(Unanswered::NoLink)?;
        let now = self.messenger.now();
        let append = match &what {
            Question::Append(append) => Some(Append { term: append.vote.leader_id().term, sent: now }),
            Question::Who(_) | Question::Poll(_) | Question::Vote(_) => None,
        };
        let until = now + if append.is_some() { time.max(self.config.election_max) } else { time };
        let asked = self.questions.lock().ask(now, until, (member, to), append);
        let (number, answered) = asked.ok_or(Unanswered::NoLink)?;
        let ask = Ask { number, cluster: self.cluster(), from: self.me, to, what };
        let sent = self.messenger.class(Class::Urgent).datagram(&ask, [member], time);
        if !sent.is_ok_and(|report| report.handed_over == 1) {
            self.questions.lock().forget(number);
            return Err(Unanswered::NoLink);
        }
        match tokio::time::timeout(time, answered).await {
            Ok(Ok(Reply::Refused(why))) => Err(Unanswered::Refused(why)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(Unanswered::Late),
        }
    }
}
