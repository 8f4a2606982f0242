//! The copy of what the log decided, as far as this node was told. Each step takes it from one state that the log had to a
//! later one, or leaves it as it is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};

use crate::rendezvous::common::{Change, ClusterId, LeaseChange, MEMBERS_MAX, Token};
use crate::rendezvous::words::Everything;
use crate::{Member, MemberId, View, ViewId};

/// Leases that are known, as many as a log keeps.
const LEASES_MAX: usize = 4096;
/// What parts of everything may have in all, in bytes: above what the bounds of the log's state come to.
const EVERYTHING_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How many parts.
const PARTS_MAX: u32 = 65_536;

/// Why something was not applied. The copy is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotApplied {
    /// It was applied before.
    Old,
    /// Something before it is missing.
    Gap,
    /// It says what cannot be.
    Broken(&'static str),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Copy {
    cluster: Option<ClusterId>,
    view: ViewId,
    index: u64,
    members: BTreeMap<MemberId, Member>,
    leases: BTreeMap<String, (MemberId, Token)>,
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    next: u32,
    of: u32,
    bytes: BytesMut,
}

impl Copy {
    pub(super) const fn new() -> Self {
        Self {
            cluster: None,
            view: ViewId { generation: 0, number: 0 },
            index: 0,
            members: BTreeMap::new(),
            leases: BTreeMap::new(),
            parts: None,
        }
    }

    pub(crate) const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    pub(crate) const fn index(&self) -> u64 {
        self.index
    }

    pub(crate) const fn view_id(&self) -> ViewId {
        self.view
    }

    pub(crate) const fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    pub(crate) fn lease(&self, name: &str) -> Option<(MemberId, Token)> {
        self.leases.get(name).copied()
    }

    #[cfg(test)]
    pub(crate) const fn leases(&self) -> &BTreeMap<String, (MemberId, Token)> {
        &self.leases
    }

    /// Of parts of everything that is not whole yet.
    #[cfg(all(feature = "rendezvous", any(test, feature = "testing")))]
    pub(super) fn parts_bytes(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.bytes.len())
    }

    pub(super) fn view(&self) -> View {
        View::new(self.view, self.members.values().cloned())
    }

    /// Nothing is known any more, but whose history it was.
    pub(super) fn forget(&mut self) {
        *self = Self { cluster: self.cluster, ..Self::new() };
    }

    /// Takes part of everything; the whole once the last part is there.
    pub(super) fn take_part(
        &mut self,
        part: u32,
        of: u32,
        piece: &Bytes,
    ) -> Result<Option<Everything>, NotApplied> {
        if of == 0 || of > PARTS_MAX || part >= of {
            return Err(NotApplied::Broken("parts that cannot be"));
        }
        if part == 0 {
            self.parts = Some(Parts { next: 0, of, bytes: BytesMut::new() });
        }
        let fits = |parts: &Parts| {
            parts.next == part && parts.of == of && parts.bytes.len() + piece.len() <= EVERYTHING_BYTES_MAX
        };
        let Some(mut parts) = self.parts.take().filter(fits) else { return Err(NotApplied::Gap) };
        parts.bytes.extend_from_slice(piece);
        parts.next += 1;
        if parts.next < of {
            self.parts = Some(parts);
            return Ok(None);
        }
        match postcard::take_from_bytes::<Everything>(&parts.bytes) {
            Ok((everything, [])) => check(everything).map(Some),
            Ok(_) | Err(_) => Err(NotApplied::Broken("everything that cannot be read")),
        }
    }

    /// Becomes what it says.
    pub(super) fn become_everything(&mut self, everything: &Everything) {
        let Everything { cluster, index, view, members, leases } = everything;
        let member = |(member, _): &(Member, _)| (member.id, member.clone());
        *self = Self {
            cluster: Some(*cluster),
            view: *view,
            index: *index,
            members: members.iter().map(member).collect(),
            leases: BTreeMap::new(),
            parts: None,
        };
        leases.iter().for_each(|lease| self.set_lease(lease));
    }

    /// Applies a change to the state it was made for.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), NotApplied> {
        if change.index <= self.index {
            return Err(NotApplied::Old);
        }
        if change.after != self.index {
            return Err(NotApplied::Gap);
        }
        let moves = !change.joined.is_empty() || !change.left.is_empty();
        match change.view {
            Some(view) if view <= self.view => return Err(NotApplied::Broken("a view that is not newer")),
            None if moves => return Err(NotApplied::Broken("members that come and go without a view")),
            Some(_) | None => {}
        }
        if self.members.len() + change.joined.len() > MEMBERS_MAX + change.left.len() {
            return Err(NotApplied::Broken("more members than there can be"));
        }
        self.check_moves(change)?;
        self.index = change.index;
        self.view = change.view.unwrap_or(self.view);
        change.left.iter().for_each(|(id, _)| drop(self.members.remove(id)));
        self.members.extend(change.joined.iter().map(|member| (member.id, member.clone())));
        change.leases.iter().for_each(|lease| self.set_lease(lease));
        Ok(())
    }

    /// Only members leave, only others join, each once; routes are of members.
    fn check_moves(&self, change: &Change) -> Result<(), NotApplied> {
        let left: BTreeSet<MemberId> = change.left.iter().map(|(id, _)| *id).collect();
        let joined: BTreeSet<MemberId> = change.joined.iter().map(|member| member.id).collect();
        let stays = |id: &MemberId| self.members.contains_key(id) && !left.contains(id);
        let all_once = left.len() == change.left.len() && joined.len() == change.joined.len();
        if !all_once || !left.iter().all(|id| self.members.contains_key(id)) || joined.iter().any(stays) {
            return Err(NotApplied::Broken("members that come twice or go without having come"));
        }
        if change.routes.iter().any(|routes| !stays(&routes.member) && !joined.contains(&routes.member)) {
            return Err(NotApplied::Broken("routes of one who is no member"));
        }
        Ok(())
    }

    pub(super) fn set_cluster(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
    }

    fn set_lease(&mut self, LeaseChange { name, holder }: &LeaseChange) {
        match holder {
            Some(holder) if self.leases.len() < LEASES_MAX || self.leases.contains_key(name) => {
                self.leases.insert(name.clone(), *holder);
            }
            Some(_) => {}
            None => drop(self.leases.remove(name)),
        }
    }
}

fn check(everything: Everything) -> Result<Everything, NotApplied> {
    if everything.members.len() > MEMBERS_MAX {
        return Err(NotApplied::Broken("more members than there can be"));
    }
    let once: BTreeSet<MemberId> = everything.members.iter().map(|(member, _)| member.id).collect();
    if once.len() < everything.members.len() {
        return Err(NotApplied::Broken("a member that stands there twice"));
    }
    Ok(everything)
}
