//! Who is put off, and who comes again and again.

use std::time::Duration;

use super::hall::{Hall, PING, id, view};
use crate::rendezvous::damp::errors_of;
use crate::rendezvous::state::ClusterId;
use crate::rendezvous::words::{Refusal, ToNode};

/// When number 3 was told to come again.
fn put_off(hall: &Hall) -> Vec<Duration> {
    let after = |word: &&ToNode| match word {
        ToNode::Later { after, .. } => Some(*after),
        _ => None,
    };
    hall.heard_by(3).iter().filter_map(after).collect()
}

#[test]
fn who_came_while_it_could_not_speak_is_called_as_soon_as_it_can() {
    let mut hall = Hall::with([1]);
    hall.leased = false;
    hall.hello(3);
    assert_eq!(put_off(&hall), [PING]);
    hall.said.clear();
    hall.leased = true;
    hall.advance(Duration::from_millis(1));
    assert_eq!(put_off(&hall), [Duration::ZERO]);
    hall.said.clear();
    hall.advance(PING);
    assert!(hall.heard_by(3).is_empty(), "once");
    hall.hello(3);
    assert!(hall.is_current(3));
}

#[test]
fn a_node_of_another_history_is_logged_once_a_minute_and_refused_each_time() {
    let mut hall = Hall::with([1]);
    let other = hall.copies.entry(id(5)).or_default();
    (other.known.cluster, other.known.view) = (Some(ClusterId(0xBAD)), Some(view(1, 9)));
    let errors = errors_of(|| {
        for _ in 0..20 {
            hall.hello(5);
            hall.advance(PING);
        }
    });
    let refused = |word: &&&ToNode| matches!(word, ToNode::Refused { why: Refusal::AnotherHistory, .. });
    assert_eq!(hall.heard_by(5).iter().filter(refused).count(), 20, "{:?}", hall.said);
    assert_eq!(errors, 1);
}
