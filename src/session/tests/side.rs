//! One side of a [`Pair`](super::pair::Pair): a session, its handlers, and what must hold of them at every step.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::super::*;
use crate::wire::Protocol;
use crate::wire::frame::{FrameHeader, HEADER_BYTES};
use crate::wire::{BodyCheck, Frame};
use crate::wire::{TypeEntry, record};

/// Protocols of users in these tests, beside application and byte streams.
pub(super) const CUSTOM: Protocol = Protocol(70);

/// A message whose end is known, with the end as it was seen first.
pub(super) struct Tracked {
    pub(super) tag: u32,
    pub(super) receipt: Receipt,
    seen: Option<Result<(), Lost>>,
}

/// See the module's text. A message is known by its tag, which travels as its type's hash.
pub(super) struct Side {
    pub(super) session: Session,
    /// Written and not yet at the other side.
    pub(super) pipe: BytesMut,
    /// Came and is not yet a whole frame.
    pub(super) partial: BytesMut,
    pub(super) types_came: bool,
    /// Deliveries wait for `Pair::handle`.
    pub(super) slow: bool,
    pub(super) held: VecDeque<Handled>,
    /// Reservations wait for `Pair::grant`.
    pub(super) stingy: bool,
    pub(super) asked: VecDeque<(Epoch, StreamId, u64)>,
    /// Each reservation granted holds one clone.
    pub(super) permits: Arc<()>,
    /// Tags of the other side that this one does not understand.
    pub(super) refuses: BTreeSet<u32>,
    pub(super) got: Vec<(StreamId, u32)>,
    newest: HashMap<StreamId, u32>,
    pub(super) tracked: Vec<Tracked>,
    pub(super) untracked: u64,
    /// Until when what was pushed may be written for the first time.
    deadlines: HashMap<u32, Instant>,
    written: BTreeSet<u32>,
    /// The newest message pushed under each key.
    keyed: HashMap<(StreamId, u64), u32>,
    /// Those before it.
    elders: BTreeSet<u32>,
}

/// How many bytes of a body have one beginning.
const BLOCK: usize = 4096;

/// What is 31 more than the byte before it, from each of the 256 on.
static STEPS: [u8; BLOCK + 256] = {
    let mut steps = [0u8; BLOCK + 256];
    let mut at = 1;
    while at < steps.len() {
        steps[at] = steps[at - 1].wrapping_add(31);
        at += 1;
    }
    steps
};

/// Bytes from which any lost, doubled or exchanged chunk of a message shows. Block by block, because there is much of it and
/// tests are not optimised.
pub(crate) fn body(tag: u32, bytes: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(bytes);
    while body.len() < bytes {
        let first = (tag as usize + body.len() / BLOCK) as u8;
        // 223 is the inverse of 31 among the bytes.
        let from = usize::from(first.wrapping_mul(223));
        body.extend_from_slice(&STEPS[from..from + BLOCK.min(bytes - body.len())]);
    }
    body.freeze()
}

/// Whole frames off the front, as a link reads them.
pub(super) fn take_frames(bytes: &mut BytesMut) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(head) = bytes.first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::decode(head).unwrap();
        if bytes.len() < HEADER_BYTES + header.rest_bytes(BodyCheck::Crc) {
            break;
        }
        let frame = bytes.split_to(HEADER_BYTES + header.rest_bytes(BodyCheck::Crc)).freeze();
        frames.push(Frame::decode(&header, frame.slice(HEADER_BYTES..), BodyCheck::Crc).unwrap());
    }
    frames
}

impl Side {
    pub(super) fn new(config: SessionConfig, budget: BudgetLimits) -> Self {
        let account = Account::new(Arc::new(Budget::new(budget)));
        let intake = Intake::new(account, Arc::new(Buffers::default()));
        Self {
            session: Session::new(config, Epoch(1), Arc::new(parking_lot::Mutex::new(intake))),
            pipe: BytesMut::new(),
            partial: BytesMut::new(),
            types_came: false,
            slow: false,
            held: VecDeque::new(),
            stingy: false,
            asked: VecDeque::new(),
            permits: Arc::new(()),
            refuses: BTreeSet::new(),
            got: Vec::new(),
            newest: HashMap::new(),
            tracked: Vec::new(),
            untracked: 0,
            deadlines: HashMap::new(),
            written: BTreeSet::new(),
            keyed: HashMap::new(),
            elders: BTreeSet::new(),
        }
    }

    /// What this side says it understands: everything but `refuses`, of which it knows too old a version.
    pub(super) fn types(&self) -> Vec<TypeEntry> {
        let entry = |protocol, hash, version, any| {
            let name = format!("{hash}");
            TypeEntry { protocol, hash, version, open: true, any, name }
        };
        let protocols = [Protocol::APPLICATION, Protocol::BYTES, CUSTOM];
        let fallbacks = protocols.map(|protocol| entry(protocol, 0, 0, true));
        let too_old =
            self.refuses.iter().flat_map(|tag| protocols.map(|protocol| entry(protocol, *tag, 0, false)));
        fallbacks.into_iter().chain(too_old).collect()
    }

    pub(super) fn push(
        &mut self,
        stream: StreamId,
        tag: u32,
        bytes: usize,
        tracked: bool,
        under: Option<(Instant, Terms)>,
    ) -> Result<bool, Refused> {
        let body = body(tag, bytes);
        let out = Outgoing { stream, hash: tag, version: 1, body: Body::Shared(&body), reply: &|| false };
        let (ticket, receipt) = Ticket::new();
        let ticket = tracked.then_some(ticket);
        let intake = self.session.intake();
        let pushed = match under {
            None => intake.lock().push(out, ticket),
            Some((now, terms)) => {
                let pushed = intake.lock().push_under(now, terms, out, ticket);
                pushed.map(|pushed| {
                    pushed.ended.tell();
                    pushed.wake
                })
            }
        };
        if let (Ok(_), Some((_, terms))) = (&pushed, under) {
            self.deadlines.extend(terms.expires.map(|expires| (tag, expires)));
            let elder = terms.key.and_then(|key| self.keyed.insert((stream, key), tag));
            self.elders.extend(elder);
        }
        if pushed.is_ok() && tracked {
            self.tracked.push(Tracked { tag, receipt, seen: None });
        } else if pushed.is_ok() {
            self.untracked += 1;
        }
        pushed
    }

    pub(super) fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), ProtocolError> {
        match frame {
            Frame::Batch(_) if !self.types_came => Err(ProtocolError::BatchBeforeTypes),
            Frame::Batch(batch) => self.session.handle_batch(now, &batch),
            Frame::Ack(acks) => self.session.handle_acks(&acks),
            Frame::Types(entries) => {
                self.types_came = true;
                self.session.handle_types(PeerTypes::new(&entries, |_| false));
                Ok(())
            }
            other => panic!("a session writes no {other:?}"),
        }
    }

    /// Nothing is written for the first time when its time is over.
    pub(super) fn note_written(&mut self, now: Instant, frames: &[Frame]) {
        for frame in frames {
            let Frame::Batch(batch) = frame else { continue };
            let mut records = batch.records.clone();
            while !records.is_empty() {
                let tag = record::take(&mut records).unwrap().header.hash;
                let is_new = self.written.insert(tag);
                let in_time = self.deadlines.get(&tag).is_none_or(|deadline| now < *deadline);
                assert!(!is_new || in_time, "{tag} was written after its time");
            }
        }
    }

    /// The application: takes deliveries, checks them, and is done with them at once unless it is slow.
    pub(super) fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Deliver { epoch, delivery } => {
                    let Delivery { stream, records, bytes, .. } = delivery;
                    self.take_content(&delivery);
                    self.held.push_back(Handled { epoch, stream, records, bytes });
                }
                SessionEvent::Reserve { epoch, stream, bytes } => {
                    self.asked.push_back((epoch, stream, bytes))
                }
            }
        }
        while !self.slow && self.handle(now) {}
        while !self.stingy && self.grant(now) {}
    }

    fn take_content(&mut self, delivery: &Delivery) {
        match &delivery.content {
            Content::Records(records) => {
                assert_eq!(records.len() as u64, delivery.bytes);
                let mut records = records.clone();
                for _ in 0..delivery.records {
                    let record = record::take(&mut records).unwrap();
                    self.take_message(delivery.stream, record.header.hash, &record.body);
                }
                assert!(records.is_empty());
            }
            Content::Large { hash, body, .. } => self.take_message(delivery.stream, *hash, body),
        }
    }

    fn take_message(&mut self, stream: StreamId, tag: u32, bytes: &Bytes) {
        assert_eq!(*bytes, body(tag, bytes.len()), "message {tag} of {stream:?} is not what was sent");
        let before = self.newest.insert(stream, tag);
        assert!(before.is_none_or(|before| before < tag), "{stream:?}: {tag} after {before:?}");
        self.got.push((stream, tag));
    }

    /// The oldest delivery is handled.
    pub(super) fn handle(&mut self, now: Instant) -> bool {
        let Some(handled) = self.held.pop_front() else { return false };
        self.session.handle_handled(now, handled);
        true
    }

    /// The oldest reservation is granted.
    pub(super) fn grant(&mut self, now: Instant) -> bool {
        let Some((epoch, stream, _)) = self.asked.pop_front() else { return false };
        let reservation = Reservation::new(Arc::clone(&self.permits));
        self.session.handle_reserved(now, epoch, stream, reservation);
        true
    }

    pub(super) fn pending(&self) -> u64 {
        self.session.queued_and_pending().1
    }

    pub(super) fn cost(&self) -> usize {
        self.session.intake().lock().bytes()
    }

    pub(super) fn tags(&self) -> Vec<u32> {
        self.got.iter().map(|(_, tag)| *tag).collect()
    }

    pub(super) fn end_of(&self, tag: u32) -> Option<Result<(), Lost>> {
        self.tracked.iter().find(|tracked| tracked.tag == tag).unwrap().receipt.now()
    }

    /// Whether `Receipt::handled` would return, and what.
    pub(super) fn handled_of(&self, tag: u32) -> Option<Result<(), Lost>> {
        let tracked = self.tracked.iter().find(|tracked| tracked.tag == tag).unwrap();
        match pin!(tracked.receipt.handled()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }

    /// Holds after every step.
    pub(super) fn check(&mut self) {
        self.session.check();
        let accounts = self.session.accounts();
        let (queued, pending) = self.session.queued_and_pending();
        let ended = accounts.acked + accounts.not_sent + accounts.indeterminate;
        assert_eq!(
            queued,
            ended + pending,
            "every message is in one account: {accounts:?}, {pending} pending"
        );
        assert_eq!(queued, self.untracked + self.tracked.len() as u64);
        if self.session.is_drained() {
            assert_eq!((pending, self.cost()), (0, 0), "drained, so nothing is held");
        }
        let mut told = [0; 3];
        for tracked in &mut self.tracked {
            let now = tracked.receipt.now();
            assert!(tracked.seen.is_none() || tracked.seen == now, "{} ended twice", tracked.tag);
            tracked.seen = now;
            match now {
                None => {}
                Some(Ok(())) => told[0] += 1,
                Some(Err(Lost::NotSent(_))) => told[1] += 1,
                Some(Err(Lost::Indeterminate(_))) => told[2] += 1,
            }
        }
        let counted = [accounts.acked, accounts.not_sent, accounts.indeterminate];
        let agree = |(told, counted): (u64, u64)| told <= counted && counted <= told + self.untracked;
        assert!(told.into_iter().zip(counted).all(agree), "receipts {told:?}, accounts {counted:?}");
    }

    /// Holds when both sides are drained: what `peer` sent is here exactly as often as its accounts say.
    pub(super) fn check_deliveries_of(&self, peer: &Self) {
        let accounts = peer.session.accounts();
        let got = self.got.len() as u64;
        assert!(
            accounts.acked <= got && got <= accounts.acked + accounts.indeterminate,
            "{got}, {accounts:?}"
        );
        for tracked in &peer.tracked {
            let times = self.got.iter().filter(|(_, tag)| *tag == tracked.tag).count();
            match tracked.receipt.now() {
                Some(Ok(())) => assert_eq!(times, 1, "{} was acknowledged", tracked.tag),
                Some(Err(Lost::NotSent(cause))) => {
                    assert_eq!(times, 0, "{} was not sent", tracked.tag);
                    let newest = cause == Cause::Superseded && !peer.elders.contains(&tracked.tag);
                    assert!(!newest, "{} was the newest of its key", tracked.tag);
                    let ever = cause == Cause::Expired && !peer.deadlines.contains_key(&tracked.tag);
                    assert!(!ever, "{} expired, without a time to live", tracked.tag);
                }
                Some(Err(Lost::Indeterminate(_))) => assert!(times <= 1),
                None => panic!("{} never ended", tracked.tag),
            }
            assert!(
                peer.handled_of(tracked.tag).is_some(),
                "nobody says whether {} was handled",
                tracked.tag
            );
        }
    }
}
