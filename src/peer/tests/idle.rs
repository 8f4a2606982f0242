//! Idle links: when one closes, who keeps it, and what comes after.

use std::time::Duration;

use super::super::reason::Reasons;
use super::super::*;
use super::net::{Door, Fate, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::CREDIT;
use super::solo::Solo;
use crate::limits::{ACK_DELAY, IDLE, RESUME_LEASE};

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(last: u8) -> Endpoint {
    std::net::SocketAddr::from(([10, 0, 0, last], 7400)).into()
}

fn hold(pair: &mut Pair, side: usize) {
    pair.peer(side).hold_as_member(vec![endpoint(1)]);
}

/// Members of one view for each other, linked by a message that was handled.
fn members() -> Pair {
    let mut pair = Pair::new(CREDIT);
    hold(&mut pair, A);
    hold(&mut pair, B);
    pair.send(A, 10);
    pair.settle();
    assert!(pair.same_link().is_some());
    pair
}

fn is_linked(pair: &Pair) -> bool {
    pair.same_link().is_some()
}

fn rooms(pair: &Pair) -> Vec<&Peer> {
    pair.sides.iter().flat_map(|side| side.rooms.values()).map(|room| &room.peer).collect()
}

fn idle(peer: MemberId) -> PeerEvent {
    PeerEvent::Disconnected { peer, reason: Disconnect::Idle }
}

#[test]
fn an_idle_link_closes_on_both_sides_the_session_stays_and_the_next_message_dials_again() {
    for sender in [A, B] {
        let mut pair = members();
        let epochs: Vec<_> = rooms(&pair).iter().map(|peer| peer.session().epoch()).collect();
        pair.run(IDLE - SECOND);
        assert!(is_linked(&pair), "pings keep it so long");
        pair.run(SECOND * 2);
        assert!(rooms(&pair).iter().all(|peer| peer.live_link().is_none()));
        for side in [A, B] {
            assert_eq!(pair.sides[side].events.last(), Some(&idle(pair.id(1 - side))), "and nothing else");
        }
        let dials = pair.conns.len();
        pair.run(RESUME_LEASE + IDLE);
        assert_eq!((rooms(&pair).len(), pair.conns.len()), (2, dials), "no dial and no end without a need");
        pair.send(sender, 10);
        let took = pair.finish(SECOND, true);
        assert!(took < ACK_DELAY + Duration::from_millis(10), "at once: {took:?}");
        assert_eq!(epochs, rooms(&pair).iter().map(|peer| peer.session().epoch()).collect::<Vec<_>>());
    }
}

#[test]
fn messages_are_use_and_pings_are_not() {
    let mut pair = members();
    for _ in 0..6 {
        pair.run(IDLE - SECOND);
        pair.send(B, 10);
    }
    assert_eq!((is_linked(&pair), pair.conns.len()), (true, 1));
    pair.run(IDLE + SECOND);
    assert!(!is_linked(&pair));
    pair.check_ends(true);
}

#[test]
fn a_contact_on_either_side_keeps_the_link_however_idle() {
    for side in [A, B] {
        let mut pair = Pair::new(CREDIT);
        hold(&mut pair, 1 - side);
        hold(&mut pair, side);
        pair.add_contact(side);
        pair.run(IDLE * 3);
        assert_eq!((is_linked(&pair), pair.conns.len()), (true, 1), "{side}");
        for room in [A, B] {
            let now = pair.now;
            assert!(!pair.peer(room).close_idle(now), "nor is it closed because there are too many");
        }
        pair.peer(side).remove_contact(ContactId(1));
        pair.run(IDLE + SECOND);
        assert!(!is_linked(&pair), "who dropped it knows");
    }
}

#[test]
fn who_could_not_dial_again_keeps_the_link_until_it_can() {
    let mut pair = Pair::new(CREDIT);
    hold(&mut pair, A);
    pair.send(A, 10);
    pair.run(IDLE * 3 + RESUME_LEASE);
    assert_eq!((is_linked(&pair), pair.conns.len()), (true, 1), "only the dial of A holds the session of B");
    hold(&mut pair, B);
    pair.run(IDLE + SECOND);
    assert!(!is_linked(&pair));
    assert_eq!(rooms(&pair).len(), 2);
    pair.send(B, 10);
    pair.finish(SECOND, true);
}

#[test]
fn a_link_on_which_something_is_under_way_is_not_idle() {
    let mut pair = members();
    pair.sides[B].slow = true;
    let tag = pair.send(A, 10);
    pair.run(IDLE * 5 / 2);
    let now = pair.now;
    assert!(is_linked(&pair) && !pair.peer(A).close_idle(now) && !pair.peer(B).close_idle(now));
    assert_eq!(pair.end_of(tag), Some(Ok(())), "acknowledged, and its handler is not done");
    pair.sides[B].slow = false;
    pair.settle();
    pair.run(IDLE - SECOND);
    assert!(is_linked(&pair), "the report of the handler was use");
    pair.run(SECOND * 3);
    assert!(!is_linked(&pair));
}

#[test]
fn never_is_never() {
    let mut pair = Pair::new(CREDIT);
    pair.sides.iter_mut().for_each(|side| side.with.config.idle = Duration::MAX);
    hold(&mut pair, A);
    hold(&mut pair, B);
    pair.send(A, 10);
    pair.run(IDLE * 5);
    assert_eq!((is_linked(&pair), pair.conns.len()), (true, 1));
}

#[test]
fn a_message_that_crosses_the_close_arrives() {
    for sender in [A, B] {
        let mut pair = members();
        let closer = 1 - sender;
        pair.send(sender, 10);
        let now = pair.now;
        assert!(pair.peer(closer).close_idle(now), "it cannot know yet");
        let took = pair.finish(SECOND, true);
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
}

#[test]
fn who_hears_idle_dials_again_only_if_a_contact_or_a_message_wants_it_and_never_as_a_storm() {
    let close = || Frame::Close { code: Code::Idle, text: String::new() };
    let mut solo = Solo::new();
    solo.peer.hold_as_member(vec![endpoint(1)]);
    let (link, _) = solo.accept(&solo.hello((1, 1), 1, 0)).unwrap();
    solo.frame(link, close());
    assert_eq!(solo.dial_within(SECOND * 60), None);
    assert_eq!(solo.events().last(), Some(&idle(solo.peer.id())));
    drop(solo.send());
    let start = solo.now;
    let mut dials = 0;
    while solo.now < start + SECOND * 10 && dials < 1000 {
        let link = solo.link();
        solo.frame(link, close());
        dials += 1;
    }
    assert!((5..30).contains(&dials), "{dials} dials in ten seconds");
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.frame(link, close());
    assert!(solo.dial_within(SECOND).is_some(), "a contact wants its link");
}

#[test]
fn the_hello_says_whether_the_link_is_to_be_kept() {
    let kept = |solo: &mut Solo| solo.accept(&solo.hello((1, 1), 1, 0)).unwrap().1.features & 1 == 1;
    let mut solo = Solo::new();
    assert!(kept(&mut solo), "passive");
    let mut solo = Solo::contact();
    solo.peer.hold_as_member(vec![endpoint(1)]);
    assert!(kept(&mut solo), "a contact");
    let mut solo = Solo::new();
    solo.peer.hold_as_member(Vec::new());
    assert!(kept(&mut solo), "a member that cannot be dialled");
    let mut solo = Solo::new();
    solo.peer.hold_as_member(vec![endpoint(1)]);
    assert!(!kept(&mut solo));
}

#[test]
fn addresses_given_come_first_and_all_take_turns() {
    let mut reasons = Reasons::default();
    assert_eq!(reasons.next_place().map(|place| place.endpoint), None);
    reasons.set_view(Some([3, 4].map(|at| endpoint(at).into()).into()));
    reasons.add_contact(ContactId(1), endpoint(1).into());
    reasons.add_contact(ContactId(2), endpoint(2).into());
    let dialled: Vec<_> = (0..6).map_while(|_| reasons.next_place().map(|place| place.endpoint)).collect();
    assert_eq!(dialled, [1, 2, 3, 4, 1, 2].map(endpoint));
    reasons.remove_contact(ContactId(1));
    reasons.remove_contact(ContactId(2));
    assert!(reasons.may_dial() && reasons.may_idle() && !reasons.is_passive() && reasons.hold(false));
    reasons.set_view(None);
    assert!(!reasons.may_dial() && reasons.is_passive() && !reasons.hold(false));
}

#[test]
fn nothing_is_lost_or_doubled_whenever_idle_links_close_and_links_break() {
    let mut closed = 0;
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new(CREDIT);
        hold(&mut pair, A);
        hold(&mut pair, B);
        for _ in 0..random.usize(5..40) {
            let side = random.usize(0..2);
            match random.u8(0..10) {
                0..4 => drop(pair.send(side, random.usize(0..3000))),
                4 => pair.run(IDLE),
                5 => pair.run(Duration::from_millis(random.u64(0..2000))),
                6 => pair.run(Duration::from_micros(random.u64(0..3000))),
                7 => {
                    let now = pair.now;
                    closed += u32::from(pair.peer(side).close_idle(now));
                }
                8 => {
                    let told = [Told::Both, Told::Only(A), Told::Only(B)][random.usize(0..3)];
                    pair.net.fates.push_back(Some(Fate::Break { bytes: random.usize(0..4000), told }));
                }
                _ => pair.net.doors[side] = [Door::Open, Door::Shut][random.usize(0..2)],
            }
        }
        pair.net.doors = [Door::Open; 2];
        pair.net.fates.clear();
        pair.conns.iter_mut().for_each(super::net::Conn::forgive);
        pair.send(A, 1);
        pair.send(B, 1);
        pair.finish(SECOND * 30, true);
    }
    assert!(closed > 50, "only {closed} were closed by the cap");
}
