//! Leases that a node wants, holds and loses.

use std::time::Duration;

use super::super::{LeaseNews, Ticket};
use super::world::{World, member};
use crate::rendezvous::common::{LeaseOp, Refused, Token, Why};
use crate::rendezvous::state::Op;

fn joined() -> World {
    let mut world = World::new(1);
    world.join_other(50);
    world.run(Duration::from_secs(1));
    assert!(world.standing().is_joined());
    world
}

fn other(world: &mut World, op: LeaseOp) {
    world.decide(Op::Lease { member: member(50).id, op });
}

fn acquire_other(world: &mut World, name: &str) {
    other(world, LeaseOp::Acquire { name: name.to_owned(), wait: true });
}

fn granted(world: &World, ticket: Ticket) -> Token {
    match world.leases.get(&ticket) {
        Some(LeaseNews::Granted(token)) => *token,
        other => panic!("not granted: {other:?}"),
    }
}

#[test]
fn a_free_lease_is_granted_and_given_back() {
    let mut world = joined();
    let ticket = world.client.acquire("x", true).unwrap();
    world.settle();
    let token = granted(&world, ticket);
    assert_eq!(world.client.copy().lease("x"), Some((world.me, token)));
    world.client.release("x", ticket);
    world.settle();
    assert_eq!(world.client.copy().lease("x"), None);
    // And again at once, with a higher token, though the copy still shows the old one.
    let again = world.client.acquire("x", true).unwrap();
    world.settle();
    let first = granted(&world, again);
    world.client.release("x", again);
    let third = world.client.acquire("x", true).unwrap();
    world.settle();
    assert!(first > token && granted(&world, third) > first);
}

#[test]
fn one_that_another_member_holds_is_waited_for_or_refused() {
    let mut world = joined();
    acquire_other(&mut world, "x");
    let (wait, no) = (world.client.acquire("x", true).unwrap(), world.client.acquire("x", false).unwrap());
    world.settle();
    assert!(!world.leases.contains_key(&wait));
    other(&mut world, LeaseOp::Release { name: "x".to_owned() });
    world.settle();
    let token = granted(&world, wait);
    assert!(!world.leases.contains_key(&no), "behind the first of the same node");
    acquire_other(&mut world, "x");
    world.client.release("x", wait);
    world.settle();
    assert_eq!(world.leases[&no], LeaseNews::Refused(Refused::Held(member(50).id)));
    assert!(world.client.copy().lease("x").is_some_and(|(_, held)| held > token));
}

#[test]
fn eviction_ends_what_is_held_and_what_waits_asks_again() {
    let mut world = joined();
    acquire_other(&mut world, "busy");
    let (held, waits) =
        (world.client.acquire("x", true).unwrap(), world.client.acquire("busy", true).unwrap());
    world.settle();
    let token = granted(&world, held);
    world.decide(Op::Leave { member: world.me, why: Why::Silent });
    world.run(Duration::from_secs(2));
    assert_eq!((world.reborn, &world.leases[&held]), (1, &LeaseNews::Lost));
    assert!(world.client.copy().lease("x").is_none(), "and is nobody's");
    other(&mut world, LeaseOp::Release { name: "busy".to_owned() });
    world.settle();
    assert!(granted(&world, waits) > token);
    assert_eq!(world.client.copy().lease("busy").map(|(by, _)| by), Some(world.me));
}

#[test]
fn what_was_asked_of_a_leader_that_is_gone_is_asked_of_the_next() {
    let mut world = joined();
    let ticket = world.client.acquire("x", true).unwrap();
    world.drain();
    world.stop(0);
    world.elect(1);
    world.run(Duration::from_secs(6));
    let _token = granted(&world, ticket);
    // Released while nobody listens.
    world.stop(1);
    world.client.release("x", ticket);
    world.drain();
    world.elect(2);
    world.run(Duration::from_secs(6));
    assert_eq!(world.log.state.leases().count(), 0);
}

#[test]
fn a_want_that_was_dropped_is_not_granted_to_anybody_here_for_long() {
    let mut world = joined();
    acquire_other(&mut world, "x");
    let ticket = world.client.acquire("x", true).unwrap();
    world.settle();
    world.client.release("x", ticket);
    world.settle();
    other(&mut world, LeaseOp::Release { name: "x".to_owned() });
    world.settle();
    assert_eq!(world.log.state.leases().count(), 0, "nobody waits any more");
    // Dropped just as it is granted.
    let ticket = world.client.acquire("x", true).unwrap();
    world.drain();
    while world.deliver_out() {}
    world.client.release("x", ticket);
    world.settle();
    assert_eq!(world.log.state.leases().count(), 0);
}

#[test]
fn wants_are_bounded() {
    let mut world = joined();
    let full = |result: Result<Ticket, Refused>| matches!(result, Err(Refused::Full(_)));
    for number in 0..1024 {
        assert!(world.client.acquire(&number.to_string(), true).is_ok());
    }
    assert!(full(world.client.acquire("more", true)));
    for _ in 1..256 {
        assert!(world.client.acquire("0", true).is_ok());
    }
    assert!(full(world.client.acquire("0", true)));
}
