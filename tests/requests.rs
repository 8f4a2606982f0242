//! Requests and replies: T30.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::*;
use karere::{
    Cause, Class, HandlerError, Kind, Limits, MemberId, Message, Messenger, Request, RequestError, Timeouts,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// Is answered by its number plus one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ask(u64);

impl Message for Ask {
    const KIND: Kind = Kind::new("test.ask", 2).open();
}

impl Request for Ask {
    type Reply = Number;
}

/// As an `Ask` of a newer release.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct NewerAsk(String);

impl Message for NewerAsk {
    const KIND: Kind = Kind::new("test.ask", 3).open();
}

impl Request for NewerAsk {
    type Reply = Number;
}

/// As an `Ask`, encoded in another way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OtherAsk(());

impl Message for OtherAsk {
    const KIND: Kind = Kind::new("test.ask", 1).open();
}

impl Request for OtherAsk {
    type Reply = Number;
}

/// For members of a view only.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Inside(u64);

impl Message for Inside {
    const KIND: Kind = Kind::new("test.inside", 1);
}

impl Request for Inside {
    type Reply = Number;
}

/// Large both ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bulk(Vec<u8>);

impl Message for Bulk {
    const KIND: Kind = Kind::new("test.bulk", 1).open();
}

impl Request for Bulk {
    type Reply = Bulk;
}

fn answer_asks(messenger: &Messenger) {
    messenger.add_request_handler(|_, Ask(number)| async move { Ok(Number(number + 1)) }).unwrap();
}

/// Counts how many live, and how many were dropped before their end.
#[derive(Clone, Debug, Default)]
struct Lives {
    begun: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

struct Life(Lives);

impl Lives {
    fn begin(&self) -> Life {
        self.begun.fetch_add(1, SeqCst);
        Life(self.clone())
    }

    fn counts(&self) -> (u64, u64) {
        (self.begun.load(SeqCst), self.dropped.load(SeqCst))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

/// A handler of [`Ask`]s that never ends.
fn never_answer(messenger: &Messenger) -> Lives {
    let lives = Lives::default();
    let begin = lives.clone();
    messenger
        .add_request_handler(move |_, _: Ask| {
            let life = begin.begin();
            async move {
                let _life = life;
                std::future::pending().await
            }
        })
        .unwrap();
    lives
}

#[tokio::test]
async fn a_request_is_answered_in_every_class_and_size_and_by_oneself() {
    let server = server(Timeouts::default()).await;
    answer_asks(&server);
    server.add_request_handler(|_, bulk: Bulk| async move { Ok(bulk) }).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    assert_eq!(client.request(&Ask(1), contact.id(), LONG).await, Ok(Number(2)));
    for class in [Class::Urgent, Class::Normal, Class::Bulk] {
        assert_eq!(client.class(class).request(&Ask(7), contact.id(), LONG).await, Ok(Number(8)));
    }
    for bytes in [0, 5_000, 70_000, 3_000_000] {
        let bulk = Bulk(pattern(1, bytes));
        assert_eq!(client.request(&bulk, contact.id(), LONG).await, Ok(bulk), "{bytes} bytes");
    }
    let streams = peer(&server, client.member().id).unwrap().streams;
    let mut replies: Vec<_> = streams.iter().filter(|stream| stream.protocol == 7).collect();
    replies.sort_by_key(|stream| stream.class);
    let ways: Vec<_> = replies.iter().map(|stream| (stream.class, stream.open)).collect();
    assert_eq!(
        ways,
        [(Class::Urgent, true), (Class::Normal, true), (Class::Bulk, true)],
        "as their requests"
    );
    // The acceptor asks back, and each asks itself.
    answer_asks(&client);
    assert_eq!(server.request(&Ask(3), client.member().id, LONG).await, Ok(Number(4)));
    assert_eq!(client.request(&Ask(5), client.member().id, LONG).await, Ok(Number(6)));
    assert_eq!(server.stats().requests_called_off + client.stats().late_replies, 0);
}

#[tokio::test]
async fn what_cannot_be_asked_says_so_and_was_not_handled() {
    let limits = Limits { message_bytes: 300_000, ..Limits::default() };
    let server = server(Timeouts::default()).await;
    answer_asks(&server);
    server.add_request_handler(|_, Inside(number)| async move { Ok(Number(number)) }).unwrap();
    let client = Messenger::builder().limits(limits).start().await.unwrap();
    let contact = contact(&client, &server).await;
    let id = contact.id();
    let nobody = MemberId::from_parts(1, 2);
    let mut errors = vec![
        client.request(&Ask(1), nobody, LONG).await.unwrap_err(),
        client.request(&NewerAsk("new".into()), id, LONG).await.unwrap_err(),
        client.request(&OtherAsk(()), id, LONG).await.unwrap_err(),
        client.request(&Bulk(Vec::new()), id, LONG).await.unwrap_err(),
        client.request(&Inside(1), id, LONG).await.unwrap_err(),
    ];
    let large = client.request(&Bulk(vec![0; 300_000]), id, LONG).await.unwrap_err();
    assert!(matches!(large, RequestError::TooLarge { kind: "test.bulk", .. }), "{large}");
    client.close().await;
    errors.push(client.request(&Ask(1), id, LONG).await.unwrap_err());
    assert_eq!(errors[0], RequestError::Absent(nobody));
    assert_eq!(errors[1], RequestError::NotUnderstood, "a newer version");
    assert!(matches!(errors[2], RequestError::Undecodable(_)), "{}", errors[2]);
    assert_eq!(errors[3], RequestError::NotUnderstood, "no handler");
    assert_eq!(errors[4], RequestError::NotSent(Cause::NotAdmitted), "no view");
    assert_eq!(errors[5], RequestError::Closed("closed"));
    for error in errors.iter().chain([&large]) {
        assert!(!error.may_have_been_handled(), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_wait_behind_a_slow_handler() {
    let server = server(Timeouts::default()).await;
    let lives = never_answer(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let slow = client.request(&Ask(1), contact.id(), LONG);
    let refused = async {
        eventually(LONG, || lives.counts().0 == 1).await;
        client.request(&Bulk(Vec::new()), contact.id(), LONG).await
    };
    let refused = within(secs(5), async {
        tokio::select! { _ = slow => None, refused = refused => Some(refused) }
    });
    assert_eq!(refused.await, Some(Err(RequestError::NotUnderstood)));
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_tells_its_asker_and_the_next_is_answered() {
    let server = server(Timeouts::default()).await;
    server
        .add_request_handler(|_, Ask(number)| {
            assert_ne!(number, 2, "before its first await");
            async move {
                tokio::task::yield_now().await;
                assert_ne!(number, 3, "after its first await");
                if number == 1 { Err("ā".repeat(1000)) } else { Ok(Number(number + 1)) }
            }
        })
        .unwrap();
    server.add_request_handler(|_, _: Bulk| async { Ok(Bulk(vec![1; 200_000])) }).unwrap();
    let duplicate = HandlerError::Duplicate { name: "test.ask" };
    assert_eq!(server.add_request_handler(|_, _: Ask| async { Ok(Number(0)) }), Err(duplicate));
    let limits = Limits { message_bytes: 100_000, ..Limits::default() };
    let client = Messenger::builder().limits(limits).start().await.unwrap();
    let contact = contact(&client, &server).await;
    let ask = |number| client.request(&Ask(number), contact.id(), LONG);
    assert_eq!(ask(1).await, Err(RequestError::Handler("ā".repeat(256))));
    assert_eq!(ask(2).await, Err(RequestError::Panicked));
    assert_eq!(ask(3).await, Err(RequestError::Panicked));
    let lost = client.request(&Bulk(Vec::new()), contact.id(), LONG).await.unwrap_err();
    assert!(matches!(&lost, RequestError::ReplyUnusable(text) if text.contains("100000")), "{lost}");
    assert_eq!(ask(4).await, Ok(Number(5)));
    assert!(lost.may_have_been_handled() && RequestError::Panicked.may_have_been_handled());
    assert_eq!(server.stats().handler_panics, 2);
}

#[tokio::test]
async fn timeouts_end_in_their_order_and_not_before_their_time() {
    let server = server(Timeouts::default()).await;
    let lives = never_answer(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let ended = Mutex::new(Vec::new());
    let ask = async |timeout: u64| {
        let start = Instant::now();
        let error = client.request(&Ask(1), contact.id(), ms(timeout)).await.unwrap_err();
        assert!(start.elapsed() >= ms(timeout), "not before its time: {timeout}");
        assert_eq!(error, RequestError::Timeout);
        assert!(error.may_have_been_handled());
        ended.lock().push(timeout);
    };
    tokio::join!(ask(300), ask(100), ask(200), ask(1), ask(400));
    assert_eq!(*ended.lock(), [1, 100, 200, 300, 400]);
    // One runs at a time; the others are not begun after their time.
    eventually(LONG, || server.stats().requests_called_off == 5).await;
    let (begun, dropped) = lives.counts();
    assert!(begun == dropped && (1..5).contains(&begun), "{begun}");
}

#[tokio::test]
async fn a_dropped_request_drops_its_handler_there_and_those_that_wait_are_not_begun() {
    let server = server(Timeouts::default()).await;
    let lives = never_answer(&server);
    server.add_request_handler(|_, bulk: Bulk| async move { Ok(bulk) }).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (client, id) = (client.clone(), contact.id());
        asked.spawn(async move { client.request(&Ask(number), id, secs(3600)).await });
    }
    eventually(LONG, || lives.counts().0 == 1).await;
    let start = Instant::now();
    asked.shutdown().await;
    eventually(LONG, || server.stats().requests_called_off == 10).await;
    assert!(start.elapsed() < secs(5));
    let (begun, dropped) = lives.counts();
    assert_eq!(begun, dropped);
    assert!(begun < 10, "those that waited were not begun: {begun}");
    let bulk = Bulk(vec![1]);
    assert_eq!(client.request(&bulk, contact.id(), LONG).await, Ok(bulk), "the lane is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_comes_too_late_is_dropped_and_counted() {
    let server = server(Timeouts::default()).await;
    let (open, gate) = std::sync::mpsc::sync_channel::<()>(10);
    let (gate, lives) = (Mutex::new(gate), Lives::default());
    let begin = lives.clone();
    server
        .add_request_handler(move |_, Ask(number)| {
            let _life = begin.begin();
            // Holds its thread, so that it cannot be stopped.
            gate.lock().recv().unwrap();
            async move { Ok(Number(number + 1)) }
        })
        .unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let (asker, id) = (client.clone(), contact.id());
    let asked = tokio::spawn(async move { asker.request(&Ask(1), id, LONG).await });
    eventually(LONG, || lives.counts().0 == 1).await;
    asked.abort();
    let _aborted = asked.await;
    (0..3).for_each(|_| open.send(()).unwrap());
    eventually(LONG, || client.stats().late_replies == 1).await;
    assert_eq!(client.request(&Ask(10), id, LONG).await, Ok(Number(11)), "its own and no other");
    assert_eq!(client.request(&Ask(20), id, LONG).await, Ok(Number(21)));
    assert_eq!(client.stats().late_replies, 1);
}

#[tokio::test]
async fn the_departure_of_the_peer_ends_its_requests_at_once() {
    for leaves in [true, false] {
        let server = server(Timeouts::default()).await;
        let lives = never_answer(&server);
        let client = client(Timeouts::default()).await;
        let contact = contact(&client, &server).await;
        let (asker, id) = (client.clone(), contact.id());
        let asked = tokio::spawn(async move { asker.request(&Ask(1), id, secs(3600)).await });
        eventually(LONG, || lives.counts().0 == 1).await;
        let start = Instant::now();
        if leaves {
            // The handler hangs, so the deadline passes; the goodbye is said before.
            server.leave(ms(300)).await;
        } else {
            drop(contact);
        }
        let error = within(secs(3), asked).await.unwrap().unwrap_err();
        assert!(start.elapsed() < secs(3));
        assert!(matches!(error, RequestError::Indeterminate(_)), "{error}");
        assert!(error.may_have_been_handled());
    }
}

#[tokio::test]
async fn a_restart_on_the_same_address_ends_requests_as_indeterminate_at_once() {
    let first = server(quick()).await;
    let lives = never_answer(&first);
    let bound = address(&first);
    let client = client(quick()).await;
    let contact = contact(&client, &first).await;
    let (asker, id) = (client.clone(), contact.id());
    let asked = tokio::spawn(async move { asker.request(&Ask(1), id, secs(3600)).await });
    eventually(LONG, || lives.counts().0 == 1).await;
    first.close().await;
    let second = Messenger::builder().bind(bound.to_string()).timeouts(quick()).start().await.unwrap();
    answer_asks(&second);
    let error = within(LONG, asked).await.unwrap().unwrap_err();
    assert!(matches!(error, RequestError::Indeterminate(_)), "{error}");
    let new = within(LONG, contact.replaced()).await;
    assert_eq!(within(LONG, client.request(&Ask(1), new, LONG)).await, Ok(Number(2)));
}

#[cfg(feature = "faults")]
#[tokio::test]
async fn a_handler_is_dropped_when_the_time_is_over_though_its_asker_cannot_say_so() {
    let server = server(Timeouts::default()).await;
    let lives = never_answer(&server);
    let proxy = proxy_to(&server);
    let client = client(Timeouts::default()).await;
    let contact = contact_at(&client, proxy.address()).await;
    let (asker, id) = (client.clone(), contact.id());
    let asked = tokio::spawn(async move { asker.request(&Ask(1), id, ms(500)).await });
    eventually(LONG, || lives.counts().0 == 1).await;
    proxy.inject(karere::faults::Fault::Silence { drain: true });
    // Before a link could be replaced.
    eventually(secs(4), || lives.counts() == (1, 1)).await;
    assert_eq!(within(LONG, asked).await.unwrap(), Err(RequestError::Timeout));
    assert_eq!(links(&client, id), 1);
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_survive_their_links_and_each_is_handled_once() {
    let server = server(patient()).await;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&handled);
    server
        .add_request_handler(move |_, Ask(number)| {
            note.lock().push(number);
            async move { Ok(Number(number + 1)) }
        })
        .unwrap();
    let proxy = proxy_to(&server);
    let client = client(patient()).await;
    let contact = contact_at(&client, proxy.address()).await;
    for round in 0..50u64 {
        let asks = (0..20).map(|at| round * 20 + at).map(|number| {
            let (client, id) = (client.clone(), contact.id());
            tokio::spawn(async move { (number, client.request(&Ask(number), id, LONG).await) })
        });
        let asks: Vec<_> = asks.collect();
        proxy.inject(karere::faults::Fault::Reset);
        for ask in asks {
            let (number, reply) = ask.await.unwrap();
            assert_eq!(reply, Ok(Number(number + 1)));
        }
    }
    let mut handled = handled.lock().clone();
    handled.sort_unstable();
    assert!(handled.iter().copied().eq(0..1000), "each once: {}", handled.len());
    assert!(links(&client, contact.id()) > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_requests_each_get_their_own_reply() {
    let server = server(patient()).await;
    answer_asks(&server);
    let client = client(patient()).await;
    let contact = contact(&client, &server).await;
    let asks: Vec<_> = (0..10_000)
        .map(|number| {
            let (client, id) = (client.clone(), contact.id());
            tokio::spawn(async move { client.request(&Ask(number), id, secs(30)).await })
        })
        .collect();
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.unwrap(), Ok(Number(number as u64 + 1)));
    }
    assert!(client.stats().total().balance() && server.stats().total().balance());
}

#[tokio::test]
async fn more_than_the_other_side_can_hold_are_refused_as_busy_and_nothing_else_is_held_up() {
    let server = server(Timeouts::default()).await;
    let lives = never_answer(&server);
    let got = Collected::by(&server);
    server.add_request_handler(|_, bulk: Bulk| async move { Ok(Bulk(bulk.0[..1].to_vec())) }).unwrap();
    let client = client(Timeouts::default()).await;
    let contact = contact(&client, &server).await;
    let (asker, id) = (client.clone(), contact.id());
    let hung = tokio::spawn(async move { asker.request(&Ask(1), id, secs(3600)).await });
    eventually(LONG, || lives.counts().0 == 1).await;
    let mut waiting = tokio::task::JoinSet::new();
    let busy = loop {
        let (asker, bulk) = (client.clone(), Bulk(vec![1; 500_000]));
        let queued = client.stats().total().queued;
        waiting.spawn(async move { asker.request(&bulk, id, secs(3600)).await });
        // Until it is there, or the queue here would be full.
        eventually(LONG, || {
            let total = client.stats().total();
            total.queued > queued && total.pending == 0
        })
        .await;
        match tokio::time::timeout(ms(20), waiting.join_next()).await {
            Ok(Some(ended)) => break ended.unwrap(),
            Ok(None) | Err(_) => assert!(waiting.len() < 50, "some 4 MiB wait at most"),
        }
    };
    assert_eq!(busy, Err(RequestError::Busy));
    assert!(waiting.len() >= 6, "{}", waiting.len());
    // Messages and other classes pass, and calling off does.
    send_all(&client, id, 0..100).await;
    got.are_exactly(100, LONG).await;
    let bulk = Bulk(vec![7]);
    assert_eq!(client.class(Class::Urgent).request(&bulk, id, LONG).await, Ok(bulk));
    hung.abort();
    while let Some(reply) = within(LONG, waiting.join_next()).await {
        assert_eq!(reply.unwrap(), Ok(Bulk(vec![1])));
    }
}

/// Asks `other` inside a handler, down to zero.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Down(u8);

impl Message for Down {
    const KIND: Kind = Kind::new("test.down", 1).open();
}

impl Request for Down {
    type Reply = Number;
}

fn ask_down(messenger: &Messenger) {
    let asker = messenger.clone();
    messenger
        .add_request_handler(move |from, Down(depth)| {
            let asker = asker.clone();
            async move {
                if depth == 0 {
                    return Ok(Number(0));
                }
                let below = asker.request(&Down(depth - 1), from, secs(20)).await;
                below.map(|Number(number)| Number(number + 1)).map_err(|error| error.to_string())
            }
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_ask_each_other_inside_handlers_never_wait_for_each_other() {
    let limits =
        Limits { queue_bytes: 64 * 1024, reserve_bytes: 4096, credit_bytes: 128 * 1024, ..Limits::default() };
    let one =
        Messenger::builder().bind("127.0.0.1:0").limits(limits).timeouts(patient()).start().await.unwrap();
    let two = Messenger::builder().limits(limits).timeouts(patient()).start().await.unwrap();
    let contact = contact(&two, &one).await;
    // Messages whose handlers ask, and more of them than the queues hold.
    for messenger in [&one, &two] {
        ask_down(messenger);
        let asker = messenger.clone();
        messenger
            .add_handler(move |from, Word(_)| {
                let asker = asker.clone();
                async move {
                    let _reply = asker.request(&Down(2), from, secs(20)).await;
                }
            })
            .unwrap();
    }
    let (deep, full) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut asking = tokio::task::JoinSet::new();
    let until = Instant::now() + secs(2);
    for (from, to) in [(&one, two.member().id), (&two, contact.id())] {
        for asker in 0..8 {
            let (from, deep, full) = (from.clone(), Arc::clone(&deep), Arc::clone(&full));
            asking.spawn(async move {
                while Instant::now() < until {
                    let _full = from.send(&Word("x".repeat(asker * 500)), [to]).unwrap();
                    match from.request(&Down(4), to, secs(20)).await {
                        Ok(number) => {
                            assert_eq!(number, Number(4));
                            deep.fetch_add(1, SeqCst);
                        }
                        // Somewhere on the way a queue was full: said, not waited for.
                        Err(RequestError::Handler(text)) => {
                            assert!(text.contains("full"), "{text}");
                            full.fetch_add(1, SeqCst);
                        }
                        Err(RequestError::Full(_)) => tokio::time::sleep(ms(1)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    }
    within(secs(15), async {
        while let Some(asked) = asking.join_next().await {
            asked.unwrap()
        }
    })
    .await;
    assert!(deep.load(SeqCst) > 50, "{deep:?} answered, {full:?} full");
}

#[tokio::test]
async fn the_depth_of_requests_inside_handlers_is_bounded() {
    let server = server(Timeouts::default()).await;
    let client = client(Timeouts::default()).await;
    ask_down(&server);
    ask_down(&client);
    let contact = contact(&client, &server).await;
    assert_eq!(client.request(&Down(7), contact.id(), LONG).await, Ok(Number(7)));
    let error = client.request(&Down(8), contact.id(), LONG).await.unwrap_err();
    assert_eq!(error, RequestError::Handler(RequestError::TooDeep { most: 8 }.to_string()));
}

#[tokio::test]
async fn a_reply_passes_though_the_queue_is_full_of_messages_that_wait_for_it() {
    let limits =
        Limits { queue_bytes: 64 * 1024, reserve_bytes: 4096, credit_bytes: 128 * 1024, ..Limits::default() };
    let one = Messenger::builder().bind("127.0.0.1:0").limits(limits).start().await.unwrap();
    let two = Messenger::builder().limits(limits).start().await.unwrap();
    let contact = contact(&two, &one).await;
    let start = Arc::new(Semaphore::new(0));
    let replied = Arc::new(Mutex::new(None));
    let (asker, wait, note) = (two.clone(), Arc::clone(&start), Arc::clone(&replied));
    two.add_handler(move |from, Word(_)| {
        let (asker, wait, note) = (asker.clone(), Arc::clone(&wait), Arc::clone(&note));
        async move {
            if note.lock().is_none() {
                wait.acquire().await.unwrap().forget();
                let reply = asker.request(&Ask(1), from, LONG).await;
                note.lock().get_or_insert(reply);
            }
        }
    })
    .unwrap();
    answer_asks(&one);
    // Until nothing moves: the other's credit and the queue here are full, to the last byte that a reply could take.
    for word in ["x".repeat(1000), String::new()].map(Word) {
        let mut refused = Instant::now();
        while refused.elapsed() < Duration::from_millis(200) {
            if one.send(&word, [two.member().id]).unwrap().is_complete() {
                refused = Instant::now();
            } else {
                tokio::time::sleep(ms(2)).await;
            }
        }
    }
    start.add_permits(1);
    eventually(LONG, || replied.lock().is_some()).await;
    assert_eq!(*replied.lock(), Some(Ok(Number(2))));
    drop(contact);
}
