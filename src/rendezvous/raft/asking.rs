//! Questions under way: each has a number, one whom it was asked of, and an end.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::types::ServerId;
use super::wire::{Answer, AppendReply, Reply};
use crate::MemberId;

/// Questions that may wait for their answers: some to each server, and those whose answers come late.
const QUESTIONS_MAX: usize = 1024;

/// Sent at `sent` as the leader of `term`: whoever takes it holds the lease up, also when the answer comes late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) term: u64,
    pub(super) sent: Instant,
}

#[derive(Debug)]
struct Waiting {
    /// The run of a process that was asked.
    member: MemberId,
    /// The server that was meant; `None`: whoever it is.
    server: Option<ServerId>,
    append: Option<Append>,
    answer: oneshot::Sender<Reply>,
    until: Instant,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Questions {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

impl Questions {
    /// A number and where the answer comes out. `None`: too many wait.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        until: Instant,
        (member, server): (MemberId, Option<ServerId>),
        append: Option<Append>,
    ) -> Option<(u64, oneshot::Receiver<Reply>)> {
        self.waiting.retain(|_, waiting| waiting.until > now);
        if self.waiting.len() >= QUESTIONS_MAX {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.next += 1;
        self.waiting.insert(self.next, Waiting { member, server, append, answer, until });
        Some((self.next, answered))
    }

    /// It was not sent.
    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Gives an answer to whoever waits for it. `Err`: nobody asked for it, or it was asked of another. `Some`: an append was taken,
    /// in whatever way it was answered, by this server.
    pub(super) fn handle_answer(
        &mut self,
        from: MemberId,
        answer: Answer,
    ) -> Result<Option<(Append, ServerId)>, Unasked> {
        let waiting = self.waiting.get(&answer.number).ok_or(Unasked)?;
        let is_refusal = matches!(answer.what, Reply::Refused(_));
        let is_meant = is_refusal || waiting.server.is_none_or(|server| server == answer.from);
        if waiting.member != from || !is_meant {
            return Err(Unasked);
        }
        let waiting = self.waiting.remove(&answer.number).ok_or(Unasked)?;
        let taken = match &answer.what {
            Reply::Append(AppendReply::HigherVote(_)) => None,
            Reply::Append(AppendReply::Success | AppendReply::PartialSuccess(_) | AppendReply::Conflict) => {
                waiting.append.map(|append| (append, answer.from))
            }
            Reply::Who(_) | Reply::Poll { .. } | Reply::Vote(_) | Reply::Refused(_) => None,
        };
        let _asker_is_gone = waiting.answer.send(answer.what);
        Ok(taken)
    }
}

/// An answer to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unasked;
