//! Who is let in, and who goes.

use std::time::Duration;

use super::hall::{Hall, PING, SETTLE, founded, id, member, routes, view};
use crate::rendezvous::state::{GENERATION_MAX, Op, Refused, State, Why, encode};
use crate::rendezvous::words::{Known, Refusal, ToNode, ToServer};

#[test]
fn a_cluster_without_members_lets_in_the_first_only_after_it_has_settled() {
    let mut hall = Hall::over(State::default(), 0);
    hall.pump();
    hall.hello(1);
    assert!(
        matches!(hall.heard_by(1)[..], [ToNode::Later { after, .. }] if *after <= SETTLE && !after.is_zero())
    );
    hall.advance(SETTLE - Duration::from_millis(10));
    assert_eq!(hall.state.members().len(), 0);
    hall.advance(Duration::from_millis(10));
    assert!(hall.is_current(1) && hall.state.members().len() == 1, "without another hello");
}

#[test]
fn a_leader_of_a_cluster_with_members_lets_in_at_once() {
    let mut state = founded();
    state.apply(2, &encode(&[Op::Join { member: member(1), keep: false }]));
    let mut hall = Hall::over(state, 2);
    hall.hello(2);
    assert!(hall.is_current(2));
}

#[test]
fn a_hundred_that_come_while_one_command_is_under_way_are_few_views() {
    let mut hall = Hall::open();
    hall.decides = false;
    (1..=101).for_each(|n| hall.hello(n));
    assert_eq!(hall.commands, 2, "the founding, and the first join");
    hall.decides = true;
    hall.pump();
    assert_eq!(hall.state.members().len(), 101);
    assert!(hall.state.view_id().number <= 3, "{}", hall.state.view_id());
    assert!((1..=101).all(|n| hall.is_current(n)));
}

#[test]
fn a_member_that_says_hello_again_keeps_its_place_and_is_told_only_what_it_missed() {
    let mut hall = Hall::with([1, 2]);
    let joined = hall.copy(1).member.clone();
    hall.hears(2, routes(0, 1, [5]));
    hall.said.clear();
    hall.desk.handle_gone(id(1));
    hall.hears(2, routes(1, 2, [6]));
    assert!(hall.heard_by(1).is_empty());
    hall.hello(1);
    let heard = hall.heard_by(1);
    assert!(
        matches!(
            heard[..],
            [ToNode::Welcome { .. }, ToNode::Change { .. }, ToNode::Health { all: true, .. }]
        ),
        "{heard:?}"
    );
    assert_eq!(hall.copy(1).member, joined);
    assert!(hall.is_current(1));
}

#[test]
fn who_leaves_is_told_when_it_is_decided_and_the_others_hear_of_it() {
    let mut hall = Hall::with([1, 2]);
    hall.decides = false;
    hall.hears(1, ToServer::Leave);
    assert!(hall.heard_by(1).is_empty(), "not before it is decided");
    hall.decides = true;
    hall.pump();
    assert!(
        matches!(hall.heard_by(1)[..], [ToNode::Farewell { .. }]),
        "and nothing after it: {:?}",
        hall.heard_by(1)
    );
    assert!(hall.is_current(2) && hall.state.members().len() == 1);
    assert!(!hall.desk.audience().contains(&id(1)));
    hall.hears(1, ToServer::Leave);
    assert!(matches!(hall.heard_by(1)[..], [_, ToNode::Farewell { .. }]), "said again, answered again");
}

#[test]
fn who_leaves_while_it_joins_is_told_farewell() {
    let mut hall = Hall::open();
    hall.decides = false;
    hall.hello(9);
    hall.hello(1);
    hall.hears(1, ToServer::Leave);
    hall.decides = true;
    hall.pump();
    assert!(matches!(hall.heard_by(1).last(), Some(ToNode::Farewell { .. })), "{:?}", hall.heard_by(1));
    assert!(hall.state.member(id(1)).is_none() && hall.state.member(id(9)).is_some());
}

#[test]
fn who_leaves_and_falls_silent_before_that_is_decided_is_told_farewell() {
    let mut hall = Hall::with([1]);
    hall.decides = false;
    hall.hears(1, ToServer::Leave);
    hall.alive.clear();
    hall.advance(PING * 20);
    hall.decides = true;
    while !hall.proposed.is_empty() {
        hall.decide();
        hall.pump();
    }
    assert!(matches!(hall.heard_by(1).last(), Some(ToNode::Farewell { .. })), "{:?}", hall.heard_by(1));
    assert_eq!(hall.state.members().len(), 0);
}

#[test]
fn who_was_a_member_and_is_not_is_told_so_and_not_let_in_under_that_id() {
    let mut hall = Hall::with([1, 2]);
    hall.hears(1, ToServer::Leave);
    hall.said.clear();
    let commands = hall.commands;
    hall.hello(1);
    assert!(matches!(hall.heard_by(1)[..], [ToNode::Evicted { .. }]), "{:?}", hall.heard_by(1));
    // Also if it never heard that it was one.
    hall.said.clear();
    hall.hears(1, ToServer::Hello { member: member(1), known: Known::default(), changes: 0 });
    assert!(matches!(hall.heard_by(1)[..], [ToNode::Evicted { .. }]), "{:?}", hall.heard_by(1));
    assert_eq!(hall.commands, commands, "and the log is not asked");
    // Nor one of which nothing is known any more.
    let mut old = member(3);
    old.joined = Some(view(1, 1));
    hall.hears(3, ToServer::Hello { member: old, known: Known::default(), changes: 0 });
    assert!(matches!(hall.heard_by(3)[..], [ToNode::Evicted { .. }]), "{:?}", hall.heard_by(3));
}

#[test]
fn a_silent_member_goes_and_is_told_if_it_lives() {
    let mut hall = Hall::with([1, 2, 3]);
    assert!(falls_silent(&mut hall) <= 8);
}

#[test]
fn members_that_have_left_are_not_missed_when_one_falls_silent() {
    let mut hall = Hall::with(1..=8);
    (4..=8).for_each(|n| hall.hears(n, ToServer::Leave));
    assert!(falls_silent(&mut hall) <= 8, "one of three is no crowd");
}

/// How many pings pass until number 3 is evicted, if 1 and 2 say that they do not reach it.
fn falls_silent(hall: &mut Hall) -> u32 {
    hall.alive.remove(&id(3));
    for pings in 1..=40 {
        hall.advance(PING);
        let said: Vec<_> = hall.said.drain(..).collect();
        for (witness, word) in said {
            if let ToNode::Probe { member, .. } = word {
                let n = if witness == id(1) { 1 } else { 2 };
                hall.hears(n, ToServer::Probed { member, answered: false });
            }
            if matches!(word, ToNode::Evicted { why: Some(Why::Silent), .. }) {
                assert_eq!(witness, id(3));
                assert!(hall.state.member(id(3)).is_none());
                return pings;
            }
        }
    }
    panic!("it was never evicted");
}

#[test]
fn a_restart_at_the_same_address_takes_the_place_of_the_run_before_within_two_pings() {
    let mut hall = Hall::with([1, 2]);
    hall.alive.remove(&id(1));
    let mut again = member(1);
    again.id = id(51);
    hall.copies.entry(id(51)).or_default().member = Some(again);
    hall.hello(51);
    assert!(hall.state.member(id(51)).is_none(), "the other may live");
    hall.advance(PING * 2);
    assert!(hall.state.member(id(51)).is_some() && hall.state.member(id(1)).is_none());
    let told = hall.heard_by(1);
    assert!(matches!(told.last(), Some(ToNode::Evicted { why: Some(Why::Replaced), .. })), "{told:?}");
    assert_eq!(hall.state.view_id(), view(1, 3), "both in one view");
    assert!(hall.is_current(2) && hall.is_current(51));
}

#[test]
fn a_namesake_that_lives_is_not_replaced() {
    let mut hall = Hall::with([1, 2]);
    let mut twin = member(1);
    twin.id = id(51);
    hall.copies.entry(id(51)).or_default().member = Some(twin);
    hall.alive.insert(id(51));
    hall.hello(51);
    hall.advance(PING * 2);
    assert!(hall.state.member(id(51)).is_some() && hall.state.member(id(1)).is_some());
}

#[test]
fn a_member_that_has_not_found_a_new_leader_yet_is_not_replaced() {
    let mut state = founded();
    state.apply(2, &encode(&[Op::Join { member: member(1), keep: false }]));
    let mut hall = Hall::over(state, 2);
    let mut twin = member(1);
    twin.id = id(51);
    hall.copies.entry(id(51)).or_default().member = Some(twin);
    hall.hello(51);
    hall.advance(SETTLE - Duration::from_millis(10));
    assert!(hall.state.member(id(1)).is_some());
    hall.advance(Duration::from_millis(20));
    assert!(hall.state.member(id(1)).is_none() && hall.state.member(id(51)).is_some());
}

#[test]
fn nonsense_is_refused_with_what_is_wrong_and_leaves_nothing_behind() {
    let mut hall = Hall::with([1]);
    let known = Known::default();
    hall.hears(2, ToServer::Hello { member: member(3), known, changes: 0 });
    let wrong = |hall: &Hall| match hall.refusal(2) {
        Some(Refusal::Refused(Refused::Unsound(why))) => why,
        other => panic!("{other:?}"),
    };
    assert!(wrong(&hall).contains("it says that it is"));
    let known = Known { view: Some(view(1 << 20, 1)), ..Known::default() };
    hall.hears(2, ToServer::Hello { member: member(2), known, changes: 0 });
    assert!(wrong(&hall).contains("generation"));
    let mut large = member(2);
    large.labels.insert("x".into(), "y".repeat(64 * 1024));
    hall.hears(2, ToServer::Hello { member: large, known: Known::default(), changes: 0 });
    assert!(wrong(&hall).contains("bytes"));
    let mut nowhere = member(2);
    nowhere.endpoints.clear();
    hall.hears(2, ToServer::Hello { member: nowhere, known: Known::default(), changes: 0 });
    assert!(wrong(&hall).contains("where it can be reached"));
    assert!(!hall.desk.audience().contains(&id(2)));
    assert_eq!(hall.state.members().len(), 1);
}

#[test]
fn who_says_nonsense_is_fed_no_more_until_it_says_something_sound() {
    let mut hall = Hall::with([1, 2]);
    let nonsense = ToServer::Hello { member: member(2), known: Known::default(), changes: 0 };
    hall.hears(1, nonsense);
    assert!(matches!(hall.refusal(1), Some(Refusal::Refused(Refused::Unsound(_)))));
    hall.join(3);
    // The copy of who is fed no more panics at a change; here is nothing after the refusal.
    assert!(matches!(hall.heard_by(1).last(), Some(ToNode::Refused { .. })));
    hall.hello(1);
    assert!(hall.is_current(1));
}

#[test]
fn a_view_above_which_no_generation_is_left_stops_nobody() {
    for (n, seen) in [(3, view(GENERATION_MAX, 1)), (4, view(u64::MAX, u64::MAX))] {
        let mut hall = Hall::with([1, 2]);
        let known = Known { cluster: hall.state.cluster(), view: Some(seen), ..Known::default() };
        hall.hears(n, ToServer::Hello { member: member(n), known, changes: 0 });
        assert!(matches!(hall.refusal(n), Some(Refusal::Refused(Refused::Unsound(_)))), "{seen}");
        assert_eq!(hall.state.suspended(), None);
        hall.join(5);
        assert!(hall.is_current(1) && hall.is_current(5));
    }
}
