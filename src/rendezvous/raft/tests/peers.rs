//! What other servers say that makes no sense.

use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, Vote};

use super::world::{World, secs};
use crate::rendezvous::raft::types::{Command, Types};
use crate::rendezvous::raft::wire::{
    AppendReply, AppendRequest, Ask, Question, is_sound_append, is_sound_append_reply, is_sound_vote,
    is_sound_vote_reply,
};
use crate::{Class, Messenger, Raw, Views};

fn id(term: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

fn append(vote: Vote<u64>, prev: Option<LogId<u64>>, entries: &[LogId<u64>]) -> AppendRequest {
    let entry = |id: &LogId<u64>| Entry::<Types> { log_id: *id, payload: EntryPayload::Blank };
    AppendEntriesRequest {
        vote,
        prev_log_id: prev,
        entries: entries.iter().map(entry).collect(),
        leader_commit: None,
    }
}

#[test]
fn appends_that_openraft_would_stumble_over_are_not_sound() {
    let leads = Vote::new_committed(3, 7);
    let before = Some(id(2, 10));
    assert!(is_sound_append(&append(leads, before, &[id(2, 11), id(3, 12)]), 7));
    assert!(is_sound_append(&append(leads, None, &[id(0, 0)]), 7));
    for (what, from) in [
        (append(leads, before, &[id(3, 12)]), 7),
        (append(leads, before, &[id(4, 11)]), 7),
        (append(leads, before, &[id(1, 11)]), 7),
        (append(leads, before, &[id(3, 11), id(2, 12)]), 7),
        (append(leads, Some(id(4, 10)), &[]), 7),
        (append(leads, Some(id(1, u64::MAX)), &[]), 7),
        (append(leads, before, &[]), 8),
        (append(Vote::new(3, 7), before, &[]), 7),
        (append(Vote::new_committed(u64::MAX, 7), before, &[]), 7),
        (append(Vote::default(), None, &[]), 7),
    ] {
        assert!(!is_sound_append(&what, from), "{what:?}");
    }
}

#[test]
fn votes_and_answers_that_openraft_would_stumble_over_are_not_sound() {
    assert!(is_sound_vote(&VoteRequest::new(Vote::new(1, 7), None), 7));
    assert!(!is_sound_vote(&VoteRequest::new(Vote::new(1, 7), None), 8));
    assert!(!is_sound_vote(&VoteRequest::new(Vote::new_committed(1, 7), None), 7));
    assert!(!is_sound_vote(&VoteRequest::new(Vote::new(u64::MAX, 7), None), 7));
    assert!(!is_sound_vote(&VoteRequest::new(Vote::new(1, 7), Some(id(1, u64::MAX))), 7));
    let ours = Vote::new_committed(3, 1);
    assert!(is_sound_append_reply(&AppendReply::Success, &ours, None));
    assert!(is_sound_append_reply(&AppendReply::HigherVote(Vote::new(4, 2)), &ours, None));
    assert!(!is_sound_append_reply(&AppendReply::HigherVote(Vote::new_committed(3, 2)), &ours, None));
    assert!(!is_sound_append_reply(&AppendReply::HigherVote(Vote::new(2, 2)), &ours, None));
    assert!(!is_sound_append_reply(&AppendReply::Conflict, &ours, None));
    assert!(!is_sound_append_reply(&AppendReply::PartialSuccess(Some(id(9, 9))), &ours, None));
    let mine = Vote::new(3, 1);
    assert!(is_sound_vote_reply(&VoteResponse::new(mine, None, true), &mine));
    assert!(!is_sound_vote_reply(&VoteResponse::new(Vote::new(4, 2), None, true), &mine));
    assert!(is_sound_vote_reply(&VoteResponse::new(Vote::new(4, 2), None, false), &mine));
}

/// Says to a server whatever it likes.
async fn stranger(world: &World) -> Messenger {
    let at = super::world::address(9);
    let (messenger, _run) = world.lab.start(at, Messenger::builder().views(Views::None)).await.unwrap();
    std::mem::forget(_run);
    messenger
}

#[tokio::test(start_paused = true)]
async fn strangers_change_nothing_and_stop_nobody() {
    let world = World::of(1, 3).await;
    let leader = world.leader().await;
    let before = world.standing(leader);
    let stranger = stranger(&world).await;
    let contact = stranger.contact(world.address(leader)).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let (me, cluster) = (world.log(leader).id(), world.log(leader).house.cluster());
    let ours = world.log(leader).house.raft().unwrap().metrics().borrow().vote;
    let term = ours.leader_id().term;
    let asks = [
        // Its own vote, another leader of its term, terms from the future, another cluster, nobody's.
        (cluster, me, Question::Append(append(ours, None, &[]))),
        (cluster, 5, Question::Append(append(ours, None, &[]))),
        (cluster, 5, Question::Append(append(Vote::new_committed(term, 5), None, &[]))),
        (cluster, 5, Question::Append(append(Vote::new_committed(u64::MAX, 5), None, &[]))),
        (Some(1), 5, Question::Append(append(Vote::new_committed(term + 9, 5), None, &[]))),
        (None, 5, Question::Vote(VoteRequest::new(Vote::new(term + 9, 5), None))),
        (cluster, 5, Question::Vote(VoteRequest::new(Vote::new(term, 5), Some(id(term, 1 << 61))))),
    ];
    for (number, (cluster, from, what)) in asks.into_iter().enumerate() {
        let ask = Ask { number: number as u64, cluster, from, to: Some(me), what };
        let report = stranger.class(Class::Urgent).datagram(&ask, [contact.id()], secs(1)).unwrap();
        assert_eq!(report.handed_over, 1);
    }
    // And bytes that are nothing at all.
    for length in [0, 1, 7, 4096, 30_000] {
        let raw = Raw::new(<Ask as crate::Message>::KIND, vec![0xff; length].into());
        stranger.class(Class::Urgent).datagram(&raw, [contact.id()], secs(1)).unwrap();
        tokio::time::sleep(super::world::millis(50)).await;
    }
    tokio::time::sleep(secs(3)).await;
    assert_eq!(world.standing(leader), before);
    assert_eq!(world.speaker(), Some(leader));
    let command = Command(bytes::Bytes::from_static(b"goes on"));
    world.decide(&command.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_votes_for_another_may_not_speak_whatever_it_hears_of_itself_after() {
    let world = World::of(2, 3).await;
    let leader = world.leader().await;
    tokio::time::sleep(secs(2)).await;
    let log = world.log(leader);
    let metrics = log.house.raft().unwrap().metrics().borrow().clone();
    let last = log.house.raft().unwrap().data_metrics().borrow().last_log;
    let (term, other) = (metrics.current_term, world.log((leader + 1) % 3).id());
    let stranger = stranger(&world).await;
    let contact = stranger.contact(world.address(leader)).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    assert!(log.lease(super::world::now()).is_some());
    let what = Question::Vote(VoteRequest::new(Vote::new(term + 1, other), last));
    let ask = Ask { number: 1, cluster: log.house.cluster(), from: other, to: Some(log.id()), what };
    stranger.class(Class::Urgent).datagram(&ask, [contact.id()], secs(1)).unwrap();
    world.until(secs(1), "it has voted", |_| log.lease(super::world::now()).is_none()).await;
    // News that is older than the vote.
    log.house.leases.lock().handle_leading(term);
    assert!(log.lease(super::world::now()).is_none());
}
