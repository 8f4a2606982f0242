//! How what goes to other nodes gets into the messenger: at once, or, while a node's queue is full, one after the other.
//!
//! What goes to a node without a link has its time to live with the messenger as well: it waits there no longer than it lives, and
//! takes no room after that. Where a link is up that would cost more than it is worth.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::builder::Kinds;
use super::content::Content;
use super::envelope::{Control, Failure, FlowHead, Head, ReplyHead, Scratch};
use super::node::Inner;
use crate::{
    Cause, Class, ClassSender, Kind, Lost, MemberId, Messenger, Outgoing, Raw, RawRef, Receipt, SendError,
};

/// After this a queue that stays full is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the messenger may take to say what became of messages to a node that is no more. Where a view removed it that is
/// at once; without views a session may be kept for its lease, and then nobody knows.
const SETTLING: Duration = Duration::from_millis(250);

/// Something for another node, encoded.
pub(crate) struct Parcel {
    bytes: Scratch,
    what: What,
}

enum What {
    Flow { number: u64, left_ms: u32 },
    Reply { head: ReplyHead, body: Option<Content>, job: Option<u64> },
    Control,
}

impl What {
    fn kind(&self, kinds: &Kinds) -> Kind {
        match self {
            Self::Flow { .. } => kinds.flow,
            Self::Reply { .. } => kinds.reply,
            Self::Control => kinds.control,
        }
    }

    /// How long it is worth sending, from when it was made; a little longer than it lives, so that its end is not told before it.
    fn life(&self) -> Option<Duration> {
        let left_ms = match self {
            Self::Flow { left_ms, .. } => *left_ms,
            // A failure is worth knowing as long as somebody waits, and that is not known here.
            Self::Reply { head, .. } if head.outcome.is_ok() => head.left_ms,
            Self::Reply { .. } | Self::Control => return None,
        };
        Some(Duration::from_millis(u64::from(left_ms) + 1))
    }
}

impl Parcel {
    pub(crate) fn flow(head: &FlowHead, body: &[u8]) -> Self {
        let what = What::Flow { number: head.number, left_ms: head.left_ms };
        Self { bytes: Scratch::encode(head, body).unwrap_or_default(), what }
    }

    /// If the body cannot be encoded, whoever waits is told so.
    pub(crate) fn reply(head: ReplyHead, body: Option<Content>, job: Option<u64>) -> Self {
        let bytes = Scratch::write(|out| {
            let out = head.write(out).map_err(|error| error.to_string())?;
            if let Some(body) = &body { body.append_to(out) } else { Ok(out) }
        });
        match bytes {
            Ok(bytes) => Self { bytes, what: What::Reply { head, body, job } },
            Err(why) => {
                let head = ReplyHead { outcome: Err(Failure::Handler(why)), ..head };
                Self {
                    bytes: Scratch::encode(&head, &[]).unwrap_or_default(),
                    what: What::Reply { head, body: None, job },
                }
            }
        }
    }

    pub(crate) fn control(control: &Control) -> Self {
        Self { bytes: Scratch::encode(control, &[]).unwrap_or_default(), what: What::Control }
    }
}

/// From here on the messenger shares bytes and copies none.
const LONG: usize = 4096;

/// As the messenger is to have it.
enum Packed {
    Short(Kind, Scratch),
    Long(Raw),
}

impl Packed {
    fn of(kind: Kind, bytes: Scratch) -> Self {
        if bytes.len() < LONG {
            Self::Short(kind, bytes)
        } else {
            Self::Long(Raw::new(kind, bytes.into_bytes()))
        }
    }

    fn into_raw(self) -> Raw {
        match self {
            Self::Short(kind, bytes) => Raw::new(kind, bytes.into_bytes()),
            Self::Long(raw) => raw,
        }
    }
}

/// Gives it to the messenger, for a receipt where what became of it must be known.
fn hand_over(
    sender: &ClassSender<'_>,
    message: &impl Outgoing,
    to: MemberId,
    what: &What,
) -> Result<Option<Receipt>, SendError> {
    if matches!(what, What::Flow { .. }) {
        return sender.send_with_receipt(message, to).map(Some);
    }
    let report = sender.send(message, [to])?;
    match (report.full.is_empty(), report.absent.is_empty()) {
        (true, true) => Ok(None),
        (false, _) => Err(SendError::Full(to)),
        (true, false) => Err(SendError::Absent(to)),
    }
}

/// What waits for room.
struct Waiting {
    until: Option<Instant>,
    raw: Raw,
    what: What,
}

/// What is under way to one node.
#[derive(Default)]
struct Way {
    /// A link was up, and is not known to be gone.
    linked: bool,
    /// Waits for room in the messenger's queue; a task sees to it. Bounded by the windows of the lanes.
    waiting: VecDeque<Waiting>,
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

    /// The link with a node is gone.
    pub(crate) fn unlinked(&self, node: MemberId) {
        let way = self.ways.read().get(&node).cloned();
        if let Some(way) = way {
            way.lock().linked = false;
        }
    }

    /// Nothing more goes to a node, unless it comes again.
    pub(crate) fn forget(&self, node: MemberId) {
        let way = self.ways.read().get(&node).cloned();
        if way.is_some_and(|way| !way.lock().pumping) {
            self.ways.write().remove(&node);
        }
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
            self.send_on(inner, to, &way, held, Parcel::control(&news));
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
        let Parcel { bytes, what } = parcel;
        let packed = Packed::of(what.kind(&inner.kinds), bytes);
        if held.pumping {
            held.waiting.push_back(self.waits(packed, what));
            return;
        }
        let life = if self.is_linked(&mut held, to) { None } else { what.life() };
        let sender = self.messenger.class(Class::Normal);
        let sender = life.map_or(sender.clone(), |life| sender.expires_in(life));
        let sent = match &packed {
            Packed::Short(kind, bytes) => hand_over(&sender, &RawRef::new(*kind, bytes), to, &what),
            Packed::Long(raw) => hand_over(&sender, raw, to, &what),
        };
        let sent = sent.map(|receipt| {
            if let (Some(receipt), What::Flow { number, .. }) = (receipt, &what) {
                if life.is_some() {
                    self.watch(to, *number, receipt.clone());
                }
                held.receipts.push_back((*number, receipt));
            }
        });
        if matches!(sent, Err(SendError::Full(_))) {
            held.waiting.push_back(self.waits(packed, what));
            held.pumping = true;
            drop(held);
            self.messenger.spawn(pump(self.inner.clone(), self.messenger.clone(), to, Arc::clone(way)));
            return;
        }
        drop(held);
        went(inner, to, what, sent);
    }

    fn waits(&self, packed: Packed, what: What) -> Waiting {
        let until = what.life().and_then(|life| self.messenger.now().checked_add(life));
        Waiting { until, raw: packed.into_raw(), what }
    }

    fn is_linked(&self, way: &mut Way, to: MemberId) -> bool {
        way.linked = way.linked || self.messenger.is_linked(to);
        way.linked
    }

    /// Sees to a message with a time to live: if that is over before it is sent, the core is told.
    fn watch(&self, to: MemberId, number: u64, receipt: Receipt) {
        let inner = self.inner.clone();
        self.messenger.spawn(async move {
            let Err(lost @ Lost::NotSent(Cause::Expired)) = receipt.acked().await else { return };
            let Some(inner) = inner.upgrade() else { return };
            inner.act(|core, now| core.handle_lost(now, to, number, lost));
            inner.carrier.prune(&inner, to);
        });
    }

    /// Receipts of what is done are not needed any more.
    pub(crate) fn prune(&self, inner: &Arc<Inner>, of: MemberId) {
        let Some(way) = self.ways.read().get(&of).cloned() else { return };
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
            held.waiting
                .iter()
                .any(|waits| matches!(waits.what, What::Flow { number: other, .. } if other == *number))
        };
        numbers.retain(|number| receipts.contains_key(number) || !waiting(number));
        drop(held);
        if !departed {
            // What arrived by it, and is not said to be done: nobody knows whether that was said and lost with it.
            numbers.retain(|number| receipts.get(number).is_some_and(|receipt| receipt.now().is_some()));
        }
        if departed {
            self.forget(node);
        }
        if numbers.is_empty() {
            return;
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
    }
}

/// What is done once it is with the messenger, or cannot be.
fn went(inner: &Arc<Inner>, to: MemberId, what: What, sent: Result<(), SendError>) {
    match (what, sent) {
        (What::Flow { .. } | What::Control, Ok(())) => {}
        (What::Reply { job: Some(job), .. }, Ok(())) => inner.placed(job),
        (What::Reply { job: None, .. }, Ok(())) => {}
        (What::Flow { number, .. }, Err(error)) => {
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
        (What::Control, Err(error)) => {
            tracing::debug!(%to, %error, "a word to a router did not go");
            inner.carrier.forget(to);
        }
    }
}

/// What has waited for room longer than it lives.
fn drop_expired(inner: &Arc<Inner>, messenger: &Messenger, to: MemberId, way: &Mutex<Way>) {
    let now = messenger.now();
    let over: VecDeque<Waiting> = {
        let mut way = way.lock();
        let is_over = |waits: &Waiting| waits.until.is_some_and(|until| until <= now);
        let (over, stay) = way.waiting.drain(..).partition(is_over);
        way.waiting = stay;
        over
    };
    for Waiting { what, .. } in over {
        match what {
            What::Flow { number, .. } => {
                inner.act(|core, now| core.handle_lost(now, to, number, Lost::NotSent(Cause::Expired)));
            }
            What::Reply { job: Some(job), .. } => inner.act(|core, now| core.placed(now, job)),
            What::Reply { job: None, .. } | What::Control => {}
        }
    }
}

/// Sends what waits for a node, in order, until nothing does.
async fn pump(inner: Weak<Inner>, messenger: Messenger, to: MemberId, way: Arc<Mutex<Way>>) {
    loop {
        let (raw, left) = {
            let mut way = way.lock();
            match way.waiting.front() {
                Some(Waiting { until, raw, .. }) => {
                    (raw.clone(), until.map(|until| until.saturating_duration_since(messenger.now())))
                }
                None => {
                    way.pumping = false;
                    drop(way);
                    let gone = inner.upgrade().filter(|inner| !inner.is_up(to));
                    return gone.into_iter().for_each(|inner| inner.carrier.forget(to));
                }
            }
        };
        let life = if messenger.is_linked(to) { None } else { left };
        let sender = messenger.class(Class::Normal);
        let sender = life.map_or(sender.clone(), |life| sender.expires_in(life));
        let sent = match left {
            Some(Duration::ZERO) => Err(SendError::Full(to)),
            _ => sender.send_wait_with_receipt(&raw, to, PATIENCE).await,
        };
        let Some(inner) = inner.upgrade() else { return };
        if matches!(sent, Err(SendError::Full(_))) {
            drop_expired(&inner, &messenger, to, &way);
            continue;
        }
        let what = {
            let mut way = way.lock();
            let Some(Waiting { what, .. }) = way.waiting.pop_front() else { continue };
            if let (What::Flow { number, .. }, Ok(receipt)) = (&what, &sent) {
                if life.is_some() {
                    inner.carrier.watch(to, *number, receipt.clone());
                }
                way.receipts.push_back((*number, receipt.clone()));
            }
            what
        };
        went(&inner, to, what, sent.map(drop));
        if !inner.is_up(to) {
            // It went though the node is gone: what became of it is to be found out as well.
            inner.carrier.settle(&inner, to, true);
        }
    }
}
