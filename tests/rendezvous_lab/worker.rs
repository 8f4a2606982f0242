//! One node: the program that runs in each process of the lab that is no server. It sends numbered messages to all others of its view,
//! takes routes on and gives them up, and says what it sees in lines of JSON, each with the wall clock that all processes here share.
//!
//! It lives in the test binary itself, which starts itself again with [`JOB`] in its environment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use karere::rendezvous::{Rendezvous, Standing};
use karere::router::{Context, Host, Node};
use karere::{Kind, MemberId, Message, Messenger, Receipt, ViewId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::traffic::{Heard, Numbered, Sent};

/// Its environment holds a [`Job`] here.
pub(crate) const JOB: &str = "KARERE_RENDEZVOUS_LAB_JOB";

const TRAFFIC: Duration = Duration::from_millis(10);
const ORDERS_MAX: usize = 64;
/// Routes that come and go, of one node.
const CHURN_ROUTES: usize = 4;
/// How long the goodbye may take.
const LEAVE: Duration = Duration::from_secs(10);

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The list of servers.
    pub(crate) rendezvous: String,
    pub(crate) bind: String,
    pub(crate) name: String,
    /// Messages a second to each other member.
    pub(crate) rate: u64,
    /// How often it is looked what has changed: what is told is so much too late at most.
    pub(crate) look_ms: u64,
}

/// What routes take here.
#[derive(Serialize, Deserialize)]
struct Work {
    number: u64,
}

impl Message for Work {
    const KIND: Kind = Kind::new("lab.work", 1);
}

pub(crate) fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as f64 / 1e3
}

/// One line of JSON.
fn say(event: &str, with: Value) {
    say_at(unix_ms(), event, with);
}

fn say_at(at_ms: f64, event: &str, with: Value) {
    let mut line = json!({"at_ms": at_ms, "event": event});
    line.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    // Whoever read it may be gone.
    let _gone = writeln!(std::io::stdout(), "{line}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came.
#[derive(Default)]
struct Inbox {
    heard: Heard,
    count: u64,
    /// Meant for another member: must never come.
    misdirected: u64,
    /// When something was heard last of each, and the longest time without, since it was asked for.
    last: BTreeMap<MemberId, Instant>,
    silent_ms: BTreeMap<MemberId, u64>,
}

impl Inbox {
    fn take(&mut self, me: MemberId, from: MemberId, numbered: Numbered) {
        self.count += 1;
        self.misdirected += u64::from(numbered.to != me);
        self.heard.note(from, numbered);
        let now = Instant::now();
        if let Some(last) = self.last.insert(from, now) {
            let silent = (now - last).as_millis() as u64;
            let longest = self.silent_ms.entry(from).or_default();
            *longest = silent.max(*longest);
        }
    }
}

type RouteNames = BTreeSet<(String, String)>;

struct Worker {
    job: Job,
    messenger: Messenger,
    rendezvous: Rendezvous,
    node: Node,
    inbox: Arc<Mutex<Inbox>>,
    sent: Sent<Receipt>,
    is_paused: bool,
    /// The highest view that was told; it only grows.
    view: Option<ViewId>,
    routes: RouteNames,
    tells_routes: bool,
    standing: String,
    /// Routes that were taken on to stay, and those that come and go.
    kept: Vec<Host>,
    churned: VecDeque<Host>,
    churns: bool,
    next_route: u64,
    registering: Option<tokio::task::JoinHandle<()>>,
}

/// Runs until its input ends or it is told to leave.
pub(crate) async fn run(job: Job) {
    let inbox: Arc<Mutex<Inbox>> = Arc::default();
    let messenger = Messenger::builder().bind(&job.bind).name(&job.name).start().await.unwrap();
    let (to, ours) = (Arc::clone(&inbox), messenger.clone());
    messenger
        .add_handler(move |from, numbered: Numbered| {
            lock(&to).take(ours.id(), from, numbered);
            async {}
        })
        .unwrap();
    let (orders, mut ordered) = mpsc::channel(ORDERS_MAX);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.chain(["leave".to_owned()]).for_each(|line| drop(orders.blocking_send(line)));
    });
    // After whatever the test harness has said on this line.
    println!();
    say("started", json!({"id": messenger.id().to_string()}));
    let rendezvous = Rendezvous::builder(&job.rendezvous).build().unwrap();
    let node = Node::builder().source(rendezvous.clone()).start(&messenger).unwrap();
    let mut this = Worker {
        job,
        messenger,
        rendezvous,
        node,
        inbox,
        sent: Sent::new(),
        is_paused: false,
        view: None,
        routes: RouteNames::new(),
        tells_routes: true,
        standing: String::new(),
        kept: Vec::new(),
        churned: VecDeque::new(),
        churns: false,
        next_route: 1,
        registering: None,
    };
    let begun = Instant::now();
    let ticks = |period| {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let look = Duration::from_millis(this.job.look_ms);
    let (mut looks, mut sends, mut sent_to) = (ticks(look), ticks(TRAFFIC), 0);
    loop {
        tokio::select! {
            biased;
            _ = looks.tick() => this.look(),
            Some(order) = ordered.recv() => if !this.obey(&order).await { break },
            _ = sends.tick(), if this.job.rate > 0 => {
                // By the clock, so that a late tick sends more. A frozen process does not make up for its sleep.
                let now = begun.elapsed().as_millis() as u64;
                this.send(sent_to.max(now.saturating_sub(100)), now);
                sent_to = now;
            }
        }
    }
}

impl Worker {
    /// Tells what has changed.
    fn look(&mut self) {
        let standing = self.rendezvous.standing().borrow().clone();
        let name = match &standing {
            Standing::Seeking => "seeking".to_owned(),
            Standing::Joined { .. } => "joined".to_owned(),
            Standing::Frozen { .. } => "frozen".to_owned(),
            Standing::Evicted => "evicted".to_owned(),
            Standing::Refused(why) => format!("refused: {why}"),
            other => other.to_string(),
        };
        if name != self.standing {
            let silent_ms = match &standing {
                Standing::Frozen { since } => Some(since.elapsed().as_secs_f64() * 1e3),
                _ => None,
            };
            let id = self.messenger.id().to_string();
            say("standing", json!({"standing": name, "id": id, "silent_ms": silent_ms}));
            self.standing = name;
        }
        if let Some(view) = self.messenger.view()
            && self.view != Some(view.id())
        {
            let members: Vec<_> = view.members().iter().map(|member| member.id.to_string()).collect();
            let grows = self.view.is_none_or(|last| last < view.id());
            say("view", json!({"view": view.id().to_string(), "members": members, "grows": grows}));
            self.view = Some(view.id());
        }
        if self.tells_routes {
            let routes = self.route_names();
            let came: Vec<_> = routes.difference(&self.routes).cloned().collect();
            let went: Vec<_> = self.routes.difference(&routes).cloned().collect();
            if !came.is_empty() || !went.is_empty() {
                say("routes", json!({"came": came, "went": went}));
                self.routes = routes;
            }
        }
        if self.churns && self.registering.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            self.churn();
        }
    }

    fn route_names(&self) -> RouteNames {
        let name = |(key, at): (karere::router::MessageKey, karere::router::ActorRef)| {
            (key.to_string(), at.node.to_string())
        };
        self.node.external_routes().into_iter().map(name).collect()
    }

    fn host(&mut self, what: &str) -> (String, Host) {
        let partition = format!("{}-{what}-{}", self.job.name, self.next_route);
        self.next_route += 1;
        let host = self.node.host().partition(partition.clone().into_bytes());
        let host = host.on(|work: Work, _: Context| async move {
            let _number = work.number;
            Ok(())
        });
        (partition, host.start().unwrap())
    }

    /// One route more, and one of those that came and went less; told when that is registered.
    fn churn(&mut self) {
        let (_, host) = self.host("churn");
        self.churned.push_back(host);
        if self.churned.len() > CHURN_ROUTES
            && let Some(host) = self.churned.pop_front()
        {
            host.stop();
        }
        self.register("churned", String::new());
    }

    fn register(&mut self, event: &'static str, route: String) {
        let (rendezvous, from_ms) = (self.rendezvous.clone(), unix_ms());
        self.registering = Some(tokio::spawn(async move {
            let outcome = rendezvous.registered().await.map_err(|why| why.to_string());
            say(event, json!({"route": route, "from_ms": from_ms, "refused": outcome.err()}));
            // Some ten a second are load enough.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }));
    }

    /// Whether it goes on.
    async fn obey(&mut self, order: &str) -> bool {
        match order {
            "keep" => {
                let at = unix_ms();
                let (route, host) = self.host("kept");
                say_at(at, "keeping", json!({"route": route}));
                self.kept.push(host);
                self.register("kept", route);
            }
            "drop" => {
                say("dropping", json!({}));
                if let Some(host) = self.kept.pop() {
                    host.stop();
                }
            }
            "churn" => self.churns = true,
            "rest" => self.churns = false,
            "quiet" => self.tells_routes = false,
            "pause" => self.is_paused = true,
            "resume" => self.is_paused = false,
            "own" => {
                let keys: Vec<_> =
                    self.node.internal_routes().iter().map(|(key, ..)| key.to_string()).collect();
                let is_registered =
                    self.registering.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
                say("own", json!({"keys": keys, "registered": is_registered}));
            }
            "others" => say("others", json!({"routes": self.route_names()})),
            "count" => {
                let mut inbox = lock(&self.inbox);
                // A silence that still lasts counts.
                let now = Instant::now();
                let lasting: Vec<_> =
                    inbox.last.iter().map(|(from, last)| (*from, (now - *last).as_millis() as u64)).collect();
                let mut silent = std::mem::take(&mut inbox.silent_ms);
                for (from, ms) in lasting {
                    let longest = silent.entry(from).or_default();
                    *longest = ms.max(*longest);
                }
                let silent: BTreeMap<String, u64> =
                    silent.into_iter().map(|(from, ms)| (from.to_string(), ms)).collect();
                say("count", json!({"count": inbox.count, "silent_ms": silent}));
            }
            "told" => self.say_told(),
            "totals" => self.say_totals("totals"),
            "leave" => {
                let me = self.messenger.id();
                say("leaving", json!({"id": me.to_string()}));
                self.churns = false;
                self.rendezvous.leave(LEAVE).await;
                self.sent.settle(Receipt::now);
                self.say_totals("left");
                return false;
            }
            other => panic!("no order: {other}"),
        }
        true
    }

    /// Sends what is due between two moments.
    fn send(&mut self, from_ms: u64, to_ms: u64) {
        self.sent.settle(Receipt::now);
        let Some(view) = self.messenger.view().filter(|_| !self.is_paused) else { return };
        let (me, messenger) = (self.messenger.id(), &self.messenger);
        let until = |ms: u64| self.job.rate * ms / 1000;
        for to in view.others(me) {
            self.sent.send(me, to, until(to_ms) - until(from_ms), |numbered| {
                messenger.send_with_receipt(numbered, to).ok()
            });
        }
    }

    /// What servers have said: who speaks to it and is no member is one.
    fn say_told(&self) {
        let (stats, view) = (self.messenger.stats(), self.messenger.view());
        let is_server = |peer: MemberId| view.as_ref().is_none_or(|view| !view.contains(peer));
        let books = stats.peers.iter().filter(|peer| is_server(peer.peer)).map(|peer| peer.books);
        let (messages, bytes) = books.fold((0, 0), |(messages, bytes), books| {
            (messages + books.handled, bytes + books.bytes_accepted)
        });
        say("told", json!({"messages": messages, "bytes": bytes}));
    }

    fn say_totals(&self, event: &str) {
        let (stats, inbox) = (self.messenger.stats(), lock(&self.inbox));
        let me = self.messenger.id();
        say(
            event,
            json!({"id": me.to_string(), "traffic": inbox.heard.totals(me, &self.sent),
                "misdirected": inbox.misdirected, "balance": stats.total().balance(),
                "settled": self.sent.is_settled()}),
        );
    }
}
