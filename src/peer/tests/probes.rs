//! Probes: a ping written after the question, and its answer. However many ask.

use std::time::Duration;

use super::super::*;
use super::net::{Door, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::ROUND_TRIP;
use super::solo::Solo;
use crate::limits::{HELLO, PING, REDIAL_MAX};

const SECOND: Duration = Duration::from_secs(1);

fn probe(pair: &mut Pair, side: usize) -> u64 {
    let now = pair.now;
    let round = pair.peer(side).probe(now);
    pair.poll();
    round
}

fn answered(pair: &Pair, side: usize) -> u64 {
    pair.sides[side].answered.last().map_or(0, |answered| answered.round)
}

/// The numbers of the pings among these frames.
fn pings(frames: &[Frame]) -> Vec<u64> {
    let nonce = |frame: &Frame| if let Frame::Ping { nonce, .. } = frame { Some(*nonce) } else { None };
    frames.iter().filter_map(nonce).collect()
}

fn linked_solo() -> (Solo, LinkId) {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    solo.write();
    (solo, link)
}

fn rounds(solo: &Solo) -> Vec<u64> {
    let round = |output: &PeerOutput| match output {
        PeerOutput::Answered(answered) => Some(answered.round),
        _ => None,
    };
    solo.outputs.iter().filter_map(round).collect()
}

#[test]
fn a_probe_is_answered_within_a_round_trip_which_it_measures() {
    let mut pair = Pair::linked();
    let round = probe(&mut pair, A);
    pair.run(ROUND_TRIP);
    assert_eq!(pair.sides[A].answered, [Answered { round, round_trip: Duration::from_millis(2) }]);
    let back = probe(&mut pair, B);
    pair.run(ROUND_TRIP);
    assert_eq!(answered(&pair, B), back, "the side that was dialled may ask as well");
}

#[test]
fn a_thousand_probes_at_once_cost_one_ping() {
    let (mut solo, link) = linked_solo();
    let asked: Vec<_> = (0..1000).map(|_| solo.peer.probe(solo.now)).collect();
    let written = solo.write();
    let [nonce] = pings(&written)[..] else { panic!("{written:?}") };
    assert_eq!(solo.write(), [], "nobody asks again");
    solo.frame(link, Frame::Pong { nonce, heard_millis: 0 });
    let newest = *rounds(&solo).last().unwrap();
    assert!(asked.iter().all(|round| *round <= newest), "all are answered by it");
    assert_eq!(solo.write(), []);
}

#[test]
fn probing_all_the_time_costs_one_ping_a_round_trip() {
    let (mut solo, link) = linked_solo();
    let mut flying = Vec::new();
    let mut count = 0;
    for milli in 0..1000 {
        for _ in 0..10 {
            solo.peer.probe(solo.now);
        }
        let asked = pings(&solo.write());
        count += asked.len();
        flying.extend(asked);
        solo.advance(Duration::from_millis(1));
        if milli % 20 == 19 {
            for nonce in flying.drain(..) {
                solo.frame(link, Frame::Pong { nonce, heard_millis: 0 });
            }
        }
    }
    assert_eq!(count, 50, "10,000 probes, a round trip of 20 ms, one second");
}

#[test]
fn an_old_pong_is_no_answer() {
    let (mut solo, link) = linked_solo();
    solo.advance(PING);
    let [idle] = pings(&solo.write())[..] else { panic!("an idle link is pinged") };
    let first = solo.peer.probe(solo.now);
    let [nonce] = pings(&solo.write())[..] else { panic!("a probe pings anew") };
    // Asked after that ping was written.
    let second = solo.peer.probe(solo.now);
    assert!(second > first);
    solo.frame(link, Frame::Pong { nonce: idle, heard_millis: 0 });
    assert!(rounds(&solo).is_empty(), "that ping was written before anybody asked");
    solo.frame(link, Frame::Pong { nonce, heard_millis: 0 });
    assert_eq!(rounds(&solo), [first]);
    let [nonce] = pings(&solo.write())[..] else { panic!("the second one's ping") };
    solo.frame(link, Frame::Pong { nonce, heard_millis: 0 });
    assert_eq!(rounds(&solo), [first, second]);
}

#[test]
fn a_later_pings_answer_will_do() {
    let (mut solo, link) = linked_solo();
    let round = solo.peer.probe(solo.now);
    let [nonce] = pings(&solo.write())[..] else { panic!("a ping") };
    solo.advance(PING);
    let [later] = pings(&solo.write())[..] else { panic!("an idle link is pinged") };
    assert!(later > nonce);
    // Of two pings in one read only the last is answered.
    solo.frame(link, Frame::Pong { nonce: later, heard_millis: 0 });
    assert_eq!(rounds(&solo), [round]);
}

#[test]
fn who_is_silent_never_answers_and_is_asked_again_on_the_next_link() {
    let mut pair = Pair::linked();
    pair.break_link(Told::Nobody);
    let round = probe(&mut pair, A);
    pair.run(SECOND);
    assert_eq!(answered(&pair, A), 0);
    pair.run(crate::limits::LIVENESS + SECOND);
    assert!(answered(&pair, A) >= round, "the link was replaced meanwhile");
}

#[test]
fn a_probe_without_a_link_dials_at_once() {
    let mut pair = Pair::linked();
    pair.net.doors[B] = Door::Shut;
    pair.break_link(Told::Both);
    pair.run(REDIAL_MAX * 10);
    // Redials are far apart now. Right behind one:
    let dials = pair.sides[A].dials.len();
    pair.run_until(REDIAL_MAX * 2, "a dial", |pair| pair.sides[A].dials.len() > dials);
    pair.run(Duration::from_millis(10));
    pair.net.doors[B] = Door::Open;
    let round = probe(&mut pair, A);
    let limit = ROUND_TRIP * 4;
    pair.run_until(limit, "an answer over a new link", |pair| answered(pair, A) >= round);
}

#[test]
fn probing_in_a_loop_is_no_storm_of_dials() {
    let dials = |probing: bool| {
        let mut pair = Pair::linked();
        pair.net.doors[B] = Door::Shut;
        pair.break_link(Told::Both);
        let before = pair.sides[A].dials.len();
        for _ in 0..2000 {
            if probing {
                probe(&mut pair, A);
            }
            pair.run(Duration::from_millis(10));
        }
        pair.sides[A].dials.len() - before
    };
    let (calm, probing) = (dials(false), dials(true));
    assert!(probing > calm && probing <= calm + 21, "{probing} in 20 s, {calm} without");
}

#[test]
fn a_probe_does_not_dial_into_the_other_sides_dial() {
    let mut solo = Solo::contact();
    let (link, _) = solo.dial();
    let duplicate = solo.reject(Code::Duplicate);
    assert!(!solo.reply(link, duplicate));
    // Rule 11: its dial is under way.
    for _ in 0..28 {
        solo.peer.probe(solo.now);
        assert_eq!(solo.peer.poll_dial(solo.now), None);
        solo.advance(Duration::from_millis(100));
    }
    assert!(solo.dial_within(HELLO * 2).is_some());
}

#[test]
fn who_may_not_dial_asks_when_the_other_side_has_dialled() {
    let mut pair = Pair::linked();
    pair.net.doors[B] = Door::Shut;
    pair.break_link(Told::Both);
    let round = probe(&mut pair, B);
    pair.run(SECOND);
    assert_eq!((pair.sides[B].dials.len(), answered(&pair, B)), (0, 0));
    pair.net.doors[B] = Door::Open;
    pair.run(REDIAL_MAX);
    assert!(answered(&pair, B) >= round);
}

#[test]
fn a_probe_whose_link_breaks_is_answered_on_the_next_with_all_that_came_later() {
    let mut pair = Pair::linked();
    let first = probe(&mut pair, A);
    let second = probe(&mut pair, A);
    assert!(second > first);
    pair.break_link(Told::Both);
    let third = probe(&mut pair, A);
    assert!(third >= second, "a number never goes back");
    pair.settle();
    assert!(answered(&pair, A) >= third);
    let rounds: Vec<_> = pair.sides[A].answered.iter().map(|answered| answered.round).collect();
    assert!(rounds.is_sorted(), "{rounds:?}");
}
