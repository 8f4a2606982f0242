//! Bytes that change while nobody looks: an error or the right data, never a panic.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder, Vote};

use super::{Disk, StoreError, command, now, parts};
use crate::rendezvous::raft::store::state;
use crate::rendezvous::raft::store::tables::Entry;
use crate::rendezvous::raft::types::ServerId;
use crate::testing::platter::Platter;

type Content = (Option<Vote<ServerId>>, Vec<Entry>, Option<(state::Meta, bytes::Bytes)>);

/// A store with a vote, entries and a snapshot; the same file as a crash leaves it, and as a closing does.
fn stored() -> (Vec<u8>, Vec<u8>, Content) {
    let platter = Platter::default();
    let running = now(async {
        let (_store, mut log, mut machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
        for term in 1..5 {
            log.save_vote(&Vote::new(term, term)).await.unwrap();
            let entries: Vec<_> = (term * 10..term * 10 + 10)
                .map(|index| command(term, index, vec![index as u8; 700]))
                .collect();
            log.blocking_append(entries.clone()).await.unwrap();
            machine.apply(entries).await.unwrap();
            machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        }
        log.save_vote(&Vote::new(9, 9)).await.unwrap();
        platter.bytes()
    });
    let content = now(content(&platter)).unwrap();
    (running, platter.bytes(), content)
}

async fn content(platter: &Platter) -> Result<Content, StoreError> {
    let (store, mut log, _machine) = parts(Disk::of_backend(platter.clone())).await?;
    let fault = |_| store.fault().borrow().clone().unwrap();
    let vote = log.read_vote().await.map_err(fault)?;
    let entries = log.try_get_log_entries(..).await.map_err(fault)?;
    Ok((vote, entries, state::read(&store.disk).await?))
}

#[test]
fn a_damaged_file_is_refused_or_says_what_it_said_before() {
    let (running, closed, right) = stored();
    let mut random = fastrand::Rng::with_seed(6);
    let (mut refused, mut right_count) = (0, 0);
    for file in [running, closed] {
        for _ in 0..200 {
            let mut bytes = file.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len());
                bytes[at] ^= 1 << random.u8(0..8);
            }
            match now(content(&Platter::holding(bytes))) {
                Ok(found) => {
                    assert!(found == right, "{found:?}");
                    right_count += 1;
                }
                Err(StoreError::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("not by blame: {error}"),
            }
        }
    }
    println!("{refused} refused, {right_count} right");
    assert!(refused > 25 && right_count > 25, "{refused} refused, {right_count} right");
}

/// redb's header: which of its two newest transactions counts, their roots and checksums.
const HEADER_BYTES: usize = 320;
/// Which of the two counts. No checksum covers it.
const WHICH: (usize, u8) = (9, 0);

#[test]
fn a_damaged_header_is_refused_or_says_what_it_said_before() {
    let (running, closed, right) = stored();
    let mut random = fastrand::Rng::with_seed(7);
    for file in [running, closed] {
        for _ in 0..150 {
            let place = (random.usize(0..HEADER_BYTES), random.u8(0..8));
            if place != WHICH {
                let found = now(content(&flipped(&file, place)));
                let is_right = found.as_ref().is_ok_and(|found| *found == right);
                assert!(is_right || matches!(found, Err(StoreError::Corrupt { .. })), "{place:?}: {found:?}");
            }
        }
    }
}

/// What we cannot promise, and how little it is: one bit of a file that a crash left.
#[test]
fn one_bit_of_a_file_that_was_not_closed_takes_it_back_by_one_transaction_and_no_more() {
    let (running, closed, right) = stored();
    let found = now(content(&flipped(&running, WHICH))).unwrap();
    assert_eq!((found.0, found.1.len()), (Some(Vote::new(4, 4)), right.1.len()));
    let found = now(content(&flipped(&closed, WHICH)));
    assert!(found.map_or(true, |found| found == right), "of one that was closed it takes nothing");
}

fn flipped(file: &[u8], (at, bit): (usize, u8)) -> Platter {
    let mut bytes = file.to_vec();
    bytes[at] ^= 1 << bit;
    Platter::holding(bytes)
}
