//! Datagrams: best effort, to several recipients at once, and to the same handlers as messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::dispatch::{self, Shared};
use super::handlers::Handler;
use super::message::{Encoded, Outgoing};
use super::run::{Progress, Run};
use super::{ClassSender, Messenger, SendError};
use crate::driver::{PeerHandle, clock};
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_LANE_BYTES, DATAGRAM_LANE_MAX};
use crate::member::MemberId;
use crate::peer::{Dropped, Outbound};
use crate::wire::frame::{Datagram, encode_datagram};
use crate::wire::{Class, StreamId, record};

/// The largest body: with its record header it fits a datagram.
const BODY_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - record::HEADER_BYTES;

/// What became of one call of `datagram`, as far as it can be known at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramReport {
    /// For how many recipients it waits for the next write.
    pub handed_over: usize,
    /// Recipients there is no link with now, or no session at all: dropped.
    pub no_link: Vec<MemberId>,
    /// Recipients whose queue of datagrams is full: dropped.
    pub full: Vec<MemberId>,
}

impl Messenger {
    /// Sends a message at once or never: no number, no acknowledgement, no second attempt, at most 32 KiB. It is dropped,
    /// and counted ([`DatagramStats`](crate::DatagramStats)), where there is no link, where 64 KiB or 256 of them wait,
    /// when it cannot be written within `time_to_live`, and when the link breaks. It makes no link. It is handed to the
    /// handler of its type, side by side with messages: it passes bulk that is queued, and a handler that hangs on a
    /// message. What a handler of datagrams is too slow for is dropped as well. Encoded once; never waits.
    ///
    /// # Errors
    ///
    /// [`SendError::Encode`], [`SendError::TooLarge`], [`SendError::Closed`]: nothing was sent to anybody. Recipients for
    /// whom it was dropped are in the report.
    pub fn datagram<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        time_to_live: Duration,
    ) -> Result<DatagramReport, SendError> {
        self.class(Class::Normal).datagram(message, recipients, time_to_live)
    }
}

impl ClassSender<'_> {
    /// As [`Messenger::datagram`]. The class decides nothing on the way: a handler runs for one datagram of a sender and
    /// class after the other, and side by side for different ones.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::datagram`].
    pub fn datagram<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        time_to_live: Duration,
    ) -> Result<DatagramReport, SendError> {
        let inner = &self.messenger.inner;
        if let Some(by) = inner.closed.get() {
            return Err(SendError::Closed(by));
        }
        let kind = message.outgoing_kind();
        let stream = kind.stream(self.class);
        let most = inner.message_bytes.min(BODY_BYTES_MAX);
        let check = inner.shared.driver.body_check();
        let (frame, body_bytes) = message.encode_with(|Encoded(body)| {
            let body = body.as_slice();
            if body.len() > most {
                return Err(SendError::TooLarge { kind: kind.name(), bytes: body.len(), most });
            }
            Ok((encode_datagram(stream, kind.hash(), kind.version(), body, check), body.len()))
        })??;
        let now = clock::now();
        let expires = now.checked_add(time_to_live);
        let (hash, version) = (kind.hash(), kind.version());
        let datagram = Outbound { frame, stream, hash, version, body_bytes, expires };
        let mut report = DatagramReport::default();
        for recipient in recipients {
            match self.messenger.offer(recipient, |handle| {
                let pushed = handle.datagrams.push(now, datagram.clone());
                if pushed == Ok(true) {
                    handle.doorbell.ring();
                }
                pushed
            }) {
                Ok(_) => report.handed_over += 1,
                Err(Dropped::NoLink | Dropped::Ended) => report.no_link.push(recipient),
                Err(Dropped::Full) => report.full.push(recipient),
            }
        }
        Ok(report)
    }
}

impl Messenger {
    fn offer(
        &self,
        recipient: MemberId,
        push: impl FnOnce(&PeerHandle) -> Result<bool, Dropped>,
    ) -> Result<bool, Dropped> {
        let shared = &self.inner.shared;
        // Peers of members, and of oneself, are made when they are first wanted.
        let handle = shared.driver.peer(recipient).or_else(|| shared.driver.peer_wanted(recipient));
        let pushed = handle.map_or(Err(Dropped::Ended), |handle| push(&handle));
        if pushed == Err(Dropped::Ended) {
            shared.datagrams_absent.fetch_add(1, Ordering::Relaxed);
        }
        pushed
    }
}

// ---- what comes ----

struct Waiting {
    handler: Arc<dyn Handler>,
    record: Bytes,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    running: bool,
}

/// Datagrams of one (sender, stream) that wait for their handlers.
struct Lane {
    stream: StreamId,
    queue: Mutex<Queue>,
}

/// The lanes of one sender: apart from those of its messages, so that neither waits for the other.
#[derive(Default)]
pub(super) struct DatagramLanes(Vec<Arc<Lane>>);

impl DatagramLanes {
    /// Gives a datagram to its handler, or drops it. Never waits.
    pub(super) fn take(&mut self, shared: &Arc<Shared>, handle: &Arc<PeerHandle>, datagram: Datagram) {
        let Datagram { stream, record } = datagram;
        let kind = record::peek(&record).map(|header| (header.hash, header.version));
        let handler = match kind {
            // The peer has let members' types in only from members.
            Ok((hash, version)) => shared.handlers.load().find(hash, version, stream).cloned(),
            Err(_) => None,
        };
        let Some(handler) = handler else { return handle.datagrams.note_no_handler() };
        let lane = self.lane(stream);
        match lane.push(Waiting { handler, record }) {
            None => handle.datagrams.note_overrun(),
            Some(true) => start(shared, handle, lane),
            Some(false) => {}
        }
    }

    /// At most one for each class, open or not, and protocol that has handlers.
    fn lane(&mut self, stream: StreamId) -> Arc<Lane> {
        if let Some(lane) = self.0.iter().find(|lane| lane.stream == stream) {
            return Arc::clone(lane);
        }
        Arc::clone(self.0.push_mut(Arc::new(Lane { stream, queue: Mutex::default() })))
    }
}

impl Lane {
    /// `None`: there is no room. `Some(true)`: nobody runs it.
    fn push(&self, waiting: Waiting) -> Option<bool> {
        let mut queue = self.queue.lock();
        let bytes = queue.bytes + waiting.record.len();
        if queue.waiting.len() >= DATAGRAM_LANE_MAX || bytes > DATAGRAM_LANE_BYTES {
            return None;
        }
        queue.bytes = bytes;
        queue.waiting.push_back(waiting);
        Some(!std::mem::replace(&mut queue.running, true))
    }

    /// The next one; `None`: nobody runs the lane any more.
    fn next(&self) -> Option<Waiting> {
        let mut queue = self.queue.lock();
        match queue.waiting.pop_front() {
            Some(waiting) => {
                queue.bytes -= waiting.record.len();
                Some(waiting)
            }
            None => {
                queue.running = false;
                None
            }
        }
    }
}

fn start(shared: &Arc<Shared>, handle: &Arc<PeerHandle>, lane: Arc<Lane>) {
    let (shared, from) = (Arc::clone(shared), handle.id);
    let (driver, lanes) = (Arc::clone(&shared.driver), shared.lanes.clone());
    driver.spawn(lanes.track_future(async move {
        let message = Arc::new(AtomicU64::new(1));
        let running = dispatch::within(from, Arc::clone(&message), 0, run(&shared, from, &lane, &message));
        // A handler that hangs does not outlive the messenger.
        let _ended = shared.driver.stop.run_until_cancelled(running).await;
    }));
}

/// Handles what waits in a lane, until nothing does.
async fn run(shared: &Shared, from: MemberId, lane: &Lane, message: &AtomicU64) {
    // There is no credit to give back.
    let progress = Progress { report: &|_, _| {}, message };
    while let Some(Waiting { handler, record }) = lane.next() {
        let mut run = Run::new(from, record, progress, &shared.counts);
        handler.run(&mut run).await;
        // Other tasks get their turn.
        tokio::task::coop::consume_budget().await;
    }
}
