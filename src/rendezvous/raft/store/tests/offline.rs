//! What is done to a store while no server runs on it.

use bytes::Bytes;
use openraft::Vote;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

use super::single::{Single, me};
use super::{Diary, Disk, ME, Names, Store, StoreError, command, names, now, parts};
use crate::rendezvous::raft::store::tables::Entry;
use crate::rendezvous::raft::store::{Alone, Identity, SnapshotFile, copy, recover, restore, survey};
use crate::rendezvous::raft::types::Server;
use crate::testing::platter::Platter;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn alone() -> Alone<impl FnOnce(&Identity) -> Bytes> {
    let command = |identity: &Identity| Bytes::from(format!("generation {}", identity.generation));
    Alone { me: me(), cluster: 4711, command }
}

/// The disk of one of three servers: entries of a leader that is gone, the last ones not known to be committed.
async fn one_of_three(platter: &Platter) {
    let (store, mut log, mut machine) = parts(Disk::of_backend(platter.clone())).await.unwrap();
    store.set_cluster(1).await.unwrap();
    let server = |id: u64| (id, Server { address: format!("{id}:7500") });
    let three = openraft::Membership::new(
        vec![[ME, 8, 9].into()],
        [server(ME), server(8), server(9)].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    );
    let first = Entry { log_id: super::place(0, 0), payload: openraft::EntryPayload::Membership(three) };
    let mut entries = vec![first];
    entries.extend((1..30).map(|index| command(5, index, format!("line {index}").into_bytes())));
    log.save_vote(&Vote::new_committed(6, 8)).await.unwrap();
    log.blocking_append(entries.clone()).await.unwrap();
    use openraft::RaftSnapshotBuilder;
    use openraft::storage::RaftStateMachine;
    machine.apply(entries[..15].to_vec()).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    log.save_committed(Some(super::place(5, 20))).await.unwrap();
    log.purge(super::place(5, 10)).await.unwrap();
}

#[test]
fn a_server_that_lost_its_majority_goes_on_alone_with_all_of_its_entries_and_a_higher_generation() {
    let platter = Platter::default();
    runtime().block_on(async {
        one_of_three(&platter).await;
        let before = survey(Disk::of_backend(platter.clone()), &names()).await.unwrap();
        assert_eq!(before.servers.keys().copied().collect::<Vec<_>>(), [ME, 8, 9]);
        assert_eq!((before.term, before.last.unwrap().index), (6, 29));
        assert_eq!((before.committed.unwrap().index, before.snapshot.unwrap().index), (20, 14));

        let at = recover(Disk::of_backend(platter.clone()), &names(), alone()).await.unwrap();
        assert_eq!((at.term, at.index), (7, 31));

        let single = Single::start(Disk::of_backend(platter.clone())).await.unwrap();
        single.leads().await;
        single.write(b"and on".to_vec()).await.unwrap();
        let lines = single.diary.lines();
        let told: Vec<_> = lines.iter().map(|line| String::from_utf8(line.2.clone()).unwrap()).collect();
        let mut expected: Vec<_> = (1..30).map(|index| format!("line {index}")).collect();
        expected.extend(["generation 1".to_owned(), "and on".to_owned()]);
        assert_eq!(told, expected);
        assert_eq!((lines[29].0, lines[29].1), (7, 31), "the command stands where it was said to");
        assert!(lines[30].0 > 7);
        let identity = single.store.identity();
        assert_eq!((identity.server, identity.generation, identity.cluster), (ME, 1, Some(4711)));
        single.snapshot_upto(31).await;
        single.stop().await;

        let after = survey(Disk::of_backend(platter), &names()).await.unwrap();
        assert_eq!(after.servers, [(ME, me())].into());
    });
}

#[test]
fn a_snapshots_file_goes_into_an_empty_directory_as_a_cluster_of_one() {
    let (origin, target) = (Platter::default(), tempfile::tempdir().unwrap());
    let path = target.path().join("backup");
    runtime().block_on(async {
        one_of_three(&origin).await;
        let file = copy(Disk::of_backend(origin.clone()), &names(), Diary::default()).await.unwrap();
        assert_eq!(file.upto().index, 29);
        file.write(&path).unwrap();
        file.write(&path).unwrap();
        assert_eq!(SnapshotFile::read(&path).unwrap(), file);
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 1, "nothing is left beside it");

        let into = || Disk::in_directory(target.path().join("data"));
        let theirs = Names { network: "theirs".to_owned(), ..names() };
        let refused = restore(into(), &theirs, file.clone(), 77, alone()).await.unwrap_err();
        assert!(matches!(refused, StoreError::OtherNetwork { .. }), "{refused}");
        assert!(!target.path().join("data").exists());

        let at = restore(into(), &names(), file.clone(), 77, alone()).await.unwrap();
        assert_eq!(at.index, 31);
        let again = restore(into(), &names(), file, 78, alone()).await.unwrap_err();
        assert!(matches!(again, StoreError::NotEmpty { .. }), "{again}");

        let single = Single::start(into()).await.unwrap();
        single.leads().await;
        single.write(b"and on".to_vec()).await.unwrap();
        let told: Vec<_> = single.diary.lines().into_iter().map(|line| line.2).collect();
        assert_eq!(told.len(), 31);
        assert_eq!(told[..2], [b"line 1", b"line 2"]);
        assert_eq!(told[29..], [b"generation 1".to_vec(), b"and on".to_vec()]);
        assert_eq!(
            single.store.identity(),
            Identity { server: 77, names: names(), cluster: Some(4711), generation: 1 }
        );
        single.stop().await;
    });
}

#[test]
fn a_running_servers_snapshot_is_a_file_as_well() {
    runtime().block_on(async {
        let single = Single::start(Disk::of_backend(Platter::default())).await.unwrap();
        single.found().await;
        single.leads().await;
        single.write(b"one".to_vec()).await.unwrap();
        single.snapshot_upto(1).await;
        let snapshot = single.raft.get_snapshot().await.unwrap().unwrap();
        let file = SnapshotFile::of(&single.store.identity(), snapshot);
        assert_eq!(Diary::of(&file.state), single.diary.lines());
        single.stop().await;
    });
}

#[test]
fn a_damaged_or_short_snapshots_file_is_refused_with_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    let platter = Platter::default();
    now(one_of_three(&platter));
    now(copy(Disk::of_backend(platter), &names(), Diary::default())).unwrap().write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        SnapshotFile::read(&path).unwrap_err().to_string()
    };
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        SnapshotFile::decode(&changed).unwrap_err();
    }
    for length in 0..bytes.len() {
        SnapshotFile::decode(&bytes[..length]).unwrap_err();
    }
    let short = refused(&bytes[..bytes.len() - 3]);
    assert!(short.contains(&path.display().to_string()) && short.contains("bytes of"), "{short}");
    assert!(refused(b"PK\x03\x04 an archive of pictures").contains("does not begin like one"));
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert!(refused(&newer).contains("version 9"), "{}", refused(&newer));
    let mut longer = bytes;
    longer.push(0);
    assert!(refused(&longer).contains("bytes of"));
}

#[test]
fn an_empty_place_is_not_recovered_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nothing");
    let nothing = runtime().block_on(recover(Disk::in_directory(&path), &names(), alone())).unwrap_err();
    assert!(matches!(nothing, StoreError::Empty { .. }), "{nothing}");
    assert!(!path.exists());
    let nothing = now(survey(Disk::of_backend(Platter::default()), &names())).unwrap_err();
    assert!(matches!(nothing, StoreError::Empty { .. }), "{nothing}");
    now(Store::open(Disk::of_backend(Platter::default()), &names(), 1)).unwrap();
}
