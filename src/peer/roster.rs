//! Who may speak: the view as this process knows it, and what it makes of everybody else. Rules 3, 14 and 16 of
//! docs/PROTOCOL.md. One a process; each peer gets its [`Seat`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Introduction;
use super::reason::Place;
use crate::limits::GONE_MAX;
use crate::member::{Endpoint, Member, MemberId, View, ViewId, Views};
use crate::wire::Reject;
use crate::wire::first::Code;

/// What one installed view changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "who joined and who left"]
#[non_exhaustive]
pub struct ViewChange {
    /// Who is in this view and was not in the one before, this member included.
    pub joined: Vec<MemberId>,
    /// Who was in the one before and is not in this one.
    pub left: Vec<MemberId>,
    /// Who is in this view and is not spoken with all the same: removed by an earlier view, or they said goodbye, or
    /// they said that we were removed. Who comes back needs a new id.
    pub gone: Vec<MemberId>,
}

/// Why a view was not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// It is not newer than the one that is installed. Nothing has changed.
    #[error("view {given} is not newer than {installed}, which is installed")]
    NotNewer {
        /// The one that stays.
        installed: ViewId,
        /// The one that was given.
        given: ViewId,
    },
    /// This member is not in it. Every session that the view before held has ended, as if all had departed; contacts
    /// stay. To take part again: [`Messenger::reincarnate`](crate::Messenger::reincarnate), then join anew.
    #[error("view {view} does not hold this member: it was expelled")]
    Expelled {
        /// The view.
        view: ViewId,
    },
    /// A member stands in it twice. Nothing has changed.
    #[error("{member} stands twice in view {view}")]
    Duplicate {
        /// The view.
        view: ViewId,
        /// Who.
        member: MemberId,
    },
    /// The messenger was built without views ([`Views::None`]). Nothing has changed.
    #[error("this messenger was built without views (`Builder::views`)")]
    NoViews,
    /// The messenger was closed, and by what. Nothing has changed.
    #[error("the messenger is closed: {0}")]
    Closed(&'static str),
}

/// What one member is to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In the view: everything passes.
    Member,
    /// It has joined, and no view here says so yet: what is for members only is held, and not acknowledged.
    Unknown,
    /// It has never joined: only what is open to anyone passes.
    Stranger,
    /// It was in a view and is not any more: `Removed`, for ever.
    Removed,
}

/// What a peer needs to know of the view to judge its standing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seat {
    pub(crate) views: Views,
    pub(crate) view: Option<ViewId>,
    /// It is in the view, and advertises these endpoints there.
    pub(crate) member: Option<Arc<[Place]>>,
    /// A view has removed it, or one of the two has left the other for good.
    pub(crate) gone: Option<Gone>,
}

impl Seat {
    /// `joined`: what the other side itself says.
    pub(crate) fn judge(&self, joined: Option<ViewId>) -> Standing {
        if self.gone.is_some() {
            return Standing::Removed;
        }
        match (self.views, self.view, joined) {
            _ if self.member.is_some() => Standing::Member,
            (Views::None, ..) | (Views::Agreed | Views::Local, _, None) => Standing::Stranger,
            (Views::Agreed, Some(view), Some(joined)) if joined <= view => Standing::Removed,
            (Views::Agreed | Views::Local, _, Some(_)) => Standing::Unknown,
        }
    }

    /// What somebody is told whose hello is refused because it is [`Standing::Removed`].
    pub(crate) fn refusal(&self, me: &Introduction) -> Reject {
        if self.gone == Some(Gone::Shunned) {
            // Its own view will tell it; until then it may ask again.
            return me.reject(Code::Closing, "this member was expelled");
        }
        me.reject(Code::Removed, "a view has removed you; who comes back needs a new id")
    }
}

/// Why somebody is not spoken with again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// A view removed it, or it said goodbye.
    Departed,
    /// It said that its view removed us, or we know it from a view of ours; ends with our next incarnation.
    Shunned,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Roster {
    views: Views,
    view: Option<Arc<View>>,
    /// The newest view there was, also when it did not hold this member.
    newest: Option<ViewId>,
    gone: HashMap<MemberId, Gone>,
    /// In the order in which they went: the oldest is forgotten first.
    order: VecDeque<MemberId>,
    /// Where members of the view can be reached, to notice a process in another's place.
    endpoints: HashMap<Endpoint, MemberId>,
    /// Members of the view, and whom evidence of their replacement was last about.
    replaced: HashMap<MemberId, MemberId>,
}

impl Roster {
    pub(crate) fn new(views: Views) -> Self {
        Self {
            views,
            view: None,
            newest: None,
            gone: HashMap::new(),
            order: VecDeque::new(),
            endpoints: HashMap::new(),
            replaced: HashMap::new(),
        }
    }

    pub(crate) const fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// Takes a view, if it is newer. An error but `Expelled` changes nothing.
    pub(crate) fn install(&mut self, me: MemberId, view: View) -> Result<ViewChange, ViewError> {
        if self.views == Views::None {
            return Err(ViewError::NoViews);
        }
        if let Some(installed) = self.newest.filter(|installed| view.id() <= *installed) {
            return Err(ViewError::NotNewer { installed, given: view.id() });
        }
        if let Some(member) = view.duplicate() {
            return Err(ViewError::Duplicate { view: view.id(), member });
        }
        self.newest = Some(view.id());
        self.replaced.clear();
        self.endpoints.clear();
        let before = self.view.take();
        if !view.contains(me) {
            return Err(ViewError::Expelled { view: view.id() });
        }
        let was = |id| before.as_ref().is_some_and(|before| before.contains(id));
        let ids = || view.members().iter().map(|member| member.id);
        let left = before.iter().flat_map(|before| before.members()).map(|member| member.id);
        let change = ViewChange {
            joined: ids().filter(|id| !was(*id)).collect(),
            left: left.filter(|id| !view.contains(*id)).collect(),
            gone: ids().filter(|id| self.gone.contains_key(id)).collect(),
        };
        for member in view.members().iter().filter(|member| member.id != me) {
            self.endpoints.extend(member.endpoints.iter().map(|endpoint| (endpoint.clone(), member.id)));
        }
        self.view = Some(Arc::new(view));
        change.left.iter().for_each(|left| self.note_gone(*left, Gone::Departed));
        Ok(change)
    }

    /// Somebody is not spoken with again under this id.
    pub(crate) fn note_gone(&mut self, id: MemberId, why: Gone) {
        if self.gone.insert(id, why).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > GONE_MAX {
            // By now its hello is judged by the view in which it joined.
            if let Some(oldest) = self.order.pop_front() {
                self.gone.remove(&oldest);
            }
        }
    }

    /// This process is another member from now on: it has no view, and whoever shunned it does not know it.
    pub(crate) fn begin_anew(&mut self) {
        self.view = None;
        self.newest = None;
        self.endpoints.clear();
        self.replaced.clear();
        self.gone.retain(|_, why| *why == Gone::Departed);
        self.order.retain(|id| self.gone.contains_key(id));
    }

    /// Whether `send` reaches it for the view's sake.
    pub(crate) fn is_member(&self, id: MemberId) -> bool {
        self.member(id).is_some() && !self.gone.contains_key(&id)
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.view.as_ref()?.member(id)
    }

    /// What a peer is told of the view.
    pub(crate) fn seat(&self, id: MemberId) -> Seat {
        let gone = self.gone.get(&id).copied();
        Seat {
            views: self.views,
            view: self.view.as_ref().map(|view| view.id()),
            member: self.member(id).filter(|_| gone.is_none()).map(places),
            gone,
        }
    }

    /// Another process says that it is where a member of the view should be: that member, once for each newcomer.
    pub(crate) fn replaced_by(&mut self, newcomer: &Member) -> Option<MemberId> {
        let at = |endpoint| self.endpoints.get(endpoint).filter(|old| **old != newcomer.id);
        let old = newcomer.endpoints.iter().find_map(at).copied()?;
        (self.replaced.insert(old, newcomer.id) != Some(newcomer.id)).then_some(old)
    }
}

/// Where a member is dialled, and under which name its certificate is expected.
fn places(member: &Member) -> Arc<[Place]> {
    let name: Option<Arc<str>> = (!member.name.is_empty()).then(|| member.name.as_str().into());
    member.endpoints.iter().map(|endpoint| Place { endpoint: endpoint.clone(), name: name.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MemberId = MemberId::from_parts(0, 1);

    fn id(number: u128) -> MemberId {
        MemberId::from_parts(0, number)
    }

    fn number(number: u64) -> ViewId {
        ViewId { generation: 1, number }
    }

    fn view(at: u64, ids: &[u128]) -> View {
        let member = |random: &u128| Member {
            id: id(*random),
            endpoints: vec![format!("10.0.0.{random}:7400").parse().unwrap()],
            name: String::new(),
            labels: Default::default(),
            joined: None,
        };
        View::new(number(at), ids.iter().map(member))
    }

    fn roster(views: Views) -> Roster {
        let mut roster = Roster::new(views);
        let change = roster.install(ME, view(5, &[1, 2, 3])).unwrap();
        assert_eq!((change.joined.len(), change.left.len()), (3, 0));
        roster
    }

    #[test]
    fn an_older_or_equal_view_is_ignored_and_said_so() {
        let mut roster = roster(Views::Agreed);
        for old in [4, 5] {
            let error = roster.install(ME, view(old, &[1])).unwrap_err();
            assert_eq!(error, ViewError::NotNewer { installed: number(5), given: number(old) });
        }
        assert!(roster.is_member(id(3)), "nothing has changed");
        let newer = View::new(ViewId { generation: 2, number: 0 }, view(1, &[1, 4]).members().to_vec());
        let change = roster.install(ME, newer).unwrap();
        assert_eq!(
            (change.joined, change.left),
            (vec![id(4)], vec![id(2), id(3)]),
            "a new generation is newer"
        );
    }

    #[test]
    fn a_view_without_me_says_that_i_was_expelled() {
        let mut roster = roster(Views::Agreed);
        let error = roster.install(ME, view(6, &[2, 3])).unwrap_err();
        assert_eq!(error, ViewError::Expelled { view: number(6) });
        assert!(!roster.is_member(id(2)), "no view holds anybody");
        assert!(roster.install(ME, view(6, &[1, 2])).is_err(), "older views do not bring it back");
    }

    #[test]
    fn the_joined_view_decides_between_removed_unknown_and_stranger() {
        let mut roster = roster(Views::Agreed);
        drop(roster.install(ME, view(6, &[1, 2])).unwrap());
        let judge = |roster: &Roster, of, joined: Option<u64>| roster.seat(id(of)).judge(joined.map(number));
        assert_eq!(judge(&roster, 2, Some(5)), Standing::Member);
        assert_eq!(judge(&roster, 2, None), Standing::Member, "it has not installed it yet");
        assert_eq!(judge(&roster, 3, Some(99)), Standing::Removed, "whatever it says");
        assert_eq!(judge(&roster, 9, Some(6)), Standing::Removed, "joined and left before we knew");
        assert_eq!(judge(&roster, 9, Some(7)), Standing::Unknown);
        assert_eq!(judge(&roster, 9, None), Standing::Stranger);
        let before = Roster::new(Views::Agreed);
        assert_eq!(judge(&before, 9, Some(1)), Standing::Unknown, "before the first view");
    }

    #[test]
    fn local_views_compare_no_numbers() {
        let mut roster = roster(Views::Local);
        drop(roster.install(ME, view(6, &[1, 2])).unwrap());
        assert_eq!(roster.seat(id(9)).judge(Some(number(1))), Standing::Unknown);
        assert_eq!(roster.seat(id(3)).judge(Some(number(99))), Standing::Removed);
    }

    #[test]
    fn without_views_everybody_is_a_stranger_and_none_is_installed() {
        let mut roster = Roster::new(Views::None);
        assert_eq!(roster.install(ME, view(1, &[1, 2])).unwrap_err(), ViewError::NoViews);
        assert_eq!(roster.seat(id(2)).judge(Some(number(1))), Standing::Stranger);
    }

    #[test]
    fn removal_survives_later_views_that_hold_the_member_again() {
        let mut roster = roster(Views::Agreed);
        drop(roster.install(ME, view(6, &[1, 2])).unwrap());
        let change = roster.install(ME, view(7, &[1, 2, 3])).unwrap();
        assert_eq!(change.gone, [id(3)]);
        assert!(!roster.is_member(id(3)));
        assert_eq!(roster.seat(id(3)).judge(Some(number(7))), Standing::Removed);
    }

    #[test]
    fn a_member_that_stands_twice_refuses_the_view() {
        let mut roster = roster(Views::Agreed);
        let error = roster.install(ME, view(6, &[1, 2, 2])).unwrap_err();
        assert_eq!(error, ViewError::Duplicate { view: number(6), member: id(2) });
        assert!(roster.is_member(id(3)), "nothing has changed");
    }

    #[test]
    fn a_new_incarnation_keeps_who_departed_and_forgets_who_shunned_it() {
        let mut roster = roster(Views::Agreed);
        roster.note_gone(id(2), Gone::Shunned);
        roster.note_gone(id(3), Gone::Departed);
        roster.begin_anew();
        let me = id(7);
        let change = roster.install(me, view(1, &[7, 2, 3])).unwrap();
        assert_eq!(change.gone, [id(3)], "numbers start anew, and who left stays away");
        assert!(roster.is_member(id(2)));
    }

    #[test]
    fn a_process_in_a_members_place_is_evidence_once() {
        let mut roster = roster(Views::Agreed);
        let mut newcomer = view(1, &[2]).members()[0].clone();
        assert_eq!(roster.replaced_by(&newcomer), None, "it is the member itself");
        newcomer.id = id(9);
        assert_eq!(roster.replaced_by(&newcomer), Some(id(2)));
        assert_eq!(roster.replaced_by(&newcomer), None, "said already");
        newcomer.id = id(10);
        assert_eq!(roster.replaced_by(&newcomer), Some(id(2)), "yet another one");
    }

    #[test]
    fn those_who_are_gone_are_remembered_within_bounds() {
        let mut roster = Roster::new(Views::Local);
        for number in 0..GONE_MAX as u128 + 10 {
            roster.note_gone(id(number), Gone::Departed);
        }
        assert_eq!((roster.gone.len(), roster.order.len()), (GONE_MAX, GONE_MAX));
        assert!(roster.seat(id(0)).gone.is_none() && roster.seat(id(20)).gone.is_some());
    }
}
