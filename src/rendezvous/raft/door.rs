//! A door for the fuzzer: what servers say to each other, and what lies on a disk. What is believed is what it is said to be.

use openraft::{EntryPayload, RaftLogId, Vote};

use super::ship;
use super::store::door as store;
use super::types::ServerId;
use super::wire::{self, Answer, Ask, Introduction, Question, Reply};
use crate::rendezvous::door::stable;

/// How the vote stands of the server that is asked and answered.
const OURS: (u64, ServerId) = (3, 1);

pub(in crate::rendezvous) fn raft(how: u8, bytes: &[u8]) {
    match how {
        10 => drop(stable::<Ask>(bytes).map(|ask| asked(&ask))),
        11 => drop(stable::<Answer>(bytes).map(|answer| answered(&answer))),
        12 => ship::door::head(bytes),
        13 => store::records(bytes),
        14 => store::snapshot_file(bytes),
        _ => drop(stable::<Introduction>(bytes)),
    }
}

fn asked(ask: &Ask) {
    match &ask.what {
        Question::Who(_) => {}
        Question::Poll(vote) | Question::Vote(vote) => {
            if wire::is_sound_vote(vote, ask.from) {
                assert_eq!(vote.vote.leader_id().voted_for(), Some(ask.from), "who asks is voted for");
                assert!(!vote.vote.is_committed(), "it is not elected yet");
            }
        }
        Question::Append(append) if wire::is_sound_append(append, ask.from) => {
            let first = append.prev_log_id.map_or(0, |before| before.index + 1);
            for (entry, index) in append.entries.iter().zip(first..) {
                let id = entry.get_log_id();
                assert_eq!(id.index, index, "entries follow each other");
                assert!(id.leader_id.term <= append.vote.leader_id().term, "nothing is of a later term");
                if let EntryPayload::Membership(membership) = &entry.payload {
                    assert!(membership.voter_ids().count() > 0, "somebody votes");
                    let has_address = |voter| membership.get_node(&voter).is_some();
                    assert!(membership.voter_ids().all(has_address), "every voter has an address");
                }
            }
        }
        Question::Append(_) => {}
    }
}

fn answered(answer: &Answer) {
    let ours: Vote<ServerId> = Vote::new(OURS.0, OURS.1);
    match &answer.what {
        Reply::Vote(vote) if wire::is_sound_vote_reply(vote, &ours) => {
            assert!(!vote.vote_granted || vote.vote == ours, "only what was asked for is granted");
        }
        Reply::Append(append) => {
            let sound = wire::is_sound_append_reply(append, &ours, None);
            assert!(!sound || !matches!(append, wire::AppendReply::Conflict), "nothing was before it");
        }
        Reply::Refused(why) => drop(why.to_string()),
        Reply::Who(_) | Reply::Poll { .. } | Reply::Vote(_) => {}
    }
}
