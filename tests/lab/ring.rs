//! Many members in one process, each linked with its eight neighbours in a ring: what they cost, and that nothing of
//! them is left.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use karere::{Kind, Member, MemberId, Message, Messenger, View, ViewId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::labs::form::Form;
use crate::labs::network::{Skip, Tried};
use crate::report::Row;
use crate::support::Karere;
use crate::worker::say;

/// Its environment holds a number of members and one of seconds here.
pub(crate) const RING: &str = "KARERE_LAB_RING";

/// On each side.
const NEIGHBOURS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(50);

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Hop {
    to: MemberId,
    round: u64,
}

impl Message for Hop {
    const KIND: Kind = Kind::new("lab.hop", 1);
}

struct Ring {
    all: Vec<Messenger>,
    came: Arc<AtomicU64>,
    wrong: Arc<Mutex<Vec<String>>>,
}

/// What the process has: descriptors, resident KiB, processor time in milliseconds, tasks.
fn resources() -> [u64; 4] {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let processor = (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64;
    [descriptors, resident, processor, tasks]
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}: {:?}", resources());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

impl Ring {
    async fn start(count: usize) -> Self {
        let mut this = Self { all: Vec::new(), came: Arc::default(), wrong: Arc::default() };
        for _ in 0..count {
            let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
            let (me, came, wrong) = (messenger.id(), Arc::clone(&this.came), Arc::clone(&this.wrong));
            let rounds = Mutex::new(std::collections::HashMap::new());
            let take = move |from: MemberId, hop: Hop| {
                let mut rounds = rounds.lock().unwrap();
                let expected = rounds.entry(from).or_insert(0);
                if hop.to != me || hop.round != *expected {
                    wrong
                        .lock()
                        .unwrap()
                        .push(format!("{me} from {from}: round {}, not {expected}", hop.round));
                }
                *expected += 1;
                came.fetch_add(1, Ordering::Relaxed);
                async {}
            };
            messenger.add_handler(take).unwrap();
            this.all.push(messenger);
        }
        this
    }

    fn install(&self) {
        let id = ViewId { generation: 1, number: 1 };
        let joined = |messenger: &Messenger| Member { joined: Some(id), ..messenger.member() };
        let view = View::new(id, self.all.iter().map(joined));
        for messenger in &self.all {
            assert_eq!(messenger.install_view(view.clone()).unwrap().joined.len(), self.all.len());
        }
    }

    /// One message over each link, each way. How long until all were handled.
    async fn round(&self, round: u64) -> Duration {
        let (start, count) = (Instant::now(), self.all.len());
        for (at, from) in self.all.iter().enumerate() {
            for step in (1..=NEIGHBOURS).chain(count - NEIGHBOURS..count) {
                let to = self.all[(at + step) % count].id();
                let report = from.send(&Hop { to, round }, [to]).unwrap();
                assert!(report.is_complete(), "{report:?}");
            }
        }
        let expected = (round + 1) * self.links() * 2;
        until("each message came", || self.came.load(Ordering::Relaxed) >= expected).await;
        start.elapsed()
    }

    fn links(&self) -> u64 {
        (self.all.len() * NEIGHBOURS) as u64
    }

    fn connected(&self) -> u64 {
        let of = |messenger: &Messenger| {
            messenger.stats().peers.iter().filter(|peer| peer.is_connected).count() as u64
        };
        self.all.iter().map(of).sum()
    }
}

/// All of it, in a process of its own; says the figures. Twice, because what an allocator keeps looks like a leak the first
/// time.
pub(crate) async fn run(members: usize, idle: Duration) {
    println!();
    for _ in 0..2 {
        once(members, idle).await;
    }
}

async fn once(members: usize, idle: Duration) {
    let before = resources();
    let start = Instant::now();
    let ring = Ring::start(members).await;
    let started = start.elapsed();
    let start = Instant::now();
    ring.install();
    let (installed, with_views) = (start.elapsed(), resources());
    let first = ring.round(0).await;
    // Both sides hold the link, and none is there twice.
    let sockets = ring.links() * 2 + members as u64;
    let met = || ring.connected() == ring.links() * 2 && resources()[0] <= before[0] + sockets;
    until("one link a pair", met).await;
    let (linked, second) = (resources(), ring.round(1).await);
    until("all is acknowledged", || ring.all.iter().all(|one| one.stats().total().pending == 0)).await;
    let (spent, slept) = (resources()[2], Instant::now());
    tokio::time::sleep(idle).await;
    let spent = (resources()[2] - spent) as f64 / slept.elapsed().as_millis() as f64;
    let totals: Vec<_> = ring.all.iter().map(|one| one.stats().total()).collect();
    let sum = |of: fn(&karere::Books) -> u64| totals.iter().map(of).sum::<u64>();
    assert!(totals.iter().all(karere::Books::balance));
    assert_eq!(*ring.wrong.lock().unwrap(), Vec::<String>::new());
    let links = sum(|books| books.links);
    let books = [sum(|books| books.acked), sum(|books| books.not_sent), sum(|books| books.indeterminate)];
    let start = Instant::now();
    let closing: JoinSet<()> = ring.all.into_iter().map(|one| async move { one.close().await }).collect();
    closing.join_all().await;
    let closed = start.elapsed();
    until("nothing is left", || resources()[0] <= before[0] && resources()[3] <= before[3]).await;
    let after = resources();
    say(
        "ring",
        json!({"started_ms": started.as_millis() as u64, "installed_ms": installed.as_millis() as u64,
            "first_ms": first.as_millis() as u64, "second_ms": second.as_millis() as u64,
            "closed_ms": closed.as_millis() as u64, "idle_processors": spent, "links_ever": links, "books": books,
            "came": ring.came.load(Ordering::Relaxed), "before": before, "with_views": with_views, "linked": linked,
            "after": after}),
    );
}

/// How many descriptors a process may have at most here.
fn descriptors_max() -> u64 {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let hard = |line: &str| line.strip_prefix("Max open files")?.split_whitespace().nth(1)?.parse().ok();
    text.lines().find_map(hard).unwrap_or(u64::MAX)
}

pub(crate) fn ring(form: Form) -> Tried<Vec<Row>> {
    let members: u64 = form.pick(100, 1000);
    let needed = members * (2 * NEIGHBOURS as u64 + 1) * 5 / 4 + 200;
    if descriptors_max() < needed {
        return Err(Skip(format!("{needed} descriptors are needed, at most {} allowed", descriptors_max())));
    }
    let mut command = Command::new("sh");
    let order = format!("ulimit -n {needed}; exec \"$0\" \"$@\"");
    command.args(["-c", &order]).arg(std::env::current_exe().unwrap());
    command.env(RING, format!("{members} {}", form.pick(1, 5)));
    let ended =
        Karere::spawn(command, "--exact ring_of_members --nocapture", &[], Stdio::piped()).end().with(0);
    let text = String::from_utf8_lossy(&ended.stdout);
    let both: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [first, told] = both.as_slice() else { panic!("{text}") };
    let of = |what: &str, at: usize| told[what][at].as_u64().unwrap();
    // The most it had: what is freed the allocator may keep, and mostly it is used again. All kept would be more.
    let (most, most_again) = (first["linked"][1].as_u64().unwrap(), of("linked", 1));
    assert!(most_again <= most + most / 4 + 4096, "memory is kept: {most} KiB, then {most_again}");
    let links = members * NEIGHBOURS as u64;
    assert_eq!((&told["came"], of("books", 0)), (&(links * 4).into(), links * 4), "{told}");
    let took = |what: &str| told[what].as_u64().unwrap();
    let mebibytes = |what: &str| of(what, 1) / 1024;
    Ok(vec![Row {
        fault: format!("{members} members in one process, {links} links in a ring"),
        saw: format!(
            "bound in {} ms, views of all in {} ms, a message over each link both ways in {} ms (dials included), again in \
             {} ms; {} descriptors, {} tasks; {} MiB resident ({} with views; {} the first time); idle {:.0} % of a processor; \
             {} links ever; closed in {} ms, nothing left",
            took("started_ms"),
            took("installed_ms"),
            took("first_ms"),
            took("second_ms"),
            of("linked", 0),
            of("linked", 3),
            mebibytes("linked"),
            first["with_views"][1].as_u64().unwrap() / 1024,
            most / 1024,
            told["idle_processors"].as_f64().unwrap() * 100.0,
            took("links_ever") / 2,
            took("closed_ms"),
        ),
        took_ms: Some(took("first_ms")),
        promise: "one link a pair; each message once; no descriptor and no task left".to_owned(),
        acked: of("books", 0),
        not_sent: of("books", 1),
        indeterminate: of("books", 2),
        ..Row::default()
    }])
}
