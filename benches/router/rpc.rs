//! Requests through the router beside the bare messenger's, between two processes and in one, in one run, as ratios.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use karere::router::{Hub, Node, StaticList};
use karere::{Contact, Kind, MemberId, Message, Messenger, Request};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Ask(Vec<u8>);
impl Message for Ask {
    const KIND: Kind = Kind::new("bench.ask", 1).open();
}
#[derive(Serialize, Deserialize)]
struct Answer(Vec<u8>);
impl Message for Answer {
    const KIND: Kind = Kind::new("bench.answer", 1).open();
}
impl Request for Ask {
    type Reply = Answer;
}

const LONG: Duration = Duration::from_secs(30);
const AT_ONCE: usize = 64;

/// Answers, by both ways.
pub(crate) async fn serve(client: &str) {
    let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
    let node = Node::builder().without_views().source(StaticList::new([client])).start(&messenger).unwrap();
    let _host =
        node.host().concurrency(8).on(|Ask(bytes), _| async move { Ok(Answer(bytes)) }).start().unwrap();
    messenger.add_request_handler(|_, Ask(bytes)| async move { Ok(Answer(bytes)) }).unwrap();
    println!("{}", messenger.local_address().unwrap());
    // Until its parent ends.
    std::thread::spawn(|| {
        std::io::stdin().lines().for_each(drop);
        std::process::exit(0);
    });
    std::future::pending::<()>().await;
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

#[derive(Clone)]
enum By {
    Messenger(Messenger, MemberId),
    Router(Hub),
}

impl By {
    async fn ask(&self, bytes: Vec<u8>) -> usize {
        match self {
            Self::Messenger(messenger, to) => {
                messenger.request(&Ask(bytes), *to, LONG).await.unwrap().0.len()
            }
            Self::Router(hub) => hub.request(Ask(bytes)).callback::<Answer>().await.unwrap().0.len(),
        }
    }
}

/// Requests a second, and the round trips of one after the other in ns: p50, p99.
async fn measure(by: &By, size: usize, time: Duration) -> (f64, u64, u64) {
    let mut trips = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let from = Instant::now();
        assert_eq!(by.ask(vec![7; size]).await, size);
        trips.push(from.elapsed().as_nanos() as u64);
    }
    trips.sort_unstable();
    let at = |share: usize| trips[trips.len() * share / 100];
    let (p50, p99) = (at(50), at(99));
    (rate(by, size, time).await, p50, p99)
}

/// Requests a second, with some at once.
async fn rate(by: &By, size: usize, time: Duration) -> f64 {
    let from = Instant::now();
    let end = from + time;
    let asking: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let by = by.clone();
            tokio::spawn(async move {
                let mut count = 0_u64;
                while Instant::now() < end {
                    by.ask(vec![7; size]).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for one in asking {
        count += one.await.unwrap();
    }
    count as f64 / from.elapsed().as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn compare(what: &str, bare: &By, routed: &By, rounds: usize, time: Duration) {
    for size in [64, 1024, 16 * 1024] {
        let (mut rate, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = Default::default();
        for _ in 0..rounds {
            let one = measure(bare, size, time).await;
            let other = measure(routed, size, time).await;
            rate.push(other.0 / one.0);
            p50.push(other.1 as f64 / one.1 as f64);
            p99.push(other.2 as f64 / one.2 as f64);
            last = (one, other);
        }
        let ((r1, a1, b1), (r2, a2, b2)): ((f64, u64, u64), (f64, u64, u64)) = last;
        println!(
            "{what:14} {size:6} B  rate {:.2}  p50 {:.2}  p99 {:.2}   (bare {r1:.0}/s {:.1}/{:.1} us, router {r2:.0}/s {:.1}/{:.1} us)",
            median(rate),
            median(p50),
            median(p99),
            a1 as f64 / 1e3,
            b1 as f64 / 1e3,
            a2 as f64 / 1e3,
            b2 as f64 / 1e3,
        );
    }
}

/// Two processes, and both ways between them.
struct Two {
    messenger: Messenger,
    node: Node,
    bare: By,
    routed: By,
    _contact: Contact,
    server: Server,
}

impl Two {
    async fn start() -> Self {
        let messenger = Messenger::builder().bind("127.0.0.1:0").start().await.unwrap();
        let own = messenger.local_address().unwrap().to_string();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child =
            command.arg("serve").arg(&own).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let server = Server(child);
        let address = address.trim().to_owned();
        let source = StaticList::new([address.clone()]);
        let node = Node::builder().without_views().source(source).start(&messenger).unwrap();
        while node.external_routes().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let contact = messenger.contact(&address).await.unwrap();
        let (bare, routed) = (By::Messenger(messenger.clone(), contact.id()), By::Router(node.hub()));
        Self { messenger, node, bare, routed, _contact: contact, server }
    }
}

/// What a process has used: microseconds of a processor, calls that write.
fn used(process: u32) -> [f64; 2] {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: f64 = times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    let io = read("io");
    let writes = io.lines().find_map(|line| line.strip_prefix("syscw: ")).and_then(|n| n.parse().ok());
    [ticks * 10_000.0, writes.unwrap_or(0.0)]
}

/// One of both ways alone, to be profiled.
pub(crate) async fn load(by: &str, size: usize, seconds: u64) {
    let two = Two::start().await;
    let by = if by == "bare" { &two.bare } else { &two.routed };
    let processes = [std::process::id(), two.server.0.id()];
    let before = processes.map(used);
    let rate = rate(by, size, Duration::from_secs(seconds)).await;
    let count = rate * seconds as f64;
    let [client, server] = [0, 1].map(|at| {
        let after = used(processes[at]);
        [0, 1].map(|what| (after[what] - before[at][what]) / count)
    });
    println!(
        "{rate:.0} requests a second; of each asker {:.2} us, {:.3} writes; answerer {:.2} us, {:.3} writes",
        client[0], client[1], server[0], server[1]
    );
}

pub(crate) async fn run(quick: bool) {
    let (rounds, time) = if quick { (3, Duration::from_millis(300)) } else { (7, Duration::from_secs(2)) };
    let Two { messenger, node, bare, routed, .. } = &Two::start().await;
    compare("two processes", bare, routed, rounds, time).await;
    let _host =
        node.host().concurrency(8).on(|Ask(bytes), _| async move { Ok(Answer(bytes)) }).start().unwrap();
    messenger.add_request_handler(|_, Ask(bytes)| async move { Ok(Answer(bytes)) }).unwrap();
    let bare = By::Messenger(messenger.clone(), messenger.id());
    compare("one process", &bare, routed, rounds, time).await;
}
