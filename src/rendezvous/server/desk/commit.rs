//! What waits for the log. While one command is under way all else waits, and then goes together: a hundred joins are a few views.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use super::config::{COMMAND_BYTES, WAITING_BYTES_MAX};
use crate::MemberId;
use crate::rendezvous::state::{Op, Outcome, Refused, encode};

/// Whom the outcome of an operation concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// The history's beginning, or its stop.
    Nobody,
    Join(MemberId),
    /// Of its own will.
    Leave(MemberId),
    /// The tool that asked for it, if one did.
    Out(MemberId, Option<u64>),
    Routes(MemberId, u64),
    Lease(MemberId, u64),
    Recover(u64),
}

/// Operations that stand in one command.
#[derive(Debug)]
struct Together {
    ops: SmallVec<[(Op, Concern); 2]>,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Commit {
    waiting: VecDeque<Together>,
    bytes: usize,
    under_way: Option<Vec<Concern>>,
}

impl Commit {
    /// Whether nodes may ask for more.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    /// What waits.
    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, ops: impl IntoIterator<Item = (Op, Concern)>) {
        let ops: SmallVec<[(Op, Concern); 2]> = ops.into_iter().collect();
        let bytes = ops.iter().map(|(op, _)| op_bytes(op)).sum();
        self.bytes += bytes;
        self.waiting.push_back(Together { ops, bytes });
    }

    /// The next command, if none is under way.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return None;
        }
        let (mut ops, mut concerns, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = self.waiting.front()
            && (ops.is_empty() || bytes + next.bytes <= COMMAND_BYTES)
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.bytes;
            self.bytes -= next.bytes;
            for (op, concern) in next.ops {
                ops.push(op);
                concerns.push(concern);
            }
        }
        self.under_way = Some(concerns);
        Some(encode(&ops))
    }

    /// What became of the command under way, for each whom it concerns; `None`: nobody knows.
    pub(super) fn handle_decided(
        &mut self,
        outcomes: Option<Vec<Outcome>>,
    ) -> Vec<(Concern, Option<Outcome>)> {
        let concerns = self.under_way.take().unwrap_or_default();
        let Some(mut outcomes) = outcomes else {
            return concerns.into_iter().map(|concern| (concern, None)).collect();
        };
        if outcomes.len() != concerns.len() {
            let why = match outcomes.pop() {
                Some(Outcome::Refused(why)) => why,
                Some(Outcome::Done | Outcome::Already) | None => {
                    Refused::Unreadable("what the log says of it does not fit".to_owned())
                }
            };
            outcomes = concerns.iter().map(|_| Outcome::Refused(why.clone())).collect();
        }
        concerns.into_iter().zip(outcomes.into_iter().map(Some)).collect()
    }
}

/// How many bytes an operation takes.
pub(super) fn op_bytes(op: &Op) -> usize {
    encode(std::slice::from_ref(op)).len()
}
