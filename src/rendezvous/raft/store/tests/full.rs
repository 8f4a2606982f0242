//! A disk without room: refused, said, and after room is made nothing is missing.

use openraft::error::Fatal;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{RaftLogReader, Vote};

use super::single::Single;
use super::{Disk, StoreError, command, now, parts};
use crate::testing::platter::Platter;

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn an_append_that_finds_no_room_is_refused_and_everything_before_it_is_there_after_a_restart() {
    let mut refused_opens = 0;
    for room in 0..40 {
        let platter = Platter::default();
        let (entries, fault) = now(async {
            let (store, mut log, _machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
            log.save_vote(&Vote::new(1, 1)).await.unwrap();
            platter.limit(Some(platter.blocks() + room));
            let mut entries = Vec::new();
            loop {
                let index = entries.len() as u64;
                let next = command(1, index, vec![index as u8; 3000]);
                if log.blocking_append([next.clone()]).await.is_err() {
                    break;
                }
                entries.push(next);
            }
            log.save_vote(&Vote::new(2, 2)).await.unwrap_err();
            (entries, store.fault().borrow().clone().unwrap())
        });
        assert!(matches!(fault, StoreError::Full { .. }), "{fault}");
        assert!(fault.to_string().contains("make room, then restart"), "{fault}");

        // Still without room: it opens, or says the same; what is stored does not suffer.
        match now(parts(Disk::of_backend(platter.clone()))) {
            Ok(_) => {}
            Err(StoreError::Full { .. }) => refused_opens += 1,
            Err(error) => panic!("not by blame: {error}"),
        }
        platter.limit(None);
        now(async {
            let (_store, mut log, _machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
            assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries, "room for {room}");
            assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(1, 1)));
            log.save_vote(&Vote::new(2, 2)).await.unwrap();
        });
    }
    println!("{refused_opens} of 40 did not open without room");
}

#[test]
fn a_full_disk_stops_the_log_says_why_and_a_restart_goes_on_with_all_that_was_told() {
    let platter = Platter::default();
    paused().block_on(async {
        let single = Single::start(Disk::of_backend(platter.clone())).await.unwrap();
        single.found().await;
        single.leads().await;
        let mut fault = single.store.fault();
        platter.limit(Some(platter.blocks() + 30));
        let mut told = Vec::new();
        let fatal = loop {
            let line = vec![told.len() as u8; 2000];
            match single.write(line.clone()).await {
                Ok(_) => told.push(line),
                Err(fatal) => break fatal.unwrap(),
            }
        };
        assert!(!told.is_empty());
        assert!(matches!(fatal, Fatal::StorageError(_)), "{fatal}");
        let said = fault.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(matches!(said, StoreError::Full { .. }), "{said}");
        // openraft carries the same text, for whoever has only that.
        assert!(fatal.to_string().contains("make room"), "{fatal}");
        assert!(single.raft.metrics().borrow().running_state.is_err());
        single.write(vec![1]).await.unwrap_err();
        single.stop().await;

        platter.limit(None);
        let single = Single::start(Disk::of_backend(platter)).await.unwrap();
        single.leads().await;
        single.write(b"after".to_vec()).await.unwrap();
        let lines: Vec<_> = single.diary.lines().into_iter().map(|(_, _, line)| line).collect();
        assert_eq!(lines[..told.len()], told);
        assert_eq!(lines.last().unwrap(), b"after");
        assert!(lines.len() <= told.len() + 2, "the one that was refused may have come through, no more");
        single.stop().await;
    });
}
