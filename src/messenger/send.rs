//! Sending: what happened for each recipient, and waiting for those that are full.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::message::{EncodeError, Encoded, Kind, Outgoing};
use super::{Messenger, dispatch};
use crate::driver::{Driver, PeerHandle, clock};
use crate::limits::OWN_FRAME_BYTES;
use crate::member::MemberId;
use crate::session::{Body, Outgoing as Out, Receipt, Refused, Terms, Ticket};
use crate::wire::{Class, StreamId};
use std::sync::Arc;

/// What became of one call of `send`. The caller keeps the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a full queue or an absent member is said here, and nowhere else"]
pub struct SendReport {
    /// For how many recipients it was queued.
    pub queued: usize,
    /// Recipients that are not in the view, nor contacts, nor held by a resume lease: also those that left before the
    /// call.
    pub absent: Vec<MemberId>,
    /// Recipients whose queue has no room now. `send_wait` waits for it.
    pub full: Vec<MemberId>,
}

impl SendReport {
    /// Whether it was queued for every recipient.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.absent.is_empty() && self.full.is_empty()
    }
}

/// Why nothing was sent to anybody. The messenger and its links are as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The message is larger than any this messenger sends.
    #[error(
        "a `{kind}` of {bytes} bytes; at most {most} are sent so (`Limits::message_bytes`, or what a datagram holds)"
    )]
    TooLarge {
        /// The type's name.
        kind: &'static str,
        /// Bytes of its body.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The messenger was closed, and by what.
    #[error("the messenger is closed: {0}")]
    Closed(&'static str),
    /// Waiting for room inside a handler could wait for that very handler. Use `send`: one reply draws on a reserve.
    #[error("no waiting inside a handler: it could wait for itself; use `send`")]
    WithinHandler,
    /// There is no session with the recipient.
    #[error("no session with {0}")]
    Absent(MemberId),
    /// The recipient's queue has no room.
    #[error("the queue to {0} is full")]
    Full(MemberId),
}

/// A way to send in one class, and under terms if wanted; see [`Messenger::class`].
#[derive(Clone, Debug)]
pub struct ClassSender<'a> {
    pub(super) messenger: &'a Messenger,
    pub(super) class: Class,
    lifetime: Option<Duration>,
    key: Option<u64>,
}

/// What one recipient's intake said.
enum Pushed {
    Queued,
    Absent,
    Full,
}

impl<'a> ClassSender<'a> {
    pub(super) const fn new(messenger: &'a Messenger, class: Class) -> Self {
        Self { messenger, class, lifetime: None, key: None }
    }

    /// What is sent by this is worth sending for so long, from the call of `send` on. What waits longer is not sent: it
    /// ends as `NotSent(`[`Cause::Expired`](crate::Cause::Expired)`)` when its time is over, link or no link, and its room
    /// comes back. What was written before that, if only the first chunk of it, is not touched.
    ///
    /// A time of zero is over at once: the message counts as queued and is never sent. A message with a time to live or
    /// a key takes 144 bytes more of its queue.
    #[must_use]
    pub const fn expires_in(mut self, time: Duration) -> Self {
        self.lifetime = Some(time);
        self
    }

    /// Of what is sent under this key to one recipient only the newest waits: an older message that was not written yet,
    /// of this class and of a type as open or not, ends as `NotSent(`[`Cause::Superseded`](crate::Cause::Superseded)`)`.
    /// The newer one goes to the end of the queue, and may use the older one's room; if it finds none all the same, the
    /// older one stays.
    ///
    /// ```
    /// # async fn f(messenger: karere::Messenger, price: karere::Raw, to: karere::MemberId) -> Result<(), karere::SendError> {
    /// use std::time::Duration;
    /// use karere::Class;
    ///
    /// // A price is of interest for a second, and only the last of each share.
    /// let share = 4711;
    /// let prices = messenger.class(Class::Normal).expires_in(Duration::from_secs(1)).conflate(share);
    /// let report = prices.send(&price, [to])?;
    /// # drop(report); Ok(()) }
    /// ```
    #[must_use]
    pub const fn conflate(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// From the call on.
    #[inline]
    fn terms(&self) -> Option<Terms> {
        (self.lifetime.is_some() || self.key.is_some()).then(|| self.terms_from(clock::now()))
    }

    #[cold]
    fn terms_from(&self, now: Instant) -> Terms {
        // What is beyond the clock's end never expires.
        Terms { expires: self.lifetime.and_then(|time| now.checked_add(time)), key: self.key }
    }

    /// As [`Messenger::send`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::send`].
    #[inline(always)]
    pub fn send<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
    ) -> Result<SendReport, SendError> {
        self.prepared(message, self.terms().as_ref(), |sending| sending.to_all(recipients))
    }

    /// As [`Messenger::send_with_receipt`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::send_with_receipt`].
    pub fn send_with_receipt<M: Outgoing>(
        &self,
        message: &M,
        recipient: MemberId,
    ) -> Result<Receipt, SendError> {
        let (ticket, receipt) = Ticket::new();
        match self.prepared(message, self.terms().as_ref(), |sending| sending.to(recipient, Some(ticket)))? {
            Pushed::Queued => Ok(receipt),
            Pushed::Absent => Err(SendError::Absent(recipient)),
            Pushed::Full => Err(SendError::Full(recipient)),
        }
    }

    /// As [`Messenger::send_wait`], in this class. Nobody waits longer than a time to live: what is full then was never
    /// queued.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::send_wait`].
    pub async fn send_wait<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        timeout: Duration,
    ) -> Result<SendReport, SendError> {
        if dispatch::is_within_handler() {
            return Err(SendError::WithinHandler);
        }
        let terms = self.terms();
        let (mut report, kept) = self.prepared(message, terms.as_ref(), |sending| {
            let report = sending.to_all(recipients);
            let kept = (!report.full.is_empty()).then(|| sending.keep());
            (report, kept)
        })?;
        let Some(body) = kept else { return Ok(report) };
        let kind = message.outgoing_kind();
        let timeout = self.lifetime.map_or(timeout, |time| time.min(timeout));
        let waiting = std::future::poll_fn(|cx| {
            let is_over = |expires| expires <= clock::now();
            if terms.is_some_and(|terms| terms.expires.is_some_and(is_over)) {
                return Poll::Ready(());
            }
            Self::poll_full(cx, &self.sending(kind, Body::Shared(&body), terms.as_ref()), &mut report)
        });
        // What found room stays queued, also when the time is over.
        let _timed_out = tokio::time::timeout(timeout, waiting).await;
        Ok(report)
    }

    /// As [`ClassSender::send_with_receipt`], and waits for room if the queue is full. Cancel safe: what was not queued is
    /// not sent.
    ///
    /// # Errors
    ///
    /// As for [`ClassSender::send_with_receipt`]; [`SendError::Full`] when the time is over, [`SendError::WithinHandler`] in
    /// a handler.
    pub async fn send_wait_with_receipt<M: Outgoing>(
        &self,
        message: &M,
        recipient: MemberId,
        timeout: Duration,
    ) -> Result<Receipt, SendError> {
        if dispatch::is_within_handler() {
            return Err(SendError::WithinHandler);
        }
        let terms = self.terms();
        let kept = self.prepared(message, terms.as_ref(), |sending| {
            let (ticket, receipt) = Ticket::new();
            match sending.to(recipient, Some(ticket)) {
                Pushed::Queued => Ok(receipt),
                Pushed::Absent => Err(None),
                Pushed::Full => Err(Some(sending.keep())),
            }
        })?;
        let body = match kept {
            Ok(receipt) => return Ok(receipt),
            Err(None) => return Err(SendError::Absent(recipient)),
            Err(Some(body)) => body,
        };
        let kind = message.outgoing_kind();
        let timeout = self.lifetime.map_or(timeout, |time| time.min(timeout));
        let waiting = std::future::poll_fn(|cx| {
            let mut receipt = None;
            let mut ticket = || {
                let (ticket, its) = Ticket::new();
                receipt = Some(its);
                Some(ticket)
            };
            let sending = self.sending(kind, Body::Shared(&body), terms.as_ref());
            match (sending.to_or_wake(recipient, cx, &mut ticket), receipt) {
                (Pushed::Queued, Some(receipt)) => Poll::Ready(Ok(receipt)),
                (Pushed::Full, _) => Poll::Pending,
                (Pushed::Queued | Pushed::Absent, _) => Poll::Ready(Err(SendError::Absent(recipient))),
            }
        });
        tokio::time::timeout(timeout, waiting).await.unwrap_or(Err(SendError::Full(recipient)))
    }

    /// Tries those that were full; each is waited for separately.
    fn poll_full(cx: &mut Context<'_>, sending: &Sending<'_>, report: &mut SendReport) -> Poll<()> {
        let mut still_full = Vec::new();
        for recipient in report.full.drain(..) {
            match sending.to_or_wake(recipient, cx, &mut || None) {
                Pushed::Queued => report.queued += 1,
                Pushed::Absent => report.absent.push(recipient),
                Pushed::Full => still_full.push(recipient),
            }
        }
        report.full = still_full;
        if report.full.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    #[inline(always)]
    fn sending<'s>(&'s self, kind: Kind, body: Body<'s>, terms: Option<&'s Terms>) -> Sending<'s> {
        let stream = kind.stream(self.class);
        let driver = &self.messenger.inner.shared.driver;
        driver.note_sent(kind.hash(), kind.name());
        Sending { driver, stream, hash: kind.hash(), version: kind.version(), body, terms }
    }

    /// Encodes once, checks, and hands the body to `send`. Inlined, because moving a report that was just written costs
    /// more than queueing a small message.
    #[inline(always)]
    fn prepared<M: Outgoing, T>(
        &self,
        message: &M,
        terms: Option<&Terms>,
        send: impl FnOnce(&Sending<'_>) -> T,
    ) -> Result<T, SendError> {
        let inner = &self.messenger.inner;
        if let Some(by) = inner.closed.get() {
            return Err(SendError::Closed(by));
        }
        let kind = message.outgoing_kind();
        message.encode_with(|Encoded(body)| {
            let bytes = body.as_slice().len();
            let most = inner.message_bytes;
            if bytes > most {
                return Err(SendError::TooLarge { kind: kind.name(), bytes, most });
            }
            Ok(match body {
                // Copied once, then shared by all.
                Body::Slice(slice) if bytes >= OWN_FRAME_BYTES => {
                    send(&self.sending(kind, Body::Shared(&Bytes::copy_from_slice(slice)), terms))
                }
                body => send(&self.sending(kind, body, terms)),
            })
        })?
    }
}

/// One encoded message on its way to its recipients.
struct Sending<'a> {
    driver: &'a Arc<Driver>,
    stream: StreamId,
    hash: u32,
    version: u16,
    body: Body<'a>,
    terms: Option<&'a Terms>,
}

impl Sending<'_> {
    #[inline(always)]
    fn to_all(&self, recipients: impl IntoIterator<Item = MemberId>) -> SendReport {
        let mut report = SendReport::default();
        for recipient in recipients {
            match self.to(recipient, None) {
                Pushed::Queued => report.queued += 1,
                Pushed::Absent => report.absent.push(recipient),
                Pushed::Full => report.full.push(recipient),
            }
        }
        report
    }

    fn to(&self, recipient: MemberId, ticket: Option<Ticket>) -> Pushed {
        let push = |handle: &PeerHandle| match self.push(handle, ticket) {
            Ok(()) => Pushed::Queued,
            Err(Refused::Closed(_)) => Pushed::Absent,
            Err(Refused::Full(_)) => Pushed::Full,
        };
        self.with_peer(recipient, push)
    }

    /// Registers before it tries, so that no room is missed.
    fn to_or_wake(
        &self,
        recipient: MemberId,
        cx: &Context<'_>,
        ticket: &mut dyn FnMut() -> Option<Ticket>,
    ) -> Pushed {
        self.with_peer(recipient, |handle| match self.push(handle, ticket()) {
            Ok(()) => Pushed::Queued,
            Err(Refused::Closed(_)) => Pushed::Absent,
            Err(Refused::Full(no_room)) => {
                handle.intake.lock().wake_at_room(cx.waker(), no_room);
                match self.push(handle, ticket()) {
                    Ok(()) => Pushed::Queued,
                    Err(Refused::Closed(_)) => Pushed::Absent,
                    Err(Refused::Full(_)) => Pushed::Full,
                }
            }
        })
    }

    #[inline]
    fn with_peer(&self, recipient: MemberId, push: impl FnOnce(&PeerHandle) -> Pushed) -> Pushed {
        let mut push = Some(push);
        let mut once = |handle: &PeerHandle| push.take().map_or(Pushed::Absent, |push| push(handle));
        match self.driver.with_peer(recipient, &mut once) {
            Some(pushed) => pushed,
            // Peers of members, and of oneself, are made when they are first wanted.
            None => self.driver.peer_wanted(recipient).map_or(Pushed::Absent, |handle| once(&handle)),
        }
    }

    #[inline]
    fn push(&self, handle: &PeerHandle, ticket: Option<Ticket>) -> Result<(), Refused> {
        let reply = || dispatch::claim_reply_to(handle.id);
        let out = Out {
            stream: self.stream,
            hash: self.hash,
            version: self.version,
            body: self.body,
            reply: &reply,
        };
        let wake = match self.terms {
            None => handle.intake.lock().push(out, ticket)?,
            Some(terms) => Self::push_under(handle, *terms, out, ticket)?,
        };
        if wake {
            handle.doorbell.ring();
        }
        Ok(())
    }

    /// Outlined, so that the way of all other messages stays short.
    #[cold]
    #[inline(never)]
    fn push_under(
        handle: &PeerHandle,
        terms: Terms,
        out: Out<'_>,
        ticket: Option<Ticket>,
    ) -> Result<bool, Refused> {
        let pushed = handle.intake.lock().push_under(clock::now(), terms, out, ticket)?;
        pushed.ended.tell();
        Ok(pushed.wake)
    }

    /// The body, for as long as somebody waits.
    fn keep(&self) -> Bytes {
        match self.body {
            Body::Slice(slice) => Bytes::copy_from_slice(slice),
            Body::Shared(bytes) => bytes.clone(),
        }
    }
}
