//! Where the work is done, and what a caller may rely on.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder, SnapshotMeta, StoredMembership, Vote};

use super::platter::Platter;
use super::{Diary, Disk, command, now, parts, place};
use crate::rendezvous::raft::Machine;

fn is_done_at_once<T>(future: impl Future<Output = T>) -> bool {
    matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}

#[test]
fn a_backends_calls_are_done_inline_and_a_directorys_never_on_a_thread_of_the_runtime() {
    let platter = Platter::default();
    let Poll::Ready(opened) =
        pin!(parts(Disk::of_backend(platter))).poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("a backend is opened inline")
    };
    let (_store, mut log, _machine) = opened.unwrap();
    assert!(is_done_at_once(log.save_vote(&Vote::new(1, 1))));
    assert!(is_done_at_once(log.try_get_log_entries(..)));

    let directory = tempfile::tempdir().unwrap();
    now(async {
        let (_store, mut log, _machine) = parts(Disk::in_directory(directory.path())).await.unwrap();
        assert!(!is_done_at_once(log.save_vote(&Vote::new(1, 1))));
        // Its caller left, and the next write does not overtake it.
        log.save_vote(&Vote::new(2, 2)).await.unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(2, 2)));
    });
}

#[test]
fn a_follower_that_is_far_behind_is_sent_some_entries_at_a_time_and_never_none() {
    now(async {
        let (_store, mut log, _machine) = parts(Disk::of_backend(Platter::default())).await.unwrap();
        let large = |index| command(1, index, vec![0; if index == 5 { 100_000 } else { 10_000 }]);
        log.blocking_append((0..20).map(large)).await.unwrap();
        let (mut next, mut calls) = (0, 0);
        while next < 20 {
            let some = log.limited_get_log_entries(next, 20).await.unwrap();
            assert_eq!(some[0].log_id.index, next);
            assert!(some.len() <= 6, "{} at once", some.len());
            next += some.len() as u64;
            calls += 1;
        }
        assert!(calls >= 4, "{calls} calls");
        assert_eq!(log.try_get_log_entries(3..=4).await.unwrap().len(), 2);
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range, from whoever counts wrong")]
        let none = log.try_get_log_entries(9..3).await.unwrap();
        assert_eq!(none, []);
    });
}

#[test]
fn a_snapshot_built_while_a_newer_one_was_installed_does_not_replace_it() {
    let platter = Platter::default();
    now(async {
        let (_store, _log, mut machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
        machine.apply([command(1, 1, b"old".to_vec())]).await.unwrap();
        let mut slow = machine.get_snapshot_builder().await;
        let mut theirs = Diary::default();
        theirs.apply(Default::default(), b"new");
        let meta = SnapshotMeta {
            last_log_id: Some(place(2, 9)),
            last_membership: StoredMembership::default(),
            snapshot_id: "new".to_owned(),
        };
        machine.install_snapshot(&meta, Box::new(theirs.snapshot())).await.unwrap();
        slow.build_snapshot().await.unwrap();
        assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, meta);
    });
    now(async {
        let (_store, _log, mut machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
        assert_eq!(machine.applied_state().await.unwrap().0, Some(place(2, 9)));
        let unreadable = Box::new(Bytes::from_static(b"\xff of a newer release"));
        let meta = SnapshotMeta { last_log_id: Some(place(3, 12)), ..SnapshotMeta::default() };
        machine.install_snapshot(&meta, unreadable).await.unwrap_err();
    });
    now(async {
        let (_store, _log, mut machine) = parts(Disk::of_backend(platter)).await.unwrap();
        assert_eq!(machine.applied_state().await.unwrap().0, Some(place(2, 9)), "the readable one is kept");
    });
}

#[test]
fn a_vote_or_an_append_of_any_length_costs_two_syncs() {
    let platter = Platter::default();
    now(async {
        let (_store, mut log, _machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
        for round in 0..20 {
            let before = platter.syncs();
            log.save_vote(&Vote::new(round, 1)).await.unwrap();
            assert_eq!(platter.syncs() - before, 2);
            let before = platter.syncs();
            let entries = (0..round + 1).map(|at| command(1, round * 100 + at, vec![0; 500]));
            log.blocking_append(entries).await.unwrap();
            assert_eq!(platter.syncs() - before, 2);
        }
    });
}
