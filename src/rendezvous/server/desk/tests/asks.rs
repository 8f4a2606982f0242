//! What nodes ask of the log.

use super::hall::{Hall, TERM, id, routes};
use crate::rendezvous::state::{LeaseOp, Refused};
use crate::rendezvous::words::{ToNode, ToServer};

fn acquire(number: u64, name: &str) -> ToServer {
    ToServer::Lease { number, op: LeaseOp::Acquire { name: name.to_owned(), wait: false } }
}

#[test]
fn what_is_registered_is_told_once_however_many_changes_it_was() {
    let mut hall = Hall::with([1, 2]);
    hall.decides = false;
    hall.hears(1, routes(0, 1, [1]));
    hall.hears(1, routes(1, 2, [2]));
    hall.hears(1, routes(2, 3, [3]));
    assert!(hall.heard_by(1).is_empty(), "not before it is decided");
    hall.decides = true;
    hall.pump();
    assert_eq!(hall.copy(1).registered, 3);
    let told = hall.heard_by(1).into_iter().filter(|word| matches!(word, ToNode::Registered { .. })).count();
    assert!((1..=2).contains(&told), "{told}: the first went alone, the others together");
    assert_eq!(hall.state.routes_of(id(1)).count(), 3);
    assert!(hall.is_current(2));
}

#[test]
fn a_change_that_cannot_be_is_refused_with_the_reason() {
    let mut hall = Hall::with([1]);
    hall.hears(1, routes(4, 5, [1]));
    let behind = ToNode::Registered {
        term: crate::rendezvous::words::reign(1, TERM),
        changes: 5,
        refused: Some(Refused::RoutesBehind(0)),
    };
    assert_eq!(hall.heard_by(1), [&behind]);
    hall.hears(1, routes(0, 1, 0..4_000));
    let refused = hall.heard_by(1).last().copied().cloned();
    assert!(
        matches!(&refused, Some(ToNode::Registered { changes: 1, refused: Some(Refused::Unsound(why)), .. }) if why.contains("in parts")),
        "{refused:?}"
    );
    assert_eq!(hall.state.routes_of(id(1)).count(), 0);
}

#[test]
fn who_asks_too_much_is_handed_it_back_and_nobody_else_is() {
    let mut hall = Hall::with([1, 2]);
    hall.decides = false;
    let mut taken = 0;
    let back = loop {
        match hall.handed(1, acquire(taken, "a")) {
            Ok(()) => taken += 1,
            Err(back) => break back,
        }
        assert!(taken < 1_000, "it is bounded");
    };
    assert_eq!(*back, acquire(taken, "a"));
    assert!(hall.handed(2, acquire(1, "b")).is_ok());
    hall.decides = true;
    hall.pump();
    assert!(hall.handed(1, *back).is_ok());
    let told = hall.heard_by(1).into_iter().filter_map(|word| match word {
        ToNode::Lease { number, .. } => Some(*number),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), (0..=taken).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn a_lease_is_one_members_and_the_other_is_told_whose() {
    let mut hall = Hall::with([1, 2]);
    hall.hears(1, acquire(1, "a"));
    hall.hears(2, acquire(9, "a"));
    let mine = ToNode::Lease { term: crate::rendezvous::words::reign(1, TERM), number: 1, refused: None };
    let theirs = ToNode::Lease {
        term: crate::rendezvous::words::reign(1, TERM),
        number: 9,
        refused: Some(Refused::Held(id(1))),
    };
    assert!(hall.heard_by(1).contains(&&mine) && hall.heard_by(2).contains(&&theirs));
}

#[test]
fn who_was_not_welcomed_in_this_term_is_told_to_say_hello() {
    let mut hall = Hall::with([1]);
    hall.desk.handle_gone(id(1));
    hall.hears(1, routes(0, 1, [1]));
    assert!(matches!(hall.heard_by(1)[..], [ToNode::Later { .. }]));
    assert_eq!(hall.state.routes_of(id(1)).count(), 0);
}

#[test]
fn when_nobody_knows_what_was_decided_who_asked_is_told_to_say_hello() {
    let mut hall = Hall::with([1, 2]);
    hall.decides = false;
    hall.hears(1, routes(0, 1, [1]));
    hall.hello(3);
    hall.proposed.clear();
    hall.desk.handle_decided(hall.now, &hall.state, None);
    hall.pump();
    assert!(matches!(hall.heard_by(1).last(), Some(ToNode::Later { .. })), "{:?}", hall.heard_by(1));
    hall.decides = true;
    hall.pump();
    hall.hello(1);
    hall.hello(3);
    hall.hears(1, routes(0, 1, [1]));
    assert!(hall.is_current(1) && hall.is_current(2) && hall.is_current(3));
    assert_eq!(hall.copy(1).registered, 1);
}
