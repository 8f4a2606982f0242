//! Parts of a peer alone: a search that fails, names that were sent, books of datagrams, what is told of types.

use std::time::Duration;

use super::super::*;
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::{CREDIT, surroundings};
use super::solo::Solo;
use crate::limits::{REDIAL_MAX, TYPES_MAX};
use crate::member::{Member, View};
use crate::session::Lost;
use crate::wire::{Class, Protocol};

fn search(now: Instant) -> Search {
    let with = surroundings(MemberId::from_parts(2, 2), CREDIT);
    Search::new(with, "10.0.0.1:7400".parse::<Endpoint>().unwrap(), now, None, 1)
}

#[test]
fn a_search_that_comes_to_nothing_asks_again_after_a_pause() {
    let mut now = Instant::now();
    let mut search = search(now);
    for _ in 0..5 {
        let dial = search.poll_dial(now).unwrap();
        search.handle_failed(now, LinkId(99), "of another dial".to_owned());
        assert!(search.poll_timeout().unwrap() > now, "its deadline");
        search.handle_failed(now, dial.link, "refused".to_owned());
        assert_eq!(search.poll_dial(now), None, "not at once");
        let next = search.poll_timeout().unwrap();
        assert!(next > now && next <= now + REDIAL_MAX * 2);
        now = next;
    }
    assert!(search.poll_dial(now).is_some());
}

#[test]
fn a_refusal_that_passes_ends_no_search_and_is_told_to_nobody() {
    let now = Instant::now();
    let mut search = search(now);
    let dial = search.poll_dial(now).unwrap();
    let them = surroundings(MemberId::from_parts(1, 1), CREDIT).me;
    let busy = FirstBytes::Reject(Box::new(them.reject(Code::Busy, "")));
    assert!(search.handle_reply(now, dial.link, busy).is_none());
    assert!(search.poll_timeout().is_some());
    let mut solo = Solo::contact();
    let (link, _) = solo.dial();
    let busy = solo.reject(Code::Busy);
    assert!(!solo.reply(link, busy));
    assert!(!solo.events().iter().any(|event| matches!(event, PeerEvent::Refused { .. })));
    assert!(solo.dial_within(Duration::from_secs(2)).is_some(), "and it is dialled again soon");
}

#[test]
fn a_hello_says_how_large_a_message_may_be() {
    let mut solo = Solo::contact();
    let (_, hello) = solo.dial();
    assert_eq!(hello.message_bytes, solo.with.config.session.inbox.message_bytes_max as u64);
}

#[test]
fn a_name_is_known_once_all_peers_were_compared_with_it() {
    let names = SentNames::default();
    for (hash, name) in [(7, "seven"), (u32::MAX, "the last")] {
        assert!(names.add(hash, name), "new");
        assert!(!names.add(hash, name), "and then not");
        assert!(!names.knows(hash, name), "nobody was compared with it");
        names.settle(hash, name);
        assert!(names.knows(hash, name));
        assert!(!names.knows(hash, "another"));
        assert!(!names.clashes(hash, name) && names.clashes(hash, "another"));
    }
    for hash in 0..TYPES_MAX as u32 {
        names.add(hash, "one of many");
    }
    assert!(!names.add(5_000_000, "one too many"));
}

#[test]
fn sums_of_datagrams_add_every_count() {
    let one = DatagramStats {
        waiting: 1,
        sent: 2,
        no_link: 3,
        full: 4,
        expired: 5,
        not_taken: 6,
        received: 7,
        no_handler: 8,
        overrun: 9,
        not_admitted: 10,
        malformed: 11,
    };
    let mut sum = one;
    sum.add(&one);
    let twice = DatagramStats {
        waiting: 2,
        sent: 4,
        no_link: 6,
        full: 8,
        expired: 10,
        not_taken: 12,
        received: 14,
        no_handler: 16,
        overrun: 18,
        not_admitted: 20,
        malformed: 22,
    };
    assert_eq!(sum, twice);
}

#[test]
fn datagrams_that_no_handler_takes_are_counted() {
    let solo = Solo::new();
    solo.peer.datagrams().note_no_handler();
    (0..2).for_each(|_| solo.peer.datagrams().note_overrun());
    let stats = solo.peer.datagrams().stats();
    assert_eq!((stats.no_handler, stats.overrun), (1, 2));
}

#[test]
fn what_nothing_says_again_is_final() {
    let peer = MemberId::from_parts(2, 2);
    for event in [
        PeerEvent::Left { peer },
        PeerEvent::Replaced { old: peer, new: peer },
        PeerEvent::Expelled { by: peer },
    ] {
        assert!(event.is_final(), "{event:?}");
    }
    assert!(!PeerEvent::Connected { peer }.is_final());
}

#[test]
fn members_of_a_view_are_told_of_types_that_are_for_members() {
    let mut pair = Pair::new(CREDIT);
    pair.sides[B].types = Arc::new(vec![TypeEntry {
        protocol: Protocol::APPLICATION,
        hash: 1,
        version: 1,
        open: false,
        any: false,
        name: "for.members".to_owned(),
    }]);
    let id = ViewId { generation: 1, number: 1 };
    let member = |id| Member {
        id,
        endpoints: vec!["10.0.0.1:7400".parse().unwrap()],
        name: String::new(),
        labels: Default::default(),
        joined: None,
    };
    let view = View::new(id, [A, B].map(|side| member(pair.id(side))));
    for side in [A, B] {
        drop(pair.sides[side].install(pair.now, view.clone()).unwrap());
        pair.peer(side);
    }
    let stream = StreamId::new(Protocol::APPLICATION, Class::Normal, false);
    let tag = pair.send_on(A, stream, 10).unwrap();
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Ok::<(), Lost>(())), "its hash is its tag, 1");
}
