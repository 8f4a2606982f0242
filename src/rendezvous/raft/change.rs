//! Servers come and go: one at a time, by the leader. So memberships that follow each other differ by one server, and their majorities
//! overlap: a lease that is computed from the one before is as good.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::error::RaftError;
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Raft};

use super::log::Log;
use super::standing::Standing;
use super::types::{Server, ServerId, Types};
use super::wire::{Introduction, Question, Reply};
use super::{SERVERS_MAX, config::ADDRESS_BYTES_MAX};

/// How long a new server may take to be met, and then to catch up.
const MEETING: Duration = Duration::from_secs(10);
const CATCHING_UP: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// It has caught up when it is so close: what is under way.
const CLOSE: u64 = 64;

/// A server, as this one knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerSeen {
    /// Its number.
    pub(crate) id: ServerId,
    /// Where it is reached.
    pub(crate) address: String,
    /// It counts for majorities. Else it learns only.
    pub(crate) votes: bool,
    /// Up to where its log is known to be the leader's; the leader knows.
    pub(crate) matched: Option<u64>,
    /// How many entries it lacks; the leader knows.
    pub(crate) lag: Option<u64>,
}

/// Why the servers are not as they were to be. Each says how they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// As before.
    #[error("another server leads")]
    NotLeader {
        /// Who, and where, if that is known.
        leader: Option<(ServerId, String)>,
    },
    /// As before.
    #[error("another change is under way")]
    Busy,
    /// As before.
    #[error("no server at {address}: {why}")]
    NotMet {
        /// Where.
        address: String,
        /// What it came to.
        why: String,
    },
    /// As before.
    #[error("{address} cannot be added: {why}")]
    Unfit {
        /// Where.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// As before.
    #[error("no such server: {which}")]
    Unknown {
        /// What was asked for.
        which: String,
    },
    /// As before: who is left could decide nothing.
    #[error("it is the last one that votes")]
    Last,
    /// It learns, and does not vote. Adding it again goes on from there; removing it undoes it.
    #[error("the server learns, and does not vote yet: {why}")]
    Learns {
        /// What it came to.
        why: String,
    },
    /// This server stopped leading, or no majority answered in time: it may come to pass, or half of it (a server that learns). The next
    /// leader's [`Log::servers`] says.
    #[error("nobody knows whether it is decided")]
    Lost,
    /// The log is over, for this process.
    #[error("the log has stopped: {why}")]
    Stopped {
        /// As the standing says it.
        why: String,
    },
}

type Answer = Result<
    ClientWriteResponse<Types>,
    RaftError<ServerId, openraft::error::ClientWriteError<ServerId, Server>>,
>;

impl Log {
    /// The servers of the newest membership in this server's log, ordered by number.
    pub(crate) fn servers(&self) -> Vec<ServerSeen> {
        let Some(raft) = self.house.raft() else { return Vec::new() };
        let seen = raft.metrics().borrow().clone();
        let membership = seen.membership_config.membership();
        let voters: BTreeSet<ServerId> = membership.voter_ids().collect();
        let of = |(id, server): (&ServerId, &Server)| {
            let matched = seen.replication.as_ref().and_then(|all| all.get(id)).copied().flatten();
            let matched = if *id == self.house.me { seen.last_log_index } else { matched.map(|id| id.index) };
            let matched = matched.filter(|_| seen.replication.is_some());
            let lag = seen.last_log_index.filter(|_| seen.replication.is_some());
            ServerSeen {
                id: *id,
                address: server.address.clone(),
                votes: voters.contains(id),
                matched,
                lag: lag.map(|last| last.saturating_sub(matched.unwrap_or(0))),
            }
        };
        membership.nodes().map(of).collect()
    }

    /// Adds the server at an address, which waits for that, and says its number when it votes. It learns first, until it has caught up.
    /// To repeat it is no error. Cancelled, it may come to pass, or half of it.
    ///
    /// # Errors
    ///
    /// [`ChangeError`], each with what it leaves.
    pub(crate) async fn add(&self, address: &str) -> Result<ServerId, ChangeError> {
        let _one_at_a_time = self.house.changing.try_lock().map_err(|_| ChangeError::Busy)?;
        let raft = self.leading()?;
        let who = self.meet(address).await?;
        self.check(raft, address, &who)?;
        let id = who.server;
        let servers = self.servers();
        if servers.iter().any(|server| server.id == id && server.votes) {
            return Ok(id);
        }
        if !servers.iter().any(|server| server.id == id) {
            let learner = BTreeMap::from([(id, Server { address: address.to_owned() })]);
            self.change(raft, ChangeMembers::AddNodes(learner), true).await?;
        }
        self.catch_up(id).await.map_err(|why| ChangeError::Learns { why })?;
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.change(raft, voter, true).await?;
        Ok(id)
    }

    /// Removes a server, by its number (as [`Log::id`] says it, or in hexadecimal) or its address. If that is this one, it stops leading when it
    /// is decided, and the others elect another.
    ///
    /// # Errors
    ///
    /// [`ChangeError`], each with what it leaves.
    pub(crate) async fn remove(&self, which: &str) -> Result<ServerId, ChangeError> {
        let _one_at_a_time = self.house.changing.try_lock().map_err(|_| ChangeError::Busy)?;
        let raft = self.leading()?;
        let servers = self.servers();
        let is_meant = |server: &&ServerSeen| {
            server.address == which
                || server.id.to_string() == which
                || format!("{:016x}", server.id) == which
        };
        let unknown = || ChangeError::Unknown { which: which.chars().take(ADDRESS_BYTES_MAX).collect() };
        let server = servers.iter().find(is_meant).ok_or_else(unknown)?;
        let one = BTreeSet::from([server.id]);
        if !server.votes {
            self.change(raft, ChangeMembers::RemoveNodes(one), false).await?;
        } else if servers.iter().filter(|server| server.votes).count() == 1 {
            return Err(ChangeError::Last);
        } else {
            self.change(raft, ChangeMembers::RemoveVoters(one), false).await?;
        }
        if server.id == self.house.me {
            // The lock of changes is held until it does not hold itself for the leader any more.
            let mut standing = self.standing();
            let over = standing.wait_for(|standing| !matches!(standing, Standing::Leader { .. }));
            let _told_by_its_standing = tokio::time::timeout(self.house.config.patience, over).await;
        }
        Ok(server.id)
    }

    fn leading(&self) -> Result<&Raft<Types>, ChangeError> {
        let stopped = || ChangeError::Stopped { why: self.why() };
        match &*self.house.standing.borrow() {
            Standing::Leader { .. } => self.house.raft().ok_or_else(stopped),
            Standing::Follower { leader, .. } => Err(ChangeError::NotLeader { leader: leader.clone() }),
            Standing::Founding { .. } | Standing::NotMember => Err(ChangeError::NotLeader { leader: None }),
            Standing::Stopped { why } => Err(ChangeError::Stopped { why: why.clone() }),
        }
    }

    async fn meet(&self, address: &str) -> Result<Introduction, ChangeError> {
        let not_met = |why: String| ChangeError::NotMet { address: address.to_owned(), why };
        if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
            return Err(not_met("no address of a server".to_owned()));
        }
        if !self.house.peers.keep(address) {
            return Err(not_met("too many addresses are being looked at".to_owned()));
        }
        let until = self.now() + MEETING;
        loop {
            let ask = Question::Who(self.house.introduction());
            match self.house.ask(address, None, ask, LOOK * 4).await {
                Ok(Reply::Who(who)) => return Ok(who),
                Ok(_) => return Err(not_met("it says nonsense".to_owned())),
                Err(why) if self.now() > until => return Err(not_met(why.to_string())),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn check(&self, raft: &Raft<Types>, address: &str, who: &Introduction) -> Result<(), ChangeError> {
        let unfit = |why: String| Err(ChangeError::Unfit { address: address.to_owned(), why });
        if who.cluster.is_some() && who.cluster != self.house.cluster() {
            return unfit("it is of another cluster".to_owned());
        }
        let metrics = raft.metrics();
        let seen = metrics.borrow();
        let membership = seen.membership_config.membership();
        match membership.get_node(&who.server) {
            Some(server) if server.address != address => {
                unfit(format!("the cluster holds {:016x}, which is there, at {}", who.server, server.address))
            }
            Some(_) => Ok(()),
            None if membership.nodes().any(|(_, server)| server.address == address) => {
                unfit("the cluster holds another server at this address: remove that first".to_owned())
            }
            None if membership.nodes().count() >= SERVERS_MAX => {
                unfit(format!("{SERVERS_MAX} servers are the most"))
            }
            None => Ok(()),
        }
    }

    /// Waits until a server that learns is close to the end of the log.
    async fn catch_up(&self, id: ServerId) -> Result<(), String> {
        let until = self.now() + CATCHING_UP;
        loop {
            let servers = self.servers();
            let Some(server) = servers.iter().find(|server| server.id == id) else {
                return Err("it was removed".to_owned());
            };
            match (server.matched, server.lag) {
                (Some(_), Some(lag)) if lag <= CLOSE => return Ok(()),
                (_, None) => return Err("this server stopped leading".to_owned()),
                (_, Some(lag)) if self.now() > until => return Err(format!("it lacks {lag} entries")),
                (_, Some(_)) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn change(
        &self,
        raft: &Raft<Types>,
        what: ChangeMembers<ServerId, Server>,
        keeps: bool,
    ) -> Result<(), ChangeError> {
        let deciding = raft.change_membership(what, keeps);
        let decided: Answer = match tokio::time::timeout(self.house.config.patience, deciding).await {
            Ok(decided) => decided,
            Err(_) => return Err(ChangeError::Lost),
        };
        match decided {
            Ok(done) => {
                // The next change finds the lease resting on this one.
                if let Some(membership) = &done.membership {
                    self.house.leases.lock().set_voters(membership.get_joint_config());
                }
                self.settle(raft, done.log_id.index).await;
                Ok(())
            }
            Err(RaftError::APIError(openraft::error::ClientWriteError::ChangeMembershipError(why))) => {
                match why {
                    openraft::error::ChangeMembershipError::InProgress(_) => Err(ChangeError::Busy),
                    openraft::error::ChangeMembershipError::EmptyMembership(_) => Err(ChangeError::Last),
                    openraft::error::ChangeMembershipError::LearnerNotFound(why) => {
                        Err(ChangeError::Unknown { which: why.to_string() })
                    }
                }
            }
            Err(RaftError::APIError(_)) => Err(ChangeError::Lost),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped { why: self.why() }),
        }
    }

    /// Waits until this server's own view of the membership is as new as the change.
    async fn settle(&self, raft: &Raft<Types>, index: u64) {
        let mut metrics = raft.metrics();
        let seen =
            metrics.wait_for(|seen| seen.membership_config.log_id().is_some_and(|id| id.index >= index));
        let _told_by_its_standing = tokio::time::timeout(self.house.config.patience, seen).await;
    }

    fn now(&self) -> Instant {
        self.house.messenger.now()
    }
}
