//! The one task that owns a peer: moves bytes, time and outputs between the core and the world.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::guard::DialError;
use super::handle::{Incoming, PeerHandle};
use super::loopback::Loopback;
use super::net::{BoxConn, BoxFuture};
use super::opening::{self, OpeningError};
use super::wire_io::WireIo;
use super::{Driver, Inbound, clock};
use crate::link::{LinkEnd, LinkId};
use crate::peer::{Answered, Peer, PeerOutput};
use crate::session::Reservation;
use crate::wire::first::{self, FirstBytes};
use crate::wire::{BodyCheck, Epoch, Frame, Reject, StreamId, frame};

/// Turns of the loop before other tasks get theirs.
const TURNS: usize = 16;

/// Who has just written and is woken again lets the tasks that are ready go first, once: what they send goes with the next write. Without that
/// the first of many that send puts the peer's task before all the others (it is what the runtime runs next), and each message
/// is a write. Who has not written for longer is not asked to wait: a lone message goes at once.
const JUST_WRITTEN: Duration = Duration::from_micros(10);

type Exchange = BoxFuture<Result<(BoxConn, FirstBytes, BytesMut), OpeningError>>;

enum DialStep {
    Connecting(BoxFuture<Result<BoxConn, DialError>>),
    Exchanging(Exchange),
}

type Reserving = BoxFuture<Option<(Epoch, StreamId, OwnedSemaphorePermit)>>;

/// See the module's text.
pub(super) struct PeerTask {
    driver: Arc<Driver>,
    handle: Arc<PeerHandle>,
    inbound: Box<dyn Inbound>,
    live: Option<WireIo>,
    dial: Option<(LinkId, DialStep)>,
    reserving: Vec<Reserving>,
    sleep: Pin<Box<Sleep>>,
    /// Handlers have something to do: they get their turn before more is read, so that credit goes back while the
    /// sender still has some.
    delivered: bool,
    /// When bytes were last written, and whether others went first since.
    wrote_at: Option<Instant>,
    gave_way: bool,
    /// When `sleep` wakes; later deadlines wait for it, so that timers are seldom set anew.
    armed: Option<Instant>,
    /// For those who probe; told when the peer's lock is given back.
    answered: Option<Answered>,
}

impl PeerTask {
    pub(super) fn new(driver: Arc<Driver>, handle: Arc<PeerHandle>, inbound: Box<dyn Inbound>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self {
            driver,
            handle,
            inbound,
            live: None,
            dial: None,
            reserving: Vec::new(),
            sleep,
            delivered: false,
            wrote_at: None,
            gave_way: false,
            armed: None,
            answered: None,
        }
    }

    /// Runs until nothing holds the peer.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| {
            let polled = self.poll(cx);
            if let Some(answered) = self.answered.take() {
                self.handle.tell_answered(answered);
            }
            polled
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let handle = Arc::clone(&self.handle);
        handle.doorbell.answer(cx.waker());
        if self.gives_way(clock::now()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut peer = handle.peer.lock();
        for turn in 0.. {
            let now = clock::now();
            let mut busy = self.take_notes(now, &mut peer);
            busy |= self.poll_dials(cx, now, &mut peer);
            busy |= self.poll_reads(cx, now, &mut peer);
            busy |= self.poll_timers(cx, now, &mut peer);
            self.drain_outputs(&mut peer);
            busy |= self.start_dial(now, &mut peer);
            busy |= self.poll_writes(cx, now, &mut peer);
            self.drain_outputs(&mut peer);
            if !busy {
                break;
            }
            if turn >= TURNS || std::mem::take(&mut self.delivered) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.inbound.turn_over();
        if peer.is_over() {
            drop(peer);
            if self.driver.forget(&handle, &mut *self.inbound) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.arm(cx, peer.poll_timeout())
    }

    /// Whether other tasks go first, this once.
    fn gives_way(&mut self, now: Instant) -> bool {
        let just = self.wrote_at.is_some_and(|at| now.saturating_duration_since(at) < JUST_WRITTEN);
        self.gave_way = just && !self.gave_way;
        self.gave_way
    }

    /// What handlers are done with, and connections that came in.
    fn take_notes(&mut self, now: Instant, peer: &mut Peer) -> bool {
        let mut busy = false;
        if let Some((me, seat)) = self.handle.take_view() {
            peer.handle_view(now, me, seat);
            busy = true;
        }
        for handled in self.handle.take_handled() {
            peer.handle_handled(now, handled);
            busy = true;
        }
        for incoming in self.handle.take_incoming() {
            self.greet(now, peer, incoming);
            busy = true;
        }
        busy
    }

    fn greet(&mut self, now: Instant, peer: &mut Peer, incoming: Incoming) {
        let link = self.driver.link();
        match peer.handle_hello(now, link, &incoming.hello) {
            Ok(answer) => {
                // Closes what the new link replaces before it takes its place.
                self.drain_outputs(peer);
                let up = self.driver.links.come_up();
                let mut live = WireIo::new(link, incoming.conn, self.check(), &incoming.rest, Some(up));
                live.out.push(first::encode(&FirstBytes::Answer(Box::new(answer))).into());
                self.live = Some(live);
                self.frames(now, peer);
            }
            Err(reject) => {
                self.driver.count_refusal(&format_args!("{:?}: {}", reject.code, reject.text));
                self.driver.part_from(
                    self.handle.id,
                    incoming.conn,
                    vec![first::encode(&FirstBytes::Reject(reject)).into()],
                );
            }
        }
    }

    fn start_dial(&mut self, now: Instant, peer: &mut Peer) -> bool {
        let Some(request) = peer.poll_dial(now) else { return false };
        tracing::debug!(peer = %format_args!("{:.8}", self.handle.id), to = %request.place.endpoint, "dial");
        let connect = self.driver.connect(request.place);
        self.dial = Some((request.link, DialStep::Connecting(connect)));
        true
    }

    fn poll_dials(&mut self, cx: &mut Context<'_>, now: Instant, peer: &mut Peer) -> bool {
        let mut busy = false;
        while let Some((link, step)) = &mut self.dial {
            let link = *link;
            match step {
                DialStep::Connecting(connect) => match connect.as_mut().poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(conn)) => {
                        self.dial = peer.handle_connected(now, link).map(|hello| {
                            (link, DialStep::Exchanging(Box::pin(opening::exchange(conn, hello)) as Exchange))
                        });
                    }
                    Poll::Ready(Err(error)) => self.dial_failed(now, peer, link, error),
                },
                DialStep::Exchanging(exchange) => match exchange.as_mut().poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((conn, reply, rest))) => {
                        self.dial = None;
                        if let FirstBytes::Answer(answer) = &reply
                            && let Err(reject) = self.driver.judge_identity(answer, &*conn)
                        {
                            self.answered_by_another(now, peer, link, conn, *reject);
                        } else if peer.handle_reply(now, link, reply) {
                            self.drain_outputs(peer);
                            let up = self.driver.links.come_up();
                            self.live = Some(WireIo::new(link, conn, self.check(), &rest, Some(up)));
                            self.frames(now, peer);
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        let error = self.driver.blame(error);
                        self.dial_failed(now, peer, link, error);
                    }
                },
            }
            busy = true;
        }
        busy
    }

    fn dial_failed(&mut self, now: Instant, peer: &mut Peer, link: LinkId, error: DialError) {
        tracing::debug!(peer = %format_args!("{:.8}", self.handle.id), %error, "dial failed");
        self.dial = None;
        match error {
            DialError::Passing(_) => peer.handle_dial_failed(now, link),
            DialError::ForGood(why) => peer.handle_dial_refused(now, link, why),
        }
    }

    /// The answer gives a name that the certificate before it does not cover. Who sent it has a link already: it is told.
    fn answered_by_another(
        &mut self,
        now: Instant,
        peer: &mut Peer,
        link: LinkId,
        conn: BoxConn,
        reject: Reject,
    ) {
        let close = Frame::Close { code: reject.code, text: reject.text.clone() };
        self.driver.count_refusal(&reject.text);
        self.driver.part(opening::part(conn, vec![frame::encode(&close, self.check())]));
        peer.handle_dial_refused(now, link, reject.text);
    }

    /// What frames of this process carry behind their bodies.
    fn check(&self) -> BodyCheck {
        self.driver.surroundings.config.body_check
    }

    /// Reads once: writing and acknowledging keep up with it.
    fn poll_reads(&mut self, cx: &mut Context<'_>, now: Instant, peer: &mut Peer) -> bool {
        let Some(live) = &mut self.live else { return false };
        let link = live.link;
        let end = match live.poll_read(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => LinkEnd::End,
            Poll::Ready(Ok(_)) => {
                peer.handle_heard(now);
                self.frames(now, peer);
                return true;
            }
            Poll::Ready(Err(error)) => LinkEnd::Io(error.kind()),
        };
        self.end_link(now, peer, link, end);
        true
    }

    /// Hands the frames that were read to the core.
    fn frames(&mut self, now: Instant, peer: &mut Peer) {
        while let Some(live) = &mut self.live {
            let link = live.link;
            match live.reader.next() {
                Ok(Some(frame)) => peer.handle_frame(now, link, frame),
                Ok(None) => return,
                Err(error) => peer.handle_link_end(now, link, LinkEnd::Protocol(error.into())),
            }
            self.drain_outputs(peer);
        }
    }

    fn poll_writes(&mut self, cx: &mut Context<'_>, now: Instant, peer: &mut Peer) -> bool {
        let Some(live) = &mut self.live else { return false };
        let link = live.link;
        if live.is_written() {
            live.out.set_room(live.pace.room_bytes());
            peer.poll_transmit(now, &mut live.out);
        }
        if live.is_written() {
            return false;
        }
        match live.poll_write(cx) {
            Poll::Pending => {
                live.pace.handle_written(now, 0, true);
                peer.handle_written(now, false, true);
                false
            }
            Poll::Ready(Ok(taken)) => {
                self.wrote_at = Some(now);
                let left = !live.is_written();
                live.pace.handle_written(now, taken, left);
                peer.handle_written(now, true, left);
                true
            }
            Poll::Ready(Err(error)) => {
                self.end_link(now, peer, link, LinkEnd::Io(error.kind()));
                true
            }
        }
    }

    fn end_link(&mut self, now: Instant, peer: &mut Peer, link: LinkId, end: LinkEnd) {
        peer.handle_link_end(now, link, end);
        self.drain_outputs(peer);
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>, now: Instant, peer: &mut Peer) -> bool {
        let mut busy = false;
        let mut at = 0;
        while let Some(reserving) = self.reserving.get_mut(at) {
            match reserving.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(reserved) => {
                    drop(self.reserving.swap_remove(at));
                    if let Some((epoch, stream, permit)) = reserved {
                        peer.handle_reserved(now, epoch, stream, Reservation::new(permit));
                        busy = true;
                    }
                }
            }
        }
        if peer.poll_timeout().is_some_and(|deadline| deadline <= now) {
            peer.handle_timeout(now);
        }
        busy
    }

    fn drain_outputs(&mut self, peer: &mut Peer) {
        while let Some(output) = peer.poll_output() {
            match output {
                PeerOutput::Deliver { epoch, delivery } => {
                    self.inbound.deliver(epoch, delivery);
                    self.delivered = true;
                }
                PeerOutput::Datagram(datagram) => {
                    self.inbound.datagram(datagram);
                    self.delivered = true;
                }
                PeerOutput::Answered(answered) => self.answered = Some(answered),
                PeerOutput::Reserve { epoch, stream, bytes } => self.reserve(epoch, stream, bytes),
                PeerOutput::Close { link, farewell } => self.close(link, farewell, peer.is_removed()),
                PeerOutput::SessionOver(over) => {
                    self.reserving.clear();
                    let next = (!peer.has_ended()).then(|| peer.session().epoch());
                    self.inbound.session_over(over, next);
                }
                PeerOutput::Replaced { contacts, by } => self.driver.replaced(contacts, by),
                PeerOutput::Event(event) => self.driver.event(event),
            }
        }
    }

    /// `prompt`: a view has removed the peer, so the connection is not kept for its sake.
    fn close(&mut self, link: LinkId, farewell: Option<bytes::Bytes>, prompt: bool) {
        if self.dial.as_ref().is_some_and(|(dialled, _)| *dialled == link) {
            self.dial = None;
        }
        let Some(live) = self.live.take_if(|live| live.link == link) else { return };
        let Some(farewell) = farewell else { return };
        let (conn, mut words) = live.into_parts();
        words.push(farewell);
        if prompt {
            self.driver.part(opening::part_promptly(conn, words));
        } else {
            self.driver.part_from(self.handle.id, conn, words);
        }
    }

    fn reserve(&mut self, epoch: Epoch, stream: StreamId, bytes: u64) {
        let pool = Arc::clone(&self.driver.reassembly);
        let permits = Driver::reassembly_permits(bytes);
        self.reserving.push(Box::pin(async move {
            // First come first served: the semaphore is fair.
            let permit = pool.acquire_many_owned(permits).await.ok()?;
            Some((epoch, stream, permit))
        }));
        // Polled in the next turn.
        self.handle.doorbell.ring();
    }

    fn arm(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        loop {
            if let Some(deadline) = deadline
                && self.armed.is_none_or(|armed| deadline < armed)
            {
                self.sleep.as_mut().reset(deadline.into());
                self.armed = Some(deadline);
            }
            if self.armed.is_none() {
                return Poll::Pending;
            }
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    self.armed = None;
                    if let Some(live) = &mut self.live {
                        live.note_timer();
                    }
                    if deadline.is_none_or(|deadline| deadline <= clock::now()) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Lets the peer talk with itself.
    pub(super) fn loop_back(mut self) -> Self {
        let now = clock::now();
        let handle = Arc::clone(&self.handle);
        let mut peer = handle.peer.lock();
        if let Some(link) = peer.adopt_self(now) {
            let loopback = Box::new(Loopback::default());
            self.live = Some(WireIo::new(link, loopback, self.check(), &BytesMut::new(), None));
        }
        self.drain_outputs(&mut peer);
        drop(peer);
        self
    }
}
