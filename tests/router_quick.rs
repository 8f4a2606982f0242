//! Handlers of actors that are quick run in the task where their messages arrive. Nothing else may be different for it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use karere::router::{FlowError, Hub, Node};
use karere::{Kind, Member, Message, Messenger, View, ViewId};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);
/// More than has to be quick in a row.
const MANY: u64 = 200;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ask(u64);
impl Message for Ask {
    const KIND: Kind = Kind::new("quick.ask", 1);
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer(u64);
impl Message for Answer {
    const KIND: Kind = Kind::new("quick.answer", 1);
}

async fn pair() -> ([Messenger; 2], [Node; 2]) {
    let start = || async { Messenger::builder().bind("127.0.0.1:0").start().await.unwrap() };
    let messengers = [start().await, start().await];
    let nodes = [0, 1].map(|at| Node::builder().start(&messengers[at]).unwrap());
    let id = ViewId { generation: 1, number: 1 };
    let members: Vec<_> =
        messengers.iter().map(|messenger| Member { joined: Some(id), ..messenger.member() }).collect();
    for messenger in &messengers {
        let _change = messenger.install_view(View::new(id, members.clone())).unwrap();
    }
    (messengers, nodes)
}

async fn knows(node: &Node) {
    let end = Instant::now() + LONG;
    while node.external_routes().is_empty() {
        assert!(Instant::now() < end, "it hears of no route");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ask(hub: &Hub, n: u64) -> Result<Answer, FlowError> {
    timeout(LONG, hub.request(Ask(n)).callback::<Answer>()).await.unwrap()
}

/// Which tasks ran handlers: the first is the host's own.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<tokio::task::Id>>>);

impl Tasks {
    fn note(&self) {
        self.0.lock().unwrap().push(tokio::task::id());
    }

    /// Of the handlers from this one on, those that did not run in the host's own task.
    fn elsewhere(&self, from: usize) -> usize {
        let all = self.0.lock().unwrap();
        all[from..].iter().filter(|task| **task != all[0]).count()
    }
}

/// Asks until a handler ran where its message arrived; a loaded machine makes that wait.
async fn warm(hub: &Hub, tasks: &Tasks) {
    let end = Instant::now() + LONG;
    while tasks.elsewhere(0) == 0 {
        assert!(Instant::now() < end, "no handler ever runs where its message arrives");
        for n in 0..MANY {
            assert_eq!(ask(hub, n).await, Ok(Answer(n)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_handler_runs_where_its_message_arrives_and_its_panic_costs_one_message() {
    let (_messengers, nodes) = pair().await;
    let tasks = Tasks::default();
    let noted = tasks.clone();
    let handler = move |Ask(n), _| {
        noted.note();
        // Of the call, and of the future.
        assert!(n != 1_001, "in the call");
        async move {
            assert!(n != 1_002, "in the future");
            Ok(Answer(n))
        }
    };
    let _host = nodes[1].host().on(handler).start().unwrap();
    knows(&nodes[0]).await;
    let hub = nodes[0].hub();
    warm(&hub, &tasks).await;
    for (n, text) in [(1_001, "in the call"), (1_002, "in the future")] {
        let failed = ask(&hub, n).await;
        assert!(matches!(&failed, Err(FlowError::Handler(why)) if why.contains(text)), "{failed:?}");
        assert_eq!(ask(&hub, n + 10).await, Ok(Answer(n + 10)));
    }
    assert_eq!(nodes[0].open(), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_host_never_overlaps_and_keeps_the_order_also_when_quick_handlers_begin_to_wait() {
    let (_messengers, nodes) = pair().await;
    let (busy, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (tasks, count) = (Tasks::default(), Arc::new(AtomicU64::new(0)));
    let handler = {
        let (busy, seen, tasks, count) = (busy, Arc::clone(&seen), tasks.clone(), Arc::clone(&count));
        move |Ask(n), _| {
            tasks.note();
            assert!(!busy.swap(true, Ordering::SeqCst), "two at once");
            seen.lock().unwrap().push(n);
            let (busy, count) = (Arc::clone(&busy), Arc::clone(&count));
            async move {
                // Most are quick; then some wait, each in another way.
                match n % 97 {
                    94 => tokio::task::yield_now().await,
                    95 => tokio::time::sleep(Duration::from_millis(1)).await,
                    96 => drop(tokio::task::spawn_blocking(|| ()).await),
                    _ => {}
                }
                busy.store(false, Ordering::SeqCst);
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        }
    };
    let _host = nodes[1].host().on(handler).start().unwrap();
    knows(&nodes[0]).await;
    let hub = nodes[0].hub();
    let end = Instant::now() + LONG;
    let mut sent = 0;
    // More than a window, from one task; until some have run where they arrived.
    while sent < 20_000 || tasks.elsewhere(0) == 0 {
        assert!(Instant::now() < end, "no handler ever runs where its message arrives");
        for _ in 0..50 {
            hub.send(Ask(sent)).await.unwrap();
            sent += 1;
        }
        while count.load(Ordering::SeqCst) + 400 < sent {
            assert!(Instant::now() < end, "{} of {sent} handled", count.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while count.load(Ordering::SeqCst) < sent {
        assert!(Instant::now() < end, "{} of {sent} handled", count.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = seen.lock().unwrap();
    let wrong = (0..sent).zip(&*seen).position(|(n, seen)| n != *seen);
    let around = wrong.map(|at| &seen[at.saturating_sub(2)..(at + 6).min(seen.len())]);
    assert_eq!((seen.len() as u64, around), (sent, None), "each once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_holds_its_thread_does_so_where_messages_arrive_once_and_not_again() {
    let (_messengers, nodes) = pair().await;
    let tasks = Tasks::default();
    let noted = tasks.clone();
    let handler = move |Ask(n), _| {
        noted.note();
        if n == 7_777 {
            std::thread::sleep(Duration::from_millis(1));
        }
        async move { Ok(Answer(n)) }
    };
    let _host = nodes[1].host().on(handler).start().unwrap();
    knows(&nodes[0]).await;
    let hub = nodes[0].hub();
    warm(&hub, &tasks).await;
    let before = tasks.0.lock().unwrap().len();
    for _ in 0..MANY {
        assert_eq!(ask(&hub, 7_777).await, Ok(Answer(7_777)));
    }
    assert!(tasks.elsewhere(before) <= 1, "{} of {MANY}", tasks.elsewhere(before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_wait_for_what_a_handler_of_the_messenger_may_not() {
    let (messengers, nodes) = pair().await;
    let tasks = Tasks::default();
    let (noted, messenger) = (tasks.clone(), messengers[1].clone());
    let to = messengers[0].id();
    let handler = move |Ask(n), _| {
        noted.note();
        let messenger = messenger.clone();
        async move {
            // Refused inside a handler of the messenger.
            let report = messenger.send_wait(&Answer(n), [to], LONG).await?;
            assert!(report.full.is_empty());
            Ok(Answer(n))
        }
    };
    let _host = nodes[1].host().on(handler).start().unwrap();
    knows(&nodes[0]).await;
    warm(&nodes[0].hub(), &tasks).await;
}
