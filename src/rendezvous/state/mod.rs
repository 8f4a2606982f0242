//! What the log decides: who is a member, what each handles, which view is valid, who holds a lease. The same on every server, and sans-IO:
//! it knows commands and nothing else, no clock and no chance.

mod change;
mod command;
#[cfg(all(feature = "rendezvous", any(test, feature = "testing")))]
pub(super) mod door;
#[cfg(any(test, feature = "testing"))]
mod follower;
mod leases;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::change::History;
pub(crate) use self::command::{Op, Outcome, encode};
#[cfg(feature = "rendezvous")]
pub(crate) use self::command::{decode_outcomes, encode_outcomes};
use self::leases::Leases;
pub(crate) use super::common::{Change, ClusterId, LeaseChange, LeaseOp, Refused, RoutesChange, Why};
use super::common::{MEMBERS_MAX, ROUTES_MAX};
use crate::router::Route;
use crate::{Member, MemberId, ViewId};

/// Routes of one member, as many as a router takes from one node.
pub(crate) const MEMBER_ROUTES_MAX: usize = 262_144;
/// Members that are gone and remembered by id: whoever asks to be one of them again is told that it cannot be.
pub(crate) const GONE_MAX: usize = 4096;
/// What a member says of itself, in bytes.
pub(crate) const MEMBER_BYTES_MAX: usize = 12 * 1024;
/// The last generation: a fencing token has 20 bits for it. Nothing is believed that is in a higher one, so no recovery comes there.
pub(crate) const GENERATION_MAX: u64 = (1 << 20) - 1;
/// What a route's key may have, in bytes, each of identity and partition.
const KEY_BYTES_MAX: usize = 255;

/// A member, and what it handles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    member: Member,
    routes: BTreeSet<Route>,
    /// Up to which of its own changes its routes are known.
    changes: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct State {
    kept: Kept,
    routes: usize,
    /// Of the last change that members are told.
    index: u64,
    history: History,
}

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    cluster: Option<ClusterId>,
    view: ViewId,
    /// A view of a history that is not this one.
    suspended: Option<ViewId>,
    members: BTreeMap<MemberId, Entry>,
    gone: VecDeque<MemberId>,
    leases: Leases,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            cluster: None,
            view: ViewId { generation: 0, number: 0 },
            suspended: None,
            members: BTreeMap::new(),
            gone: VecDeque::new(),
            leases: Leases::default(),
        }
    }
}

/// What one command is applied with.
struct Applying<'a> {
    change: &'a mut Change,
    /// The view that this command makes, if members come or go.
    view: ViewId,
}

impl State {
    // ---- what it knows ----

    /// Which cluster's history this is; `None` before it has begun.
    pub(crate) const fn cluster(&self) -> Option<ClusterId> {
        self.kept.cluster
    }

    /// The view that is valid.
    pub(crate) const fn view_id(&self) -> ViewId {
        self.kept.view
    }

    /// See [`Op::Suspend`].
    pub(crate) const fn suspended(&self) -> Option<ViewId> {
        self.kept.suspended
    }

    /// The place in the log of the last change that members are told.
    pub(crate) const fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.kept.members.values().map(|entry| &entry.member)
    }

    pub(crate) fn member(&self, id: MemberId) -> Option<&Member> {
        self.kept.members.get(&id).map(|entry| &entry.member)
    }

    /// Whether it was a member and is one no more, as far back as that is known.
    pub(crate) fn is_gone(&self, id: MemberId) -> bool {
        self.kept.gone.contains(&id)
    }

    pub(crate) fn routes_of(&self, id: MemberId) -> impl Iterator<Item = &Route> {
        self.kept.members.get(&id).into_iter().flat_map(|entry| &entry.routes)
    }

    /// Up to which of its own changes a member's routes are known.
    pub(crate) fn changes_of(&self, id: MemberId) -> Option<u64> {
        self.kept.members.get(&id).map(|entry| entry.changes)
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseChange> + '_ {
        self.kept.leases.all()
    }

    /// The change that follows this place, encoded, and its own place; `None` if there is none, or it is not kept any more.
    pub(crate) fn change_after(&self, place: u64) -> Option<(u64, Bytes)> {
        self.history.next_after(place)
    }

    // ---- what is decided ----

    /// Applies a command, and gives what members are to be told, if anything, and what its proposer is.
    pub(crate) fn apply(&mut self, index: u64, command: &[u8]) -> Vec<Outcome> {
        let ops = match command::decode(command) {
            Ok(ops) => ops,
            Err(why) => return vec![Outcome::Refused(Refused::Unreadable(why))],
        };
        let mut change = Change { index, after: self.index, ..Change::default() };
        let outcomes = ops.into_iter().map(|op| self.apply_op(op, &mut change)).collect();
        if !change::is_empty(&change) {
            if let Some(view) = change.view {
                self.kept.view = view;
            }
            self.index = index;
            self.history.push(&change);
        }
        outcomes
    }

    fn apply_op(&mut self, op: Op, change: &mut Change) -> Outcome {
        let next = ViewId { number: self.kept.view.number + 1, ..self.kept.view };
        let view = change.view.unwrap_or(next);
        let mut applying = Applying { change, view };
        match op {
            Op::Found { cluster } => self.found(cluster),
            _ if self.kept.cluster.is_none() => Outcome::Refused(Refused::NotFounded),
            Op::Suspend { seen } => self.suspend(seen),
            Op::Recover { above } => self.recover(above, &mut applying),
            Op::Join { member, keep } => self.join(member, keep, &mut applying),
            Op::Leave { member, why } => self.leave(member, why, &mut applying),
            Op::Routes { member, from, to, add, remove } => {
                self.change_routes(member, from, to, add, remove, &mut applying)
            }
            Op::Lease { member, op } if self.kept.members.contains_key(&member) => {
                self.kept.leases.apply(member, &op, view.generation, &mut applying.change.leases)
            }
            Op::Lease { .. } => Outcome::Refused(Refused::NotMember),
        }
    }

    fn found(&mut self, cluster: ClusterId) -> Outcome {
        if self.kept.cluster.is_some() {
            return Outcome::Already;
        }
        self.kept.cluster = Some(cluster);
        self.kept.view = ViewId { generation: 1, number: 0 };
        Outcome::Done
    }

    fn suspend(&mut self, seen: ViewId) -> Outcome {
        if seen.generation >= GENERATION_MAX {
            return Outcome::Refused(Refused::Unsound(format!(
                "no generation is left above that of view {seen}"
            )));
        }
        if seen <= self.kept.view || self.kept.suspended.is_some_and(|before| before >= seen) {
            return Outcome::Already;
        }
        self.kept.suspended = Some(seen);
        Outcome::Done
    }

    fn recover(&mut self, above: u64, applying: &mut Applying<'_>) -> Outcome {
        let seen = self.kept.suspended.map_or(0, |seen| seen.generation);
        let generation = above.max(seen).max(self.kept.view.generation).saturating_add(1);
        if generation > GENERATION_MAX {
            return Outcome::Refused(Refused::Full(format!("there are {GENERATION_MAX} generations")));
        }
        self.kept.suspended = None;
        // Those of before go on, under a view that is above all that were seen.
        applying.change.view = Some(ViewId { generation, number: 1 });
        Outcome::Done
    }

    fn join(&mut self, mut member: Member, keep: bool, applying: &mut Applying<'_>) -> Outcome {
        if let Some(seen) = self.kept.suspended {
            return Outcome::Refused(Refused::NeedsRecovery(seen));
        }
        if self.kept.members.contains_key(&member.id) {
            return Outcome::Already;
        }
        if self.is_gone(member.id) || (member.joined.is_some() && !keep) {
            return Outcome::Refused(Refused::Gone);
        }
        if self.kept.members.len() >= MEMBERS_MAX {
            return Outcome::Refused(Refused::Full(format!("the network has {MEMBERS_MAX} members")));
        }
        if let Err(why) = check_member(&member) {
            return Outcome::Refused(Refused::Unsound(why));
        }
        member.joined = Some(member.joined.filter(|_| keep).unwrap_or(applying.view));
        applying.change.view = Some(applying.view);
        applying.change.joined.push(member.clone());
        self.kept.members.insert(member.id, Entry { member, routes: BTreeSet::new(), changes: 0 });
        Outcome::Done
    }

    fn leave(&mut self, id: MemberId, why: Why, applying: &mut Applying<'_>) -> Outcome {
        let Some(entry) = self.kept.members.remove(&id) else { return Outcome::Already };
        self.routes -= entry.routes.len();
        self.kept.gone.push_back(id);
        if self.kept.gone.len() > GONE_MAX {
            self.kept.gone.pop_front();
        }
        let change = &mut *applying.change;
        change.view = Some(applying.view);
        // Who came and went in one command was never seen by anybody.
        let came = change.joined.iter().position(|member| member.id == id);
        match came {
            Some(at) => drop(change.joined.remove(at)),
            None => change.left.push((id, why)),
        }
        change.routes.retain(|routes| routes.member != id);
        self.kept.leases.forget(id, applying.view.generation, &mut change.leases);
        Outcome::Done
    }

    fn change_routes(
        &mut self,
        id: MemberId,
        from: u64,
        to: u64,
        add: Vec<Route>,
        remove: Vec<Route>,
        applying: &mut Applying<'_>,
    ) -> Outcome {
        let Some(entry) = self.kept.members.get_mut(&id) else {
            return Outcome::Refused(Refused::NotMember);
        };
        if to <= entry.changes {
            return Outcome::Already;
        }
        let anew = from == 0;
        if !anew && from != entry.changes {
            return Outcome::Refused(Refused::RoutesBehind(entry.changes));
        }
        if let Some(route) = add.iter().find(|route| !is_sound(route)) {
            return Outcome::Refused(Refused::Unsound(format!("no key of a route: {}", route.key)));
        }
        let before = if anew { 0 } else { entry.routes.len() };
        if before + add.len() > MEMBER_ROUTES_MAX || self.routes + add.len() > ROUTES_MAX {
            let most = format!("{MEMBER_ROUTES_MAX} routes of a member, {ROUTES_MAX} of all");
            return Outcome::Refused(Refused::Full(most));
        }
        self.routes -= entry.routes.len();
        if anew {
            entry.routes.clear();
        }
        for route in &remove {
            entry.routes.remove(route);
        }
        entry.routes.extend(add.iter().cloned());
        entry.changes = to;
        self.routes += entry.routes.len();
        applying.change.routes.push(RoutesChange { member: id, anew, add, remove });
        Outcome::Done
    }
}

/// What is kept for it, and told to everybody, is bounded.
fn check_member(member: &Member) -> Result<(), String> {
    let bytes = postcard::to_stdvec(member).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > MEMBER_BYTES_MAX {
        return Err(format!("what a member says of itself has {bytes} bytes, at most {MEMBER_BYTES_MAX}"));
    }
    if member.endpoints.is_empty() || member.endpoints.iter().any(crate::Endpoint::is_unusable) {
        return Err("a member says where it can be reached: it must bind, or advertise an address".to_owned());
    }
    Ok(())
}

fn is_sound(route: &Route) -> bool {
    (1..=KEY_BYTES_MAX).contains(&route.key.identity().len()) && route.key.partition().len() <= KEY_BYTES_MAX
}
