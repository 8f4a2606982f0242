//! One process: a messenger, the foreign router on it, two redundant actors, and someone who orders and waits for answers.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use karere::{
    Kind, Lost, MemberId, Messenger, PeerChange, Receipt, RouterTransport, Timeouts, Transport, ViewError,
    plug,
};
use tokio::sync::mpsc;

use crate::Failure;
use crate::router::{Actor, Envelope, Key, Routed, Router};
use crate::words::{News, Order, Totals};

const FRAMES: Kind = Kind::new("foreign.frame", 1).of_protocol(64);

/// Orders under way at a time: what they and their answers take fits into the queue that is always there.
const UNDER_WAY_MAX: usize = 200;

/// How often orders go out.
const TICK: Duration = Duration::from_millis(1);

/// Shared by the plug and the node.
struct Shared(Arc<Router>);

impl RouterTransport for Shared {
    fn on_peer(&self, transport: &Transport, peer: MemberId, change: PeerChange) {
        self.0.on_peer(transport, peer, change);
    }

    async fn on_message(&self, transport: &Transport, from: MemberId, frame: Bytes) {
        self.0.on_message(transport, from, frame).await;
    }
}

struct Node {
    index: u64,
    nodes: u64,
    orders: u64,
    router: Arc<Router>,
    transport: Transport,
    /// Numbers of orders that were answered, until they are looked at.
    answers: Arc<Mutex<Vec<u64>>>,
    actors: [Arc<AtomicU64>; 2],
    under_way: BTreeMap<u64, (MemberId, Envelope, Receipt)>,
    not_now: Vec<Envelope>,
    made: u64,
    answered: u64,
    again: u64,
    departed: u64,
    is_done: bool,
}

/// Runs the node with this index, of so many, until it is told to quit or expelled.
pub(crate) async fn run(index: u64, nodes: u64, orders: u64) -> Result<(), Failure> {
    let timeouts = Timeouts {
        redial_min: Duration::from_millis(5),
        redial_max: Duration::from_millis(100),
        ..Timeouts::default()
    };
    let builder = Messenger::builder().bind("127.0.0.1:0").network("example", "foreign");
    let messenger = builder.name(format!("node{index}")).timeouts(timeouts).start().await?;
    let answers = Arc::<Mutex<Vec<u64>>>::default();
    let actors = [Arc::<AtomicU64>::default(), Arc::default()];
    let router = Arc::new(Router::new(actors_of(index, nodes, &actors, &answers)));
    let transport = plug(&messenger, FRAMES, Shared(Arc::clone(&router)))?;
    let mut node = Node {
        index,
        nodes,
        orders,
        router,
        transport,
        answers,
        actors,
        under_way: BTreeMap::new(),
        not_now: Vec::new(),
        made: 0,
        answered: 0,
        again: 0,
        departed: 0,
        is_done: false,
    };
    say(&News::Started(messenger.member()))?;
    node.obey(&messenger, read_orders()).await?;
    messenger.leave(Duration::from_secs(5)).await;
    Ok(())
}

/// Two actors take orders of partition `index` and of the one before, so that each partition has two nodes; one takes
/// answers to this node.
fn actors_of(
    index: u64,
    nodes: u64,
    counts: &[Arc<AtomicU64>; 2],
    answers: &Arc<Mutex<Vec<u64>>>,
) -> Vec<(Actor, Vec<Key>)> {
    let keys =
        || [index, (index + nodes - 1) % nodes].map(|partition| Key::new("order", 1, partition)).to_vec();
    let mut actors: Vec<(Actor, Vec<Key>)> = Vec::new();
    for count in counts.iter().map(Arc::clone) {
        let actor = move |order: Envelope| {
            count.fetch_add(1, Ordering::Relaxed);
            let key = Key::new("answer", 1, &order.answer_to);
            vec![Envelope { key, number: order.number, answer_to: String::new() }]
        };
        actors.push((Box::new(actor), keys()));
    }
    let answers = Arc::clone(answers);
    let take = move |answer: Envelope| {
        answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer.number);
        Vec::new()
    };
    actors.push((Box::new(take), vec![Key::new("answer", 1, format!("node{index}"))]));
    actors
}

impl Node {
    async fn obey(&mut self, messenger: &Messenger, mut input: mpsc::Receiver<Order>) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(TICK);
        let mut is_member = false;
        loop {
            tokio::select! {
                order = input.recv() => match order {
                    Some(Order::View(view)) => match messenger.install_view(view) {
                        Ok(_change) => is_member = true,
                        Err(ViewError::Expelled { .. }) => {
                            say(&News::Expelled)?;
                            is_member = false;
                            self.is_done = true;
                        }
                        Err(error) => return Err(error.into()),
                    },
                    Some(Order::Totals) => say(&News::Totals(self.totals(messenger)))?,
                    // The parent is gone, or says so.
                    Some(Order::Quit) | None => return Ok(()),
                },
                _ = ticks.tick() => {
                    self.router.retry(&self.transport);
                    if is_member {
                        self.work()?;
                    } else if self.is_done && self.router.is_alone() {
                        return say(&News::Alone);
                    }
                }
            }
        }
    }

    /// Takes answers, judges what is under way, and orders more.
    fn work(&mut self) -> Result<(), Failure> {
        for number in std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner)) {
            if self.under_way.remove(&number).is_none() {
                continue;
            }
            self.answered += 1;
            if self.answered.is_multiple_of((self.orders / 10).max(1)) {
                say(&News::Progress(self.answered))?;
            }
        }
        self.judge();
        let mut due = std::mem::take(&mut self.not_now);
        while self.under_way.len() + due.len() < UNDER_WAY_MAX && self.made < self.orders {
            due.push(self.next_order());
        }
        for order in due {
            let number = order.number;
            match self.router.route(&self.transport, order.clone()) {
                Routed::Here => {}
                Routed::To(node, receipt) => drop(self.under_way.insert(number, (node, order, receipt))),
                Routed::NotNow(order) => self.not_now.push(order),
            }
        }
        if !self.is_done && self.made == self.orders && self.under_way.is_empty() && self.not_now.is_empty() {
            self.is_done = true;
            say(&News::Done)?;
        }
        Ok(())
    }

    /// Of a node that is down nothing comes any more: what was certainly not sent to it goes to another one.
    fn judge(&mut self) {
        let mut again = Vec::new();
        let (router, departed) = (&self.router, &mut self.departed);
        self.under_way.retain(|_, (node, order, receipt)| match receipt.now() {
            Some(Err(Lost::NotSent(_))) => {
                again.push(order.clone());
                false
            }
            Some(_) if !router.is_up(*node) => {
                *departed += 1;
                false
            }
            Some(_) | None => true,
        });
        self.again += again.len() as u64;
        self.not_now.extend(again);
    }

    /// Orders go to all partitions in turn, but to those of this node.
    fn next_order(&mut self) -> Envelope {
        let partition = (self.index + 1 + self.made % (self.nodes - 2)) % self.nodes;
        let key = Key::new("order", 1, partition);
        self.made += 1;
        Envelope { key, number: self.made, answer_to: format!("node{}", self.index) }
    }

    fn totals(&self, messenger: &Messenger) -> Totals {
        Totals {
            me: self.transport.me(),
            answered: self.answered,
            again: self.again,
            departed: self.departed,
            is_settled: self.is_done && !self.router.has_waiting(),
            actors: self.actors.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            lanes: self.router.lanes(),
            dropped: self.transport.stats().dropped,
            books_balance: messenger.stats().total().balance(),
        }
    }
}

fn say(news: &News) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(news)?;
    line.push(b'\n');
    Ok(std::io::stdout().write_all(&line)?)
}

/// Lines of standard input, from a thread of their own.
fn read_orders() -> mpsc::Receiver<Order> {
    let (to, orders) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                // The node may have ended.
                Ok(order) => {
                    if to.blocking_send(order).is_err() {
                        return;
                    }
                }
                Err(error) => eprintln!("{error}: {line}"),
            }
        }
    });
    orders
}
