//! The lease, alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::world::millis;
use crate::rendezvous::raft::lease::{Lease, Leases};

const LENGTH: Duration = millis_const(300);

const fn millis_const(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn voters(ids: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    ids.into_iter().collect()
}

fn leases(parts: &[BTreeSet<u64>]) -> Leases {
    let mut leases = Leases::new(1, LENGTH);
    leases.set_voters(parts);
    leases.handle_leading(5);
    leases
}

fn until(leases: &Leases, now: Instant) -> Option<Instant> {
    leases.lease(now).map(|Lease { term, until }| {
        assert_eq!(term, 5);
        until
    })
}

#[test]
fn it_lasts_from_when_the_append_left_that_made_the_majority() {
    let began = Instant::now();
    let mut leases = leases(&[voters(1..=5)]);
    assert_eq!(until(&leases, began), None);
    leases.handle_taken(5, 2, began + millis(10));
    assert_eq!(until(&leases, began + millis(20)), None, "two of five");
    leases.handle_taken(5, 3, began + millis(30));
    assert_eq!(until(&leases, began + millis(40)), Some(began + millis(310)));
    leases.handle_taken(5, 4, began + millis(50));
    assert_eq!(until(&leases, began + millis(60)), Some(began + millis(330)), "the third newest");
    leases.handle_taken(5, 3, began + millis(20));
    assert_eq!(
        until(&leases, began + millis(60)),
        Some(began + millis(330)),
        "late answers take nothing back"
    );
    assert_eq!(until(&leases, began + millis(330)), None);
}

#[test]
fn answers_of_another_term_and_of_learners_count_nothing() {
    let began = Instant::now();
    let mut leases = leases(&[voters(1..=3)]);
    leases.handle_taken(4, 2, began);
    leases.handle_taken(5, 9, began);
    assert_eq!(until(&leases, began), None);
    leases.handle_taken(5, 2, began);
    assert!(until(&leases, began).is_some());
    leases.handle_taken(4, 3, began);
    assert!(until(&leases, began).is_some());
    leases.handle_taken(6, 2, began);
    assert_eq!(until(&leases, began), None);
}

#[test]
fn while_servers_change_both_majorities_are_needed() {
    let began = Instant::now();
    let mut leases = leases(&[voters(1..=3), voters(2..=4)]);
    leases.handle_taken(5, 2, began + millis(10));
    assert_eq!(until(&leases, began + millis(20)), None, "of the new ones only one");
    leases.handle_taken(5, 4, began);
    assert_eq!(until(&leases, began + millis(20)), Some(began + millis(300)), "the earlier of both");
}

#[test]
fn it_ends_with_a_vote_for_another_and_with_the_leading() {
    let began = Instant::now();
    let mut leases = leases(&[voters(1..=3)]);
    leases.handle_taken(5, 2, began);
    leases.handle_vote(5);
    assert!(until(&leases, began).is_some(), "the vote of this term was its own");
    leases.handle_vote(6);
    assert_eq!(until(&leases, began), None);
    leases.handle_leading(5);
    assert_eq!(until(&leases, began), None, "what comes late from openraft");
    leases.handle_leading(7);
    leases.handle_taken(7, 3, began);
    assert_eq!(leases.lease(began).map(|lease| lease.term), Some(7));
    leases.handle_following();
    assert_eq!(leases.lease(began), None);
}

#[test]
fn alone_it_is_always_held() {
    let began = Instant::now();
    let leases = leases(&[voters([1])]);
    assert_eq!(until(&leases, began + millis(1_000_000)), Some(began + millis(1_000_300)));
    let none = Leases::new(1, LENGTH);
    assert_eq!(none.lease(began), None, "without a membership there is none");
}
