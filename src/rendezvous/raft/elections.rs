//! When a follower stands for election. openraft's own timer is off: it draws one time at the start of a process and keeps to it, so
//! two candidates whose times fall together would stand against each other for ever; and it looks every one and a half heartbeats only.
//! This one draws anew for each attempt, and asks first.
//!
//! *Asks first* (a pre-vote: Ongaro's thesis, 9.6): a candidate that a majority would not vote for does not raise its term. So a server
//! that was cut off does not cost a leader its place when it is back.
//!
//! The rule of the lease is openraft's: whoever has heard of a leader waits until `election_max` has passed since, and a time from
//! `election_min` to `election_max` on top, so that its followers are all past the lease when the first of them stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::VoteRequest;
use openraft::{Raft, ServerState, TokioInstant, Vote};
use tokio::sync::mpsc;

use super::SERVERS_MAX;
use super::house::House;
use super::types::{ServerId, Types};
use super::wire::{Question, Reply};

/// What a server knows of itself.
struct Me {
    leads: bool,
    vote: Vote<ServerId>,
    voted_at: Option<TokioInstant>,
    /// Two sets while servers come or go.
    voters: Vec<BTreeSet<ServerId>>,
    addresses: BTreeMap<ServerId, String>,
}

impl Me {
    /// `None`: openraft has stopped.
    async fn look(raft: &Raft<Types>) -> Option<Self> {
        let looked = raft.with_raft_state(|state| {
            let membership = state.membership_state.effective().membership();
            Self {
                leads: state.server_state == ServerState::Leader,
                vote: *state.vote_ref(),
                voted_at: state.vote_last_modified(),
                voters: membership.get_joint_config().clone(),
                addresses: membership.nodes().map(|(id, server)| (*id, server.address.clone())).collect(),
            }
        });
        looked.await.ok()
    }

    /// When it is to stand; `None`: it leads, or has no vote.
    fn stands_at(&self, me: ServerId, lease: Duration, wait: Duration) -> Option<Option<TokioInstant>> {
        if self.leads || !self.voters.iter().any(|voters| voters.contains(&me)) {
            return None;
        }
        let is_alone = self.voters.iter().all(|voters| voters.len() == 1 && voters.contains(&me));
        let wait = if self.vote.is_committed() { lease + wait } else { wait };
        Some(self.voted_at.filter(|_| !is_alone).map(|at| at + wait))
    }

    fn is_majority(&self, of: &BTreeSet<ServerId>) -> bool {
        self.voters.iter().all(|voters| voters.intersection(of).count() > voters.len() / 2)
    }
}

/// Stands for election whenever it is time, as long as the log lives.
pub(super) async fn run(house: Arc<House>) {
    let Some(raft) = house.raft().cloned() else { return };
    let config = &house.config;
    let lease = config.election_max;
    let mut wait = draw(&house, config.election_min, config.election_max);
    let mut not_before = now(&house);
    while let Some(me) = Me::look(&raft).await {
        let Some(at) = me.stands_at(house.me, lease, wait) else {
            tokio::time::sleep(config.heartbeat).await;
            continue;
        };
        let at = at.map_or(not_before, |at| at.max(not_before));
        if at > now(&house) {
            tokio::time::sleep_until(at).await;
            continue;
        }
        let would_win = poll(&house, &raft, &me).await;
        // A leader that spoke meanwhile is not stood against.
        let Some(still) = Me::look(&raft).await else { return };
        if would_win && still.voted_at == me.voted_at && !still.leads && raft.trigger().elect().await.is_err()
        {
            return;
        }
        wait = draw(&house, config.election_min, config.election_max);
        not_before = now(&house) + draw(&house, config.heartbeat, config.election_min);
    }
}

fn now(house: &House) -> TokioInstant {
    TokioInstant::from_std(house.messenger.now())
}

fn draw(house: &House, least: Duration, most: Duration) -> Duration {
    let span = most.saturating_sub(least);
    least + span.mul_f64(house.context.chance(fastrand::Rng::f64))
}

/// Whether a majority would vote for this server now.
async fn poll(house: &Arc<House>, raft: &Raft<Types>, me: &Me) -> bool {
    let mut yes = BTreeSet::from([house.me]);
    if me.is_majority(&yes) {
        return true;
    }
    let last = raft.data_metrics().borrow().last_log;
    let request = VoteRequest::new(Vote::new(me.vote.leader_id().term + 1, house.me), last);
    let time = house.config.election_min;
    let (told, mut answers) = mpsc::channel(SERVERS_MAX);
    let voters: BTreeSet<ServerId> = me.voters.iter().flatten().copied().collect();
    for voter in voters.into_iter().filter(|voter| *voter != house.me) {
        let Some(address) = me.addresses.get(&voter).cloned() else { continue };
        let (house, request, told) = (Arc::clone(house), request.clone(), told.clone());
        house.peers.keep(&address);
        house.context.clone().spawn(async move {
            let answer = house.ask(&address, Some(voter), Question::Poll(request), time).await;
            if let Ok(Reply::Poll { yes: true }) = answer {
                let _nobody_counts_any_more = told.try_send(voter);
            }
        });
    }
    drop(told);
    while let Some(voter) = answers.recv().await {
        yes.insert(voter);
        if me.is_majority(&yes) {
            return true;
        }
    }
    false
}

/// Whether this server would vote so. Its own term says nothing here: if it is the higher one, the vote itself tells.
pub(super) async fn would_vote(house: &House, raft: &Raft<Types>, request: &VoteRequest<ServerId>) -> bool {
    let now = now(house);
    if house.leases.lock().lease(now.into_std()).is_some() {
        return false;
    }
    let last = raft.data_metrics().borrow().last_log;
    let Some(me) = Me::look(raft).await else { return false };
    let has_leader = me.vote.is_committed()
        && !me.leads
        && me.voted_at.is_some_and(|at| now <= at + house.config.election_max);
    !has_leader && request.last_log_id >= last
}
