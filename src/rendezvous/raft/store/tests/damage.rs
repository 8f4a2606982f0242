//! Bytes that change while nobody looks: an error or the right data, never a panic.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder, Vote};

use super::platter::Platter;
use super::{Disk, StoreError, command, now, parts};
use crate::rendezvous::raft::store::state;
use crate::rendezvous::raft::store::tables::Entry;
use crate::rendezvous::raft::types::ServerId;

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
        for _ in 0..400 {
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
    assert!(refused > 50 && right_count > 50, "{refused} refused, {right_count} right");
}

#[test]
fn every_bit_of_the_first_bytes() {
    let (running, closed, right) = stored();
    for (name, file) in [("running", running), ("closed", closed)] {
        let (mut refused, mut wrong, mut fine) = (0, vec![], 0);
        for bit in 0..320 * 8 {
            let mut bytes = file.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match std::panic::catch_unwind(|| now(content(&Platter::holding(bytes)))) {
                Err(_) => wrong.push((bit / 8, bit % 8, "panic".to_owned())),
                Ok(Ok(found)) if found == right => fine += 1,
                Ok(Ok(found)) => wrong.push((bit / 8, bit % 8, format!("{:?} {}", found.0, found.1.len()))),
                Ok(Err(StoreError::Corrupt { .. })) => refused += 1,
                Ok(Err(error)) => wrong.push((bit / 8, bit % 8, error.to_string())),
            }
        }
        println!("{name} {} bytes: {refused} refused {fine} fine wrong {wrong:?}", file.len());
    }
}
