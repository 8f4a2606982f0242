//! One member: the program that runs in each process of the lab. It sends numbered messages of three classes and many
//! sizes to all others of its view, checks what comes, and says what it sees in lines of JSON.
//!
//! It lives in the test binary itself, which starts itself again with [`JOB`] in its environment; so nothing else has
//! to be built first.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use karere::{Class, Kind, Member, MemberId, Message, Messenger, Receipt, Timeouts, View, ViewId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::traffic::{Heard, Numbered, Sent};

/// Its environment holds a [`Job`] here.
pub(crate) const JOB: &str = "KARERE_LAB_JOB";

/// Nothing for so long from a member that sends every few milliseconds is told as a gap.
pub(crate) const GAP: Duration = Duration::from_millis(100);

const TICK: Duration = Duration::from_millis(10);
const ORDERS_MAX: usize = 64;
const CLASSES: [Class; 3] = [Class::Urgent, Class::Normal, Class::Bulk];
const TEXT_BYTES: usize = 256 * 1024;

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Where it listens.
    pub(crate) bind: String,
    pub(crate) liveness_ms: u64,
    /// Messages a second to each member, by class: urgent, normal, bulk.
    pub(crate) rates: [u64; 3],
}

impl Job {
    /// The defaults, and nothing that waits longer than liveness where that is shorter.
    pub(crate) fn timeouts(&self) -> Timeouts {
        let default = Timeouts::default();
        let liveness = Duration::from_millis(self.liveness_ms);
        let within = |time: Duration| time.min(liveness);
        Timeouts {
            ping: default.ping.min(liveness.mul_f64(0.3)),
            liveness,
            hello: within(default.hello),
            connect: within(default.connect),
            redial_max: within(default.redial_max),
            stuck: within(default.stuck),
            unreachable: within(default.unreachable),
            ..default
        }
    }
}

/// A numbered message with something in it.
#[derive(Serialize, Deserialize)]
struct Parcel {
    numbered: Numbered,
    class: u8,
    /// When it was sent, by the clock that all processes here share.
    sent_ms: u64,
    text: String,
}

impl Message for Parcel {
    const KIND: Kind = Kind::new("lab.parcel", 1);
}

/// What a parcel holds follows from its number, so that a bent byte shows. Bulk is some 15 KB, and now and then more
/// than one chunk.
fn content(text: &str, class: usize, number: u64) -> &str {
    let at = (number * 7919) as usize % (TEXT_BYTES / 4);
    let bytes = match class {
        0 => 16 + number % 100,
        1 => number * 97 % 4096,
        _ if number.is_multiple_of(20) => 100 * 1024,
        _ => number * 1013 % 20_000,
    };
    &text[at..at + bytes as usize]
}

fn text() -> String {
    let mut random = fastrand::Rng::with_seed(4);
    (0..TEXT_BYTES).map(|_| random.alphanumeric()).collect()
}

pub(crate) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// One line of JSON.
pub(crate) fn say(event: &str, with: Value) {
    let mut line = json!({"at_ms": unix_millis(), "event": event});
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
    heard: [Heard; 3],
    bent: u64,
    /// Meant for another member: must never come.
    misdirected: u64,
    /// When each was heard last.
    last: HashMap<MemberId, u64>,
    /// From sent to handled, in milliseconds, by class.
    delays: [Vec<u64>; 3],
}

impl Inbox {
    fn take(&mut self, me: MemberId, from: MemberId, parcel: &Parcel, text: &str) {
        let (now, class) = (unix_millis(), usize::from(parcel.class));
        self.misdirected += u64::from(parcel.numbered.to != me);
        self.bent += u64::from(parcel.text != content(text, class, parcel.numbered.number));
        self.heard[class].note(from, parcel.numbered);
        self.delays[class].push(now.saturating_sub(parcel.sent_ms));
        let Some(last) = self.last.insert(from, now) else {
            return say("first", json!({"from": from.to_string()}));
        };
        if now.saturating_sub(last) > GAP.as_millis() as u64 {
            say("gap", json!({"from": from.to_string(), "since_ms": last}));
        }
    }
}

struct Worker {
    job: Job,
    messenger: Messenger,
    view: Option<View>,
    text: Arc<str>,
    inbox: Arc<Mutex<Inbox>>,
    sent: [Sent<Receipt>; 3],
    paused: bool,
    ended: bool,
}

/// Runs until its input ends or it is told to leave.
pub(crate) async fn run(job: Job) {
    let builder = Messenger::builder().bind(&job.bind).network("lab", "lab").timeouts(job.timeouts());
    let messenger = builder.start().await.unwrap();
    let (inbox, text): (Arc<Mutex<Inbox>>, Arc<str>) = (Arc::default(), text().into());
    let (to, expected, me) = (Arc::clone(&inbox), Arc::clone(&text), messenger.id());
    messenger
        .add_handler(move |from, parcel: Parcel| {
            lock(&to).take(me, from, &parcel, &expected);
            async {}
        })
        .unwrap();
    let mut events = messenger.events();
    let (orders, mut ordered) = mpsc::channel(ORDERS_MAX);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.chain(["leave".to_owned()]).for_each(|line| drop(orders.blocking_send(line)));
    });
    // After whatever the test harness has said on this line.
    println!();
    // As text, because a `Value` holds no number of 128 bits.
    let member = serde_json::to_string(&messenger.member()).unwrap();
    say(
        "started",
        json!({"me": messenger.id().to_string(), "member": member,
        "address": messenger.local_address().map(|address| address.to_string())}),
    );
    let sent = std::array::from_fn(|_| Sent::new());
    let mut this = Worker { job, messenger, view: None, text, inbox, sent, paused: false, ended: false };
    let begun = Instant::now();
    let (mut ticks, mut sent_to) = (tokio::time::interval(TICK), 0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !this.ended {
        tokio::select! {
            Some(order) = ordered.recv() => this.obey(&order).await,
            Some(event) = events.next() => {
                let what = format!("{event:?}");
                say("peer", json!({"who": event.peer().to_string(), "what": what}));
            }
            _ = ticks.tick() => {
                // By the clock, so that a late tick sends more. A frozen process does not make up for its sleep.
                let now = begun.elapsed().as_millis() as u64;
                this.tick(sent_to.max(now.saturating_sub(100)), now);
                sent_to = now;
            }
        }
    }
}

impl Worker {
    async fn obey(&mut self, order: &str) {
        match order.split_once(' ').unwrap_or((order, "")) {
            ("view", members) => {
                let (number, members): (u64, Vec<(u64, Member)>) = serde_json::from_str(members).unwrap();
                let id = |number| ViewId { generation: 1, number };
                let joined = |(joined, member)| Member { joined: Some(id(joined)), ..member };
                let view = View::new(id(number), members.into_iter().map(joined));
                let change = self.messenger.install_view(view.clone()).unwrap();
                say("installed", json!({"number": number}));
                self.messenger.preconnect(change.joined);
                self.view = Some(view);
            }
            ("pause", _) => self.paused = true,
            ("resume", _) => self.paused = false,
            // From here on.
            ("delays", _) => lock(&self.inbox).delays = Default::default(),
            ("heard", _) => {
                // While the inbox is held, so that no gap is told between.
                let inbox = lock(&self.inbox);
                let last = inbox.last.iter().map(|(from, at)| (from.to_string(), json!(at)));
                say("heard", json!({"last": last.collect::<serde_json::Map<_, _>>()}));
            }
            ("totals", _) => self.say_totals("totals"),
            ("leave", _) => {
                self.messenger.leave(Duration::from_secs(2)).await;
                self.settle();
                self.say_totals("left");
                self.ended = true;
            }
            (other, _) => panic!("no order: {other}"),
        }
    }

    fn settle(&mut self) {
        self.sent.iter_mut().for_each(|sent| sent.settle(Receipt::now));
    }

    /// Sends what is due between two moments.
    fn tick(&mut self, from_ms: u64, to_ms: u64) {
        self.settle();
        let Some(view) = self.view.as_ref().filter(|_| !self.paused) else { return };
        let (me, messenger, text) = (self.messenger.id(), &self.messenger, &self.text);
        for ((at, class), sent) in CLASSES.into_iter().enumerate().zip(&mut self.sent) {
            let until = |ms: u64| self.job.rates[at] * ms / 1000;
            for to in view.others(me) {
                sent.send(me, to, until(to_ms) - until(from_ms), |numbered| {
                    let parcel = Parcel {
                        numbered: *numbered,
                        class: at as u8,
                        sent_ms: unix_millis(),
                        text: content(text, at, numbered.number).to_owned(),
                    };
                    messenger.class(class).send_with_receipt(&parcel, to).ok()
                });
            }
        }
    }

    fn say_totals(&self, event: &str) {
        let (stats, inbox) = (self.messenger.stats(), lock(&self.inbox));
        let me = self.messenger.id();
        let classes: Vec<_> =
            inbox.heard.iter().zip(&self.sent).map(|(heard, sent)| heard.totals(me, sent)).collect();
        let delays = inbox.delays.clone().map(|mut delays| {
            delays.sort_unstable();
            let part = |of: f64| delays.get(((delays.len() as f64 - 1.0) * of) as usize).copied();
            json!({"count": delays.len(), "p50": part(0.5), "p99": part(0.99), "max": part(1.0)})
        });
        let peers: Vec<_> = stats
            .peers
            .iter()
            .map(|peer| json!({"who": peer.peer.to_string(), "connected": peer.is_connected, "links": peer.books.links}))
            .collect();
        say(
            event,
            json!({"classes": classes, "bent": inbox.bent, "misdirected": inbox.misdirected, "delays": delays,
                "peers": peers, "accept_errors": stats.accept_errors, "balance": stats.total().balance(),
                "resent": stats.total().resent, "settled": self.sent.iter().all(Sent::is_settled)}),
        );
    }
}
