//! From deliveries to handlers: one after the other for each (sender, stream), side by side for different ones. A slow
//! handler withholds its stream's credit, nothing else.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::bytes::Streams;
use super::datagram::DatagramLanes;
use super::handlers::Handlers;
use super::ledger::{Intakes, Ledger, Track};
use super::port::PeerPort;
use super::request::{self, Pending, Requests};
use super::run::{HandlerCounts, Progress, Run};
use crate::driver::{Driver, Inbound, PeerHandle};
use crate::member::MemberId;
use crate::peer::SessionOver;
use crate::session::{Content, Delivery, Handled};
use crate::wire::frame::Datagram;
use crate::wire::record::{self, RecordHeader};
use crate::wire::{Epoch, Protocol, StreamId};

/// Where a handler runs: whose message it handles, and which; and which message's one reply has drawn on the reserve.
struct Within {
    sender: MemberId,
    message: Arc<AtomicU64>,
    replied: Cell<u64>,
    /// Of requests made here.
    depth: u8,
}

tokio::task_local! {
    /// `None`: what runs here is no part of the handler around it.
    static WITHIN: Option<Within>;
}

/// Runs handlers of messages of `sender`, of which `message` says the present one. `depth`: of requests made in them.
pub(super) fn within<F: Future>(
    sender: MemberId,
    message: Arc<AtomicU64>,
    depth: u8,
    handlers: F,
) -> impl Future<Output = F::Output> {
    WITHIN.scope(Some(Within { sender, message, replied: Cell::new(0), depth }), handlers)
}

/// How deep in request handlers a request is that is made here.
pub(super) fn request_depth() -> u8 {
    WITHIN.try_with(|within| within.as_ref().map_or(0, |within| within.depth)).unwrap_or(0)
}

/// Whether a handler runs here.
pub(crate) fn is_within_handler() -> bool {
    WITHIN.try_with(Option::is_some).unwrap_or(false)
}

/// Whether a message to `recipient`, sent here, is the one reply that may draw on the reserve. Says yes once a message.
pub(super) fn claim_reply_to(recipient: MemberId) -> bool {
    let claim = |within: &Within| {
        let message = within.message.load(Ordering::Relaxed);
        within.sender == recipient && within.replied.replace(message) != message
    };
    WITHIN.try_with(|within| within.as_ref().is_some_and(claim)).unwrap_or(false)
}

/// Runs something as outside of the handler that runs here.
pub(super) fn outside<T>(work: impl FnOnce() -> T) -> T {
    if is_within_handler() { WITHIN.sync_scope(None, work) } else { work() }
}

/// Runs a handler's work on a thread of its own, as inside a handler. What `work` is given is to be raised for each
/// message: each has one reply that may draw on the reserve.
pub(crate) fn as_handler<T>(sender: MemberId, work: impl FnOnce(&AtomicU64) -> T) -> T {
    let message = Arc::new(AtomicU64::new(1));
    let within = Within { sender, message: Arc::clone(&message), replied: Cell::new(0), depth: 0 };
    WITHIN.sync_scope(Some(within), || work(&message))
}

/// What dispatching needs of the messenger.
pub(super) struct Shared {
    pub(super) driver: Arc<Driver>,
    pub(super) handlers: ArcSwap<Handlers>,
    pub(super) counts: Arc<HandlerCounts>,
    /// Tasks that run handlers.
    pub(super) lanes: TaskTracker,
    /// Datagrams for members that were no peers.
    pub(super) datagrams_absent: AtomicU64,
    /// Byte streams that peers opened, for `accept_stream`.
    pub(super) opened: tokio::sync::mpsc::Sender<super::bytes::ByteStream>,
    pub(super) requests: Requests,
    /// How far what came is handled.
    pub(super) ledger: Ledger,
}

/// What the messenger keeps with a peer.
pub(super) struct Extension {
    pub(super) streams: Arc<Streams>,
    pub(super) pending: Arc<Pending>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Epoch, Delivery)>,
    running: bool,
}

/// The deliveries of one stream. Bounded by the stream's credit.
struct Lane {
    stream: StreamId,
    queue: Mutex<Queue>,
    /// What is delivered and what is handled.
    track: Arc<Track>,
}

/// Takes deliveries from a peer's task.
pub(super) struct PeerInbound {
    pub(super) shared: Weak<Shared>,
    pub(super) handle: Arc<PeerHandle>,
    pub(super) streams: Arc<Streams>,
    port: Arc<PeerPort>,
    lanes: Vec<Arc<Lane>>,
    datagrams: DatagramLanes,
    requests: request::Inbound,
    intakes: Arc<Intakes>,
}

impl PeerInbound {
    pub(super) fn new(
        shared: Weak<Shared>,
        handle: Arc<PeerHandle>,
        port: Arc<PeerPort>,
        intakes: Arc<Intakes>,
    ) -> (Self, Extension) {
        let streams = Streams::new(handle.id, Arc::<PeerPort>::clone(&port));
        let pending = Arc::<Pending>::default();
        let requests = request::Inbound::new(Arc::clone(&handle), Arc::clone(&pending), Arc::clone(&intakes));
        let extension = Extension { streams: Arc::clone(&streams), pending };
        let (lanes, datagrams) = (Vec::new(), DatagramLanes::default());
        let inbound = Self { shared, handle, streams, port, lanes, datagrams, requests, intakes };
        (inbound, extension)
    }

    fn lane(&mut self, stream: StreamId) -> Arc<Lane> {
        if let Some(lane) = self.lanes.iter().find(|lane| lane.stream == stream) {
            return Arc::clone(lane);
        }
        let track = self.intakes.track(stream);
        let lane = Arc::new(Lane { stream, queue: Mutex::default(), track });
        self.lanes.push(Arc::clone(&lane));
        lane
    }
}

impl Inbound for PeerInbound {
    fn deliver(&mut self, epoch: Epoch, delivery: Delivery) {
        let Some(shared) = self.shared.upgrade() else { return };
        if request::speaks(delivery.stream.protocol()) {
            return self.requests.deliver(&shared, epoch, delivery);
        }
        let lane = self.lane(delivery.stream);
        lane.track.deliver(epoch, delivery.records);
        {
            let mut queue = lane.queue.lock();
            queue.waiting.push_back((epoch, delivery));
            if std::mem::replace(&mut queue.running, true) {
                return;
            }
        }
        let (handle, streams) = (Arc::clone(&self.handle), Arc::clone(&self.streams));
        let driver = Arc::clone(&shared.driver);
        let stop = driver.stop.clone();
        let lanes = shared.lanes.clone();
        let earlier = self.intakes.follows().then(|| Arc::clone(&self.intakes));
        driver.spawn(lanes.track_future(async move {
            if let Some(earlier) = earlier
                && stop.run_until_cancelled(earlier.until_first(lane.stream)).await.is_none()
            {
                lane.queue.lock().waiting.clear();
                shared.counts.dropped.fetch_add(lane.track.unhandled(), Ordering::Relaxed);
                return;
            }
            let message = Arc::new(AtomicU64::new(1));
            let handlers = run(&shared, &handle, &streams, &lane, &message);
            let running = within(handle.id, Arc::clone(&message), 0, handlers);
            // A handler that hangs does not outlive the messenger.
            if stop.run_until_cancelled(running).await.is_none() {
                lane.queue.lock().waiting.clear();
                shared.counts.dropped.fetch_add(lane.track.unhandled(), Ordering::Relaxed);
            }
        }));
    }

    fn datagram(&mut self, datagram: Datagram) {
        if let Some(shared) = self.shared.upgrade() {
            self.datagrams.take(&shared, &self.handle, datagram);
        }
    }

    fn session_over(&mut self, over: SessionOver, next: Option<Epoch>) {
        self.streams.session_over(over.cause, over.epoch.0, next.map(|next| next.0));
        if let Some(next) = next {
            self.port.set_epoch(next);
        }
        self.requests.session_over(over.cause);
        self.intakes.session_over(over.epoch, over.peer_epoch, next.is_none());
    }

    fn turn_over(&mut self) {
        if self.streams.needs_retry() {
            self.streams.retry();
        }
        self.requests.retry();
    }
}

/// Handles what waits in a lane, until nothing does.
async fn run(shared: &Shared, handle: &PeerHandle, streams: &Arc<Streams>, lane: &Lane, message: &AtomicU64) {
    loop {
        let (epoch, delivery) = {
            let mut queue = lane.queue.lock();
            match queue.waiting.pop_front() {
                Some(next) => next,
                None => {
                    queue.running = false;
                    return;
                }
            }
        };
        let stream = delivery.stream;
        let report = |records, bytes| {
            handle.note_handled(Handled { epoch, stream, records, bytes });
            lane.track.handle(records);
        };
        if stream.protocol() == Protocol::BYTES {
            bytes(shared, streams, epoch, delivery, &report);
        } else {
            messages(shared, handle.id, delivery, Progress { report: &report, message }).await;
        }
        // Other tasks get their turn after some deliveries; after each message would cost a look at the sockets.
        tokio::task::coop::consume_budget().await;
    }
}

async fn messages(shared: &Shared, from: MemberId, delivery: Delivery, progress: Progress<'_>) {
    let (records, bytes) = (delivery.records, delivery.bytes);
    match delivery.content {
        Content::Records(content) => {
            let mut run = Run::new(from, content, progress, &shared.counts);
            handle_all(shared, delivery.stream, &mut run).await;
        }
        Content::Large { hash, version, body, reservation } => {
            // Handled as one record, accounted as the chunks it came in.
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            let header = RecordHeader { length, flags: record::WHOLE, version, hash };
            let ignore = |_: u64, _: u64| {};
            let within = Progress { report: &ignore, ..progress };
            let mut run = Run::of_one(from, header, body, within, &shared.counts);
            handle_all(shared, delivery.stream, &mut run).await;
            drop(reservation);
            (progress.report)(records, bytes);
        }
    }
}

async fn handle_all(shared: &Shared, stream: StreamId, run: &mut Run<'_>) {
    // Handlers that are added meanwhile are found by the next delivery.
    let handlers = shared.handlers.load_full();
    while let Some((hash, version)) = run.next_type() {
        match handlers.find(hash, version, stream) {
            // What is for members only comes from members only: the session sees to that.
            Some(handler) => handler.run(run).await,
            // Of a later version; or not of an open type on an open stream; or of a protocol that nobody speaks here.
            None => run.refuse(),
        }
    }
    run.flush();
}

/// Byte streams take what comes into their own windows at once; so their credit comes back at once.
fn bytes(
    shared: &Shared,
    streams: &Arc<Streams>,
    epoch: Epoch,
    delivery: Delivery,
    report: &(dyn Fn(u64, u64) + Send + Sync),
) {
    let class = delivery.stream.class();
    let give = |body| {
        if let Some(opened) = streams.handle_message(epoch.0, class, body) {
            // Too many that nobody accepts: dropped, which aborts it.
            if let Err(refused) = shared.opened.try_send(opened) {
                let reason = "the receiver accepts no more streams now";
                match refused {
                    tokio::sync::mpsc::error::TrySendError::Full(stream)
                    | tokio::sync::mpsc::error::TrySendError::Closed(stream) => stream.abort(reason),
                }
            }
        }
    };
    match delivery.content {
        Content::Records(mut records) => {
            while let Ok(record) = record::take(&mut records) {
                give(record.body);
            }
        }
        Content::Large { body, .. } => give(body),
    }
    report(delivery.records, delivery.bytes);
}
