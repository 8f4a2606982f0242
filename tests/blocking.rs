//! The blocking API from plain threads: messages, views, waiting and its ends, back-pressure, receipts, events. T26.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Internal, LONG, Number, Word, ms, patient, pattern, quick, secs};
use karere::blocking::{Contact, Messenger, Receipt, ReceiptError, Received, RecvTimeoutError, TryRecvError};
use karere::{
    Cause, Class, ContactError, HandlerError, Kind, Limits, Lost, Member, Message, PeerEvent, SendError,
    SendReport, View, ViewId,
};
use serde::{Deserialize, Deserializer, Serialize};

fn server() -> Messenger {
    Messenger::builder().bind("127.0.0.1:0").timeouts(patient()).start_blocking().unwrap()
}

/// Grants each sender only the least credit.
fn stingy_server() -> Messenger {
    let limits = Limits { credit_bytes: 128 * 1024, ..Limits::default() };
    Messenger::builder().bind("127.0.0.1:0").limits(limits).timeouts(patient()).start_blocking().unwrap()
}

fn client() -> Messenger {
    Messenger::builder().timeouts(patient()).start_blocking().unwrap()
}

/// A contact whose link is up.
fn contact(from: &Messenger, to: &Messenger) -> Contact {
    let contact = from.contact(to.local_address().unwrap().to_string()).unwrap();
    let id = contact.id();
    eventually(|| from.stats().peers.iter().any(|peer| peer.peer == id && peer.is_connected));
    contact
}

#[track_caller]
fn eventually(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}");
        thread::sleep(ms(2));
    }
}

#[track_caller]
fn all_queued(report: SendReport) {
    assert!(report.is_complete(), "{report:?}");
}

const fn number(number: u64) -> ViewId {
    ViewId { generation: 1, number }
}

fn view_of<'a>(at: u64, members: impl IntoIterator<Item = &'a Messenger>) -> View {
    let joined = |member: Member| Member { joined: member.joined.or(Some(number(at))), ..member };
    View::new(number(at), members.into_iter().map(|messenger| joined(messenger.member())))
}

fn big() -> Word {
    Word("x".repeat(30_000))
}

/// Sends until the queue is full, although the link is up and nobody takes anything; says how many were taken.
fn fill(from: &Messenger, to: &Contact) -> u64 {
    let mut queued = 0;
    loop {
        let report = from.send_wait(&big(), [to.id()], ms(200)).unwrap();
        assert!(report.absent.is_empty());
        match report.full.as_slice() {
            [] => queued += 1,
            _still_full => return queued,
        }
    }
}

/// A pair whose queue is full, because nobody takes from the receiver.
struct Full {
    receiving: Messenger,
    words: karere::blocking::Receiver<Received<Word>>,
    sending: Messenger,
    to: Contact,
    queued: u64,
}

fn full() -> Full {
    let (receiving, sending) = (stingy_server(), client());
    let words = receiving.receiver::<Word>(1).unwrap();
    let to = contact(&sending, &receiving);
    let queued = fill(&sending, &to);
    Full { receiving, words, sending, to, queued }
}

/// Ten threads that wait for room, until `end`; gives what they were told, and after how long.
fn ten_waiters(full: &Full, timeout: Duration, end: impl FnOnce()) -> Vec<(SendReport, Duration)> {
    let started = AtomicU64::new(0);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    started.fetch_add(1, Ordering::SeqCst);
                    let start = Instant::now();
                    let report = full.sending.send_wait(&big(), [full.to.id()], timeout).unwrap();
                    (report, start.elapsed())
                })
            })
            .collect();
        eventually(|| started.load(Ordering::SeqCst) == 10);
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()), "the queue is full");
        end();
        waiting.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    })
}

// ---- messages ----

#[test]
fn two_messengers_exchange_messages_both_ways_in_order() {
    let (one, two) = (server(), server());
    let (at_one, at_two) = (one.receiver::<Number>(64).unwrap(), two.receiver::<Number>(64).unwrap());
    let (to_one, to_two) = (contact(&two, &one), contact(&one, &two));
    assert_eq!((to_one.id(), to_two.id()), (one.id(), two.id()));
    thread::scope(|scope| {
        for (from, to) in [(&one, &to_two), (&two, &to_one)] {
            scope.spawn(|| {
                for n in 0..20_000 {
                    all_queued(from.send_wait(&Number(n), [to.id()], LONG).unwrap());
                }
            });
        }
        for (got, from) in [(&at_one, two.id()), (&at_two, one.id())] {
            scope.spawn(move || {
                for n in 0..20_000 {
                    let received = got.recv_timeout(LONG).unwrap();
                    assert_eq!((received.from, received.message), (from, Number(n)));
                }
            });
        }
    });
    for messenger in [&one, &two] {
        eventually(|| messenger.stats().total().pending == 0);
        assert_eq!(messenger.stats().total().handled, 20_000);
    }
}

#[test]
fn a_handler_runs_on_a_thread_of_its_own_and_a_panic_costs_one_message() {
    let (receiving, sending) = (server(), client());
    let got = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&got);
    receiving
        .add_handler(move |_from, Number(n)| {
            assert!(n != 3, "planted");
            let name = thread::current().name().map(str::to_owned);
            to.lock().unwrap().push((n, name.unwrap_or_default()));
        })
        .unwrap();
    let contact = contact(&sending, &receiving);
    let receipts: Vec<_> =
        (0..100).map(|n| sending.send_with_receipt(&Number(n), contact.id()).unwrap()).collect();
    receipts.iter().for_each(|receipt| receipt.handled(LONG).unwrap());
    let got = got.lock().unwrap();
    assert_eq!(
        got.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        (0..100).filter(|n| *n != 3).collect::<Vec<_>>()
    );
    assert!(got.iter().all(|(_, name)| name == "karere-handler"));
    assert_eq!(receiving.stats().handler_panics, 1);
}

#[test]
fn a_message_of_a_handler_is_handled_when_the_closure_has_returned() {
    let (receiving, sending) = (server(), client());
    let (release, gate) = crossbeam_channel::bounded::<()>(0);
    receiving.add_handler(move |_from, Number(_)| gate.recv().unwrap()).unwrap();
    let contact = contact(&sending, &receiving);
    let receipts: Vec<Receipt> =
        (0..2).map(|n| sending.send_with_receipt(&Number(n), contact.id()).unwrap()).collect();
    receipts[1].acked(LONG).unwrap();
    assert_eq!(receipts[0].handled(ms(100)), Err(ReceiptError::TimedOut));
    release.send_timeout((), LONG).unwrap();
    // Said although the second, which came with it, still runs.
    receipts[0].handled(LONG).unwrap();
    assert_eq!(receipts[1].handled(ms(100)), Err(ReceiptError::TimedOut));
    release.send_timeout((), LONG).unwrap();
    receipts[1].handled(LONG).unwrap();
}

#[test]
fn a_handler_that_blocks_holds_up_no_other_handler() {
    let (receiving, sending) = (server(), client());
    let (release, gate) = crossbeam_channel::bounded::<()>(1);
    receiving.add_handler(move |_from, Word(_)| gate.recv().unwrap()).unwrap();
    let numbers = receiving.receiver::<Number>(8).unwrap();
    let contact = contact(&sending, &receiving);
    let word = sending.send_with_receipt(&Word(String::new()), contact.id()).unwrap();
    all_queued(sending.class(Class::Urgent).send(&Number(1), [contact.id()]).unwrap());
    assert_eq!(numbers.recv_timeout(LONG).unwrap().message, Number(1));
    assert_eq!(word.handled(Duration::ZERO), Err(ReceiptError::TimedOut));
    release.send(()).unwrap();
    word.handled(LONG).unwrap();
}

#[test]
fn a_handler_may_reply_but_not_wait() {
    let (receiving, sending) = (server(), client());
    let replier = receiving.clone();
    let (tell, told) = crossbeam_channel::bounded(1);
    receiving
        .add_handler(move |from, Number(n)| {
            tell.send(replier.send_wait(&Number(n), [from], LONG)).unwrap();
            all_queued(replier.send(&Word(n.to_string()), [from]).unwrap());
        })
        .unwrap();
    let words = sending.receiver::<Word>(8).unwrap();
    let contact = contact(&sending, &receiving);
    all_queued(sending.send(&Number(7), [contact.id()]).unwrap());
    assert_eq!(words.recv_timeout(LONG).unwrap().message, Word("7".to_owned()));
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err(SendError::WithinHandler));
    receiving.close();
}

#[test]
fn a_type_has_one_taker_and_what_nobody_takes_goes_to_the_fallback() {
    let (receiving, sending) = (server(), client());
    let numbers = receiving.receiver::<Number>(8).unwrap();
    let name = Number::KIND.name();
    let again = receiving.add_handler(|_from, Number(_)| {});
    assert_eq!(again, Err(HandlerError::Duplicate { name }));
    assert_eq!(receiving.receiver::<Number>(8).unwrap_err(), HandlerError::Duplicate { name });
    let rest = receiving.fallback_receiver(8).unwrap();
    assert_eq!(receiving.set_fallback_handler(|_, _| {}), Err(HandlerError::SecondFallback));
    let contact = contact(&sending, &receiving);
    for n in 0..3 {
        all_queued(sending.send(&Number(n), [contact.id()]).unwrap());
        all_queued(sending.send(&Word("a".to_owned()), [contact.id()]).unwrap());
    }
    for n in 0..3 {
        assert_eq!(numbers.recv_timeout(LONG).unwrap().message, Number(n));
        assert_eq!(&rest.recv_timeout(LONG).unwrap().message.bytes[..], b"\x01a");
    }
    // Whoever drops the receiver takes no more; that is counted.
    drop(rest);
    let receipt = sending.send_with_receipt(&Word("b".to_owned()), contact.id()).unwrap();
    receipt.handled(LONG).unwrap();
    assert_eq!(receiving.stats().refused_records, 1);
}

// ---- views ----

#[test]
fn members_of_a_view_reach_each_other_from_threads() {
    let all = [server(), server(), server()];
    let got: Vec<_> = all.iter().map(|messenger| messenger.receiver::<Internal>(8).unwrap()).collect();
    for messenger in &all {
        let change = messenger.install_view(view_of(1, &all)).unwrap();
        assert_eq!(change.joined.len(), 3);
    }
    all[0].preconnect([all[1].id()]);
    for (at, messenger) in all.iter().enumerate() {
        let others = messenger.view().unwrap();
        all_queued(messenger.send(&Internal(at as u64), others.others(messenger.id())).unwrap());
    }
    for (at, got) in got.iter().enumerate() {
        let mut numbers: Vec<_> = (0..2).map(|_| got.recv_timeout(LONG).unwrap().message.0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..3).filter(|other| *other != at as u64).collect::<Vec<_>>());
    }
    let old = all[2].id();
    let change = all[0].install_view(view_of(2, &all[..2])).unwrap();
    assert_eq!(change.left, [old]);
    assert_eq!(all[0].send(&Internal(9), [old]).unwrap().absent, [old]);
    assert_ne!(all[2].reincarnate().unwrap().id, old);
}

// ---- receipts ----

#[test]
fn a_receipt_waits_no_longer_than_it_is_told() {
    let (early, late) = (server(), server());
    let got = late.receiver::<Internal>(8).unwrap();
    drop(early.install_view(view_of(2, [&early, &late])).unwrap());
    // Held, and not acknowledged, until a view includes its sender.
    let receipt = early.send_with_receipt(&Internal(1), late.id()).unwrap();
    let start = Instant::now();
    assert_eq!(receipt.acked(ms(50)), Err(ReceiptError::TimedOut));
    assert_eq!(receipt.handled(ms(50)), Err(ReceiptError::TimedOut));
    assert!(start.elapsed() >= ms(100));
    assert_eq!(receipt.now(), None);
    thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (receipt.acked(LONG), receipt.handled(LONG)))).collect();
        drop(late.install_view(view_of(2, [&early, &late])).unwrap());
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().unwrap(), (Ok(()), Ok(()))));
    });
    // In the channel counts as handled.
    assert_eq!((receipt.now(), got.len()), (Some(Ok(())), 1));
    let unknown = early.send_with_receipt(&Word(String::new()), late.id()).unwrap();
    let lost = Lost::NotSent(Cause::NotUnderstood);
    assert_eq!(unknown.acked(LONG), Err(ReceiptError::Lost(lost)));
}

#[test]
fn receipts_end_with_the_messenger_and_do_not_keep_it() {
    let full = full();
    let Full { sending, to, .. } = full;
    let receipt = sending.send_with_receipt(&Number(1), to.id());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| receipt.as_ref().map(|receipt| receipt.acked(LONG)));
        drop(sending);
        match waiter.join().unwrap() {
            Ok(Err(ReceiptError::Lost(
                Lost::NotSent(Cause::Closed) | Lost::Indeterminate(Cause::Closed),
            ))) => {}
            Err(SendError::Full(_)) => {}
            other => panic!("{other:?}"),
        }
    });
}

// ---- waiting and back-pressure ----

#[test]
fn a_receiver_that_nobody_reads_makes_the_sender_wait_and_loses_nothing() {
    let Full { receiving, words, sending, to, queued } = full();
    assert_eq!(words.len(), 1);
    let figures = &receiving.stats().peers[0];
    assert!(figures.unhandled_bytes <= 128 * 1024, "the credit bounds what waits: {figures:?}");
    let figures = sending.stats().peers[0].clone();
    assert!(figures.queue_bytes <= 3 << 20, "the queue is bounded: {figures:?}");
    assert!(figures.streams.iter().any(|stream| stream.is_blocked), "it waits for credit: {figures:?}");
    let taking = thread::spawn(move || {
        let mut taken = 0;
        while let Ok(Received { message, .. }) = words.recv_timeout(secs(2)) {
            assert_eq!(message.0.len(), 30_000);
            taken += 1;
        }
        taken
    });
    // A full queue makes way as soon as somebody reads.
    all_queued(sending.send_wait(&big(), [to.id()], LONG).unwrap());
    assert_eq!(taking.join().unwrap(), queued + 1);
    let books = sending.stats().total();
    assert!(books.balance() && books.pending == 0 && books.acked == queued + 1, "{books:?}");
}

#[test]
fn a_reader_that_keeps_what_it_takes_gets_the_rest() {
    let (receiving, sending) = (server(), client());
    let numbers = receiving.receiver::<Number>(8).unwrap();
    let to = contact(&sending, &receiving);
    for n in 0..100 {
        all_queued(sending.send_wait(&Number(n), [to.id()], LONG).unwrap());
    }
    let kept: Vec<_> = (0..100).map(|_| numbers.recv_timeout(LONG).unwrap()).collect();
    let kept: Vec<_> = kept.iter().map(|received| received.message.0).collect();
    assert_eq!(kept, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_reader_wakes_the_messenger_itself_and_not_by_the_clock() {
    let (receiving, sending) = (server(), client());
    let numbers = receiving.receiver::<Number>(4).unwrap();
    let to = contact(&sending, &receiving);
    let count = 4_000;
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..count {
                all_queued(sending.send_wait(&Number(n), [to.id()], LONG).unwrap());
            }
        });
        (0..count).for_each(|n| assert_eq!(numbers.recv_timeout(LONG).unwrap().message, Number(n)));
    });
    // By the clock alone: 20 ms for each four.
    let took = start.elapsed();
    println!("{count} messages through a channel of 4 in {took:?}");
    assert!(took < secs(10), "{took:?}");
}

#[test]
fn ten_waiting_threads_wake_when_the_view_removes_the_member() {
    let full = full();
    let two = [&full.sending, &full.receiving];
    drop(full.sending.install_view(view_of(1, two)).unwrap());
    let mut removed = Instant::now();
    let told = ten_waiters(&full, secs(60), || {
        removed = Instant::now();
        drop(full.sending.install_view(view_of(2, [&full.sending])).unwrap());
    });
    assert!(removed.elapsed() < secs(1), "{:?}", removed.elapsed());
    told.iter().for_each(|(report, _)| assert_eq!(report.absent, [full.receiving.id()], "{report:?}"));
}

#[test]
fn ten_waiting_threads_wake_when_the_messenger_is_closed() {
    let full = full();
    let mut closed = Instant::now();
    let told = ten_waiters(&full, secs(60), || {
        closed = Instant::now();
        full.sending.close();
    });
    assert!(closed.elapsed() < secs(3), "{:?}", closed.elapsed());
    told.iter().for_each(|(report, _)| assert_eq!(report.absent, [full.receiving.id()], "{report:?}"));
    assert_eq!(full.sending.send_wait(&big(), [full.to.id()], LONG), Err(SendError::Closed("closed")));
}

#[test]
fn ten_waiting_threads_wake_when_their_time_is_over() {
    let full = full();
    for (report, took) in ten_waiters(&full, ms(300), || {}) {
        assert_eq!(report.full, [full.to.id()], "{report:?}");
        assert!(took >= ms(300) && took < secs(5), "{took:?}");
    }
    // And when there is room.
    let words = full.words.clone();
    let told = ten_waiters(&full, LONG, || {
        thread::spawn(move || while words.recv_timeout(secs(1)).is_ok() {});
    });
    told.iter().for_each(|(report, _)| assert_eq!(report.queued, 1, "{report:?}"));
}

// ---- events ----

#[test]
fn events_come_by_a_channel_that_ends_with_the_messenger() {
    let (receiving, sending) = (server(), client());
    let (seen, forgotten) = (sending.events(), sending.events());
    drop(forgotten);
    let to = contact(&sending, &receiving);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), PeerEvent::Connected { peer: to.id() });
    receiving.leave(LONG);
    let mut came = Vec::new();
    while !came.contains(&PeerEvent::Left { peer: receiving.id() }) {
        came.push(seen.recv_timeout(LONG).unwrap());
    }
    assert_eq!(seen.try_recv(), Err(TryRecvError::Empty));
    let waiting = thread::spawn(move || while seen.recv_timeout(LONG).is_ok() {});
    sending.close();
    waiting.join().unwrap();
    assert_eq!(sending.missed_events(), 0);
    assert_eq!(sending.events().recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

// ---- the end ----

#[test]
fn leave_and_close_return_in_time_with_a_peer_that_hangs() {
    let Full { receiving, words, sending, to: _held, .. } = full();
    let start = Instant::now();
    sending.leave(ms(500));
    let took = start.elapsed();
    assert!(took >= ms(500) && took < secs(4), "{took:?}");
    let books = sending.stats().total();
    assert!(books.balance() && books.pending == 0 && books.acked < books.queued, "{books:?}");
    let start = Instant::now();
    receiving.leave(ms(500));
    assert!(start.elapsed() < secs(4), "{:?}", start.elapsed());
    // What is in the channel may still be taken.
    assert_eq!(words.recv_timeout(LONG).unwrap().from, sending.id());
    assert_eq!(words.recv_timeout(LONG).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn leave_waits_for_the_handler_of_what_was_accepted() {
    let (receiving, sending) = (server(), client());
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    receiving
        .add_handler(move |_from, Number(_)| {
            thread::sleep(ms(5));
            count.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    let to = contact(&sending, &receiving);
    for n in 0..50 {
        all_queued(sending.send(&Number(n), [to.id()]).unwrap());
    }
    sending.leave(LONG);
    receiving.leave(LONG);
    assert_eq!(handled.load(Ordering::SeqCst), 50);
    assert_eq!(receiving.stats().dropped_at_close, 0);
}

#[test]
fn close_does_not_wait_for_the_handler_it_is_called_in_nor_for_ever_for_another() {
    let (receiving, sending) = (server(), client());
    let (tell, told) = crossbeam_channel::bounded(1);
    let closing = receiving.clone();
    receiving
        .add_handler(move |_from, Number(_)| {
            let start = Instant::now();
            closing.close();
            tell.send(start.elapsed()).unwrap();
        })
        .unwrap();
    let to = contact(&sending, &receiving);
    all_queued(sending.send(&Number(1), [to.id()]).unwrap());
    let took = told.recv_timeout(LONG).unwrap();
    assert!(took < ms(1500), "{took:?}");

    let (receiving, (release, gate)) = (server(), crossbeam_channel::bounded::<()>(0));
    let (tell, told) = crossbeam_channel::bounded(1);
    receiving
        .add_handler(move |_from, Number(_)| {
            tell.send(()).unwrap();
            gate.recv().unwrap_err();
        })
        .unwrap();
    let to = contact(&sending, &receiving);
    all_queued(sending.send(&Number(1), [to.id()]).unwrap());
    told.recv_timeout(LONG).unwrap();
    let start = Instant::now();
    receiving.close();
    assert!(start.elapsed() < secs(5), "{:?}", start.elapsed());
    assert_eq!(receiving.stats().dropped_at_close, 1);
    drop(release);
}

#[test]
fn whoever_waits_for_messages_or_streams_hears_of_the_end() {
    let messenger = server();
    let numbers = messenger.receiver::<Number>(8).unwrap();
    thread::scope(|scope| {
        let taking = scope.spawn(|| numbers.recv_timeout(secs(60)).map(|received| received.message));
        let accepting = scope.spawn(|| messenger.accept_stream(secs(60)).map(|stream| stream.peer()));
        assert!(messenger.accept_stream(ms(20)).is_err_and(|error| error.is_timeout()));
        messenger.close();
        assert_eq!(taking.join().unwrap(), Err(RecvTimeoutError::Disconnected));
        assert_eq!(accepting.join().unwrap(), Err(RecvTimeoutError::Disconnected));
    });
    assert!(matches!(messenger.contact("127.0.0.1:1"), Err(ContactError::Closed(_))));
}

#[test]
fn a_contact_gives_up_and_is_replaced() {
    let dialling = Messenger::builder().timeouts(quick()).contact_give_up(secs(1)).start_blocking().unwrap();
    let first = server();
    let address = first.local_address().unwrap();
    let held = contact(&dialling, &first);
    assert_eq!(held.replaced(ms(20)), None);
    first.close();
    drop(first);
    assert!(matches!(dialling.contact(address.to_string()), Err(ContactError::GaveUp { .. })));
    let second = Messenger::builder().bind(address.to_string()).start_blocking().unwrap();
    assert_eq!(held.replaced(LONG), Some(second.id()));
    assert_eq!(held.id(), second.id());
}

// ---- byte streams ----

#[test]
fn a_byte_stream_is_read_and_written_by_two_threads() {
    let (receiving, sending) = (server(), client());
    let to = contact(&sending, &receiving);
    let bytes = pattern(1, 3_000_000);
    let mut stream = sending.open_stream(to.id(), "copy", LONG).unwrap();
    assert_eq!((stream.name(), stream.peer()), ("copy", receiving.id()));
    let mut echo = receiving.accept_stream(LONG).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            std::io::copy(&mut Shared(&mut echo), &mut std::io::sink()).unwrap();
            echo.write_all(b"all of it").unwrap();
            echo.finish().unwrap();
        });
        stream.set_timeout(Some(ms(30)));
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        stream.set_timeout(Some(LONG));
        let (mut read, mut write) = stream.split();
        let answer = scope.spawn(move || {
            let mut answer = String::new();
            read.read_to_string(&mut answer).map(|_| answer)
        });
        write.write_all(&bytes).unwrap();
        write.flush().unwrap();
        write.finish().unwrap();
        assert_eq!(answer.join().unwrap().unwrap(), "all of it");
    });
}

/// Reads of odd sizes.
struct Shared<'a>(&'a mut karere::blocking::ByteStream);

impl Read for Shared<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(7919);
        self.0.read(&mut buffer[..most])
    }
}

// ---- where it is called ----

#[test]
fn calls_inside_an_async_runtime_work_and_block_its_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (receiving, sending) = (server(), client());
        let numbers = receiving.receiver::<Number>(8).unwrap();
        let to = contact(&sending, &receiving);
        all_queued(sending.send_wait(&Number(1), [to.id()], LONG).unwrap());
        assert_eq!(numbers.recv_timeout(LONG).unwrap().message, Number(1));
        sending.leave(LONG);
    });
}

/// A message that calls the messenger while it is decoded.
#[derive(Serialize)]
struct Meddler(u64);

static MEDDLED: Mutex<Option<Messenger>> = Mutex::new(None);

impl<'de> Deserialize<'de> for Meddler {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number == 0 {
            let messenger = MEDDLED.lock().unwrap().clone().unwrap();
            drop(messenger.contact("127.0.0.1:1"));
        }
        Ok(Self(number))
    }
}

impl Message for Meddler {
    const KIND: Kind = Kind::new("test.meddler", 1).open();
}

#[test]
fn a_waiting_call_on_the_messengers_own_thread_fails_at_once_and_costs_one_message() {
    let (receiving, sending) = (server(), client());
    *MEDDLED.lock().unwrap() = Some(receiving.clone());
    let meddlers = receiving.receiver::<Meddler>(8).unwrap();
    let to = contact(&sending, &receiving);
    for n in 0..2 {
        all_queued(sending.send(&Meddler(n), [to.id()]).unwrap());
    }
    assert_eq!(meddlers.recv_timeout(LONG).unwrap().message.0, 1);
    assert_eq!(receiving.stats().handler_panics, 1);
    *MEDDLED.lock().unwrap() = None;
}
