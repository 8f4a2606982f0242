//! What ails a peer, exact to the timer; each condition once an episode, and `Recovered` once when all are over. T19.

use std::time::Duration;

use super::super::*;
use super::net::{Door, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::{CREDIT, NORMAL};
use super::solo::Solo;
use crate::limits::{CONNECT, LIVENESS, PING, SLOW, STUCK, UNREACHABLE};
use crate::wire::{Seq, StreamAck};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn is_health(event: &PeerEvent) -> bool {
    matches!(
        event,
        PeerEvent::Slow { .. }
            | PeerEvent::Stuck { .. }
            | PeerEvent::Unreachable { .. }
            | PeerEvent::OneWaySilence { .. }
            | PeerEvent::Misbehaving { .. }
            | PeerEvent::Recovered { .. }
    )
}

/// What a side was told of the other's health.
fn told(pair: &Pair, side: usize) -> Vec<PeerEvent> {
    pair.sides[side].events.iter().filter(|event| is_health(event)).cloned().collect()
}

/// How long it takes until the side is told something more of the other's health.
fn next(pair: &mut Pair, side: usize, limit: Duration) -> (Duration, PeerEvent) {
    let before = told(pair, side).len();
    let took = pair.run_until(limit, "it is told", |pair| told(pair, side).len() > before);
    assert_eq!(told(pair, side).len(), before + 1, "one at a time");
    (took, told(pair, side).pop().unwrap())
}

/// A's messages fill the credit, and some more wait.
fn blocked() -> (Pair, PeerEvent) {
    let mut pair = Pair::linked();
    pair.sides[B].slow = true;
    for _ in 0..6 {
        pair.send(A, CREDIT as usize / 5);
    }
    let slow = PeerEvent::Slow { peer: pair.id(B), blocked: SLOW };
    (pair, slow)
}

fn recovered(pair: &Pair) -> PeerEvent {
    PeerEvent::Recovered { peer: pair.id(B) }
}

// ---- slow ----

#[test]
fn a_peer_is_slow_when_the_same_thing_has_waited_for_credit_for_its_time_and_recovers_when_it_goes() {
    let (mut pair, slow) = blocked();
    assert_eq!(next(&mut pair, A, SECOND * 10), (SLOW, slow.clone()));
    pair.run(SECOND * 30);
    assert_eq!(told(&pair, A), vec![slow.clone()], "once");
    pair.sides[B].slow = false;
    let (took, event) = next(&mut pair, A, SECOND);
    assert!(took <= 25 * MS, "credit comes with the acknowledgement: {took:?}");
    pair.run(SECOND * 30);
    assert_eq!((told(&pair, A), told(&pair, B)), (vec![slow, event.clone()], vec![]));
    assert_eq!(event, recovered(&pair));
    pair.finish(SECOND, true);
}

#[test]
fn a_sender_that_is_blocked_again_and_again_by_handlers_that_work_has_no_slow_peer() {
    let (mut pair, slow) = blocked();
    let of = pair.id(A);
    for _ in 0..20 {
        pair.send(A, CREDIT as usize / 5);
        pair.run(SLOW * 7 / 10);
        let now = pair.now;
        assert!(pair.sides[B].room(of).handle(now), "one message is handled");
        pair.settle();
        assert!(pair.peer(A).session().streams().any(|stream| stream.blocked_since.is_some()));
    }
    assert_eq!(told(&pair, A), []);
    pair.run(SLOW);
    assert_eq!(told(&pair, A), [slow], "now nothing moves");
}

#[test]
fn what_waits_without_a_link_waits_for_the_link_and_not_for_the_handlers() {
    let (mut pair, slow) = blocked();
    pair.run(SLOW / 2);
    pair.net.doors[B] = Door::Shut;
    pair.break_link(Told::Both);
    pair.run(SLOW * 3);
    assert_eq!(told(&pair, A), []);
    pair.net.doors[B] = Door::Open;
    pair.run_until(SECOND * 10, "linked", |pair| pair.same_link().is_some());
    let up = pair.sides[A].rooms.values().next().unwrap().peer.live.as_ref().unwrap().link.since();
    let rest = SLOW - (pair.now - up);
    assert_eq!(next(&mut pair, A, SECOND * 10), (rest, slow));
}

#[test]
fn a_slow_peer_is_not_well_because_its_link_broke_or_came_back() {
    let (mut pair, slow) = blocked();
    pair.run(SLOW * 2);
    for told_to in [Told::Both, Told::Only(A), Told::Nobody] {
        pair.break_link(told_to);
        pair.run(SECOND * 20);
        assert!(pair.same_link().is_some());
        assert_eq!(told(&pair, A), vec![slow.clone()]);
    }
    pair.sides[B].slow = false;
    pair.finish(SECOND, true);
    assert_eq!(told(&pair, A), [slow, recovered(&pair)]);
}

// ---- stuck ----

#[test]
fn a_peer_is_stuck_when_its_oldest_unacknowledged_record_is_too_old_link_or_no_link() {
    let mut pair = Pair::linked();
    pair.run(SECOND);
    pair.net.doors[B] = Door::Nowhere;
    pair.break_link(Told::Nobody);
    pair.send(A, 10);
    let stuck = PeerEvent::Stuck { peer: pair.id(B), oldest_unacked: STUCK };
    assert_eq!(next(&mut pair, A, SECOND * 30), (STUCK, stuck.clone()));
    let silence = PeerEvent::Disconnected { peer: pair.id(B), reason: Disconnect::Silence };
    assert!(pair.sides[A].events.contains(&silence), "the link died before");
    // The peer, which dials nobody and owes nothing, is told nothing but the loss of the link.
    assert_eq!(told(&pair, B), []);
    pair.net.doors[B] = Door::Open;
    pair.finish(SECOND * 30, true);
    let events = &pair.sides[A].events;
    let after = events.iter().position(|event| *event == stuck).unwrap();
    let unreachable = |event: &&PeerEvent| !matches!(event, PeerEvent::Unreachable { .. });
    let after: Vec<_> = events[after + 1..].iter().filter(unreachable).cloned().collect();
    assert_eq!(after, [PeerEvent::Connected { peer: pair.id(B) }, recovered(&pair)]);
}

#[test]
fn a_record_that_is_acknowledged_in_time_is_not_stuck_however_many_follow_it() {
    let mut pair = Pair::linked();
    pair.net.delays = [STUCK / 2 - 50 * MS; 2];
    for _ in 0..100 {
        pair.send(A, 10);
        pair.run(100 * MS);
    }
    assert!(told(&pair, A).iter().all(|event| !matches!(event, PeerEvent::Stuck { .. })));
    pair.net.delays = [STUCK / 2 + MS; 2];
    pair.run(STUCK);
    let tag = pair.send(A, 10);
    assert_eq!(next(&mut pair, A, STUCK).0, STUCK);
    pair.run(SECOND);
    assert_eq!(pair.end_of(tag), Some(Ok(())));
    assert_eq!(told(&pair, A).last(), Some(&recovered(&pair)));
}

// ---- unreachable ----

#[test]
fn a_peer_that_is_dialled_in_vain_is_unreachable_and_only_for_who_dials() {
    for door in [Door::Shut, Door::Nowhere, Door::Mute] {
        for told_to in [Told::Both, Told::Only(A)] {
            let mut pair = Pair::linked();
            pair.run(SECOND);
            pair.net.doors = [door; 2];
            pair.break_link(told_to);
            let unreachable = PeerEvent::Unreachable { peer: pair.id(B), since: UNREACHABLE };
            assert_eq!(next(&mut pair, A, SECOND * 30), (UNREACHABLE, unreachable.clone()), "{door:?}");
            pair.run(SECOND * 30);
            assert_eq!((told(&pair, A), told(&pair, B)), (vec![unreachable.clone()], vec![]));
            pair.net.doors = [Door::Open; 2];
            pair.finish(SECOND * 10, true);
            assert_eq!((told(&pair, A), told(&pair, B)), (vec![unreachable, recovered(&pair)], vec![]));
            assert_eq!(pair.sides[A].events.last(), Some(&recovered(&pair)), "after the link");
        }
    }
}

#[test]
fn a_contact_that_was_never_linked_is_unreachable_from_its_first_dial_on() {
    let mut pair = Pair::new(CREDIT);
    pair.net.doors[B] = Door::Shut;
    pair.add_contact(A);
    pair.poll();
    assert_eq!(next(&mut pair, A, SECOND * 30).0, UNREACHABLE);
}

#[test]
fn a_link_that_comes_back_in_time_is_no_condition() {
    let mut pair = Pair::linked();
    for _ in 0..5 {
        pair.net.doors[B] = Door::Shut;
        pair.break_link(Told::Both);
        pair.run(SECOND);
        pair.net.doors[B] = Door::Open;
        // Something is acknowledged, so the back-off starts again.
        pair.send(A, 10);
        pair.run(SECOND * 10);
    }
    assert!(pair.sides[A].dials.len() > 5);
    assert_eq!((told(&pair, A), told(&pair, B)), (vec![], vec![]));
}

#[test]
fn a_dial_gets_its_time_to_connect_before_its_peer_is_unreachable() {
    let mut solo = Solo::contact();
    solo.peer.backoff.exhaust();
    let lost = solo.now;
    let link = solo.link();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    // The back-off is long: it dials late.
    let dial = solo.peer.poll_timeout().unwrap();
    let wait = dial - lost;
    assert!(wait > UNREACHABLE - CONNECT);
    solo.advance(wait);
    assert!(solo.peer.poll_dial(solo.now).is_some());
    while !solo.events().iter().any(is_health) {
        solo.advance(solo.peer.poll_timeout().unwrap() - solo.now);
    }
    assert_eq!(solo.now, dial + CONNECT);
    let since = wait + CONNECT;
    assert!(solo.events().contains(&PeerEvent::Unreachable { peer: solo.peer.id(), since }));
}

#[test]
fn a_reason_that_was_gone_begins_anew() {
    let mut solo = Solo::contact();
    let link = solo.link();
    // The peer dials as well, so its lease keeps the session.
    let (link, _) = solo.accept(&solo.hello((2, 1), 1, 1)).map_err(|_| link).unwrap();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    assert!(solo.peer.poll_dial(solo.now + SECOND).is_some());
    solo.peer.remove_contact(ContactId(1));
    assert!(!solo.peer.is_over());
    solo.now += SECOND * 20;
    solo.peer.add_contact(
        solo.now,
        ContactId(2),
        "10.0.0.1:7400".parse::<crate::member::Endpoint>().unwrap(),
    );
    let again = solo.now;
    let mut failing = None;
    while !solo.events().iter().any(is_health) {
        match solo.peer.poll_dial(solo.now) {
            Some(dial) => failing = Some(dial.link),
            None => solo.advance(solo.peer.poll_timeout().unwrap() - solo.now),
        }
        if let Some(link) = failing.take() {
            solo.peer.handle_dial_failed(solo.now, link);
        }
        assert!(solo.now <= again + SECOND * 30);
    }
    // Its first dial may wait for one that was under way.
    assert!(solo.now - again >= UNREACHABLE && solo.now - again <= UNREACHABLE + CONNECT);
}

// ---- one way ----

#[test]
fn a_peer_that_hears_nothing_says_so_before_it_closes_the_link() {
    let mut pair = Pair::linked();
    pair.run(SECOND);
    pair.send(A, 10);
    let heard = pair.now + pair.net.delays[A];
    pair.run(50 * MS);
    pair.conns.last_mut().unwrap().mute(A);
    let (_, event) = next(&mut pair, A, LIVENESS);
    let unheard = PING * 2;
    assert_eq!(event, PeerEvent::OneWaySilence { peer: pair.id(B), unheard });
    assert_eq!(pair.now, heard + unheard + pair.net.delays[B], "with its second ping");
    assert!(pair.same_link().is_some(), "the link is still there");
    let silence = PeerEvent::Disconnected { peer: pair.id(A), reason: Disconnect::Silence };
    let ends = pair.run_until(LIVENESS, "it closes", |pair| pair.sides[B].events.contains(&silence));
    assert_eq!(ends + pair.net.delays[B], LIVENESS - unheard);
    pair.net.doors[B] = Door::Shut;
    pair.run(SECOND);
    assert_eq!(told(&pair, A), vec![event.clone()], "no link is no recovery");
    pair.net.doors[B] = Door::Open;
    pair.run(SECOND * 30);
    assert_eq!((told(&pair, A), told(&pair, B)), (vec![event, recovered(&pair)], vec![]), "each once");
}

#[test]
fn an_idle_link_and_a_slow_path_are_no_silence() {
    for delay in [MS, PING / 2, PING * 9 / 10] {
        let mut pair = Pair::linked();
        pair.net.delays = [delay; 2];
        pair.run(SECOND * 60);
        assert_eq!((told(&pair, A), told(&pair, B)), (vec![], vec![]), "{delay:?}");
    }
}

// ---- errors ----

#[test]
fn a_peer_that_misbehaves_recovers_with_progress() {
    let mut solo = Solo::contact();
    let ack = |accepted| {
        let ack = StreamAck { stream: NORMAL, accepted: Seq(accepted), handled: Seq(0), credit: CREDIT };
        Frame::Ack(vec![ack])
    };
    let peer = solo.peer.id();
    let health = |solo: &Solo| solo.events().into_iter().filter(is_health).collect::<Vec<_>>();
    let misbehaving = PeerEvent::Misbehaving { peer, errors: 3 };
    for _ in 0..5 {
        let link = solo.link();
        solo.frame(link, ack(7));
    }
    assert_eq!(health(&solo), vec![misbehaving.clone()], "once");
    let link = solo.link();
    solo.types(link);
    let receipt = solo.send();
    solo.write();
    assert_eq!(health(&solo), vec![misbehaving.clone()], "a link alone is no progress");
    solo.frame(link, ack(1));
    solo.write();
    assert_eq!(receipt.now(), Some(Ok(())));
    assert_eq!(health(&solo), [misbehaving, PeerEvent::Recovered { peer }]);
}

// ---- all of them ----

#[test]
fn a_peer_has_recovered_when_all_conditions_are_over_and_not_before() {
    let (mut pair, slow) = blocked();
    pair.run(SLOW * 2);
    pair.net.doors[B] = Door::Nowhere;
    pair.break_link(Told::Both);
    pair.run(SECOND * 10);
    let tag = pair.send(A, 10);
    assert_eq!(told(&pair, A).len(), 2, "slow and unreachable");
    pair.net.doors[B] = Door::Open;
    pair.run(SECOND * 10);
    assert!(pair.same_link().is_some());
    assert_eq!(told(&pair, A).len(), 2, "its handlers are still behind");
    pair.sides[B].slow = false;
    pair.run(SECOND);
    let unreachable = PeerEvent::Unreachable { peer: pair.id(B), since: UNREACHABLE };
    assert_eq!(told(&pair, A), [slow, unreachable, recovered(&pair)]);
    assert_eq!(pair.end_of(tag), Some(Ok(())));
}

#[test]
fn during_the_shutdown_nothing_is_told_of_the_peer_but_that_it_left() {
    let (mut pair, _) = blocked();
    pair.peer(A).leave();
    pair.run(SLOW * 2);
    pair.net.doors = [Door::Nowhere; 2];
    pair.break_link(Told::Both);
    pair.run(SECOND * 30);
    let events = &pair.sides[A].events;
    assert_eq!(events[..], [PeerEvent::Connected { peer: pair.id(B) }]);
    pair.peer(A).end(Cause::Closed);
    pair.poll();
    assert_eq!(pair.sides[A].events[1..], [PeerEvent::Left { peer: pair.id(B) }]);
}

#[test]
fn a_process_that_did_not_run_first_hears_what_came_meanwhile() {
    for acknowledged in [true, false] {
        let mut solo = Solo::contact();
        let link = solo.link();
        solo.types(link);
        drop(solo.send());
        solo.write();
        solo.peer.handle_heard(solo.now + STUCK * 4);
        // It was stopped for long; what the peer said meanwhile is read after the timer.
        solo.advance(STUCK * 4);
        assert!(!solo.events().iter().any(is_health));
        if acknowledged {
            let (accepted, handled) = (Seq(1), Seq(0));
            solo.frame(
                link,
                Frame::Ack(vec![StreamAck { stream: NORMAL, accepted, handled, credit: CREDIT }]),
            );
        }
        solo.peer.handle_heard(solo.now + PING);
        solo.advance(PING);
        let oldest_unacked = STUCK * 4 + PING;
        let stuck = PeerEvent::Stuck { peer: solo.peer.id(), oldest_unacked };
        let told: Vec<_> = solo.events().into_iter().filter(is_health).collect();
        assert_eq!(told, if acknowledged { vec![] } else { vec![stuck] });
    }
}

#[test]
fn nothing_of_it_makes_a_timer_that_is_always_due() {
    let (mut pair, _) = blocked();
    pair.net.doors[B] = Door::Nowhere;
    pair.run(SLOW * 2);
    pair.break_link(Told::Nobody);
    pair.send_on(A, super::side::stream(crate::wire::Class::Urgent), 10).unwrap();
    pair.run(SECOND * 60);
    let steps = pair.sides[A].dials.len();
    assert_eq!(told(&pair, A).len(), 3, "slow, stuck, unreachable: {:?}", told(&pair, A));
    let next = pair.peer(A).poll_timeout().unwrap();
    assert!(next > pair.now && steps < 60);
}

// ---- replaced ----

#[test]
fn a_replacement_is_told_once_for_each_new_member() {
    let mut solo = Solo::contact();
    for contact in 2..6 {
        solo.peer.add_contact(
            solo.now,
            ContactId(contact),
            format!("10.0.0.{contact}:7400").parse::<crate::member::Endpoint>().unwrap(),
        );
    }
    let old = solo.peer.id();
    let (first, second) = (MemberId::from_parts(9, 9), MemberId::from_parts(9, 8));
    for by in [first, second, first, second, first] {
        let (link, _) = solo.dial();
        let mut wrong = solo.with.me.reject(Code::WrongMember, "");
        wrong.from = Some(by);
        assert!(!solo.reply(link, FirstBytes::Reject(Box::new(wrong))));
    }
    let replaced: Vec<_> =
        solo.events().into_iter().filter(|event| matches!(event, PeerEvent::Replaced { .. })).collect();
    let by = |new| PeerEvent::Replaced { old, new };
    assert_eq!(replaced, [by(first), by(second)]);
    assert!(solo.peer.has_ended());
}
