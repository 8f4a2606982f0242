//! Ten who wait for a member whose queue is full, when a view removes it and when the messenger closes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use karere::{
    Cause, Kind, Limits, Member, MemberId, Message, Messenger, OpenError, Request, RequestError, SendError,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::field::{GONE_WITHIN, PATIENCE, Silent, message, noting, patient, start, until, view};
use crate::report::Report;

const WAITERS: usize = 10;
const BODY: usize = 1024;

/// Asked of a member; never answered here.
#[derive(Serialize, Deserialize)]
struct Ask;

impl Message for Ask {
    const KIND: Kind = Kind::new("bench.views.ask", 1);
}

impl Request for Ask {
    type Reply = Ask;
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Send,
    Stream,
    Request,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    View,
    Close,
}

pub(crate) async fn measure(report: &mut Report, outside: &Handle, quick: bool) {
    let runs = if quick { 10 } else { 50 };
    report.section("waiters: the last of ten that wait for a silent member with a full queue");
    report.head_of_times();
    for (end, what) in [(End::View, "a view removes it"), (End::Close, "the messenger closes")] {
        for (way, name) in [(Way::Send, "send_wait"), (Way::Stream, "open_stream"), (Way::Request, "request")]
        {
            let mut last = Vec::new();
            for _ in 0..runs {
                last.push(woken(outside, way, end).await);
            }
            report.times(&format!("waiters: {name}, {what}"), last, Some(GONE_WITHIN));
        }
    }
}

/// From the call until the last of them is awake.
async fn woken(outside: &Handle, way: Way, end: End) -> Duration {
    let sender = start(&Handle::current(), Limits::default(), patient()).await;
    let silent = Silent::start(outside).await;
    let to = silent.messenger.id();
    let both = || view(1, [sender.member(), silent.member()]);
    drop(silent.messenger.install_view(both()).expect("newer"));
    drop(sender.install_view(both()).expect("newer"));
    silent.hush(&sender).await;

    let waiting = Arc::<AtomicUsize>::default();
    let mut waiters = JoinSet::new();
    let wait = |waiters: &mut JoinSet<Instant>| {
        for _ in 0..WAITERS {
            waiters.spawn(waiter(sender.clone(), to, way, end, Arc::clone(&waiting)));
        }
    };
    // Requests do not wait for room, but for their replies.
    if way == Way::Request {
        wait(&mut waiters);
        until("requests under way", || waiting.load(Ordering::SeqCst) == WAITERS).await;
    }
    let (body, empty) = (message(BODY), message(0));
    until("a full queue", || {
        while sender.send(&body, [to]).expect("sent").is_complete() {}
        // Not even a short one finds room now.
        while sender.send(&empty, [to]).expect("sent").is_complete() {}
        sender.stats().peers.iter().all(|peer| peer.is_connected && peer.queue_bytes > 1 << 20)
    })
    .await;
    if way != Way::Request {
        wait(&mut waiters);
    }
    until("ten that wait", || waiting.load(Ordering::SeqCst) == WAITERS).await;

    let alone: Vec<Member> = vec![sender.member()];
    let start = Instant::now();
    let closing = match end {
        End::View => {
            let change = sender.install_view(view(2, alone)).expect("newer");
            assert_eq!(change.left, [to]);
            None
        }
        End::Close => {
            let sender = sender.clone();
            Some(tokio::spawn(async move { sender.close().await }))
        }
    };
    let all = async {
        let mut last = start;
        while let Some(woken) = waiters.join_next().await {
            last = last.max(woken.expect("it ends as it should"));
        }
        last
    };
    let last = tokio::time::timeout(PATIENCE, all).await.expect("nobody waits for ever");
    // What closing says to a silent peer would only take its time.
    silent.end().await;
    if let Some(closing) = closing {
        closing.await.expect("closed");
    }
    sender.close().await;
    assert!(sender.stats().total().balance() && sender.stats().total().pending == 0);
    last - start
}

async fn waiter(sender: Messenger, to: MemberId, way: Way, end: End, waiting: Arc<AtomicUsize>) -> Instant {
    match way {
        Way::Send => {
            let sent = at_end(sender.send_wait(&message(BODY), [to], PATIENCE), waiting).await;
            match sent.0 {
                Ok(report) => assert_eq!(report.absent, [to]),
                Err(SendError::Closed(_)) => assert!(end == End::Close),
                Err(other) => panic!("{other}"),
            }
            sent.1
        }
        Way::Stream => {
            let opened = at_end(sender.open_stream(to, "bench"), waiting).await;
            match opened.0 {
                Err(OpenError::Absent | OpenError::Closed(_)) => {}
                other => panic!("{other:?}"),
            }
            opened.1
        }
        Way::Request => {
            let asked = at_end(sender.request(&Ask, to, PATIENCE), waiting).await;
            let wanted = if end == End::View { Cause::Departed } else { Cause::Closed };
            match asked.0 {
                Err(RequestError::NotSent(cause) | RequestError::Indeterminate(cause)) => {
                    assert_eq!(cause, wanted)
                }
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("nobody answers"),
            }
            asked.1
        }
    }
}

/// What it came to, and when.
async fn at_end<T>(future: impl Future<Output = T>, waiting: Arc<AtomicUsize>) -> (T, Instant) {
    let done = noting(future, waiting).await;
    (done, Instant::now())
}
