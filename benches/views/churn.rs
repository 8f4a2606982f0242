//! View changes under load: in each the last guest goes and another comes, with messages, receipts, byte streams and a
//! request under way. Memory, tasks and descriptors at the end are those of the beginning.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use karere::{Kind, Limits, Member, MemberId, Message, Messenger, Receipt, Request, Timeouts};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::field::{Load, PATIENCE, message, start, until, view};
use crate::proc;
use crate::report::Report;

/// Messages with receipts, each way, of each member and the guest.
const MESSAGES: usize = 20;
/// What a thousand more changes may leave in resident memory: what is remembered of members that are gone (within the
/// bounds of `limits.rs`), and what the allocator keeps.
const MORE_KIB: u64 = 8 << 10;

/// A question that nobody answers.
#[derive(Serialize, Deserialize)]
struct Never;

impl Message for Never {
    const KIND: Kind = Kind::new("bench.views.never", 1);
}

impl Request for Never {
    type Reply = Never;
}

struct Field {
    outside: Handle,
    members: [Messenger; 3],
    view: u64,
    guest: Option<Guest>,
    /// What the guests were part of.
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    acked: u64,
    lost: u64,
    streams: u64,
    bytes: u64,
}

struct Guest {
    messenger: Messenger,
    work: Work,
}

/// What is under way with a guest, each by its name.
#[derive(Default)]
struct Work {
    tasks: JoinSet<(&'static str, Tally)>,
    waiting: Vec<&'static str>,
}

impl Work {
    fn add(&mut self, at: &Handle, name: &'static str, part: impl Future<Output = Tally> + Send + 'static) {
        self.waiting.push(name);
        self.tasks.spawn_on(async move { (name, part.await) }, at);
    }

    /// The next that ends; `None` when all have.
    async fn next(&mut self) -> Option<Tally> {
        let Ok(next) = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await else {
            panic!("waits for ever: {:?}", self.waiting);
        };
        let (name, part) = next?.expect("it ends as it should");
        let at = self.waiting.iter().position(|waiting| *waiting == name).expect("it was under way");
        self.waiting.swap_remove(at);
        Some(part)
    }
}

pub(crate) async fn measure(report: &mut Report, outside: &Handle, quick: bool) {
    let (warm, changes) = if quick { (50, 200) } else { (100, 1000) };
    let mut field = Field::start(outside).await;
    field.churn(warm, &mut |_, _| {}).await;
    let first = field.levels(None).await;
    let mut most = first;
    report.section(&format!("churn: {changes} view changes under load, after {warm} to warm up"));
    let begun = Instant::now();
    field
        .churn(changes, &mut |change, levels| {
            if change % (changes / 10) == 0 {
                let [resident, tasks, descriptors] = levels;
                println!(
                    "  {change:>5}: {resident} KiB, {tasks} tasks, {descriptors} descriptors, under load"
                );
            }
            for (most, level) in most.iter_mut().zip(levels) {
                *most = (*most).max(level);
            }
        })
        .await;
    let took = begun.elapsed();
    let last = field.levels(Some(first)).await;
    let Tally { acked, lost, streams, bytes } = field.tally;
    println!(
        "  {:.1} ms a change; of the guests' messages {acked} were acknowledged and {lost} told to be lost, none is \
         pending; {streams} byte streams of {:.1} MiB in all were ended by it",
        took.as_secs_f64() * 1e3 / f64::from(changes),
        bytes as f64 / f64::from(1 << 20)
    );
    report.levels("churn: resident memory", "KiB", (first[0], most[0], last[0]), Some(MORE_KIB));
    report.levels("churn: tokio tasks", "", (first[1], most[1], last[1]), Some(0));
    report.levels("churn: descriptors", "", (first[2], most[2], last[2]), Some(0));
    field.end().await;
}

impl Field {
    async fn start(outside: &Handle) -> Self {
        let inside = Handle::current();
        let member = async |at: &Handle| start(at, Limits::default(), Timeouts::default()).await;
        let members = [member(&inside).await, member(outside).await, member(outside).await];
        let mut field =
            Self { outside: outside.clone(), members, view: 0, guest: None, tally: Tally::default() };
        field.install(None);
        field
    }

    /// Each of the members installs the next view; the guest as well.
    fn install(&mut self, guest: Option<&Messenger>) {
        self.view += 1;
        let in_it: Vec<Member> = self.members.iter().chain(guest).map(Messenger::member).collect();
        let gone: Vec<MemberId> = self.guest.iter().map(|guest| guest.messenger.id()).collect();
        for (at, messenger) in self.members.iter().chain(guest).enumerate() {
            let change = messenger.install_view(view(self.view, in_it.clone())).expect("newer");
            assert!(at == 3 || change.left == gone, "{change:?}");
        }
    }

    /// So many changes, and then one without a guest.
    async fn churn(&mut self, changes: u32, look: &mut dyn FnMut(u32, [u64; 3])) {
        let (inside, outside) = (Handle::current(), self.outside.clone());
        let [a, b, c] = &self.members;
        let load = Load::between(&[(a, &inside, b, &outside), (b, &outside, c, &outside)]);
        for change in 1..=changes {
            let messenger = start(&outside, Limits::default(), Timeouts::default()).await;
            let never = |_from, _never: Never| pending::<Result<Never, String>>();
            messenger.add_request_handler(never).expect("one handler");
            self.install(Some(&messenger));
            if let Some(before) = self.guest.take() {
                self.see_off(before).await;
            }
            self.guest = Some(self.welcome(messenger, change % 2 == 0).await);
            look(change, self.now());
        }
        self.install(None);
        if let Some(before) = self.guest.take() {
            self.see_off(before).await;
        }
        load.stop().await;
    }

    /// Something of everything is under way with it. `met`: so far that it has handled something of each.
    async fn welcome(&self, messenger: Messenger, met: bool) -> Guest {
        let mut work = Work::default();
        let inside = Handle::current();
        let first = Arc::<AtomicBool>::default();
        for member in &self.members {
            let (there, back) = (burst(member, messenger.id()), burst(&messenger, member.id()));
            let handled = there.last().cloned();
            work.add(&inside, "receipts of a member", ended(there));
            work.add(&inside, "receipts of the guest", ended(back));
            if let (true, Some(receipt)) = (met, handled) {
                let handled = tokio::time::timeout(PATIENCE, receipt.handled()).await.expect("in time");
                handled.expect("it is a member");
            }
        }
        work.add(&inside, "a writer", write(self.members[0].clone(), messenger.id(), Arc::clone(&first)));
        work.add(&inside, "a request", unanswered(self.members[0].clone(), messenger.id()));
        work.add(&self.outside, "a reader", read(messenger.clone()));
        if met {
            until("bytes", || first.load(Ordering::SeqCst)).await;
        }
        Guest { messenger, work }
    }

    /// It was removed: all that was under way ends by itself, and soon.
    async fn see_off(&mut self, guest: Guest) {
        let Guest { messenger, mut work } = guest;
        // What it sent is its own to end.
        let closing = self.outside.spawn(async move { messenger.close().await });
        while let Some(part) = work.next().await {
            self.tally.acked += part.acked;
            self.tally.lost += part.lost;
            self.tally.streams += part.streams;
            self.tally.bytes += part.bytes;
        }
        closing.await.expect("closed");
    }

    /// Resident memory, tasks, descriptors.
    fn now(&self) -> [u64; 3] {
        let tasks = [Handle::current(), self.outside.clone()].map(|at| at.metrics().num_alive_tasks() as u64);
        [proc::resident_kib(), tasks.iter().sum(), proc::descriptors()]
    }

    /// As above, when all is quiet; waits for tasks and descriptors that are as before, but not for ever.
    async fn levels(&self, before: Option<[u64; 3]>) -> [u64; 3] {
        until("quiet", || self.members.iter().all(|member| member.stats().total().pending == 0)).await;
        for member in &self.members {
            assert!(member.stats().total().balance());
            assert!(member.stats().peers.len() <= 2, "only members are left");
        }
        // Last words, resets on their way, sockets of guests.
        let end = Instant::now() + Duration::from_secs(5);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        loop {
            let now = self.now();
            let settled = before.is_none_or(|before| now[1] <= before[1] && now[2] <= before[2]);
            if settled || Instant::now() > end {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        for member in &self.members {
            member.close().await;
        }
    }
}

fn burst(from: &Messenger, to: MemberId) -> Vec<Receipt> {
    let message = message(200);
    (0..MESSAGES).map(|_| from.send_with_receipt(&message, to).expect("queued")).collect()
}

async fn ended(receipts: Vec<Receipt>) -> Tally {
    let mut tally = Tally::default();
    for receipt in receipts {
        match receipt.acked().await {
            Ok(()) => tally.acked += 1,
            Err(_lost) => tally.lost += 1,
        }
    }
    tally
}

/// Writes until the stream fails, which it must.
async fn write(from: Messenger, to: MemberId, first: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally { streams: 1, ..Tally::default() };
    let Ok(mut stream) = from.open_stream(to, "churn").await else { return Tally::default() };
    let chunk = vec![7; 16 << 10];
    while stream.write_all(&chunk).await.is_ok() {
        tally.bytes += chunk.len() as u64;
        first.store(tally.bytes > 1 << 20, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    tally
}

/// Reads whatever streams are opened, until it is closed.
async fn read(guest: Messenger) -> Tally {
    while let Some(mut stream) = guest.accept_stream().await {
        let mut chunk = vec![0; 16 << 10];
        while stream.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
    }
    Tally::default()
}

async fn unanswered(from: Messenger, to: MemberId) -> Tally {
    assert!(from.request(&Never, to, PATIENCE * 10).await.is_err(), "nobody answers");
    Tally::default()
}
