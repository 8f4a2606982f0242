//! What a write costs. Run it by name: `cargo test --lib what_an_append_costs -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use openraft::Vote;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

use super::{Disk, command, now, parts};

#[test]
#[ignore = "figures, not a claim"]
fn what_an_append_costs() {
    let directory = tempfile::tempdir().unwrap();
    let bare: Vec<_> = (0..300_u64).map(|at| synced_write(&directory.path().join("bare"), at)).collect();
    now(async {
        let (_store, mut log, _machine) = parts(Disk::in_directory(directory.path())).await.unwrap();
        let (mut votes, mut single, mut many) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = 0;
        for term in 0..300 {
            let begun = Instant::now();
            log.save_vote(&Vote::new(term, 1)).await.unwrap();
            votes.push(begun.elapsed());
            for (count, times) in [(1, &mut single), (64, &mut many)] {
                let entries: Vec<_> = (next..next + count).map(|at| command(1, at, vec![7; 200])).collect();
                next += count;
                let begun = Instant::now();
                log.blocking_append(entries).await.unwrap();
                times.push(begun.elapsed());
            }
        }
        for (what, times) in [
            ("4 KiB and fdatasync", bare),
            ("vote", votes),
            ("1 entry of 200 B", single),
            ("64 entries", many),
        ] {
            let (median, late) = percentiles(times);
            println!("{what:20} p50 {median:8.1?} p99 {late:8.1?}");
        }
    });
}

fn synced_write(path: &std::path::Path, at: u64) -> Duration {
    use std::os::unix::fs::FileExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path).unwrap();
    let begun = Instant::now();
    file.write_all_at(&[at as u8; 4096], at % 16 * 4096).unwrap();
    file.sync_data().unwrap();
    begun.elapsed()
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
