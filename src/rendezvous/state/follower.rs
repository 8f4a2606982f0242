//! A member's copy of the state, for tests and the fuzzer: everything once, then changes. What cannot follow from what was before
//! panics.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, LeaseChange, RoutesChange, State};
use crate::rendezvous::common::Token;
use crate::router::Route;
use crate::{Member, MemberId, ViewId};

/// See the module's text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Follower {
    pub(super) at: u64,
    view: Option<ViewId>,
    members: BTreeMap<MemberId, Member>,
    routes: BTreeMap<MemberId, BTreeSet<Route>>,
    leases: BTreeMap<String, (MemberId, Token)>,
}

impl Follower {
    /// One who was told everything.
    pub(super) fn of(state: &State) -> Self {
        let routes = |member: &Member| (member.id, state.routes_of(member.id).cloned().collect());
        Self {
            at: state.index(),
            view: Some(state.view_id()),
            members: state.members().map(|member| (member.id, member.clone())).collect(),
            routes: state.members().map(routes).collect(),
            leases: state.leases().filter_map(|lease| Some((lease.name, lease.holder?))).collect(),
        }
    }

    /// Takes all changes that it has not seen.
    pub(super) fn follow(&mut self, state: &State) {
        while let Some((index, bytes)) = state.change_after(self.at) {
            let Ok((change, [])) = postcard::take_from_bytes::<Change>(&bytes) else {
                panic!("a change that cannot be read");
            };
            assert_eq!((change.after, change.index), (self.at, index));
            assert!(index > self.at, "places only grow");
            self.at = index;
            self.apply(change);
        }
    }

    fn apply(&mut self, change: Change) {
        if let Some(view) = change.view {
            assert!(Some(view) > self.view, "views only grow");
            self.view = Some(view);
        }
        for (gone, _) in change.left {
            assert!(self.members.remove(&gone).is_some(), "only who was there leaves");
            self.routes.remove(&gone);
        }
        for member in change.joined {
            self.routes.insert(member.id, BTreeSet::new());
            assert!(self.members.insert(member.id, member).is_none(), "only who was not there joins");
        }
        for RoutesChange { member, anew, add, remove } in change.routes {
            let Some(routes) = self.routes.get_mut(&member) else { panic!("routes of nobody") };
            if anew {
                routes.clear();
            }
            for route in &remove {
                routes.remove(route);
            }
            routes.extend(add);
        }
        for LeaseChange { name, holder } in change.leases {
            let before = match holder {
                Some(holder) => self.leases.insert(name, holder),
                None => self.leases.remove(&name),
            };
            if let (Some((_, before)), Some((_, after))) = (before, holder) {
                assert!(after > before, "tokens only grow");
            }
        }
    }
}
