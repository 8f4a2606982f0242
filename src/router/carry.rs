//! How what goes to other nodes gets into the messenger: at once, or, while a node's queue is full, one after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::content::Content;
use super::envelope::{Control, Failure, FlowHead, ReplyHead, encode, encoded};
use super::node::Inner;
use crate::{Cause, Class, Kind, Lost, MemberId, Messenger, Raw, Receipt, SendError};

/// After this a queue that stays full is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the messenger may take to say what became of messages to a node that is no more. Where a view removed it that is
/// at once; without views a session may be kept for its lease, and then nobody knows.
const SETTLING: Duration = Duration::from_millis(250);

/// Something for another node.
pub(crate) struct Parcel {
    raw: Raw,
    what: What,
}

enum What {
    Flow(u64),
    Reply { head: ReplyHead, body: Option<Content>, job: Option<u64> },
    Control,
}

impl Parcel {
    pub(crate) fn flow(kind: Kind, head: &FlowHead, body: &Bytes) -> Self {
        Self { raw: Raw::new(kind, encode(head, body).unwrap_or_default()), what: What::Flow(head.number) }
    }

    /// If the body cannot be encoded, whoever waits is told so.
    pub(crate) fn reply(kind: Kind, head: ReplyHead, body: Option<Content>, job: Option<u64>) -> Self {
        let bytes = encoded(|out| {
            let out = postcard::to_extend(&head, out).map_err(|error| error.to_string())?;
            if let Some(body) = &body { body.append_to(out) } else { Ok(out) }
        });
        match bytes {
            Ok(bytes) => Self { raw: Raw::new(kind, bytes), what: What::Reply { head, body, job } },
            Err(why) => {
                let head = ReplyHead { outcome: Err(Failure::Handler(why)), ..head };
                let raw = Raw::new(kind, encode(&head, &[]).unwrap_or_default());
                Self { raw, what: What::Reply { head, body: None, job } }
            }
        }
    }

    pub(crate) fn control(kind: Kind, control: &Control) -> Self {
        Self { raw: Raw::new(kind, encode(control, &[]).unwrap_or_default()), what: What::Control }
    }
}

/// What is under way to one node.
#[derive(Default)]
struct Way {
    /// Waits for room in the messenger's queue; a task sees to it. Bounded by the windows of the lanes.
    waiting: VecDeque<Parcel>,
    pumping: bool,
    /// Of messages that the node has not said to be done.
    receipts: VecDeque<(u64, Receipt)>,
}

/// See the module's text.
pub(crate) struct Carrier {
    messenger: Messenger,
    inner: Weak<Inner>,
    ways: RwLock<HashMap<MemberId, Arc<Mutex<Way>>, foldhash::fast::RandomState>>,
}

impl Carrier {
    pub(crate) fn new(messenger: Messenger, inner: Weak<Inner>) -> Self {
        Self { messenger, inner, ways: RwLock::default() }
    }

    fn way(&self, to: MemberId) -> Arc<Mutex<Way>> {
        if let Some(way) = self.ways.read().get(&to) {
            return Arc::clone(way);
        }
        Arc::clone(self.ways.write().entry(to).or_default())
    }

    /// Sends it now, or when what waits before it has gone.
    pub(crate) fn send(&self, inner: &Arc<Inner>, to: MemberId, parcel: Parcel) {
        let way = self.way(to);
        let held = way.lock();
        self.send_on(inner, to, &way, held, parcel);
    }

    /// Sends what a node is to be told of routes. It is put together where its place in the order is: whoever comes later finds what is
    /// left, or nothing.
    pub(crate) fn tell(&self, inner: &Arc<Inner>, to: MemberId) {
        let way = self.way(to);
        let held = way.lock();
        if let Some(news) = inner.take_news(to) {
            self.send_on(inner, to, &way, held, Parcel::control(inner.kinds.control, &news));
        }
    }

    fn send_on(
        &self,
        inner: &Arc<Inner>,
        to: MemberId,
        way: &Arc<Mutex<Way>>,
        mut held: MutexGuard<'_, Way>,
        parcel: Parcel,
    ) {
        if held.pumping {
            held.waiting.push_back(parcel);
            return;
        }
        let sender = self.messenger.class(Class::Normal);
        let sent = match parcel.what {
            What::Flow(number) => sender.send_with_receipt(&parcel.raw, to).map(|receipt| {
                held.receipts.push_back((number, receipt));
            }),
            What::Reply { .. } | What::Control => sender.send(&parcel.raw, [to]).and_then(|report| {
                match (report.full.is_empty(), report.absent.is_empty()) {
                    (true, true) => Ok(()),
                    (false, _) => Err(SendError::Full(to)),
                    (true, false) => Err(SendError::Absent(to)),
                }
            }),
        };
        if matches!(sent, Err(SendError::Full(_))) {
            held.waiting.push_back(parcel);
            held.pumping = true;
            drop(held);
            self.messenger.spawn(pump(self.inner.clone(), self.messenger.clone(), to, Arc::clone(way)));
            return;
        }
        drop(held);
        went(inner, to, parcel, sent);
    }

    /// Receipts of what is done are not needed any more.
    pub(crate) fn prune(&self, inner: &Arc<Inner>, of: MemberId) {
        let way = self.way(of);
        let mut way = way.lock();
        let done = inner.done_first(of, way.receipts.iter().map(|(number, _)| *number));
        way.receipts.drain(..done);
    }

    /// Finds out what became of what this node has. `departed`: it does not come back, so of what it took nobody knows.
    pub(crate) fn settle(&self, inner: &Arc<Inner>, node: MemberId, departed: bool) {
        let way = self.way(node);
        let held = way.lock();
        let receipts: HashMap<u64, Receipt> = held.receipts.iter().cloned().collect();
        let (weak, mut numbers) = (Arc::downgrade(inner), inner.sent_to(node));
        // Of what waits the pump tells.
        let waiting = |number: &u64| {
            held.waiting.iter().any(|parcel| matches!(parcel.what, What::Flow(other) if other == *number))
        };
        numbers.retain(|number| receipts.contains_key(number) || !waiting(number));
        let pumping = held.pumping;
        drop(held);
        if !departed {
            // What arrived by it, and is not said to be done: nobody knows whether that was said and lost with it.
            numbers.retain(|number| receipts.get(number).is_some_and(|receipt| receipt.now().is_some()));
        }
        let waits_until = tokio::time::Instant::from_std(self.messenger.now() + SETTLING);
        self.messenger.spawn(async move {
            for number in numbers {
                let lost = match receipts.get(&number) {
                    Some(receipt) => {
                        tokio::time::timeout_at(waits_until, receipt.acked()).await.map_or(None, Result::err)
                    }
                    None => None,
                };
                let Some(inner) = weak.upgrade() else { return };
                // It arrived, or may yet, and nobody knows whether it was handled.
                let lost = lost.unwrap_or(Lost::Indeterminate(Cause::Departed));
                inner.act(|core, now| core.handle_lost(now, node, number, lost));
            }
        });
        if departed && !pumping {
            self.ways.write().remove(&node);
        }
    }
}

/// What is done once it is with the messenger, or cannot be.
fn went(inner: &Arc<Inner>, to: MemberId, parcel: Parcel, sent: Result<(), SendError>) {
    match (parcel.what, sent) {
        (What::Flow(_) | What::Control, Ok(())) => {}
        (What::Reply { job: Some(job), .. }, Ok(())) => inner.placed(job),
        (What::Reply { job: None, .. }, Ok(())) => {}
        (What::Flow(number), Err(error)) => {
            tracing::debug!(%to, %error, "a message did not go");
            inner.act(|core, now| core.handle_lost(now, to, number, Lost::NotSent(Cause::Departed)));
        }
        (What::Reply { head, body, job }, Err(SendError::Absent(_))) => {
            inner.act(|core, now| core.handle_unknown_caller(now, to, head, body, job));
        }
        (What::Reply { job, .. }, Err(error)) => {
            tracing::warn!(%to, %error, "an answer did not go");
            if let Some(job) = job {
                inner.act(|core, now| core.placed(now, job));
            }
        }
        (What::Control, Err(error)) => tracing::debug!(%to, %error, "a word to a router did not go"),
    }
}

/// Sends what waits for a node, in order, until nothing does.
async fn pump(inner: Weak<Inner>, messenger: Messenger, to: MemberId, way: Arc<Mutex<Way>>) {
    loop {
        let raw = {
            let mut way = way.lock();
            match way.waiting.front() {
                Some(parcel) => parcel.raw.clone(),
                None => {
                    way.pumping = false;
                    return;
                }
            }
        };
        let sent = messenger.class(Class::Normal).send_wait_with_receipt(&raw, to, PATIENCE).await;
        let Some(inner) = inner.upgrade() else { return };
        if matches!(sent, Err(SendError::Full(_))) {
            continue;
        }
        let parcel = {
            let mut way = way.lock();
            let Some(parcel) = way.waiting.pop_front() else { continue };
            if let (What::Flow(number), Ok(receipt)) = (&parcel.what, &sent) {
                way.receipts.push_back((*number, receipt.clone()));
            }
            parcel
        };
        went(&inner, to, parcel, sent.map(drop));
        if !inner.is_up(to) {
            // It went though the node is gone: what became of it is to be found out as well.
            inner.carrier.settle(&inner, to, true);
        }
    }
}
