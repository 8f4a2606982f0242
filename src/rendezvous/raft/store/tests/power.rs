//! The power is cut at any moment: what was acknowledged is there when it is back, and the store opens.

use std::collections::BTreeMap;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{LogId, RaftLogReader, RaftSnapshotBuilder, Vote};

use super::machine::Lines;
use super::single::Single;
use super::{Diary, Disk, ME, StoreError, command, now, parts, place};
use crate::rendezvous::raft::store::state;
use crate::rendezvous::raft::store::tables::Entry;
use crate::rendezvous::raft::types::ServerId;
use crate::testing::platter::Platter;

/// What a store holds, or must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Book {
    vote: Option<Vote<ServerId>>,
    log: BTreeMap<u64, Entry>,
    purged: Option<LogId<ServerId>>,
    snapshot: Option<(LogId<ServerId>, Lines)>,
}

#[derive(Clone, Debug)]
enum Step {
    Vote(Vote<ServerId>),
    Append(Vec<Entry>),
    Truncate(u64),
    Snapshot,
    Purge,
}

impl Book {
    fn last(&self) -> u64 {
        self.log.keys().next_back().copied().or(self.purged.map(|purged| purged.index)).unwrap_or(0)
    }

    fn after(&self, step: &Step) -> Self {
        let mut book = self.clone();
        match step {
            Step::Vote(vote) => book.vote = Some(*vote),
            Step::Append(entries) => {
                book.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
            }
            Step::Truncate(first) => drop(book.log.split_off(first)),
            Step::Snapshot => book.snapshot = Some(book.state()),
            Step::Purge => {
                let upto = book.snapshot.as_ref().unwrap().0;
                book.log = book.log.split_off(&(upto.index + 1));
                book.purged = Some(upto);
            }
        }
        book
    }

    /// The machine with all of the log applied.
    fn state(&self) -> (LogId<ServerId>, Lines) {
        let (from, mut lines) = self.snapshot.clone().map_or((0, Lines::new()), |(at, it)| (at.index, it));
        let mut last = self.snapshot.as_ref().map(|snapshot| snapshot.0);
        for entry in self.log.range(from + 1..).map(|(_, entry)| entry) {
            let openraft::EntryPayload::Normal(command) = &entry.payload else { unreachable!() };
            lines.push((entry.log_id.leader_id.term, entry.log_id.index, command.0.to_vec()));
            last = Some(entry.log_id);
        }
        (last.unwrap(), lines)
    }
}

/// Draws what comes next; a step that makes sense to a log.
fn draw(random: &mut fastrand::Rng, book: &Book) -> Step {
    let term = book.vote.map_or(1, |vote| vote.leader_id.term);
    let applied = book.snapshot.as_ref().map_or(0, |snapshot| snapshot.0.index);
    let last = book.last();
    match random.u8(0..16) {
        0..3 => Step::Vote(Vote::new(term + random.u64(0..3), random.u64(1..4))),
        3 if last > applied => Step::Truncate(random.u64(applied + 1..=last)),
        4 if last > applied => Step::Snapshot,
        5 if book.snapshot.as_ref().is_some_and(|kept| Some(kept.0) != book.purged) => Step::Purge,
        _ => {
            let count = random.u64(1..6);
            // Some larger than a page.
            let most = if random.u8(0..8) == 0 { 20_000 } else { 300 };
            let bytes = |random: &mut fastrand::Rng| vec![random.u8(..); random.usize(0..most)];
            Step::Append((1..=count).map(|next| command(term, last + next, bytes(random))).collect())
        }
    }
}

/// A server's life until the power goes: what it was told is done, and what it was about to do. None: it never began.
async fn live(
    platter: &Platter,
    random: &mut fastrand::Rng,
    mut book: Book,
    steps: u32,
) -> Option<(Book, Option<Step>)> {
    let Ok((_store, mut log, mut machine)) = parts(Disk::of_backend(platter.clone())).await else {
        assert!(platter.is_off(), "a store opens while there is power");
        return None;
    };
    for _ in 0..steps {
        let step = draw(random, &book);
        let done = match &step {
            Step::Vote(vote) => log.save_vote(vote).await.is_ok(),
            Step::Append(entries) => log.blocking_append(entries.clone()).await.is_ok(),
            Step::Truncate(first) => log.truncate(place(1, *first)).await.is_ok(),
            Step::Snapshot => {
                let fresh = log.try_get_log_entries(machine.next()..).await.unwrap_or_default();
                machine.apply(fresh).await.unwrap();
                log.save_committed(machine.applied_state().await.unwrap().0).await.unwrap();
                machine.get_snapshot_builder().await.build_snapshot().await.is_ok()
            }
            Step::Purge => log.purge(book.snapshot.as_ref().unwrap().0).await.is_ok(),
        };
        if !done {
            assert!(platter.is_off(), "{step:?} was refused while there was power");
            return Some((book, Some(step)));
        }
        book = book.after(&step);
    }
    // It goes while all is quiet: what is not synced of the closing is lost as well.
    platter.cut_after(random.u64(0..8));
    Some((book, None))
}

async fn read(platter: &Platter) -> Result<Book, StoreError> {
    let (store, mut log, _machine) = parts(Disk::of_backend(platter.clone())).await?;
    assert_eq!(store.server(), ME);
    let entries = log.try_get_log_entries(..).await.unwrap();
    let of_log = log.get_log_state().await.unwrap();
    let snapshot = state::read(&store.disk).await?;
    let book = Book {
        vote: log.read_vote().await.unwrap(),
        log: entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
        purged: of_log.last_purged_log_id,
        snapshot: snapshot.map(|(meta, bytes)| (meta.last_log_id.unwrap(), Diary::of(&bytes))),
    };
    assert!(log.read_committed().await.unwrap() <= of_log.last_log_id);
    Ok(book)
}

/// Three lives of one disk, each ended by a cut. What the cuts did wrong.
fn cuts(seed: u64, lies: bool) -> Result<u32, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut platter = Platter::default();
    if lies {
        platter.lie();
    }
    let mut book = Book::default();
    let (mut cuts, mut founded) = (0, false);
    for life in 0..3 {
        let calls_max = if random.bool() { 60 } else { 600 };
        platter.cut_after(random.u64(0..calls_max));
        let steps = random.u32(0..60);
        let lived = now(live(&platter, &mut random, book.clone(), steps));
        platter = platter.after_the_cut(&mut random);
        if lived.is_none() && !founded {
            // Cut while it was founded, which a directory starts over: see `directory`.
            platter = Platter::default();
            continue;
        }
        let (done, doing) = lived.unwrap_or((book, None));
        founded = true;
        cuts += 1;
        let found = now(read(&platter)).map_err(|error| format!("seed {seed} life {life}: {error}"))?;
        let may = doing.as_ref().map(|step| done.after(step));
        if found != done && Some(&found) != may.as_ref() {
            return Err(format!("seed {seed} life {life}: {done:?} or {doing:?} became {found:?}"));
        }
        book = found;
    }
    Ok(cuts)
}

#[test]
fn a_power_cut_at_any_moment_loses_no_vote_and_no_entry_and_the_store_opens() {
    let count: u32 = (0..100).map(|seed| cuts(seed, false).unwrap()).sum();
    assert!(count >= 200, "{count} cuts");
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out_by_the_same_cuts() {
    let found = (0..20)
        .filter(|seed| std::panic::catch_unwind(|| cuts(*seed, true)).map_or(true, |cuts| cuts.is_err()));
    let found = found.count();
    assert!(found > 15, "only {found} of 20 histories");
}

#[test]
fn what_a_proposer_was_told_outlives_a_power_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut platter = Platter::default();
    let mut told = Vec::new();
    for life in 0..16_u8 {
        told = runtime.block_on(async {
            let single = Single::start(Disk::of_backend(platter.clone())).await.unwrap();
            if life == 0 {
                single.found().await;
            }
            single.leads().await;
            platter.cut_after(random.u64(0..200));
            let mut count = 0;
            loop {
                let line = vec![life, count];
                count += 1;
                if single.write(line.clone()).await.is_err() {
                    break;
                }
                told.push(line);
                if count % 8 == 0 {
                    let _ = single.raft.trigger().snapshot().await;
                }
            }
            assert!(platter.is_off());
            single.stop().await;
            told
        });
        platter = platter.after_the_cut(&mut random);
    }
    let single = runtime.block_on(async {
        let single = Single::start(Disk::of_backend(platter)).await.unwrap();
        single.leads().await;
        single.write(b"end".to_vec()).await.unwrap();
        single
    });
    let mut lines = single.diary.lines().into_iter().map(|(_, _, line)| line);
    println!("{} told in 16 lives, {} there", told.len(), single.diary.lines().len());
    for line in &told {
        // What was refused by the cut may be there as well, in its place.
        assert!(lines.any(|there| there == *line), "{line:?} is lost");
    }
    assert!(told.len() > 100, "{} told", told.len());
}
