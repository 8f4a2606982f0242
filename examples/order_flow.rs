//! An order goes through four actors on three nodes, each a process; its answer comes home by the callback point. One of the
//! nodes is killed in the middle: `cargo run --release --example order_flow`.
//!
//! ```text
//! caller --PlaceOrder--> orders (node 1) --ReserveStock--> stock (nodes 2, 3) --TakePayment--> payments (nodes 2, 3)
//!        <------------------------------------Shipped------------------ shipping (node 1) <--Ship--
//! ```
//!
//! What was certainly not handled by the killed node goes on at the other. Of what may have been handled there, the caller is
//! told that the node departed, and asks again: an order has a number, so the application knows what it has seen.
//!
//! With `--rendezvous LIST` the nodes find each other by rendezvous servers, else by the list of their addresses.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use karere::router::FlowError;
use karere::{Kind, Message, Messenger, Timeouts};
use serde::{Deserialize, Serialize};

#[path = "shared/network.rs"]
mod network;

macro_rules! messages {
    ($($name:ident = $kind:literal),* $(,)?) => { $(
        #[derive(Serialize, Deserialize)]
        struct $name { order: u64 }
        impl Message for $name {
            const KIND: Kind = Kind::new($kind, 1).open();
        }
    )* };
}

messages!(
    PlaceOrder = "orders.place",
    ReserveStock = "stock.reserve",
    TakePayment = "payments.take",
    Ship = "shipping.ship",
    Shipped = "shipping.shipped",
);

const ORDERS: u64 = 2_000;
/// Which order's answer is waited for before a node is killed.
const KILL_AT: u64 = 700;
const AT_ONCE: usize = 32;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A messenger that gives up a node after half a second without it.
async fn messenger() -> Result<Messenger, Failure> {
    let half = Duration::from_millis(500);
    let timeouts = Timeouts { connect: half, unreachable: half, ..Timeouts::default() };
    Ok(Messenger::builder().bind("127.0.0.1:0").timeouts(timeouts).start().await?)
}

/// One of the three nodes: says where it is, is told where the others are, and serves until its input ends.
async fn serve(number: u32) -> Result<(), Failure> {
    let messenger = messenger().await?;
    println!("{}", messenger.local_address().ok_or("not bound")?);
    let mut others = String::new();
    std::io::stdin().read_line(&mut others)?;
    let node = network::node(&messenger, others.split_whitespace()).await?;
    let host = node.host().concurrency(16);
    let host = if number == 1 {
        host.on(|PlaceOrder { order }, _| async move { Ok(ReserveStock { order }) })
            .on(|Ship { order }, _| async move { Ok(Shipped { order }) })
    } else {
        host.on(|ReserveStock { order }, _| async move { Ok(TakePayment { order }) })
            .on(|TakePayment { order }, _| async move { Ok(Ship { order }) })
    };
    let _host = host.start()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    messenger.leave(Duration::from_secs(5)).await;
    Ok(())
}

/// A node's process; it does not outlive this one.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(number: u32) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(number.to_string())
            .args(std::env::args().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// How an order ended, and how often it was asked for.
async fn place(hub: karere::router::Hub, order: u64) -> (u32, Vec<FlowError>) {
    let mut failures = Vec::new();
    loop {
        let asked =
            hub.request(PlaceOrder { order }).callback::<Shipped>().deadline(Duration::from_secs(5)).await;
        match asked {
            Ok(shipped) => {
                assert_eq!(shipped.order, order, "somebody else's answer");
                return (failures.len() as u32 + 1, failures);
            }
            Err(error) => failures.push(error),
        }
        assert!(failures.len() < 20, "order {order} fails for ever: {failures:?}");
        // The network is learning that a node is gone.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn run() -> Result<(), Failure> {
    let messenger = messenger().await?;
    let own = messenger.local_address().ok_or("not bound")?.to_string();
    let mut nodes = (1..=3).map(Running::start).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<String> = nodes.iter().map(|node| node.address.clone()).chain([own]).collect();
    for node in &mut nodes {
        writeln!(node.child.stdin.as_mut().ok_or("no input")?, "{}", all.join(" "))?;
    }
    let node = network::node(&messenger, all).await?;
    let begin = Instant::now();
    while node.external_routes().len() < 6 {
        if begin.elapsed() > Duration::from_secs(20) {
            return Err("the nodes do not find each other".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("three nodes, six routes known after {:?}", begin.elapsed());

    let hub = node.hub();
    let (mut open, mut next, mut shipped) = (tokio::task::JoinSet::new(), 0, 0_u64);
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    let (mut again, mut killed, mut longest) = (0, None, Duration::ZERO);
    while shipped < ORDERS {
        while next < ORDERS && open.len() < AT_ONCE {
            let (hub, order, from) = (hub.clone(), next, Instant::now());
            open.spawn(async move { (place(hub, order).await, from.elapsed()) });
            next += 1;
        }
        let ((asked, failed), took) = open.join_next().await.ok_or("nothing is open")??;
        shipped += 1;
        again += u64::from(asked > 1);
        longest = longest.max(took);
        failed.into_iter().for_each(|error| *failures.entry(kind_of(&error)).or_default() += 1);
        if shipped == KILL_AT {
            nodes[1].child.kill()?;
            killed = Some(Instant::now());
        }
    }
    let counts = node.counts();
    println!(
        "killed node 2 after {KILL_AT} orders, {:?} before the end",
        killed.map(|at| at.elapsed()).unwrap_or_default()
    );
    println!("shipped {shipped} of {ORDERS}; asked again {again}; the longest took {longest:?}");
    println!("told on the way: {failures:?}");
    println!(
        "messages from here: {} forwarded, {} rerouted, {} dead",
        counts.forwarded, counts.rerouted, counts.dead
    );
    let (waiting, promises, jobs) = node.open();
    if (waiting, promises, jobs) != (0, 0, 0) {
        return Err(format!("left over: {waiting} waiting, {promises} promises, {jobs} jobs").into());
    }
    messenger.leave(Duration::from_secs(2)).await;
    Ok(())
}

fn kind_of(error: &FlowError) -> String {
    match error {
        FlowError::Departed(_) => "departed".to_owned(),
        FlowError::Unroutable(key) => format!("unroutable {key}"),
        error => error.to_string(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).and_then(|number| number.parse().ok()) {
        Some(number) => serve(number).await,
        None => run().await,
    }
}
