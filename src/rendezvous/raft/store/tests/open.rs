//! What opens, what is refused, and what a refusal says.

use std::fs;
use std::io::ErrorKind;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder, Vote};

use super::{Diary, Disk, ME, Names, Store, StoreError, command, names, now, parts, place};
use crate::rendezvous::raft::store::{identity, record, tables};
use crate::testing::platter::Platter;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn a_server_is_the_same_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/of/it");
    let entries: Vec<_> = (1..=9).map(|index| command(3, index, vec![index as u8; 40])).collect();
    runtime().block_on(async {
        let (store, mut log, mut machine) = parts(Disk::in_directory(&path)).await.unwrap();
        store.set_cluster(99).await.unwrap();
        log.save_vote(&Vote::new(4, 2)).await.unwrap();
        log.blocking_append(entries.clone()).await.unwrap();
        machine.apply(entries[..5].to_vec()).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.purge(place(3, 3)).await.unwrap();
    });
    runtime().block_on(async {
        let store = Store::open(Disk::in_directory(&path), &names(), 1234).await.unwrap();
        assert_eq!((store.server(), store.identity().cluster), (ME, Some(99)), "not the fresh number");
        let (mut log, mut machine) = store.into_parts(Diary::default()).await.unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(4, 2)));
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[3..]);
        assert_eq!(machine.applied_state().await.unwrap().0, Some(place(3, 5)));
        machine.apply(entries[5..].to_vec()).await.unwrap();
        let (_, state) = machine.picture();
        assert_eq!(Diary::of(&state).len(), 9);
    });
}

#[cfg(unix)]
#[test]
fn a_data_directory_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    runtime().block_on(parts(Disk::in_directory(&path))).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("rendezvous.redb")), 0o600);
}

#[test]
fn a_directory_in_use_is_refused_by_name_until_its_server_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let held = runtime().block_on(parts(Disk::in_directory(path))).unwrap();
    let refused = runtime().block_on(parts(Disk::in_directory(path))).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    drop(held);
    runtime().block_on(parts(Disk::in_directory(path))).unwrap();
}

#[test]
fn a_directory_of_another_network_is_refused_with_both_names_and_left_alone() {
    let platter = Platter::default();
    now(parts(Disk::of_backend(platter.clone()))).unwrap();
    for theirs in [
        Names { network: "theirs".to_owned(), ..names() },
        Names { environment: "production".to_owned(), ..names() },
    ] {
        let refused = now(Store::open(Disk::of_backend(platter.clone()), &theirs, 1)).unwrap_err();
        assert!(matches!(refused, StoreError::OtherNetwork { .. }), "{refused}");
        let text = refused.to_string();
        assert!(text.contains(&names().to_string()) && text.contains(&theirs.to_string()), "{text}");
    }
    let store = now(Store::open(Disk::of_backend(platter), &names(), 1)).unwrap();
    assert_eq!(store.server(), ME);
}

#[test]
fn a_store_of_a_newer_release_is_refused_and_left_alone() {
    let platter = Platter::default();
    let newer = |format: u32| {
        let platter = platter.clone();
        async move {
            let (open, _) =
                identity::open(Disk::of_backend(platter), &names(), ME).await.map_err(|_| "refused")?;
            open.write(move |to| tables::put_format(to, format)).await.map_err(|_| "not written")
        }
    };
    now(newer(2)).unwrap();
    let refused = now(parts(Disk::of_backend(platter.clone()))).unwrap_err();
    assert!(matches!(refused, StoreError::NewerFormat { format: 2, known: 1, .. }), "{refused}");
    assert_eq!(now(newer(1)), Err("refused"), "it says so each time");
}

#[test]
fn a_value_of_another_version_or_with_a_changed_byte_is_an_error() {
    let sealed = record::encode("it", &"some text").unwrap();
    assert_eq!(record::decode::<String>("it", &sealed).unwrap(), "some text");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 0x40;
        let error = record::decode::<String>("it", &changed).unwrap_err().at("here").to_string();
        assert!(error.contains("it ") && error.contains("here"), "{error}");
    }
    for length in 0..sealed.len() {
        record::decode::<String>("it", &sealed[..length]).unwrap_err();
    }
}

#[test]
fn what_the_system_refuses_is_said_by_blame() {
    type Is = fn(&StoreError) -> bool;
    let cases: [(ErrorKind, Is); 4] = [
        (ErrorKind::PermissionDenied, |error| matches!(error, StoreError::Denied { .. })),
        (ErrorKind::StorageFull, |error| matches!(error, StoreError::Full { .. })),
        (ErrorKind::QuotaExceeded, |error| matches!(error, StoreError::Full { .. })),
        (ErrorKind::TimedOut, |error| matches!(error, StoreError::Disk { .. })),
    ];
    for (kind, is) in cases {
        let platter = Platter::default();
        platter.refuse(Some(kind));
        let refused = now(parts(Disk::of_backend(platter.clone()))).unwrap_err();
        assert!(is(&refused), "{kind:?}: {refused}");
        platter.refuse(None);
        let (store, mut log, _machine) = now(parts(Disk::of_backend(platter.clone()))).unwrap();
        platter.refuse(Some(kind));
        now(log.save_vote(&Vote::new(1, 1))).unwrap_err();
        let fault = store.fault().borrow().clone().unwrap();
        assert!(is(&fault), "{kind:?}: {fault}");
    }
}

#[test]
fn what_a_crash_left_of_a_founding_is_thrown_away() {
    let founded = tempfile::tempdir().unwrap();
    runtime().block_on(parts(Disk::in_directory(founded.path()))).unwrap();
    let whole = fs::read(founded.path().join("rendezvous.redb")).unwrap();
    for length in [0, 1, 300, 4096, whole.len() / 2, whole.len()] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("rendezvous.redb.new"), &whole[..length]).unwrap();
        let opened = runtime().block_on(Store::open(Disk::in_directory(directory.path()), &names(), 55));
        assert_eq!(opened.unwrap().server(), 55, "of {length} bytes");
        assert!(!directory.path().join("rendezvous.redb.new").exists());
    }
}

#[test]
fn a_file_that_is_none_of_ours_is_refused_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rendezvous.redb");
    let text = "somebody's diary, and nothing that redb wrote. ".repeat(200);
    fs::write(&path, &text).unwrap();
    let refused = runtime().block_on(parts(Disk::in_directory(directory.path()))).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}
