//! When a desk may speak, and to whom.

use std::time::Duration;

use super::hall::{Hall, PING, SETTLE, founded, id, member, routes};
use crate::rendezvous::server::desk::Order;
use crate::rendezvous::state::{Op, encode};
use crate::rendezvous::words::{Health, Pong, ToNode};

#[test]
fn outside_its_lease_nothing_is_said_or_proposed_but_that_one_asks_later() {
    let mut hall = Hall::with([1, 2]);
    hall.leased = false;
    let (commands, pings) = (hall.commands, hall.pings);
    hall.hello(3);
    hall.hears(1, routes(0, 1, [1]));
    hall.order(5, Order::Evict(id(2)));
    // Another leader's decision is seen by all servers.
    hall.apply(&encode(&[Op::Join { member: member(9), keep: false }]));
    hall.advance(PING * 3);
    assert!(hall.said.iter().all(|(_, word)| matches!(word, ToNode::Later { .. })), "{:?}", hall.said);
    assert!(!hall.heard_by(3).is_empty() && !hall.heard_by(1).is_empty());
    assert_eq!((hall.commands, hall.pings), (commands, pings));
    assert!(matches!(&hall.answers[..], [(5, Err(why))] if why.contains("nothing has changed")));
    hall.leased = true;
    hall.hello(1);
    hall.hello(3);
    assert!(hall.is_current(1) && hall.is_current(2) && hall.is_current(3));
}

#[test]
fn a_lease_that_ends_between_two_words_ends_the_second() {
    let mut hall = Hall::with([1, 2]);
    hall.apply(&encode(&[Op::Join { member: member(9), keep: false }]));
    hall.desk.handle_applied(hall.now, &hall.state);
    assert!(hall.desk.speaks(hall.now));
    let after = hall.now + Duration::from_secs(1);
    assert_eq!(hall.desk.poll_send(after, &hall.state), None);
    assert_eq!(hall.desk.poll_proposal(after), None);
    assert!(hall.desk.poll_send(hall.now, &hall.state).is_some());
}

#[test]
fn after_a_time_without_a_lease_everybody_is_given_time_again() {
    let mut hall = Hall::with([1, 2, 3]);
    hall.alive.clear();
    hall.leased = false;
    hall.advance(PING * 20);
    hall.leased = true;
    // The judge alone would forgive them what it slept; they are given the time to come back on top.
    hall.advance(SETTLE + PING * 4);
    assert!((1..=3).all(|n| hall.desk.health_of(id(n)) != Health::Silent));
    hall.alive = [id(1), id(2), id(3)].into();
    hall.advance(PING * 10);
    assert_eq!(hall.state.members().len(), 3);
    assert!((1..=3).all(|n| hall.desk.health_of(id(n)) == Health::Healthy));
}

#[test]
fn a_new_leader_judges_nobody_before_they_could_find_it_and_answer() {
    let mut state = founded();
    for n in 1..=4 {
        state.apply(1 + n, &encode(&[Op::Join { member: member(n), keep: false }]));
    }
    let mut hall = Hall::over(state, 5);
    hall.advance(SETTLE + PING * 5 - Duration::from_millis(1));
    assert_eq!(hall.state.members().len(), 4);
    assert!((1..=4).all(|n| hall.desk.health_of(id(n)) != Health::Silent));
    hall.advance(PING * 60);
    assert!(hall.state.members().len() < 4, "but not for ever");
}

#[test]
fn what_waits_for_the_log_is_not_proposed_outside_the_lease() {
    let mut hall = Hall::with([1]);
    hall.decides = false;
    hall.hears(1, routes(0, 1, [1]));
    hall.hears(1, routes(1, 2, [2]));
    let commands = hall.commands;
    hall.leased = false;
    hall.decide();
    hall.pump();
    assert_eq!(hall.commands, commands);
    hall.leased = true;
    hall.pump();
    assert_eq!(hall.commands, commands + 1);
}

#[test]
fn a_pong_of_another_term_is_nobodys_sign_of_life() {
    let mut hall = Hall::with([1, 2]);
    hall.alive.remove(&id(1));
    for _ in 0..4 {
        hall.advance(PING);
        let stale = Pong { term: super::hall::TERM - 1, number: 1 };
        hall.desk.handle_pong(hall.now, id(1), stale);
    }
    hall.pump();
    assert_eq!(hall.desk.health_of(id(1)), Health::Suspected);
    assert_eq!(hall.desk.health_of(id(2)), Health::Healthy);
}

#[test]
fn health_is_told_when_it_changes_and_whole_to_newcomers() {
    let mut hall = Hall::with([1, 2, 3]);
    hall.alive.remove(&id(3));
    hall.advance(PING * 4);
    let told: Vec<_> = hall
        .heard_by(1)
        .into_iter()
        .filter_map(|word| match word {
            ToNode::Health { all, changed, .. } => Some((*all, changed.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(false, vec![(id(3), Health::Suspected)])]);
    hall.join(4);
    let whole = |word: &&ToNode| matches!(word, ToNode::Health { all: true, changed, .. } if changed[..] == [(id(3), Health::Suspected)]);
    assert_eq!(hall.heard_by(4).into_iter().filter(whole).count(), 1);
}

#[test]
fn tools_are_answered_when_it_is_decided() {
    let mut hall = Hall::with([1, 2]);
    hall.decides = false;
    hall.order(1, Order::Evict(id(1)));
    assert!(hall.answers.is_empty());
    hall.decides = true;
    hall.pump();
    assert_eq!(hall.answers, [(1, Ok(()))]);
    assert!(matches!(hall.heard_by(1).last(), Some(ToNode::Evicted { .. })));
    hall.order(2, Order::Evict(id(1)));
    assert!(matches!(&hall.answers[..], [_, (2, Err(why))] if why.contains("not a member")));
    // Nobody knows.
    hall.decides = false;
    hall.order(3, Order::Evict(id(2)));
    hall.desk.handle_decided(hall.now, &hall.state, None);
    hall.pump();
    assert!(matches!(&hall.answers[2..], [(3, Err(why))] if why.contains("nobody knows")));
}
