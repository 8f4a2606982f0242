//! The way in: questions of other servers, and answers to ours.

use std::sync::{Arc, Weak};

use openraft::Vote;
use openraft::raft::VoteRequest;

use super::elections;
use super::house::{Counts, House};
use super::types::ServerId;
use super::wire::{self, Answer, AppendRequest, Ask, Question, Refusal, Reply};
use crate::{Class, HandlerError, MemberId};

/// Takes questions and answers from now on. Handlers hold the house weakly: the messenger holds them.
pub(super) fn listen(house: &Arc<House>) -> Result<(), HandlerError> {
    let weak = Arc::downgrade(house);
    house.messenger.add_handler(move |from, ask: Ask| {
        if let Some(house) = weak.upgrade() {
            take(&house, from, ask);
        }
        std::future::ready(())
    })?;
    let weak: Weak<House> = Arc::downgrade(house);
    house.messenger.add_handler(move |from, answer: Answer| {
        if let Some(house) = weak.upgrade() {
            house.handle_answer(from, answer);
        }
        std::future::ready(())
    })
}

/// Each question in a task of its own: an answer that came behind it does not wait for the disk.
fn take(house: &Arc<House>, from: MemberId, ask: Ask) {
    let Ok(permit) = Arc::clone(&house.answering).try_acquire_owned() else { return };
    let weak = Arc::clone(house);
    house.context.spawn(async move {
        let number = ask.number;
        if let Some(what) = weak.answer(ask).await {
            weak.reply(from, Answer { number, from: weak.me, what });
        }
        drop(permit);
    });
}

impl House {
    fn handle_answer(&self, from: MemberId, answer: Answer) {
        let answered = self.questions.lock().handle_answer(from, answer);
        match answered {
            Ok(Some((append, by))) => self.leases.lock().handle_taken(append.term, by, append.sent),
            Ok(None) => {}
            // Late, most of the time.
            Err(_unasked) => Counts::add(&self.counts.unasked),
        }
    }

    fn reply(&self, to: MemberId, answer: Answer) {
        let sent = self.messenger.class(Class::Urgent).datagram(&answer, [to], self.config.election_max);
        if let Err(why) = sent {
            tracing::debug!("an answer was not sent: {why}");
        }
    }

    async fn answer(&self, ask: Ask) -> Option<Reply> {
        if let Question::Who(_) = ask.what {
            return Some(Reply::Who(self.introduction()));
        }
        if let Err(refusal) = self.check(&ask).await {
            return Some(Reply::Refused(refusal));
        }
        match ask.what {
            Question::Who(_) => None,
            Question::Poll(request) => Some(self.poll(&request).await),
            Question::Vote(request) => Some(self.vote(request).await),
            Question::Append(request) => Some(self.append(request).await),
        }
    }

    async fn check(&self, ask: &Ask) -> Result<(), Refusal> {
        let is_sound = match &ask.what {
            Question::Who(_) => true,
            Question::Poll(request) | Question::Vote(request) => wire::is_sound_vote(request, ask.from),
            Question::Append(request) => wire::is_sound_append(request, ask.from),
        };
        let refuse = |count, refusal| {
            Counts::add(count);
            Err(refusal)
        };
        let counts = &self.counts;
        if ask.to != Some(self.me) || ask.from == self.me {
            return refuse(&counts.wrong_server, Refusal::WrongServer { is: self.me });
        }
        let Some(cluster) = ask.cluster.filter(|_| is_sound) else {
            return refuse(&counts.nonsense, Refusal::Nonsense);
        };
        // It becomes one of the cluster by the first question that is meant for it.
        self.join_cluster(cluster).await.map_err(|_told_by_its_standing| Refusal::Stopped)?;
        if self.cluster() != Some(cluster) {
            return refuse(&counts.wrong_cluster, Refusal::WrongCluster);
        }
        Ok(())
    }

    async fn poll(&self, request: &VoteRequest<ServerId>) -> Reply {
        let yes = match self.raft() {
            Some(raft) => elections::would_vote(self, raft, request).await,
            None => false,
        };
        Reply::Poll { yes }
    }

    async fn vote(&self, request: VoteRequest<ServerId>) -> Reply {
        let term = request.vote.leader_id().term;
        let Some(raft) = self.raft() else { return Reply::Refused(Refusal::Stopped) };
        match raft.vote(request).await {
            Ok(reply) => {
                if reply.vote_granted {
                    // Before it leaves: this server counts among those who hold its own lease up.
                    self.leases.lock().handle_vote(term);
                }
                Reply::Vote(reply)
            }
            Err(_stopped) => Reply::Refused(Refusal::Stopped),
        }
    }

    async fn append(&self, request: AppendRequest) -> Reply {
        let Some(raft) = self.raft() else { return Reply::Refused(Refusal::Stopped) };
        if !self.leads_alone(&request.vote) {
            Counts::add(&self.counts.nonsense);
            return Reply::Refused(Refusal::Nonsense);
        }
        match raft.append_entries(request).await {
            Ok(reply) => Reply::Append(reply),
            Err(_stopped) => Reply::Refused(Refusal::Stopped),
        }
    }

    /// Whether nobody else was seen to lead in this term. openraft takes that for granted.
    pub(super) fn leads_alone(&self, vote: &Vote<ServerId>) -> bool {
        let Some(id) = vote.leader_id().voted_for() else { return false };
        let term = vote.leader_id().term;
        let ours = self.raft().map(|raft| raft.metrics().borrow().vote);
        if ours.is_some_and(|ours| ours.is_committed() && ours.leader_id().term == term && ours != *vote) {
            return false;
        }
        let mut leaders = self.leaders.lock();
        match leaders.last_key_value() {
            Some((newest, _)) if *newest > term => true,
            Some((newest, leader)) if *newest == term => *leader == id,
            Some(_) | None => {
                leaders.clear();
                leaders.insert(term, id);
                true
            }
        }
    }
}
