//! The answering side: what comes on the streams of requests and replies, and the tasks that run request handlers.
//!
//! Nothing that comes waits here: credit goes back at once, so that calling off, replies and requests from inside
//! handlers always pass. What waits for handlers is bounded by [`Lane`]; beyond it a request is refused as busy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::handlers::{Answer, Guarded, Responder};
use super::lane::{CalledOff, Lane, Put};
use super::pending::{Outcome, Pending};
use super::push;
use super::wire::{self, Code, Message, Type};
use crate::driver::{PeerHandle, clock};
use crate::limits::{
    CHUNK_BYTES, REQUEST_BACKLOG_BYTES, REQUEST_DEPTH_MAX, REQUEST_NESTED_BACKLOG_BYTES, REQUEST_REFUSALS_MAX,
};
use crate::messenger::dispatch::{self, Shared};
use crate::messenger::ledger::{Intakes, Unordered};
use crate::session::{Cause, Content, Delivery, Handled, Refused, Reservation};
use crate::wire::record::{self, HEADER_BYTES};
use crate::wire::{Epoch, Protocol, StreamId};

/// What a request needs to be handled.
struct Call {
    epoch: Epoch,
    /// In the ledger.
    position: u64,
    responder: Arc<dyn Responder>,
    body: Bytes,
    /// Of a large one.
    reservation: Option<Reservation>,
    /// Nobody waits for the reply after this.
    deadline: Instant,
}

/// Requests of one stream, by depth.
struct Incoming {
    stream: StreamId,
    order: Arc<Unordered>,
    lanes: Vec<Arc<Lane<Call>>>,
}

/// What comes on both protocols from one peer. Owned by the peer's task.
pub(crate) struct Inbound {
    handle: Arc<PeerHandle>,
    pending: Arc<Pending>,
    intakes: Arc<Intakes>,
    streams: Vec<Incoming>,
    /// Refusals that found no room.
    refusals: VecDeque<(StreamId, Epoch, Bytes)>,
}

/// One message and what it came in.
struct Arrived {
    epoch: Epoch,
    stream: StreamId,
    records: u64,
    reservation: Option<Reservation>,
}

impl Inbound {
    pub(crate) fn new(handle: Arc<PeerHandle>, pending: Arc<Pending>, intakes: Arc<Intakes>) -> Self {
        Self { handle, pending, intakes, streams: Vec::new(), refusals: VecDeque::new() }
    }

    /// Takes in what came on one of the streams of requests and replies.
    pub(crate) fn deliver(&mut self, shared: &Arc<Shared>, epoch: Epoch, delivery: Delivery) {
        let Delivery { stream, content, records, bytes } = delivery;
        match content {
            Content::Records(mut content) => {
                while let Ok(record) = record::take(&mut content) {
                    let arrived = Arrived { epoch, stream, records: 1, reservation: None };
                    if record.header.is(record::VOID) {
                        self.pass_over(&arrived);
                    } else {
                        self.message(shared, arrived, record.body);
                    }
                }
            }
            Content::Large { body, reservation, .. } => {
                self.message(shared, Arrived { epoch, stream, records, reservation }, body);
            }
        }
        self.handle.note_handled(Handled { epoch, stream, records, bytes });
        self.retry();
    }

    /// The session is over; what was taken in is still handled.
    pub(crate) fn session_over(&mut self, cause: Cause) {
        self.refusals.clear();
        self.pending.session_over(cause);
    }

    /// There may be room again.
    pub(crate) fn retry(&mut self) {
        while let Some((stream, epoch, frame)) = self.refusals.front() {
            if let Err(Refused::Full(_)) = push(&self.handle, *stream, Some(*epoch), frame) {
                return;
            }
            self.refusals.pop_front();
        }
    }

    fn message(&mut self, shared: &Arc<Shared>, arrived: Arrived, bytes: Bytes) {
        let length = bytes.len();
        let message = match wire::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(from = %self.handle.id, %error, "malformed message of requests");
                shared.counts.undecodable.fetch_add(1, Ordering::Relaxed);
                return self.pass_over(&arrived);
            }
        };
        match (arrived.stream.protocol() == Protocol::REQUESTS, message) {
            (true, Message::Request { id, depth, of, timeout, body }) => {
                self.request(shared, arrived, Asked { id, depth, of, timeout, body, length });
            }
            (true, Message::Cancel { id, depth }) => {
                self.pass_over(&arrived);
                self.call_off(shared, arrived.stream, id, depth);
            }
            (false, Message::Reply { id, of, body }) => {
                self.resolve(shared, id, Outcome::Reply { of, body });
            }
            (false, Message::Failure { id, code, text }) => {
                self.resolve(shared, id, Outcome::Failed { code: Code::from_wire(code), text });
            }
            (true, Message::Reply { .. } | Message::Failure { .. })
            | (false, Message::Request { .. } | Message::Cancel { .. }) => {
                tracing::warn!(from = %self.handle.id, "a message of requests on the wrong stream");
                shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                self.pass_over(&arrived);
            }
        }
    }

    fn resolve(&self, shared: &Shared, id: u64, outcome: Outcome) {
        if !self.pending.resolve(id, outcome) {
            shared.requests.late_replies.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The place of a stream of requests, made if need be.
    fn incoming(&mut self, stream: StreamId) -> &mut Incoming {
        let at = self.streams.iter().position(|incoming| incoming.stream == stream);
        match at {
            Some(at) => &mut self.streams[at],
            None => {
                let order = Arc::new(Unordered::new(self.intakes.track(stream)));
                self.streams.push_mut(Incoming { stream, order, lanes: Vec::new() })
            }
        }
    }

    /// Nothing is to be handled: done at once.
    fn pass_over(&mut self, arrived: &Arrived) {
        if arrived.stream.protocol() == Protocol::REQUESTS {
            let order = &self.incoming(arrived.stream).order;
            let position = order.deliver(arrived.epoch, arrived.records);
            order.done(position);
        }
    }

    fn request(&mut self, shared: &Arc<Shared>, arrived: Arrived, asked: Asked) {
        let Arrived { epoch, stream, records, .. } = arrived;
        let responders = shared.requests.responders.load();
        let responder = responders.find(asked.of, stream.is_open());
        let Some(responder) = responder.map(Arc::clone) else {
            shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            self.pass_over(&arrived);
            return self.refuse(stream, epoch, asked.id, Code::NotUnderstood);
        };
        let (id, bytes) = (asked.id, asked.length + HEADER_BYTES);
        let incoming = self.incoming(stream);
        let position = incoming.order.deliver(epoch, records);
        let call = Call {
            epoch,
            position,
            responder,
            body: asked.body,
            reservation: arrived.reservation,
            deadline: clock::now() + asked.timeout,
        };
        let lane = Arc::clone(incoming.lane(asked.depth));
        let order = Arc::clone(&incoming.order);
        match lane.put(id, bytes, call) {
            Put::Waits(false) => {}
            Put::Waits(true) => self.start(shared, lane, order),
            Put::Busy(call) => {
                order.done(call.position);
                self.refuse(stream, epoch, id, Code::Busy);
            }
            Put::Twice(call) => {
                order.done(call.position);
                tracing::warn!(from = %self.handle.id, id, "a request came twice");
                shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn call_off(&mut self, shared: &Shared, stream: StreamId, id: u64, depth: u8) {
        let incoming = self.incoming(stream);
        match incoming.lane(depth).call_off(id) {
            CalledOff::Waiting(call) => {
                incoming.order.done(call.position);
                shared.requests.called_off.fetch_add(1, Ordering::Relaxed);
            }
            // Its task counts it.
            CalledOff::Running | CalledOff::Unknown => {}
        }
    }

    fn refuse(&mut self, stream: StreamId, epoch: Epoch, id: u64, code: Code) {
        if self.refusals.len() >= REQUEST_REFUSALS_MAX {
            tracing::warn!(to = %self.handle.id, id, ?code, "a request is refused without an answer");
            return;
        }
        self.refusals.push_back((reply_stream(stream), epoch, wire::failure(id, code, "").into()));
    }

    fn start(&self, shared: &Arc<Shared>, lane: Arc<Lane<Call>>, order: Arc<Unordered>) {
        let (driver, lanes) = (Arc::clone(&shared.driver), shared.lanes.clone());
        let stop = driver.stop.clone();
        let (shared, handle) = (Arc::clone(shared), Arc::clone(&self.handle));
        driver.spawn(lanes.track_future(async move {
            let message = Arc::new(AtomicU64::new(1));
            let running = run(&shared, &handle, &lane, &order, &message);
            let within = dispatch::within(handle.id, Arc::clone(&message), lane.depth + 1, running);
            // A handler that hangs does not outlive the messenger.
            if stop.run_until_cancelled(within).await.is_none() {
                shared.counts.dropped.fetch_add(lane.clear(), Ordering::Relaxed);
            }
        }));
    }
}

/// A request as it came.
struct Asked {
    id: u64,
    depth: u8,
    of: Type,
    timeout: Duration,
    body: Bytes,
    length: usize,
}

impl Incoming {
    /// The lane of a depth, made if need be. A depth that no member of ours asks in shares the deepest.
    fn lane(&mut self, depth: u8) -> &Arc<Lane<Call>> {
        let depth = depth.min(REQUEST_DEPTH_MAX - 1);
        let at = self.lanes.iter().position(|lane| lane.depth == depth);
        match at {
            Some(at) => &self.lanes[at],
            None => {
                let most = if depth == 0 { REQUEST_BACKLOG_BYTES } else { REQUEST_NESTED_BACKLOG_BYTES };
                self.lanes.push_mut(Arc::new(Lane::new(self.stream, depth, most)))
            }
        }
    }
}

/// Handles what waits in a lane, until nothing does.
async fn run(
    shared: &Shared,
    handle: &PeerHandle,
    lane: &Lane<Call>,
    order: &Unordered,
    message: &AtomicU64,
) {
    while let Some((id, call, stop)) = lane.next() {
        let position = call.position;
        if !answer(shared, handle, lane.stream, id, call, stop).await {
            shared.requests.called_off.fetch_add(1, Ordering::Relaxed);
        }
        lane.finish(id);
        order.done(position);
        // The next request has a message of its own that may draw on the reserve.
        message.fetch_add(1, Ordering::Relaxed);
        tokio::task::coop::consume_budget().await;
    }
}

/// Handles one request and sends what came of it. `false`: nobody waits for it any more, so it was stopped or not begun.
async fn answer(
    shared: &Shared,
    handle: &PeerHandle,
    stream: StreamId,
    id: u64,
    call: Call,
    stop: CancellationToken,
) -> bool {
    let left = call.deadline.saturating_duration_since(clock::now());
    if left.is_zero() {
        return false;
    }
    let Call { epoch, responder, body, reservation, .. } = call;
    let answering = async {
        let answer = Guarded::new(responder.answer(handle.id, id, body)).await;
        drop(reservation);
        let frame = framed(shared, handle, id, answer);
        send(handle, reply_stream(stream), epoch, &frame).await;
    };
    matches!(tokio::time::timeout(left, stop.run_until_cancelled(answering)).await, Ok(Some(())))
}

/// What goes to the asker, within what both sides take.
fn framed(shared: &Shared, handle: &PeerHandle, id: u64, answer: Answer) -> Bytes {
    let frame = match answer {
        Answer::Reply(frame) => frame,
        Answer::Failed(code, text) => {
            match code {
                Code::Panicked => shared.counts.panics.fetch_add(1, Ordering::Relaxed),
                Code::Undecodable => shared.counts.undecodable.fetch_add(1, Ordering::Relaxed),
                Code::NotUnderstood | Code::Handler | Code::Busy | Code::NoReply => 0,
            };
            wire::failure(id, code, &text)
        }
    };
    if frame.len() > CHUNK_BYTES {
        let theirs = handle.peer.lock().session().peer_message_bytes();
        let most = theirs.min(shared.requests.message_bytes as u64);
        if frame.len() as u64 > most {
            let text = format!("a reply of {} bytes, at most {most} pass", frame.len());
            return wire::failure(id, Code::NoReply, &text).into();
        }
    }
    frame.into()
}

/// Waits for room, and drops the reply when the session that asked is over.
async fn send(handle: &PeerHandle, stream: StreamId, epoch: Epoch, frame: &Bytes) {
    std::future::poll_fn(|cx| match push(handle, stream, Some(epoch), frame) {
        Err(Refused::Full(no_room)) => {
            handle.intake.lock().wake_at_room(cx.waker(), no_room);
            // Room that came back meanwhile would wake nobody.
            match push(handle, stream, Some(epoch), frame) {
                Err(Refused::Full(_)) => Poll::Pending,
                Ok(()) | Err(Refused::Closed(_)) => Poll::Ready(()),
            }
        }
        Ok(()) | Err(Refused::Closed(_)) => Poll::Ready(()),
    })
    .await;
}

/// A reply goes on an open stream if its request came on one.
const fn reply_stream(stream: StreamId) -> StreamId {
    StreamId::new(Protocol::REPLIES, stream.class(), stream.is_open())
}
