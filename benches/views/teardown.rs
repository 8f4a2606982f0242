//! A view removes three members at once: one that is silent behind a blocked write, with 100,000 messages queued, and two
//! whose dials are in flight, one connected and one not. How long until nothing of them is left.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use karere::{Cause, Limits, Lost, Member, MemberId, Messenger, Receipt, Stats};
use tokio::runtime::Handle;

use crate::field::{
    GONE_WITHIN, Hole, Load, Mute, PATIENCE, Silent, message, patient, start, stranger, until, view,
};
use crate::proc::{self, Held};
use crate::report::Report;

const MESSAGES: usize = 100_000;
const BODY: usize = 64;
/// Enough for all of them with their bookkeeping.
const QUEUE_BYTES: usize = 16 << 20;
/// By how much resident memory may grow in the second half of the runs: less than one run's messages cost, so that
/// nothing of them is kept.
const MORE_KIB: u64 = 8 << 10;
/// The watcher looks so often.
const LOOK: Duration = Duration::from_micros(200);

/// Since the call, of one view change.
#[derive(Default)]
struct Times {
    returned: Duration,
    sockets: Duration,
    kernel: Duration,
    books: Duration,
    receipts: Duration,
    forgotten: Duration,
}

/// Who stays, and those whom nobody reaches.
struct Field {
    outside: Handle,
    sender: Messenger,
    others: [Messenger; 2],
    mute: Mute,
    hole: Hole,
    view: u64,
}

pub(crate) async fn measure(report: &mut Report, outside: &Handle, quick: bool) {
    let runs = if quick { 20 } else { 200 };
    let field = Field::start(outside).await;
    let inside = Handle::current();
    let [one, two] = &field.others;
    let load = Load::between(&[(one, outside, two, outside), (&field.sender, &inside, one, outside)]);
    let mut field = field;
    let begun = Instant::now();
    let mut times = Vec::new();
    let (mut after, mut most) = (Vec::new(), 0);
    for run in 1..=runs {
        let (time, resident) = field.remove_three().await;
        most = most.max(resident);
        times.push(time);
        if run % (runs / 10) == 0 {
            after.push(proc::resident_kib());
        }
    }
    let took = begun.elapsed();
    let sent = load.stop().await;
    until("the load is over", || field.sender.stats().total().pending == 0).await;
    let last = proc::resident_kib();
    report.section(&format!(
        "teardown: {MESSAGES} messages of {BODY} B queued behind a blocked write, and two dials in flight; beside it {:.0} \
         messages/s",
        sent as f64 / took.as_secs_f64()
    ));
    report.head_of_times();
    let of = |which: fn(&Times) -> Duration| times.iter().map(which).collect::<Vec<_>>();
    report.times("teardown: install_view returns", of(|time| time.returned), Some(GONE_WITHIN));
    report.times("teardown: descriptors closed", of(|time| time.sockets), Some(GONE_WITHIN));
    report.times("teardown: gone from the kernel", of(|time| time.kernel), Some(GONE_WITHIN));
    report.times("teardown: nothing pending in the books", of(|time| time.books), Some(GONE_WITHIN));
    report.times("teardown: every receipt resolved", of(|time| time.receipts), Some(GONE_WITHIN));
    report.times("teardown: peers forgotten", of(|time| time.forgotten), Some(GONE_WITHIN));
    println!("resident after each tenth of the runs, KiB: {after:?}; when all is over: {last}");
    let half = after[after.len() / 2 - 1];
    report.levels("teardown: resident from half on, most, end", "KiB", (half, most, last), Some(MORE_KIB));
    field.end().await;
}

impl Field {
    async fn start(outside: &Handle) -> Self {
        let limits = Limits { queue_bytes: QUEUE_BYTES, ..Limits::default() };
        let sender = start(&Handle::current(), limits, patient()).await;
        let usual = || start(outside, Limits::default(), patient());
        let others = [usual().await, usual().await];
        let field = Self {
            outside: outside.clone(),
            sender,
            others,
            mute: Mute::start(outside).await,
            hole: Hole::new(),
            view: 1,
        };
        for messenger in [&field.sender, &field.others[0], &field.others[1]] {
            drop(messenger.install_view(view(1, field.those_who_stay())).expect("newer"));
        }
        field
    }

    fn those_who_stay(&self) -> Vec<Member> {
        [&self.sender, &self.others[0], &self.others[1]].map(Messenger::member).into()
    }

    /// One run. Its times, and the resident memory when all was queued.
    async fn remove_three(&mut self) -> (Times, u64) {
        let silent = Silent::start(&self.outside).await;
        let (mute, hole) = (stranger(self.mute.address), stranger(self.hole.address));
        let three = [silent.messenger.id(), mute.id, hole.id];
        self.view += 1;
        let all = || {
            view(
                self.view,
                [self.those_who_stay(), vec![silent.member(), mute.clone(), hole.clone()]].concat(),
            )
        };
        drop(silent.messenger.install_view(all()).expect("newer"));
        drop(self.sender.install_view(all()).expect("newer"));
        silent.hush(&self.sender).await;
        let receipts = self.queue(&silent, [mute.id, hole.id]).await;
        let held = self.sockets(&silent);
        let resident = proc::resident_kib();

        let begun = Arc::<OnceLock<Instant>>::default();
        let resolved = tokio::spawn(resolved(receipts));
        let watch = Watch { begun: Arc::clone(&begun), held, sender: self.sender.clone(), three };
        let watcher = thread::spawn(move || watch.run());
        self.view += 1;
        let without = view(self.view, self.those_who_stay());
        let start = Instant::now();
        begun.set(start).expect("once");
        let change = self.sender.install_view(without).expect("newer");
        let returned = start.elapsed();
        assert_eq!(change.left.len(), 3);
        let receipts = resolved.await.expect("every receipt ends") - start;
        let watched = tokio::task::spawn_blocking(move || watcher.join().expect("all of it comes")).await;
        let times = Times { returned, receipts, ..watched.expect("joined") };
        silent.end().await;
        (times, resident)
    }

    /// All messages, each with a receipt, until the write is blocked and the dials are in flight.
    async fn queue(&self, silent: &Silent, dialled: [MemberId; 2]) -> Vec<Receipt> {
        let heard = self.mute.heard.load(std::sync::atomic::Ordering::SeqCst);
        let (small, to) = (message(BODY), silent.messenger.id());
        for id in dialled {
            let report = self.sender.send(&small, [id]).expect("sent");
            assert!(report.is_complete(), "{report:?}");
        }
        let mut receipts = Vec::with_capacity(MESSAGES);
        for at in 0..MESSAGES {
            receipts.push(self.sender.send_with_receipt(&small, to).expect("there is room for all"));
            if at % 1000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut before = 0;
        until("a blocked write", || {
            let stats = self.sender.stats();
            let peer = stats.peers.iter().find(|peer| peer.peer == to).expect("a peer");
            let written = std::mem::replace(&mut before, peer.books.bytes_written);
            let credit =
                peer.streams.iter().all(|stream| !stream.is_blocked && stream.credit_bytes > 1 << 20);
            assert!(credit, "what blocks is the write, not the credit");
            let tail = self
                .to(silent.proxy.address().port(), proc::ESTABLISHED)
                .is_some_and(|socket| socket.unsent > 0);
            tail && written == peer.books.bytes_written
        })
        .await;
        until("dials in flight", || {
            self.mute.heard.load(std::sync::atomic::Ordering::SeqCst) > heard
                && self.to(self.hole.address.port(), proc::SYN_SENT).is_some()
        })
        .await;
        // Written and unacknowledged is a small part; nothing more moves.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(receipts.iter().all(|receipt| receipt.now().is_none()));
        receipts
    }

    /// The sender's socket to that port.
    fn to(&self, port: u16, state: u8) -> Option<proc::Socket> {
        proc::sockets().into_iter().find(|socket| (socket.remote_port, socket.state) == (port, state))
    }

    fn sockets(&self, silent: &Silent) -> Vec<Held> {
        let three = [
            (silent.proxy.address().port(), proc::ESTABLISHED),
            (self.mute.address.port(), proc::ESTABLISHED),
            (self.hole.address.port(), proc::SYN_SENT),
        ];
        let held =
            |(port, state)| self.to(port, state).and_then(proc::Socket::held).expect("a socket of ours");
        three.map(held).into()
    }

    async fn end(self) {
        self.sender.close().await;
        for other in &self.others {
            other.close().await;
        }
    }
}

/// When the last one had ended; all as they should.
async fn resolved(receipts: Vec<Receipt>) -> Instant {
    let mut unsent = 0;
    for receipt in &receipts {
        match tokio::time::timeout(PATIENCE, receipt.acked()).await.expect("in time") {
            Err(Lost::NotSent(Cause::Departed)) => unsent += 1,
            Err(Lost::Indeterminate(Cause::Departed)) => {}
            other => panic!("{other:?}"),
        }
    }
    let end = Instant::now();
    assert!(unsent > receipts.len() / 2, "most of it was queued: {unsent}");
    end
}

/// Looks at what is left, on a thread of its own.
struct Watch {
    begun: Arc<OnceLock<Instant>>,
    held: Vec<Held>,
    sender: Messenger,
    three: [MemberId; 3],
}

impl Watch {
    fn run(self) -> Times {
        let start = loop {
            match self.begun.get() {
                Some(start) => break *start,
                None => thread::sleep(LOOK),
            }
        };
        let mut times = Times::default();
        let peers = |stats: &Stats, which: fn(u64) -> bool| {
            let mut those = stats.peers.iter().filter(|peer| self.three.contains(&peer.peer));
            those.any(|peer| which(peer.books.pending))
        };
        let note = |time: &mut Duration, done: &dyn Fn() -> bool| {
            if time.is_zero() && done() {
                *time = start.elapsed();
            }
            !time.is_zero()
        };
        loop {
            let closed = note(&mut times.sockets, &|| self.held.iter().all(Held::is_closed));
            let kernel = closed && note(&mut times.kernel, &|| proc::are_forgotten(&self.held));
            let stats = self.sender.stats();
            let books = note(&mut times.books, &|| !peers(&stats, |pending| pending > 0));
            let forgotten = note(&mut times.forgotten, &|| !peers(&stats, |_| true));
            if kernel && books && forgotten {
                return times;
            }
            let left = (closed, kernel, books, forgotten);
            assert!(start.elapsed() < PATIENCE, "something is left: {left:?} of {:?}", self.held);
            thread::sleep(LOOK);
        }
    }
}
