//! A door for the fuzzer: values as they lie on a disk, as they are and with their checksum put right.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::file::SnapshotFile;
use super::identity::Identity;
use super::record;
use super::tables::Entry;

pub(in crate::rendezvous::raft) fn records(bytes: &[u8]) {
    drop(record::open("a record", bytes));
    let Some((which, body)) = bytes.split_first() else { return };
    match which % 3 {
        0 => stable::<Entry>(body),
        1 => stable::<Identity>(body),
        _ => stable::<openraft::Vote<u64>>(body),
    }
}

fn stable<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let _any = record::decode::<T>("a record", body);
    let Ok(found) = record::decode::<T>("a record", &record::seal(body)) else { return };
    let Ok(again) = record::encode("a record", &found) else { panic!("what was decoded is not encoded") };
    let second = record::decode::<T>("a record", &again).and_then(|found| record::encode("a record", &found));
    assert!(second.is_ok_and(|second| second == again), "the same again");
}

pub(in crate::rendezvous::raft) fn snapshot_file(bytes: &[u8]) {
    let _any = SnapshotFile::decode(bytes);
    let mut repaired = b"karereSN\x01".to_vec();
    repaired.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    repaired.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    repaired.extend_from_slice(bytes);
    let Ok(found) = SnapshotFile::decode(&repaired) else { return };
    let Ok(again) = found.encode() else { panic!("what was decoded is not encoded") };
    assert_eq!(SnapshotFile::decode(&again), Ok(found));
}
