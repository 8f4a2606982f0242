//! Views: who is in the cluster at a moment, as a membership system decided it.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Member, MemberId, ViewId};

/// How the views of a network are made; see [`Builder::views`](crate::Builder::views).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Views {
    /// All members install the same views, and their numbers can be compared: consensus, a coordinator. Who joined at or
    /// before our view and is not in it was removed; who joined later is not known here yet.
    #[default]
    Agreed,
    /// Each member has its own (gossip); numbers mean nothing to others. Who was removed here stays removed; whoever
    /// else has joined somewhere is not known here yet.
    Local,
    /// There are no views, as in a server that talks to anyone. Only types that are open to anyone pass.
    None,
}

/// The members of a moment, in the order given. Decided outside the messenger, and handed to
/// [`Messenger::install_view`](crate::Messenger::install_view).
///
/// Two members with one id are one too many: such a view is refused when it is installed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Plain", into = "Plain")]
pub struct View {
    id: ViewId,
    members: Vec<Member>,
    places: HashMap<MemberId, usize, foldhash::fast::RandomState>,
}

/// As it is written: the index is made when it is read.
#[derive(Serialize, Deserialize)]
#[serde(rename = "View")]
struct Plain {
    id: ViewId,
    members: Vec<Member>,
}

impl From<Plain> for View {
    fn from(plain: Plain) -> Self {
        Self::new(plain.id, plain.members)
    }
}

impl From<View> for Plain {
    fn from(view: View) -> Self {
        Self { id: view.id, members: view.members }
    }
}

impl View {
    /// A view of these members, in this order.
    #[must_use]
    pub fn new(id: ViewId, members: impl IntoIterator<Item = Member>) -> Self {
        let members: Vec<Member> = members.into_iter().collect();
        let places = members.iter().enumerate().map(|(at, member)| (member.id, at)).collect();
        Self { id, members, places }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> ViewId {
        self.id
    }

    /// Its members, in the order given.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether a member is in it.
    #[must_use]
    pub fn contains(&self, id: MemberId) -> bool {
        self.places.contains_key(&id)
    }

    /// A member of it, with its attributes.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(*self.places.get(&id)?)
    }

    /// The ids of all members but one: to send to everybody else.
    pub fn others(&self, me: MemberId) -> impl Iterator<Item = MemberId> + '_ {
        self.members.iter().map(|member| member.id).filter(move |id| *id != me)
    }

    /// An id that stands in it twice.
    pub(crate) fn duplicate(&self) -> Option<MemberId> {
        if self.places.len() == self.members.len() {
            return None;
        }
        let earlier = |(at, member): &(usize, &Member)| self.places.get(&member.id) != Some(at);
        self.members.iter().enumerate().find(earlier).map(|(_, member)| member.id)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} ", self.id)?;
        f.debug_set().entries(self.members.iter().map(|member| member.id)).finish()?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u128) -> Member {
        Member {
            id: MemberId::from_parts(0, number),
            endpoints: Vec::new(),
            name: String::new(),
            labels: Default::default(),
            joined: None,
        }
    }

    #[test]
    fn a_view_keeps_the_order_given_and_finds_its_members() {
        let view = View::new(ViewId { generation: 1, number: 7 }, [member(3), member(1), member(2)]);
        let ids: Vec<_> = view.others(member(1).id).collect();
        assert_eq!(ids, [member(3).id, member(2).id]);
        assert!(view.contains(member(2).id) && !view.contains(member(4).id));
        assert_eq!(view.member(member(1).id), Some(&member(1)));
        assert_eq!(view.duplicate(), None);
        assert_eq!(view.id().to_string(), "1.7");
    }

    #[test]
    fn an_id_that_stands_twice_is_found() {
        let view = View::new(ViewId { generation: 1, number: 1 }, [member(3), member(1), member(3)]);
        assert_eq!(view.duplicate(), Some(member(3).id));
    }

    #[test]
    fn a_view_survives_serialisation_with_its_index() {
        let view = View::new(ViewId { generation: 1, number: 1 }, [member(3), member(1)]);
        let bytes = postcard::to_stdvec(&view).unwrap();
        let read: View = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read, view);
        assert!(read.contains(member(1).id));
    }
}
