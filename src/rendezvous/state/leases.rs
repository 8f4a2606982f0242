//! Named leases: at most one member holds each, with a token that is above all before it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::command::Outcome;
use crate::MemberId;
use crate::rendezvous::common::{LeaseChange, LeaseOp, Refused, Token};

/// The longest name of a lease, in bytes.
pub(crate) const LEASE_NAME_BYTES_MAX: usize = 255;
/// Names with a holder, in one network.
const LEASES_MAX: usize = 4096;
/// Members that wait for one lease.
const WAITING_MAX: usize = 256;

/// A token: generations above, grants below: 2^20 and 2^44 of them. A generation is above all that were seen before it, so a token is
/// too, also where the log that counts the grants was lost in part.
const fn token(generation: u64, grants: u64) -> Token {
    Token(generation << GRANTS_BITS | grants)
}

const GRANTS_BITS: u32 = 44;
const GRANTS_MAX: u64 = 1 << GRANTS_BITS;
const _: () = assert!(super::GENERATION_MAX < 1 << (u64::BITS - GRANTS_BITS));

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    by: MemberId,
    token: Token,
    waiting: VecDeque<MemberId>,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leases {
    held: BTreeMap<String, Held>,
    /// How many there were, of all names.
    grants: u64,
}

impl Leases {
    pub(super) fn apply(
        &mut self,
        member: MemberId,
        op: &LeaseOp,
        generation: u64,
        changes: &mut Vec<LeaseChange>,
    ) -> Outcome {
        let (LeaseOp::Acquire { name, .. } | LeaseOp::Release { name }) = op;
        if name.is_empty() || name.len() > LEASE_NAME_BYTES_MAX {
            let text = format!("a lease's name has 1 to {LEASE_NAME_BYTES_MAX} bytes");
            return Outcome::Refused(Refused::Unsound(text));
        }
        match op {
            LeaseOp::Acquire { name, wait } => self.acquire(member, name, *wait, generation, changes),
            LeaseOp::Release { name } => self.release(member, name, generation, changes),
        }
    }

    fn acquire(
        &mut self,
        member: MemberId,
        name: &str,
        wait: bool,
        generation: u64,
        changes: &mut Vec<LeaseChange>,
    ) -> Outcome {
        let full = |what| Outcome::Refused(Refused::Full(what));
        let many = self.held.len() >= LEASES_MAX;
        let token = token(generation, self.grants + 1);
        match self.held.get_mut(name) {
            None if many => full(format!("{LEASES_MAX} leases are held")),
            None => {
                self.grants += 1;
                let held = Held { by: member, token, waiting: VecDeque::new() };
                self.held.insert(name.to_owned(), held);
                changes.push(LeaseChange { name: name.to_owned(), holder: Some((member, token)) });
                Outcome::Done
            }
            Some(held) if held.by == member || held.waiting.contains(&member) => Outcome::Already,
            Some(held) if !wait => Outcome::Refused(Refused::Held(held.by)),
            Some(held) if held.waiting.len() >= WAITING_MAX => {
                full(format!("{WAITING_MAX} members wait for it"))
            }
            Some(held) => {
                held.waiting.push_back(member);
                Outcome::Done
            }
        }
    }

    fn release(
        &mut self,
        member: MemberId,
        name: &str,
        generation: u64,
        changes: &mut Vec<LeaseChange>,
    ) -> Outcome {
        let Some(held) = self.held.get_mut(name) else { return Outcome::Already };
        if held.by != member {
            let before = held.waiting.len();
            held.waiting.retain(|waiting| *waiting != member);
            return if held.waiting.len() < before { Outcome::Done } else { Outcome::Already };
        }
        let next = held.waiting.pop_front();
        let token = token(generation, self.grants + 1);
        match next {
            Some(next) => {
                self.grants += 1;
                (held.by, held.token) = (next, token);
            }
            None => {
                self.held.remove(name);
            }
        }
        changes.push(LeaseChange { name: name.to_owned(), holder: next.map(|next| (next, token)) });
        Outcome::Done
    }

    /// A member is gone: what it held goes to the next who waits.
    pub(super) fn forget(&mut self, member: MemberId, generation: u64, changes: &mut Vec<LeaseChange>) {
        let concerned = |held: &Held| held.by == member || held.waiting.contains(&member);
        let names: Vec<String> =
            self.held.iter().filter(|(_, held)| concerned(held)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.release(member, &name, generation, changes);
        }
    }

    /// Whether a snapshot's are such as they can be: held, and waited for, by members.
    pub(super) fn check(&self, is_member: impl Fn(MemberId) -> bool) -> Result<(), String> {
        let is_sound = |held: &Held| {
            is_member(held.by)
                && held.waiting.len() <= WAITING_MAX
                && held.waiting.iter().all(|id| is_member(*id))
        };
        if self.held.len() > LEASES_MAX || self.grants >= GRANTS_MAX || !self.held.values().all(is_sound) {
            return Err("snapshot: leases that cannot be".to_owned());
        }
        Ok(())
    }

    /// All that are held.
    pub(super) fn all(&self) -> impl Iterator<Item = LeaseChange> + '_ {
        self.held
            .iter()
            .map(|(name, held)| LeaseChange { name: name.clone(), holder: Some((held.by, held.token)) })
    }
}
