//! Five processes of the membership examples live through joins, deaths, hangs, restarts and leaves, and agree.
//!
//! The examples stand beside this test: `cargo test` builds them, `cargo test --test membership` does not, so after a
//! change run `cargo build --examples` first.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// For each wait: far beyond what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(45);
const QUICK: &str = "--liveness-ms 1000 --check-ms 500 --retry-ms 250 --rate 100";
const ASYNC: &str = "membership";
const BLOCKING: &str = "membership_blocking";

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// News of any process of a cluster wake whoever waits for a condition.
#[derive(Debug, Default)]
struct News(Mutex<u64>, Condvar);

/// One process. Killed when dropped.
#[derive(Debug)]
struct Node {
    child: Child,
    orders: ChildStdin,
    lines: Arc<Mutex<Vec<Value>>>,
    /// It takes part: it was not killed, stopped, or told to leave.
    counts: bool,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn start(news: &Arc<News>, example: &str, flags: &str) -> Self {
        let mut path = std::env::current_exe().unwrap();
        path.pop();
        path.set_file_name(format!("examples/{example}"));
        let mut command = Command::new(&path);
        command.args(flags.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let (to, news) = (Arc::clone(&lines), Arc::clone(news));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                to.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                *news.0.lock().unwrap() += 1;
                news.1.notify_all();
            }
        });
        Self { child, orders, lines, counts: true }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn signal(&mut self, name: &str) {
        let order = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success(), "{order}");
    }

    fn all(&self, event: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line["event"] == event).cloned().collect()
    }

    fn last(&self, event: &str) -> Option<Value> {
        self.all(event).pop()
    }

    /// Its id now.
    fn id(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last().map(|line| text(&line["me"])).unwrap_or_default()
    }

    /// What is in the view that it installed last, if it is in one.
    fn view(&self) -> Option<Value> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = lines.last().is_some_and(|line| line["view"].is_string());
        lines.iter().rev().find(|line| is_in && line["event"] == "view").cloned()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn members(line: &Value) -> BTreeSet<String> {
    line["members"].as_array().into_iter().flatten().map(text).collect()
}

struct Cluster {
    news: Arc<News>,
    flags: String,
    nodes: Vec<Node>,
    /// Addresses of the nodes, in the same order.
    addresses: Vec<String>,
    report: Vec<(String, u64)>,
}

impl Cluster {
    fn start(examples: &[&str], flags: &str) -> Self {
        let news = Arc::default();
        let flags = flags.to_owned();
        let mut this = Self { news, flags, nodes: Vec::new(), addresses: Vec::new(), report: Vec::new() };
        this.add(examples[0], "");
        for example in &examples[1..] {
            let join = format!("--join {}", this.addresses[0]);
            this.add(example, &join);
        }
        this
    }

    fn add(&mut self, example: &str, flags: &str) {
        let node = Node::start(&self.news, example, &format!("{} {flags}", self.flags));
        self.nodes.push(node);
        let at = self.nodes.len() - 1;
        let address = self
            .wait("the address", |this| this.nodes[at].last("started").map(|line| text(&line["address"])));
        self.addresses.push(address);
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        let mut seen = self.news.0.lock().unwrap();
        loop {
            if let Some(it) = found(self) {
                return it;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(seen);
                panic!("waited for {what}: {}", self.story());
            }
            // News may come without a new line, so it is looked at in any case now and then.
            let most = left.min(Duration::from_millis(100));
            seen = self.news.1.wait_timeout(seen, most).unwrap().0;
        }
    }

    /// What each said last, for who has to find out why.
    fn story(&self) -> String {
        let mut story = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let lines = node.lines.lock().unwrap();
            let tail = &lines[lines.len().saturating_sub(12)..];
            story += &format!("\nnode {at}, counts: {}\n", node.counts);
            tail.iter().for_each(|line| story += &format!("  {:.400}\n", line.to_string()));
        }
        story
    }

    fn living(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.counts)
    }

    /// Waits until all who count have installed the same view, of exactly themselves. When the last one did, since
    /// `from`, goes to the report.
    fn agree(&mut self, what: &str, from: u64) -> Value {
        let (last, view) = self.wait(what, |this| {
            let views: Vec<_> = this.living().map(Node::view).collect::<Option<_>>()?;
            let ids: BTreeSet<_> = this.living().map(Node::id).collect();
            let same = |view: &Value| view["view"] == views[0]["view"] && members(view) == ids;
            let last = views.iter().filter_map(|view| view["at_ms"].as_u64()).max()?;
            views.iter().all(same).then(|| (last, views[0].clone()))
        });
        self.report.push((what.to_owned(), last.saturating_sub(from)));
        view
    }

    /// No view of one number has two sets of members, anywhere, ever.
    fn check_views(&self) {
        let mut all = BTreeMap::new();
        for line in self.nodes.iter().flat_map(|node| node.all("view")) {
            let before = all.entry(text(&line["view"])).or_insert_with(|| members(&line));
            assert_eq!(*before, members(&line), "two views of one number: {line}");
        }
    }

    fn generation(&self) -> u64 {
        let view = self.living().find_map(Node::view).unwrap();
        text(&view["view"]).split('.').next().unwrap().parse().unwrap()
    }

    /// Stops the numbered messages and waits until each pair has all of them, acknowledged and received.
    fn settle(&mut self) {
        self.nodes.iter_mut().filter(|node| node.counts).for_each(|node| node.order("pause"));
        let end = Instant::now() + DEADLINE;
        loop {
            let asked = self.living().map(|node| node.all("totals").len()).collect::<Vec<_>>();
            self.nodes.iter_mut().filter(|node| node.counts).for_each(|node| node.order("totals"));
            let totals: BTreeMap<_, _> = self.wait("totals", |this| {
                let told = this.living().zip(&asked).all(|(node, before)| node.all("totals").len() > *before);
                told.then(|| this.living().map(|node| (node.id(), node.last("totals").unwrap())).collect())
            });
            let wrong = unsettled(&totals);
            let Some(wrong) = wrong else { break };
            assert!(Instant::now() < end, "{wrong}: {}", self.story());
        }
        for node in &self.nodes {
            for line in [node.last("totals"), node.last("left")].into_iter().flatten() {
                for what in ["lost", "twice", "out_of_order"] {
                    assert_eq!(line[what], 0, "{what}: {line}");
                }
                assert_eq!(line["books_balance"], true, "{line}");
            }
        }
    }
}

/// Between whom not everything has been acknowledged and received; `None` when everything was.
fn unsettled(totals: &BTreeMap<String, Value>) -> Option<String> {
    for (from, ours) in totals {
        for (to, theirs) in totals.iter().filter(|(to, _)| *to != from) {
            let sent = &ours["sent"][to];
            let (queued, acked, received) = (&sent["queued"], &sent["acked"], &theirs["from"][from]);
            if !queued.is_u64() || queued != acked || acked != received {
                return Some(format!("from {from} to {to}: {sent}, received {received}"));
            }
        }
    }
    None
}

/// All of it, one after the other. Returns how long each thing took in milliseconds.
fn live_through_everything(examples: &[&str], flags: &str) -> Vec<(String, u64)> {
    let begin = unix_millis();
    let mut all = Cluster::start(examples, flags);
    all.agree("join of five", begin);

    let dead = all.nodes[4].id();
    let at = unix_millis();
    all.nodes[4].signal("KILL");
    all.nodes[4].counts = false;
    let view = all.agree("kill -9 of a member", at);
    assert!(!members(&view).contains(&dead));

    // Restarted before anybody knows.
    let (old, address) = (all.nodes[3].id(), all.addresses[3].clone());
    let at = unix_millis();
    all.nodes[3].signal("KILL");
    all.nodes[3].child.wait().unwrap();
    all.nodes[3].counts = false;
    let flags = format!("--bind {address} --join {}", all.addresses[0]);
    all.add(examples[3], &flags);
    let view = all.agree("restart on the same address", at);
    let evident = |line: &Value| {
        line["who"] == *old && ["Replaced", "joins from"].iter().any(|why| text(&line["why"]).contains(why))
    };
    assert!(!members(&view).contains(&old));
    assert!(all.living().any(|node| node.all("suspect").iter().any(evident)), "{}", all.story());

    let (frozen, at) = (all.nodes[2].id(), unix_millis());
    all.nodes[2].signal("STOP");
    all.nodes[2].counts = false;
    all.agree("SIGSTOP", at);
    let at = unix_millis();
    all.nodes[2].signal("CONT");
    all.nodes[2].counts = true;
    all.agree("SIGCONT: told so, back as another", at);
    assert_ne!(all.nodes[2].id(), frozen);
    assert!(!all.nodes[2].all("expelled").is_empty(), "{}", all.story());

    let (leaver, at) = (all.nodes[1].id(), unix_millis());
    all.nodes[1].order("leave");
    all.nodes[1].counts = false;
    all.agree("graceful leave", at);
    all.wait("its end", |this| this.nodes[1].last("left"));
    assert!(all.nodes[1].child.wait().unwrap().success());
    let since = |line: &Value| line["at_ms"].as_u64().is_some_and(|told| told >= at);
    let suspected =
        |node: &Node| node.all("suspect").iter().any(|line| line["who"] == *leaver && since(line));
    assert!(!all.nodes.iter().any(suspected), "suspected: {leaver} {}", all.story());

    // One more, so that a majority is left.
    let (join, at) = (format!("--join {}", all.addresses[5]), unix_millis());
    all.add(examples[1], &join);
    all.agree("join through another member", at);

    let (generation, coordinator, at) = (all.generation(), all.nodes[0].id(), unix_millis());
    all.nodes[0].signal("KILL");
    all.nodes[0].counts = false;
    let view = all.agree("kill -9 of the coordinator", at);
    assert!(!members(&view).contains(&coordinator));
    assert!(all.generation() > generation, "{view}");

    all.settle();
    all.check_views();
    println!("\n{examples:?} {}: lost 0, twice 0, out of order 0", all.flags);
    all.report.iter().for_each(|(what, took)| println!("{took:>6} ms  {what}"));
    std::mem::take(&mut all.report)
}

#[test]
fn five_async_members_agree_through_deaths_hangs_restarts_and_leaves_and_lose_nothing() {
    live_through_everything(&[ASYNC; 5], QUICK);
}

#[test]
fn five_blocking_members_agree_through_deaths_hangs_restarts_and_leaves_and_lose_nothing() {
    live_through_everything(&[BLOCKING; 5], QUICK);
}

#[test]
fn async_and_blocking_members_make_one_cluster() {
    live_through_everything(&[BLOCKING, ASYNC, BLOCKING, ASYNC, BLOCKING], QUICK);
}

/// Three of five hang: the two that are left install nothing, and all goes on when the three are back.
#[test]
fn a_minority_does_not_go_on() {
    let mut all = Cluster::start(&[ASYNC; 5], QUICK);
    let view = all.agree("join", unix_millis());
    let views = |all: &Cluster| [3, 4].map(|at| all.nodes[at].all("view").len());
    let before = views(&all);
    for at in 0..3 {
        all.nodes[at].signal("STOP");
    }
    // One of the two has claimed, in vain, for a while.
    all.wait("a claim without a majority", |this| {
        let waits = |at: usize| this.nodes[at].all("waiting").len() >= 4;
        (waits(3) || waits(4)).then_some(())
    });
    assert_eq!(views(&all), before, "no view without a majority: {}", all.story());
    assert_eq!(all.nodes[3].view(), Some(all.nodes[3].all("view").pop().unwrap()));
    assert_eq!(members(&all.nodes[4].view().unwrap()), members(&view));
    for at in 0..3 {
        all.nodes[at].signal("CONT");
    }
    all.agree("all are back", unix_millis());
    all.settle();
    all.check_views();
}

/// `cargo test --test membership -- --ignored --nocapture`: what the closing note quotes.
#[test]
#[ignore = "takes a minute: default timeouts"]
fn with_default_timeouts() {
    for example in [ASYNC, BLOCKING] {
        live_through_everything(&[example; 5], "--rate 1000");
    }
}
