//! A router of another make on the messenger: what it is told of its peers, in which order, and what becomes of frames.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use common::{LONG, Number, Seen, address, contact, eventually, patient, server, within};
use karere::{
    Class, DownCause, HandlerError, Kind, MemberId, Messenger, NotTaken, PeerChange, PeerEvent, PlugError,
    PlugStats, Raw, RouterTransport, SendError, Transport, View, ViewId, plug,
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

const FRAMES: Kind = Kind::new("foreign.frame", 1).of_protocol(64);
const OTHERS: Kind = Kind::new("foreign.other", 1).of_protocol(65);
const OPEN: Kind = Kind::new("foreign.open", 1).of_protocol(66).open();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Up,
    Frame(u64),
    Down(DownCause),
}
use Note::{Down, Frame, Up};

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Recorder {
    log: Arc<Mutex<Vec<(MemberId, Note)>>>,
    told: Arc<Condvar>,
    /// A permit a frame, if it waits at all.
    gate: Option<Arc<Semaphore>>,
    /// This peer's `Up` returns once that one's was told.
    after: Option<(MemberId, MemberId)>,
    panics: bool,
    inside: Arc<AtomicUsize>,
    most_inside: Arc<AtomicUsize>,
}

impl Recorder {
    fn waiting() -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        (Self { gate: Some(Arc::clone(&gate)), ..Self::default() }, gate)
    }

    fn note(&self, peer: MemberId, note: Note) {
        self.log.lock().push((peer, note));
        self.told.notify_all();
    }

    fn of(&self, peer: MemberId) -> Vec<Note> {
        self.log.lock().iter().filter(|(of, _)| *of == peer).map(|(_, note)| *note).collect()
    }

    #[track_caller]
    fn until(&self, peer: MemberId, expected: &[Note]) -> impl Future<Output = ()> {
        let (this, expected) = (self.clone(), expected.to_vec());
        let place = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            while this.of(peer).len() < expected.len() && start.elapsed() < LONG {
                tokio::time::sleep(common::ms(2)).await;
            }
            let told = this.of(peer);
            let wrong = told.iter().zip(&expected).position(|(told, expected)| told != expected);
            assert!(told == expected, "first wrong: {wrong:?} of {told:?}: {place}");
        }
    }
}

impl RouterTransport for Recorder {
    fn on_peer(&self, _: &Transport, peer: MemberId, change: PeerChange) {
        let note = match change {
            PeerChange::Up => Up,
            PeerChange::Down { cause } => Down(cause),
            other => panic!("{other:?}"),
        };
        self.note(peer, note);
        if let Some((waits, first)) = self.after
            && waits == peer
        {
            let mut log = self.log.lock();
            let is_told = |log: &Vec<(MemberId, Note)>| log.contains(&(first, Up));
            let waited =
                self.told.wait_while_until(&mut log, |log| !is_told(log), Instant::now() + LONG).timed_out();
            assert!(!waited, "the other's `Up` did not come");
        }
        assert!(!self.panics, "on purpose");
    }

    async fn on_message(&self, _: &Transport, from: MemberId, frame: Bytes) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        } else {
            tokio::task::yield_now().await;
        }
        let number = u64::from_le_bytes(frame[..8].try_into().unwrap());
        self.note(from, Frame(number));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        assert!(number != u64::MAX, "on purpose");
    }
}

fn frame(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

fn big(number: u64) -> Bytes {
    let mut bytes = vec![0; 32 * 1024];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

fn view<'a>(number: u64, members: impl IntoIterator<Item = &'a Messenger>) -> View {
    View::new(ViewId { generation: 1, number }, members.into_iter().map(Messenger::member))
}

/// The same view for all of them.
fn install(number: u64, members: &[&Messenger]) {
    let view = view(number, members.iter().copied());
    for member in members {
        let _change = member.install_view(view.clone()).unwrap();
    }
}

async fn send_all(transport: &Transport, to: MemberId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        transport.send_wait(to, frame(number), LONG).await.unwrap();
    }
}

fn frames(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Note> {
    numbers.map(Frame)
}

fn all(notes: impl IntoIterator<Item = Note>) -> Vec<Note> {
    notes.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_is_first_and_down_last_also_when_a_message_is_quicker_than_the_view() {
    let (a, b, c) = (server(patient()).await, server(patient()).await, server(patient()).await);
    // The plug's task is held up by c's `Up` until b's was told: only b's message can bring that.
    let router = Recorder { after: Some((c.id(), b.id())), ..Recorder::default() };
    let at_a = plug(&a, FRAMES, router.clone()).unwrap();
    let at_b = plug(&b, FRAMES, Recorder::default()).unwrap();
    let everyone = view(1, [&a, &c, &b]);
    let _change = b.install_view(everyone.clone()).unwrap();
    send_all(&at_b, a.id(), 0..50).await;
    let _change = a.install_view(everyone).unwrap();
    within(LONG, router.until(b.id(), &all([Up].into_iter().chain(frames(0..50))))).await;
    assert_eq!(router.of(c.id()), [Up]);
    assert_eq!(at_a.peers().len(), 2);

    let _change = a.install_view(view(2, [&a, &c])).unwrap();
    let told = [Up].into_iter().chain(frames(0..50)).chain([Down(DownCause::Removed)]);
    within(LONG, router.until(b.id(), &all(told))).await;
    assert_eq!(at_a.peers(), [c.id()]);
    assert_eq!((at_a.stats().delivered, at_a.stats().dropped, at_a.stats().interrupted), (50, 0, 0));
    let refused = at_a.send(b.id(), frame(0)).unwrap_err();
    assert_eq!(refused, NotTaken { frame: frame(0), why: SendError::Absent(b.id()) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_one_sender_come_in_order_and_one_after_the_other_whatever_their_class() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let router = Recorder::default();
    let _at_a = plug(&a, FRAMES, router.clone()).unwrap();
    install(1, &[&a, &b]);
    for number in 0..300 {
        let class = [Class::Urgent, Class::Normal, Class::Bulk][number as usize % 3];
        let report = b.class(class).send_wait(&Raw::new(FRAMES, frame(number)), [a.id()], LONG).await;
        assert!(report.unwrap().is_complete());
    }
    eventually(LONG, || router.of(b.id()).len() == 301).await;
    assert_eq!(router.most_inside.load(Ordering::SeqCst), 1, "two at once");
    let told = router.of(b.id());
    assert_eq!(told[0], Up);
    for class in 0..3 {
        let of_class = |note: &&Note| matches!(note, Frame(number) if number % 3 == class);
        let came: Vec<_> = told.iter().filter(of_class).copied().collect();
        assert_eq!(came, all(frames(0..300)).iter().filter(of_class).copied().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_slow_router_holds_up_its_sender_and_nobody_else_and_a_full_queue_hands_the_bytes_back() {
    let (a, b, c) = (server(patient()).await, server(patient()).await, server(patient()).await);
    let numbers = common::Collected::by(&a);
    let (slow, gate) = Recorder::waiting();
    let (quick, plain) = (Recorder::default(), Recorder::default());
    let _slow = plug(&a, FRAMES, slow.clone()).unwrap();
    let at_a = plug(&a, OTHERS, quick.clone()).unwrap();
    let at_b = plug(&b, FRAMES, plain.clone()).unwrap();
    let at_c = plug(&c, OTHERS, plain.clone()).unwrap();
    install(1, &[&a, &b, &c]);
    let mut sent = 0;
    let refused = loop {
        assert!(sent < 10_000, "nothing holds it up");
        match at_b.send(a.id(), big(sent)) {
            Ok(()) => sent += 1,
            // Once the link is up and the credit is used, full stays full.
            Err(refused) => {
                let short = common::ms(300);
                match at_b.send_wait(a.id(), refused.frame, short).await {
                    Ok(()) => sent += 1,
                    Err(refused) => break refused,
                }
            }
        }
    };
    assert_eq!(refused, NotTaken { frame: big(sent), why: SendError::Full(a.id()) });
    assert_eq!(slow.of(b.id()), [Up], "the first frame is with the router, the others wait");
    // Another sender by another plug, and the application of the same sender.
    send_all(&at_c, a.id(), 0..100).await;
    within(LONG, quick.until(c.id(), &all([Up].into_iter().chain(frames(0..100))))).await;
    common::send_all(&c, a.id(), 0..100).await;
    within(LONG, numbers.are_exactly(100, LONG)).await;
    assert_eq!(at_a.stats().delivered, 100);

    gate.add_permits(sent as usize + 1);
    at_b.send_wait(a.id(), refused.frame, LONG).await.unwrap();
    within(LONG, slow.until(b.id(), &all([Up].into_iter().chain(frames(0..sent + 1))))).await;
}

#[tokio::test]
async fn what_was_accepted_before_a_removal_comes_before_down() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let (router, gate) = Recorder::waiting();
    let at_a = plug(&a, FRAMES, router.clone()).unwrap();
    let at_b = plug(&b, FRAMES, Recorder::default()).unwrap();
    install(1, &[&a, &b]);
    for number in 0..10 {
        let receipt = at_b.send_with_receipt(a.id(), frame(number)).unwrap();
        within(LONG, receipt.acked()).await.unwrap();
    }
    let _change = a.install_view(view(2, [&a])).unwrap();
    eventually(LONG, || at_a.peers().is_empty()).await;
    assert_eq!(router.of(b.id()), [Up]);
    gate.add_permits(10);
    let told = [Up].into_iter().chain(frames(0..10)).chain([Down(DownCause::Removed)]);
    within(LONG, router.until(b.id(), &all(told))).await;
    assert_eq!((at_a.stats().delivered, at_a.stats().dropped), (10, 0));
}

#[tokio::test]
async fn a_router_that_hangs_is_told_down_all_the_same_and_what_it_missed_is_counted() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let (router, gate) = Recorder::waiting();
    let at_a = plug(&a, FRAMES, router.clone()).unwrap();
    let at_b = plug(&b, FRAMES, Recorder::default()).unwrap();
    install(1, &[&a, &b]);
    for number in 0..10 {
        let receipt = at_b.send_with_receipt(a.id(), frame(number)).unwrap();
        within(LONG, receipt.acked()).await.unwrap();
    }
    let _change = a.install_view(view(2, [&a])).unwrap();
    within(LONG, router.until(b.id(), &[Up, Down(DownCause::Removed)])).await;
    eventually(LONG, || at_a.stats().dropped == 9).await;
    gate.add_permits(100);
    let PlugStats { delivered, interrupted, dropped, .. } = at_a.stats();
    assert_eq!((delivered, interrupted, dropped), (1, 1, 9));
    assert_eq!(router.of(b.id()), [Up, Down(DownCause::Removed)], "and nothing after it");
}

#[tokio::test]
async fn a_peer_that_was_replaced_is_down_for_that_and_the_newcomer_is_another() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let router = Recorder::default();
    let at_a = plug(&a, FRAMES, router.clone()).unwrap();
    let _at_b = plug(&b, FRAMES, Recorder::default()).unwrap();
    install(1, &[&a, &b]);
    within(LONG, router.until(b.id(), &[Up])).await;
    let seen = Seen::by(&a);
    let (old, port) = (b.id(), address(&b));
    b.close().await;
    let next = Messenger::builder().bind(port.to_string()).timeouts(patient()).start().await.unwrap();
    let newcomer = Recorder::default();
    let at_next = plug(&next, FRAMES, newcomer.clone()).unwrap();
    // It finds the other one there.
    let receipt = at_a.send_with_receipt(old, frame(7)).unwrap();
    let evidence = PeerEvent::Replaced { old, new: next.id() };
    eventually(LONG, || seen.has(&evidence)).await;
    assert_eq!(router.of(old), [Up], "evidence, not a decision");
    install(2, &[&a, &next]);
    within(LONG, router.until(old, &[Up, Down(DownCause::Replaced { by: next.id() })])).await;
    within(LONG, router.until(next.id(), &[Up])).await;
    assert!(receipt.acked().await.is_err());
    send_all(&at_a, next.id(), 0..3).await;
    within(LONG, newcomer.until(a.id(), &[Up, Frame(0), Frame(1), Frame(2)])).await;
    assert_eq!(at_next.peers(), [a.id()]);
}

#[tokio::test]
async fn two_routers_in_one_messenger_do_not_mix_and_neither_holds_up_the_other() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let ((hangs, gate), other) = (Recorder::waiting(), Recorder::default());
    let _first = plug(&a, FRAMES, hangs.clone()).unwrap();
    let _second = plug(&a, OTHERS, other.clone()).unwrap();
    let first = plug(&b, FRAMES, Recorder::default()).unwrap();
    let second = plug(&b, OTHERS, Recorder::default()).unwrap();
    install(1, &[&a, &b]);
    send_all(&first, a.id(), 0..10).await;
    send_all(&second, a.id(), 100..200).await;
    within(LONG, other.until(b.id(), &all([Up].into_iter().chain(frames(100..200))))).await;
    assert_eq!(hangs.of(b.id()), [Up]);
    gate.add_permits(10);
    within(LONG, hangs.until(b.id(), &all([Up].into_iter().chain(frames(0..10))))).await;
}

#[tokio::test]
async fn with_an_open_kind_a_contact_is_a_peer_for_as_long_as_it_is_kept() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let (at_a, at_b) = (Recorder::default(), Recorder::default());
    let from_a = plug(&a, OPEN, at_a.clone()).unwrap();
    let from_b = plug(&b, OPEN, at_b.clone()).unwrap();
    let strangers = plug(&a, FRAMES, Recorder::default()).unwrap();
    let met = contact(&a, &b).await;
    within(LONG, at_a.until(b.id(), &[Up])).await;
    within(LONG, at_b.until(a.id(), &[Up])).await;
    send_all(&from_a, b.id(), 0..3).await;
    within(LONG, at_b.until(a.id(), &[Up, Frame(0), Frame(1), Frame(2)])).await;
    send_all(&from_b, a.id(), 0..1).await;
    within(LONG, at_a.until(b.id(), &[Up, Frame(0)])).await;
    assert!(strangers.peers().is_empty(), "this kind is for members");
    drop(met);
    let left = Down(DownCause::Left);
    within(LONG, at_a.until(b.id(), &[Up, Frame(0), left])).await;
    within(LONG, at_b.until(a.id(), &[Up, Frame(0), Frame(1), Frame(2), left])).await;
    let _again = contact(&a, &b).await;
    within(LONG, at_a.until(b.id(), &[Up, Frame(0), left, Up])).await;
}

#[tokio::test]
async fn a_member_that_leaves_is_heard_to_its_last_frame() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let (router, at_b) = (Recorder::default(), Recorder::default());
    let _at_a = plug(&a, FRAMES, router.clone()).unwrap();
    let from_b = plug(&b, FRAMES, at_b.clone()).unwrap();
    install(1, &[&a, &b]);
    send_all(&from_b, a.id(), 0..200).await;
    b.leave(LONG).await;
    let told = [Up].into_iter().chain(frames(0..200)).chain([Down(DownCause::Left)]);
    within(LONG, router.until(b.id(), &all(told))).await;
    let at_end = at_b.of(a.id());
    assert!(matches!(at_end[..], [Up, Down(DownCause::Left | DownCause::Closed)]), "{at_end:?}");
}

#[tokio::test]
async fn who_is_expelled_has_no_peers_and_as_another_member_has_them_again() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let router = Recorder::default();
    let at_a = plug(&a, FRAMES, router.clone()).unwrap();
    install(1, &[&a, &b]);
    within(LONG, router.until(b.id(), &[Up])).await;
    let refused = at_a.send(a.id(), frame(0)).unwrap_err();
    assert_eq!(refused.why, SendError::Absent(a.id()), "a router serves itself");
    let without = view(2, [&b]);
    assert!(a.install_view(without.clone()).is_err());
    let _change = b.install_view(without).unwrap();
    let expelled = Down(DownCause::Expelled);
    within(LONG, router.until(b.id(), &[Up, expelled])).await;
    let _me = a.reincarnate().unwrap();
    install(3, &[&a, &b]);
    within(LONG, router.until(b.id(), &[Up, expelled, Up])).await;
    // At once, without a view in between that anyone could have seen.
    let _me = a.reincarnate().unwrap();
    let _change = a.install_view(view(4, [&a, &b])).unwrap();
    within(LONG, router.until(b.id(), &[Up, expelled, Up, expelled, Up])).await;
    assert_eq!(at_a.me(), a.id());
    a.close().await;
    let told = [Up, expelled, Up, expelled, Up, Down(DownCause::Closed)];
    within(LONG, router.until(b.id(), &told)).await;
    assert_eq!(at_a.send(b.id(), frame(9)).unwrap_err().frame, frame(9));
}

#[tokio::test]
async fn a_router_that_panics_costs_one_call() {
    let (a, b) = (server(patient()).await, server(patient()).await);
    let router = Recorder { panics: true, ..Recorder::default() };
    let at_a = plug(&a, FRAMES, router.clone()).unwrap();
    let at_b = plug(&b, FRAMES, Recorder::default()).unwrap();
    install(1, &[&a, &b]);
    for number in [1, u64::MAX, 2] {
        at_b.send(a.id(), frame(number)).unwrap();
    }
    within(LONG, router.until(b.id(), &[Up, Frame(1), Frame(u64::MAX), Frame(2)])).await;
    let _change = a.install_view(view(2, [&a])).unwrap();
    let told = [Up, Frame(1), Frame(u64::MAX), Frame(2), Down(DownCause::Removed)];
    within(LONG, router.until(b.id(), &told)).await;
    eventually(LONG, || at_a.stats().peer_panics == 2).await;
    assert_eq!((at_a.stats().delivered, at_a.stats().interrupted), (3, 1));
}

#[tokio::test]
async fn a_kind_without_a_protocol_of_its_own_and_one_that_is_taken_are_refused() {
    let a = server(patient()).await;
    const PLAIN: Kind = Kind::new("foreign.plain", 1);
    let refused = plug(&a, PLAIN, Recorder::default()).unwrap_err();
    assert_eq!(refused, PlugError::Application { name: "foreign.plain" });
    assert!(refused.to_string().contains("of_protocol"), "it says what to do");
    let _first = plug(&a, FRAMES, Recorder::default()).unwrap();
    let refused = plug(&a, FRAMES, Recorder::default()).unwrap_err();
    assert_eq!(refused, PlugError::Handler(HandlerError::Duplicate { name: "foreign.frame" }));
    let report = a.send(&Number(1), [a.id()]).unwrap();
    assert!(report.is_complete());
}

#[tokio::test]
async fn a_broadcast_goes_to_everyone_who_is_up_and_to_nobody_else() {
    let (a, b, c) = (server(patient()).await, server(patient()).await, server(patient()).await);
    let routers = [Recorder::default(), Recorder::default(), Recorder::default()];
    let at_a = plug(&a, FRAMES, routers[0].clone()).unwrap();
    let _at_b = plug(&b, FRAMES, routers[1].clone()).unwrap();
    let _at_c = plug(&c, FRAMES, routers[2].clone()).unwrap();
    install(1, &[&a, &b, &c]);
    eventually(LONG, || at_a.peers().len() == 2).await;
    assert_eq!(at_a.broadcast(frame(1)).unwrap().queued, 2);
    for router in &routers[1..] {
        within(LONG, router.until(a.id(), &[Up, Frame(1)])).await;
    }
    assert!(routers[0].of(a.id()).is_empty());
}
