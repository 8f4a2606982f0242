//! Histories that are lost, and come back.

use super::hall::{CLUSTER, GATHER, Hall, SETTLE, id, member, view};
use crate::ViewId;
use crate::rendezvous::server::desk::Order;
use crate::rendezvous::state::{ClusterId, Refused, State};
use crate::rendezvous::words::{Known, Refusal, ToNode, ToServer};

const LOST: ClusterId = ClusterId(0x1057);

/// A node of the history that is lost.
fn of_before(n: u64, cluster: ClusterId, seen: ViewId) -> ToServer {
    let mut member = member(n);
    member.joined = Some(view(seen.generation, 1));
    let known = Known { cluster: Some(cluster), view: Some(seen), index: 90, term: 40 };
    ToServer::Hello { member, known, changes: 3 }
}

fn fresh() -> Hall {
    let mut hall = Hall::over(State::default(), 0);
    hall.pump();
    hall
}

#[test]
fn a_fresh_cluster_that_meets_a_node_of_another_history_lets_nobody_in() {
    let mut hall = fresh();
    hall.hears(1, of_before(1, LOST, view(4, 9)));
    assert_eq!(hall.state.suspended(), Some(view(4, 9)));
    assert_eq!(hall.refusal(1), Some(Refusal::AnotherHistory));
    hall.advance(SETTLE);
    hall.hello(2);
    assert_eq!(hall.refusal(2), Some(Refusal::Refused(Refused::NeedsRecovery(view(4, 9)))));
    assert_eq!(hall.state.members().len(), 0);
    // The highest of all that were seen counts.
    hall.hears(3, of_before(3, LOST, view(5, 1)));
    assert_eq!(hall.state.suspended(), Some(view(5, 1)));
}

#[test]
fn after_a_recovery_those_of_before_keep_their_places_and_late_ones_come_as_new() {
    let mut hall = fresh();
    hall.hears(1, of_before(1, LOST, view(4, 9)));
    hall.order(1, Order::Recover);
    assert_eq!(hall.answers, [(1, Ok(()))]);
    assert_eq!(hall.state.view_id(), view(5, 1), "above all that were seen");
    let before = hall.commands;
    for n in 1..=3 {
        hall.hears(n, of_before(n, LOST, view(4, 9)));
        assert!(matches!(hall.heard_by(n).last(), Some(ToNode::Later { .. })), "{:?}", hall.heard_by(n));
    }
    hall.hello(4);
    assert_eq!(hall.state.members().len(), 0);
    hall.advance(GATHER);
    assert_eq!(hall.commands - before, 1, "all in one");
    assert_eq!(hall.state.view_id(), view(5, 2));
    for n in 1..=3 {
        assert_eq!(hall.state.member(id(n)).unwrap().joined, Some(view(4, 1)), "it kept its place");
        assert!(hall.is_current(n));
    }
    assert_eq!(hall.state.member(id(4)).unwrap().joined, Some(view(5, 2)));
    hall.hears(5, of_before(5, LOST, view(4, 9)));
    assert!(matches!(hall.heard_by(5).last(), Some(ToNode::Evicted { .. })), "{:?}", hall.heard_by(5));
}

#[test]
fn who_has_not_seen_the_last_view_of_before_comes_as_new_because_that_may_have_dropped_it() {
    let mut hall = fresh();
    hall.hears(1, of_before(1, LOST, view(4, 8)));
    hall.order(1, Order::Recover);
    // Whoever comes first.
    for (n, number) in [(1, 8), (2, 9), (3, 8), (4, 9)] {
        hall.hears(n, of_before(n, LOST, view(4, number)));
    }
    hall.advance(GATHER);
    let there: Vec<_> = hall.state.members().map(|member| member.id).collect();
    assert_eq!(there, [id(2), id(4)]);
    for n in [1, 3] {
        assert!(matches!(hall.heard_by(n).last(), Some(ToNode::Evicted { .. })), "{:?}", hall.heard_by(n));
    }
}

/// As in the simulation, seed 683: nobody was let in until another server led.
#[test]
fn an_operator_who_recovers_before_the_suspension_is_decided_is_not_waited_for() {
    let mut hall = fresh();
    hall.decides = false;
    hall.order(1, Order::Recover);
    hall.hears(1, of_before(1, LOST, view(1, 5)));
    hall.decides = true;
    hall.pump();
    assert_eq!((hall.state.view_id(), hall.state.suspended()), (view(2, 1), None));
    hall.advance(GATHER);
    assert!(hall.state.member(id(1)).is_some() && hall.is_current(1), "{:?}", hall.heard_by(1));
}

#[test]
fn places_in_the_log_of_before_a_recovery_are_not_taken_for_those_after_it() {
    let mut hall = Hall::with([1, 2]);
    let before = hall.copy(2).known;
    hall.order(1, Order::Recover);
    assert!(hall.state.change_after(before.index).is_some(), "there is a change at that place");
    hall.copies.entry(id(2)).or_default().known = before;
    hall.said.clear();
    hall.hello(2);
    assert!(
        matches!(hall.heard_by(2)[..], [ToNode::Welcome { .. }, ToNode::Everything { .. }, ..]),
        "{:?}",
        hall.heard_by(2)
    );
}

#[test]
fn the_leader_after_the_one_that_recovered_gathers_as_well() {
    let mut hall = fresh();
    hall.hears(1, of_before(1, LOST, view(4, 9)));
    hall.order(1, Order::Recover);
    let mut next = Hall::over(std::mem::take(&mut hall.state), hall.index);
    next.hears(1, of_before(1, LOST, view(4, 9)));
    next.advance(GATHER);
    assert_eq!(next.state.member(id(1)).unwrap().joined, Some(view(4, 1)));
}

#[test]
fn a_cluster_with_members_refuses_a_node_of_another_and_goes_on() {
    let mut hall = Hall::with([1]);
    hall.hears(2, of_before(2, LOST, view(4, 9)));
    assert_eq!(hall.refusal(2), Some(Refusal::AnotherHistory));
    assert_eq!(hall.state.suspended(), None);
    hall.join(3);
    // Nor is one suspended that had members once.
    hall.hears(1, ToServer::Leave);
    hall.hears(3, ToServer::Leave);
    hall.hears(4, of_before(4, LOST, view(4, 9)));
    assert_eq!(hall.refusal(4), Some(Refusal::AnotherHistory));
    assert_eq!(hall.state.suspended(), None);
}

#[test]
fn a_cluster_with_members_can_be_recovered_above_the_history_that_it_refused() {
    let mut hall = Hall::with([1]);
    hall.hears(2, of_before(2, LOST, view(4, 9)));
    hall.order(1, Order::Recover);
    assert_eq!(hall.state.view_id(), view(5, 1));
    hall.hears(2, of_before(2, LOST, view(4, 9)));
    hall.advance(GATHER);
    // As in the simulation, seed 956: who was a member meanwhile has been told of a view without it, and would refuse it for ever.
    assert!(matches!(hall.heard_by(2).last(), Some(ToNode::Evicted { .. })), "{:?}", hall.heard_by(2));
    let there: Vec<_> = hall.state.members().map(|member| member.id).collect();
    assert_eq!(there, [id(1)]);
    hall.join(2 + 40);
    assert!(hall.is_current(1) && hall.is_current(42), "it comes as another one");
}

#[test]
fn a_node_of_this_cluster_that_knows_a_later_view_stops_it() {
    let mut hall = Hall::with([1, 2]);
    let later = view(1, hall.state.view_id().number + 1);
    let mut known = hall.copy(2).known;
    known.view = Some(later);
    assert_eq!(known.cluster, Some(CLUSTER));
    let member = hall.copy(2).member.clone().unwrap();
    hall.hears(2, ToServer::Hello { member, known, changes: 0 });
    assert_eq!(hall.state.suspended(), Some(later));
    let needs = Some(Refusal::Refused(Refused::NeedsRecovery(later)));
    assert_eq!(hall.refusal(2), needs);
    assert_eq!(hall.refusal(1), needs, "who was fed is told as well");
    assert!(!hall.copy(1).fed);
    hall.order(7, Order::Recover);
    hall.hello(1);
    assert!(hall.is_current(1) && hall.state.members().len() == 2, "members stay");
}

#[test]
fn a_leader_that_is_told_of_a_higher_term_says_nothing_more_to_that_node() {
    let mut hall = Hall::with([1, 2]);
    hall.copies.get_mut(&id(1)).unwrap().known.term = crate::rendezvous::words::reign(1, 8);
    hall.hello(1);
    hall.join(3);
    assert!(hall.heard_by(1).is_empty());
    assert_eq!(hall.desk.poll_higher(), Some(8));
    assert!(hall.is_current(2));
    // Terms of another cluster say nothing here.
    hall.hears(4, of_before(4, LOST, view(4, 9)));
    assert!(hall.refusal(4).is_some());
}
