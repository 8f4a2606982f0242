//! What servers say to each other: questions and answers, each one datagram, under types that are open to anyone; and what is
//! believed of them. A peer is a stranger until TLS says otherwise, and openraft takes some things for granted: what it would
//! panic at does not reach it.

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{EntryPayload, LogId, Membership, RaftLogId, SnapshotMeta, Vote};
use serde::{Deserialize, Serialize};

use super::SERVERS_MAX;
use super::config::ADDRESS_BYTES_MAX;
use super::types::{Server, ServerId, Types};
use crate::{Kind, Message};

/// The protocol of the log: its messages wait for none of the application's.
const PROTOCOL: u16 = 4;

pub(super) type AppendRequest = AppendEntriesRequest<Types>;
pub(super) type AppendReply = AppendEntriesResponse<ServerId>;

/// To a server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// For the answer.
    pub(super) number: u64,
    /// Both ends are of it. Nothing yet: between those who have none.
    pub(super) cluster: Option<u128>,
    pub(super) from: ServerId,
    /// Who is meant. Another server at this address says so. `None`: whoever is there.
    pub(super) to: Option<ServerId>,
    pub(super) what: Question,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// Who are you? This is who I am.
    Who(Introduction),
    /// Would you vote for me? Nobody's term grows by the question.
    Poll(VoteRequest<ServerId>),
    Vote(VoteRequest<ServerId>),
    Append(AppendRequest),
}

/// What was asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) from: ServerId,
    pub(super) what: Reply,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Who(Introduction),
    Poll { yes: bool },
    Vote(VoteResponse<ServerId>),
    Append(AppendReply),
    Refused(Refusal),
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(super) enum Refusal {
    /// The disk or the address is not what the asker takes it for.
    #[error("another cluster")]
    WrongCluster,
    /// Another server has come to this address.
    #[error("another server, {is:016x}")]
    WrongServer {
        /// Who is here.
        is: ServerId,
    },
    /// It makes no sense; the asker is broken, or no server.
    #[error("it made no sense")]
    Nonsense,
    /// This server has stopped.
    #[error("it has stopped")]
    Stopped,
}

/// Who a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub(super) server: ServerId,
    pub(super) cluster: Option<u128>,
    /// How many servers its list names, itself counted.
    pub(super) listed: u16,
    /// It waits to be added.
    pub(super) joins: bool,
}

impl Message for Ask {
    const KIND: Kind = Kind::new("karere.raft.ask", 1).open().of_protocol(PROTOCOL);
}

impl Message for Answer {
    const KIND: Kind = Kind::new("karere.raft.answer", 1).open().of_protocol(PROTOCOL);
}

// ---- what is believed ----

/// Terms and indexes beyond it are nobody's: a log that gained a million entries a second would come here in 146,000 years. What is
/// one more than they are never overflows.
const NUMBER_MAX: u64 = 1 << 62;

fn is_sound_id(id: &LogId<ServerId>) -> bool {
    id.index < NUMBER_MAX && id.leader_id.term < NUMBER_MAX
}

fn id_of(vote: &Vote<ServerId>) -> Option<ServerId> {
    vote.leader_id().voted_for()
}

/// A vote that `from` asks for itself.
pub(super) fn is_sound_vote(request: &VoteRequest<ServerId>, from: ServerId) -> bool {
    let term = request.vote.leader_id().term;
    !request.vote.is_committed()
        && id_of(&request.vote) == Some(from)
        && (1..NUMBER_MAX).contains(&term)
        && request.last_log_id.as_ref().is_none_or(is_sound_id)
}

/// Who leads says it himself, in a term he was elected in.
pub(super) fn is_sound_leader(vote: &Vote<ServerId>, from: ServerId) -> bool {
    vote.is_committed() && id_of(vote) == Some(from) && (1..NUMBER_MAX).contains(&vote.leader_id().term)
}

/// Entries that follow each other and the one before, none of a later term than the leader's.
pub(super) fn is_sound_append(request: &AppendRequest, from: ServerId) -> bool {
    let term = request.vote.leader_id().term;
    let term_of = |id: &LogId<ServerId>| id.leader_id.term;
    let mut before = request.prev_log_id;
    is_sound_leader(&request.vote, from)
        && before.iter().chain(&request.leader_commit).all(|id| is_sound_id(id) && term_of(id) <= term)
        && request.entries.iter().all(|entry| {
            let id = entry.get_log_id();
            let next = before.map_or(0, |before| before.index.saturating_add(1));
            let follows = id.index == next && before.is_none_or(|before| term_of(&before) <= term_of(id));
            before = Some(*id);
            let sound = match &entry.payload {
                EntryPayload::Blank | EntryPayload::Normal(_) => true,
                EntryPayload::Membership(membership) => is_sound_membership(membership),
            };
            follows && is_sound_id(id) && term_of(id) <= term && sound
        })
}

/// Every voter has an address, and somebody votes.
pub(super) fn is_sound_membership(membership: &Membership<ServerId, Server>) -> bool {
    let configs = membership.get_joint_config();
    (1..=2).contains(&configs.len())
        && configs.iter().all(|voters| !voters.is_empty())
        && membership.voter_ids().all(|voter| membership.get_node(&voter).is_some())
        && membership.nodes().count() <= SERVERS_MAX
        && membership.nodes().all(|(_, server)| server.address.len() <= ADDRESS_BYTES_MAX)
}

/// A snapshot of what was decided up to the leader's own term.
pub(super) fn is_sound_snapshot(meta: &SnapshotMeta<ServerId, Server>, vote: &Vote<ServerId>) -> bool {
    let Some(last) = meta.last_log_id else { return false };
    let is_of_it = meta.last_membership.log_id().is_some_and(|id| id <= last);
    is_sound_id(&last)
        && last.leader_id.term <= vote.leader_id().term
        && is_of_it
        && is_sound_membership(meta.last_membership.membership())
}

/// What an append of ours may be answered with.
pub(super) fn is_sound_append_reply(
    reply: &AppendReply,
    ours: &Vote<ServerId>,
    after: Option<&LogId<ServerId>>,
) -> bool {
    match reply {
        AppendReply::Success => true,
        // We never ask for it, so nobody answers it.
        AppendReply::PartialSuccess(_) => false,
        AppendReply::Conflict => after.is_some(),
        AppendReply::HigherVote(vote) => is_higher(vote, ours),
    }
}

/// A vote that outranks ours. Two that were elected in one term do not exist.
pub(super) fn is_higher(vote: &Vote<ServerId>, ours: &Vote<ServerId>) -> bool {
    (ours.leader_id().term + 1..NUMBER_MAX).contains(&vote.leader_id().term)
}

/// A vote that was granted is the one that was asked for; any other is of whoever is there.
pub(super) fn is_sound_vote_reply(reply: &VoteResponse<ServerId>, ours: &Vote<ServerId>) -> bool {
    reply.vote.leader_id().term < NUMBER_MAX
        && reply.last_log_id.as_ref().is_none_or(is_sound_id)
        && (!reply.vote_granted || reply.vote == *ours)
}
