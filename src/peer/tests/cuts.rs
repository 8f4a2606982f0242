//! The first connection breaks between any two bytes of a whole exchange: hello, answer, types, batches both ways,
//! acknowledgements. Whoever is told, everything comes once.

use std::time::Duration;

use super::net::{Fate, Told};
use super::pair::{A, B, Pair};
use crate::limits::{HELLO, LIVENESS};

fn exchange(fates: &[Option<Fate>], contacts: &[usize]) -> Pair {
    let mut pair = Pair::new(super::side::CREDIT);
    pair.net.fates.extend(fates);
    for side in contacts {
        pair.add_contact(*side);
    }
    pair.send(A, 40);
    pair.send(A, 300);
    pair.run(Duration::from_millis(4));
    // A side that nobody met yet has nobody to send to.
    if pair.has_peer(B) {
        pair.send(B, 40);
    }
    pair.send(A, 5);
    pair
}

/// The bytes of an exchange that nothing disturbs, up to its last acknowledgement.
fn bytes_of_an_exchange(contacts: &[usize]) -> usize {
    let mut pair = exchange(&[], contacts);
    pair.run(Duration::from_millis(100));
    assert!(pair.is_drained() && pair.messages.len() == 4);
    pair.conns[pair.same_link().unwrap()].carried
}

fn breaks_anywhere(contacts: &[usize], told: Told, limit: Duration) {
    let whole = bytes_of_an_exchange(contacts);
    assert!((400..2000).contains(&whole), "{whole}");
    for bytes in 0..=whole {
        let mut pair = exchange(&[Some(Fate::Break { bytes, told })], contacts);
        let took = pair.finish(limit, true);
        assert!(pair.conns.len() <= contacts.len() + 2, "cut after {bytes}: {took:?}");
        assert!(pair.sides.iter().all(|side| side.overs.is_empty()), "the session survives");
    }
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn a_cut_between_any_two_bytes_delivers_once() {
    breaks_anywhere(&[A], Told::Both, SOON);
}

#[test]
fn a_cut_anywhere_that_only_the_dialler_sees_delivers_once() {
    breaks_anywhere(&[A], Told::Only(A), SOON);
}

#[test]
fn a_cut_anywhere_that_only_the_acceptor_sees_delivers_once() {
    breaks_anywhere(&[A], Told::Only(B), LIVENESS + SOON);
}

#[test]
fn silence_from_any_byte_on_delivers_once() {
    breaks_anywhere(&[A], Told::Nobody, LIVENESS + SOON);
}

#[test]
fn a_cut_anywhere_between_two_that_both_dial_delivers_once() {
    for told in [Told::Both, Told::Only(A), Told::Only(B), Told::Nobody] {
        breaks_anywhere(&[A, B], told, HELLO * 3 / 2 + LIVENESS + SOON);
    }
}

#[test]
fn a_bit_changed_anywhere_is_noticed_and_everything_comes_once() {
    let whole = bytes_of_an_exchange(&[A]);
    for bytes in 0..whole {
        let mut pair = exchange(&[Some(Fate::Flip { bytes })], &[A]);
        pair.finish(HELLO + SOON * 2, true);
        assert!(pair.conns.len() >= 2, "byte {bytes} matters");
    }
}

#[test]
fn two_cuts_in_a_row_anywhere_deliver_once() {
    let whole = bytes_of_an_exchange(&[A]);
    for first in (0..=whole).step_by(13) {
        for second in (0..=whole).step_by(17) {
            let fates = [first, second].map(|bytes| Some(Fate::Break { bytes, told: Told::Both }));
            exchange(&fates, &[A]).finish(SOON * 2, true);
        }
    }
}
