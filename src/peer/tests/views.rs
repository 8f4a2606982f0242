//! Views: admission, quarantine, removal. Rules 3, 5, 14 and 15.

use std::time::Duration;

use super::super::*;
use super::net::{Door, Told};
use super::pair::{A, B, Pair};
use super::prelude::*;
use super::side::CREDIT;
use crate::limits::{LIVENESS, QUARANTINE, QUARANTINE_BYTES};
use crate::member::{Member, View};
use crate::session::Lost;
use crate::wire::{Class, Protocol};

const SECOND: Duration = Duration::from_secs(1);
const MEMBERS: StreamId = StreamId::new(Protocol::APPLICATION, Class::Normal, false);
const ANYONE: StreamId = StreamId::new(Protocol::APPLICATION, Class::Normal, true);

fn number(number: u64) -> ViewId {
    ViewId { generation: 1, number }
}

/// A view of these, each at the other side's address, who joined in the views that are given.
fn view(at: u64, members: &[(MemberId, u64)]) -> View {
    let member = |(id, joined): &(MemberId, u64)| Member {
        id: *id,
        endpoints: vec!["10.0.0.1:7400".parse().unwrap()],
        name: String::new(),
        labels: Default::default(),
        joined: Some(number(*joined)),
    };
    View::new(number(at), members.iter().map(member))
}

impl Pair {
    fn install(&mut self, side: usize, view: View) -> Result<ViewChange, ViewError> {
        let change = self.sides[side].install(self.now, view);
        // A peer is made when it is first sent to.
        let other = self.id(1 - side);
        if self.sides[side].roster.is_member(other) {
            self.sides[side].room(other);
        }
        self.poll();
        change
    }

    /// Both in one view, nothing dialled.
    fn members() -> Self {
        let mut pair = Self::new(CREDIT);
        let both = pair.both(1);
        for side in [A, B] {
            let change = pair.install(side, both.clone()).unwrap();
            assert_eq!(change.joined.len(), 2);
        }
        assert!(pair.conns.is_empty(), "dialled when something is sent");
        pair
    }

    /// A view of both, who joined in it.
    fn both(&self, at: u64) -> View {
        view(at, &[(self.id(A), at), (self.id(B), at)])
    }

    /// A is a member since view 1; B is not in it.
    fn a_alone(&mut self) {
        let alone = view(1, &[(self.id(A), 1)]);
        drop(self.install(A, alone).unwrap());
    }

    fn accepted(&mut self, side: usize) -> u64 {
        self.peer(side).session().accounts().bytes_accepted
    }
}

#[test]
fn members_are_dialled_at_the_first_message_and_take_what_is_for_members() {
    let mut pair = Pair::members();
    pair.send_on(A, MEMBERS, 100).unwrap();
    pair.send_on(B, MEMBERS, 100).unwrap();
    pair.finish(SECOND * 20, true);
}

#[test]
fn what_is_for_members_is_not_sent_to_a_contact_that_is_none() {
    let mut pair = Pair::linked();
    let tag = pair.send_on(A, MEMBERS, 100).unwrap();
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Err(Lost::NotSent(Cause::NotAdmitted))));
    let tag = pair.send_on(A, ANYONE, 100).unwrap();
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Ok(())));
}

#[test]
fn r15_what_comes_before_the_view_is_held_and_delivered_in_order_when_it_comes() {
    let mut pair = Pair::new(CREDIT);
    let both = pair.both(2);
    drop(pair.install(A, both.clone()).unwrap());
    let tags: Vec<_> = (0..20).map(|_| pair.send_on(A, MEMBERS, 1000).unwrap()).collect();
    let open = pair.send_on(A, ANYONE, 10).unwrap();
    pair.run(SECOND * 10);
    assert_eq!(pair.sides[B].tags(), [open], "only what is open to anyone");
    assert!(tags.iter().all(|tag| pair.end_of(*tag).is_none()), "nothing of it is acknowledged");
    assert!(pair.peer(B).session().quarantined_bytes() > 20_000);
    drop(pair.install(B, both).unwrap());
    pair.settle();
    assert_eq!(pair.sides[B].tags()[1..], tags, "each once, in order");
    assert_eq!(pair.peer(B).session().quarantined_bytes(), 0);
    pair.finish(SECOND, true);
    assert_eq!(pair.accounts(A).resent, 0);
}

#[test]
fn r15_a_link_that_breaks_in_quarantine_loses_and_doubles_nothing() {
    let mut pair = Pair::new(CREDIT);
    let both = pair.both(2);
    drop(pair.install(A, both.clone()).unwrap());
    for _ in 0..5 {
        pair.send_on(A, MEMBERS, 1000).unwrap();
        pair.run(SECOND);
        pair.break_link(Told::Both);
        pair.run(SECOND);
    }
    drop(pair.install(B, both).unwrap());
    pair.finish(SECOND * 10, true);
}

#[test]
fn r15_what_is_held_of_a_session_that_ended_is_not_mixed_with_the_next() {
    let mut pair = Pair::new(CREDIT);
    let both = pair.both(2);
    drop(pair.install(A, both.clone()).unwrap());
    let before: Vec<_> = (0..3).map(|_| pair.send_on(A, MEMBERS, 100).unwrap()).collect();
    pair.settle();
    pair.forget(A);
    let after: Vec<_> = (0..3).map(|_| pair.send_on(A, MEMBERS, 100).unwrap()).collect();
    pair.run(SECOND * 10);
    drop(pair.install(B, both).unwrap());
    pair.run(SECOND * 10);
    assert!(before.iter().all(|tag| matches!(pair.end_of(*tag), Some(Err(Lost::Indeterminate(_))))));
    assert_eq!(pair.sides[B].tags(), after);
    assert!(after.iter().all(|tag| pair.end_of(*tag) == Some(Ok(()))));
}

#[test]
fn r15_quarantine_ends_after_its_time_and_the_sender_keeps_what_was_held() {
    let mut pair = Pair::new(CREDIT);
    let both = pair.both(2);
    drop(pair.install(A, both.clone()).unwrap());
    let tag = pair.send_on(A, MEMBERS, 1000).unwrap();
    pair.settle();
    assert!(pair.peer(B).session().quarantined_bytes() > 0);
    let closed = |pair: &Pair| {
        let not_in_view = |event: &PeerEvent| {
            matches!(event, PeerEvent::Disconnected { reason: Disconnect::NotInView, .. })
        };
        [A, B].iter().all(|side| pair.sides[*side].events.iter().any(not_in_view))
    };
    let took = pair.run_until(QUARANTINE * 2, "the link closes", closed);
    assert!(took > QUARANTINE - SECOND && took < QUARANTINE + SECOND, "{took:?}");
    assert!(matches!(pair.sides[B].farewells[..], [Frame::Close { code: Code::NotInView, .. }]));
    assert_eq!(pair.end_of(tag), None, "pending");
    let dials = pair.sides[A].dials.len();
    pair.run(QUARANTINE * 3);
    assert!(pair.sides[A].dials.len() - dials <= 8, "no storm of dials");
    drop(pair.install(B, both).unwrap());
    pair.finish(SECOND * 10, true);
}

#[test]
fn r15_quarantine_is_bounded_in_bytes() {
    let mut pair = Pair::new(QUARANTINE_BYTES as u64);
    let both = pair.both(2);
    drop(pair.install(A, both.clone()).unwrap());
    for class in [Class::Urgent, Class::Normal, Class::Bulk] {
        for _ in 0..15 {
            let stream = StreamId::new(Protocol::APPLICATION, class, false);
            pair.send_on(A, stream, 60_000).unwrap();
        }
    }
    for _ in 0..200 {
        pair.run(Duration::from_millis(100));
        if pair.has_peer(B) {
            assert!(pair.peer(B).session().quarantined_bytes() <= QUARANTINE_BYTES);
        }
    }
    assert!(pair.sides[A].dials.len() < 12, "{} dials", pair.sides[A].dials.len());
    drop(pair.install(B, both).unwrap());
    pair.finish(SECOND * 10, true);
}

#[test]
fn r3_who_joined_at_or_before_our_view_and_is_not_in_it_is_told_removed() {
    let mut pair = Pair::new(CREDIT);
    // B is a member of an older view than A's, which does not hold it.
    let both = view(3, &[(pair.id(A), 1), (pair.id(B), 2)]);
    drop(pair.install(B, both).unwrap());
    let alone = view(4, &[(pair.id(A), 1)]);
    drop(pair.install(A, alone).unwrap());
    let tag = pair.send_on(B, MEMBERS, 100).unwrap();
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Err(Lost::NotSent(Cause::Departed))));
    let a = pair.id(A);
    assert!(pair.sides[B].events.contains(&PeerEvent::Expelled { by: a }), "it is told directly");
    assert!(!pair.has_peer(B) && !pair.has_peer(A));
    let dials = pair.sides[B].dials.len();
    pair.run(SECOND * 60);
    assert_eq!(pair.sides[B].dials.len(), dials, "never dialled again");
    assert!(!pair.sides[B].roster.is_member(a), "nor sent to");
}

#[test]
fn r14_removal_ends_all_at_once_outranks_contacts_and_survives_later_views() {
    let mut pair = Pair::members();
    pair.add_contact(A);
    pair.send_on(A, MEMBERS, 10).unwrap();
    pair.settle();
    let tags: Vec<_> = (0..100).map(|_| pair.send_on(A, MEMBERS, 30_000).unwrap()).collect();
    let alone = view(2, &[(pair.id(A), 1)]);
    let change = pair.install(A, alone).unwrap();
    assert_eq!(change.left, [pair.id(B)]);
    // In the same step.
    let ends: Vec<_> = tags.iter().map(|tag| pair.end_of(*tag)).collect();
    assert!(ends.iter().all(Option::is_some), "every receipt is resolved");
    assert!(ends.contains(&Some(Err(Lost::NotSent(Cause::Departed)))));
    assert!(ends.contains(&Some(Err(Lost::Indeterminate(Cause::Departed)))));
    assert!(!pair.has_peer(A), "nothing is left of it");
    assert!(matches!(pair.sides[A].farewells[..], [Frame::Close { code: Code::Removed, .. }]));
    pair.settle();
    let (a, b) = (pair.id(A), pair.id(B));
    assert!(pair.sides[B].events.contains(&PeerEvent::Expelled { by: a }));
    assert!(!pair.has_peer(B));
    // And a later view does not bring it back.
    let again = view(3, &[(a, 1), (b, 1)]);
    let change = pair.install(A, again).unwrap();
    assert_eq!(change.gone, [b]);
    assert!(!pair.has_peer(A));
    let dials = pair.conns.len();
    pair.run(SECOND * 100);
    assert_eq!(pair.conns.len(), dials);
}

#[test]
fn a_removal_with_a_dial_in_flight_ends_the_dial() {
    let mut pair = Pair::members();
    pair.net.doors[B] = Door::Nowhere;
    let tag = pair.send_on(A, MEMBERS, 100).unwrap();
    pair.settle();
    assert_eq!(pair.conns.len(), 1);
    let alone = view(2, &[(pair.id(A), 1)]);
    drop(pair.install(A, alone).unwrap());
    assert_eq!(pair.end_of(tag), Some(Err(Lost::NotSent(Cause::Departed))));
    assert!(!pair.has_peer(A));
    pair.run(SECOND * 100);
    assert_eq!(pair.conns.len(), 1, "never dialled again");
}

#[test]
fn a_stranger_that_joins_on_a_live_link_says_so() {
    let mut pair = Pair::linked();
    pair.send_on(A, ANYONE, 10).unwrap();
    let both = pair.both(1);
    // B has no view yet, so it holds what A sends as a member.
    drop(pair.install(A, both.clone()).unwrap());
    let tag = pair.send_on(A, MEMBERS, 10).unwrap();
    pair.settle();
    assert_eq!(pair.end_of(tag), None);
    assert!(pair.same_link().is_some(), "no error");
    drop(pair.install(B, both).unwrap());
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Ok(())));
    assert_eq!(pair.conns.len(), 1);
}

#[test]
fn a_quarantined_peer_that_the_next_view_does_not_hold_is_removed() {
    let mut pair = Pair::new(CREDIT);
    pair.a_alone();
    // B believes to have joined in view 2; A's view 3 does not hold it.
    let b = view(2, &[(pair.id(A), 1), (pair.id(B), 2)]);
    drop(pair.install(B, b).unwrap());
    let tag = pair.send_on(B, MEMBERS, 10).unwrap();
    pair.settle();
    assert!(pair.peer(A).session().quarantined_bytes() > 0);
    let alone = view(3, &[(pair.id(A), 1)]);
    drop(pair.install(A, alone).unwrap());
    pair.settle();
    assert_eq!(pair.end_of(tag), Some(Err(Lost::Indeterminate(Cause::Departed))));
    assert!(!pair.has_peer(A) && !pair.has_peer(B));
}

#[test]
fn r5_a_restarted_member_is_another_and_the_view_decides_when_the_old_one_ends() {
    let mut pair = Pair::members();
    let first = pair.send_on(A, MEMBERS, 10).unwrap();
    pair.settle();
    let old = pair.id(B);
    pair.restart(B, Told::Both);
    let new = pair.id(B);
    let intake = Arc::clone(pair.sides[A].room(old).peer.session().intake());
    let receipt = super::side::push(&intake, MEMBERS, 77, 10).unwrap();
    pair.run(SECOND * 20);
    assert_eq!(pair.end_of(first), Some(Ok(())));
    assert_eq!(receipt.now(), None, "waits for the view, and the new process gets nothing of it");
    assert!(pair.sides[B].came.is_empty());
    assert!(pair.sides[A].events.contains(&PeerEvent::Replaced { old, new }), "evidence");
    let next = view(2, &[(pair.id(A), 1), (new, 2)]);
    let change = pair.install(A, next.clone()).unwrap();
    assert_eq!((change.joined, change.left), (vec![new], vec![old]));
    assert_eq!(receipt.now(), Some(Err(Lost::NotSent(Cause::Departed))));
    drop(pair.install(B, next).unwrap());
    pair.send_on(A, MEMBERS, 10).unwrap();
    pair.settle();
    assert_eq!(pair.sides[B].came.len(), 1);
}

#[test]
fn a_member_that_said_goodbye_is_not_dialled_though_the_view_still_holds_it() {
    let mut pair = Pair::members();
    pair.send_on(A, MEMBERS, 10).unwrap();
    pair.settle();
    pair.peer(B).leave();
    pair.settle();
    assert!(!pair.has_peer(A));
    let b = pair.id(B);
    assert!(pair.sides[A].events.contains(&PeerEvent::Left { peer: b }));
    assert!(!pair.sides[A].roster.is_member(b));
    let next = view(2, &[(pair.id(A), 1), (b, 1)]);
    assert_eq!(pair.install(A, next).unwrap().gone, [b]);
    pair.run(SECOND * 20);
    assert_eq!(pair.conns.len(), 1);
}

#[test]
fn a_view_that_both_have_survives_breaks_and_silence() {
    let mut pair = Pair::members();
    for told in [Told::Both, Told::Nobody, Told::Both, Told::Nobody] {
        for side in [A, B] {
            pair.send_on(side, MEMBERS, 5000).unwrap();
        }
        pair.break_link(told);
        pair.run(LIVENESS * 3);
    }
    pair.finish(SECOND * 20, true);
}

#[test]
fn without_views_only_what_is_open_is_offered() {
    let mut pair = Pair::contact();
    let entry = |name: &str, open| TypeEntry {
        protocol: Protocol::APPLICATION,
        hash: name.len() as u32,
        version: 1,
        open,
        any: false,
        name: name.to_owned(),
    };
    pair.sides[B].types = Arc::new(vec![entry("a", true), entry("bb", false)]);
    pair.sides[B].roster = Roster::new(crate::member::Views::None);
    pair.settle();
    let open = pair.send_on(A, ANYONE, 10).unwrap();
    pair.settle();
    let shut = pair.send_on(A, ANYONE, 10).unwrap();
    pair.settle();
    assert_eq!(pair.end_of(open), Some(Ok(())), "hash 1");
    assert_eq!(pair.end_of(shut), Some(Err(Lost::NotSent(Cause::NotUnderstood))), "hash 2 is not told");
}

#[test]
fn what_members_send_is_a_fault_when_it_comes_from_one_who_never_joined() {
    let mut pair = Pair::members();
    // A has no view and B takes nothing that is for members: as if A lied.
    pair.sides[B] = super::side::Side::new(pair.id(B), CREDIT, 7);
    let mut liar = Introduction::clone(&pair.sides[A].with.me);
    liar.member.joined = None;
    let seat = pair.sides[A].roster.seat(pair.id(B));
    let now = pair.now;
    pair.peer(A).handle_view(now, Arc::new(liar), seat);
    let tag = pair.send_on(A, MEMBERS, 10).unwrap();
    pair.settle();
    assert!(pair.sides[B].came.is_empty());
    assert_eq!(pair.end_of(tag), None, "not acknowledged");
    let misbehaved =
        |event: &PeerEvent| matches!(event, PeerEvent::Disconnected { reason: Disconnect::Misbehaved, .. });
    assert!(pair.sides[B].events.iter().any(misbehaved));
    assert_eq!(pair.accepted(B), 0);
}
