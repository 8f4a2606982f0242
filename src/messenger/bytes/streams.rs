//! [`Streams`]: the byte streams of one session, shared by the messenger and the handles.
//!
//! One lock around the [`Mux`]. Never held while the port is called, a waker is woken or dropped: all of these are
//! foreign code that may come back.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::error::{OpenError, StreamError};
use super::mux::{Key, Mux, Wakers};
use super::notices::What;
use super::state::{Ending, Read, State};
use super::stream::ByteStream;
use super::wire::{self, AbortCode, Content, NAME_BYTES_MAX};
use super::{Port, PushError};
use crate::limits::BYTES_WINDOW;
use crate::member::MemberId;
use crate::session::Cause;
use crate::wire::Class;

/// All byte streams with one peer, of one session at a time.
///
/// A session with oneself has both ends of each stream in here, and each counts.
#[derive(Debug)]
pub(crate) struct Streams {
    peer: MemberId,
    port: Arc<dyn Port>,
    locked: Mutex<Locked>,
}

#[derive(Debug)]
struct Locked {
    mux: Mux,
    /// Somebody pushes notices; one at a time, so that none is sent twice.
    flushing: bool,
    /// Raised by each `retry`: who finds the port full looks again if there was room in between.
    retries: u64,
}

impl Streams {
    /// Dropping the last handle does not end streams: call [`Streams::session_over`] when the session is gone for
    /// good. `port` must not own this object.
    pub(crate) fn new(peer: MemberId, port: Arc<dyn Port>) -> Arc<Self> {
        let locked = Locked { mux: Mux::new(peer), flushing: false, retries: 0 };
        Arc::new(Self { peer, port, locked: Mutex::new(locked) })
    }

    pub(super) const fn peer(&self) -> MemberId {
        self.peer
    }

    /// Opens a byte stream. It may be written to at once, up to the window; the peer need not answer.
    pub(crate) fn open(self: &Arc<Self>, name: &str, class: Class) -> Result<ByteStream, OpenError> {
        if name.len() > NAME_BYTES_MAX {
            return Err(OpenError::NameTooLong { bytes: name.len(), most: NAME_BYTES_MAX });
        }
        self.flush();
        let key = self.locked.lock().mux.open(class)?;
        let content = Content::Open { window: BYTES_WINDOW, name: name.to_owned() };
        let pushed = self.port.push(class, wire::encode(key.head(), &content), None);
        let (opened, _state) = self.locked.lock().mux.opened(key, pushed);
        self.flush();
        opened?;
        Ok(ByteStream::new(Arc::clone(self), key, name.to_owned()))
    }

    /// A message of protocol 1 from the session `epoch`. Some: the peer opened a stream; dropping it refuses it.
    ///
    /// Never blocks, and never refuses a message: its memory is bounded by windows and by the number of streams. It
    /// pushes and wakes, so call it without a lock that the port needs.
    pub(crate) fn handle_message(
        self: &Arc<Self>,
        epoch: u64,
        class: Class,
        body: Bytes,
    ) -> Option<ByteStream> {
        let mut woken = Wakers::new();
        let opened = {
            let mux = &mut self.locked.lock().mux;
            if mux.admit(epoch, &mut woken) { mux.handle(class, body, &mut woken) } else { None }
        };
        wake(woken);
        self.flush();
        opened.map(|(key, name)| ByteStream::new(Arc::clone(self), key, name))
    }

    /// The session `epoch` is over: all its streams fail, and none of them says another word. Messages of it and of those
    /// before are ignored from now on, also when they are its first; with `next_epoch`, all before that.
    ///
    /// Call it before anything can be pushed to the next session or arrive from it, and drop what of protocol 1 was
    /// queued for the old one and not yet written. A push that was under way meanwhile may still come after: of a
    /// stream that nobody knows, which is ignored, or an `Open`, which is followed by an `Abort`.
    pub(crate) fn session_over(&self, cause: Cause, epoch: u64, next_epoch: Option<u64>) {
        let mut woken = Wakers::new();
        self.locked.lock().mux.session_over(cause, epoch, next_epoch, &mut woken);
        wake(woken);
    }

    /// There may be room in the port again: pushes what found none. To be called whenever [`Streams::needs_retry`].
    pub(crate) fn retry(&self) {
        self.locked.lock().retries += 1;
        self.flush();
    }

    /// Something waits for room. True already while it is being pushed, so that room is never missed.
    pub(crate) fn needs_retry(&self) -> bool {
        let locked = self.locked.lock();
        locked.flushing || locked.mux.has_notices()
    }

    /// Ends of streams that this session has here, until they are dropped.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.locked.lock().mux.len()
    }

    // ---- for the handles ----

    pub(super) fn poll_read(&self, key: Key, cx: &Context<'_>, bytes_max: usize) -> Poll<io::Result<Bytes>> {
        let _old: Option<Waker>; // Dropped after the lock.
        let (poll, flush) = {
            let mut locked = self.locked.lock();
            let state = locked.mux.state(key)?;
            let class = state.class;
            let poll = match state.read(bytes_max) {
                Read::Bytes(bytes, grant) => {
                    if let Some(limit) = grant {
                        locked.mux.note(key, class, What::Window, &Content::Window { limit });
                    }
                    Poll::Ready(Ok(bytes))
                }
                Read::End => Poll::Ready(Ok(Bytes::new())),
                Read::Failed(error) => Poll::Ready(Err(error.into())),
                Read::Wait => {
                    _old = state.reader.replace(cx.waker().clone());
                    Poll::Pending
                }
            };
            (poll, locked.wants_flush())
        };
        if flush {
            self.flush();
        }
        poll
    }

    pub(super) fn poll_write(&self, key: Key, cx: &Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut old = None; // Dropped after the lock.
        let (class, room, flush) = {
            let mut locked = self.locked.lock();
            let state = locked.mux.state(key)?;
            writable(state)?;
            let (class, room) = (state.class, state.send.room());
            if room == 0 && !buf.is_empty() {
                old = state.writer.replace(cx.waker().clone());
            }
            (class, room, locked.wants_flush())
        };
        if flush {
            self.flush();
        }
        let chunk = buf.get(..room).unwrap_or(buf);
        if chunk.is_empty() {
            return if buf.is_empty() { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        let pushed = self.port.push(class, wire::encode_data(key.head(), chunk), Some(cx.waker()));
        drop(old);
        self.wrote(key, cx, chunk.len(), pushed)
    }

    fn wrote(
        &self,
        key: Key,
        cx: &Context<'_>,
        bytes: usize,
        pushed: Result<(), PushError>,
    ) -> Poll<io::Result<usize>> {
        let _old: Option<Waker>; // Dropped after the lock.
        let mut woken = Wakers::new();
        let poll = {
            let mut locked = self.locked.lock();
            let state = locked.mux.state(key)?;
            match pushed {
                Ok(()) => {
                    state.send.sent += bytes as u64;
                    Poll::Ready(Ok(bytes))
                }
                Err(PushError::Full) => {
                    // It may have failed since: then nobody would wake us.
                    writable(state)?;
                    _old = state.writer.replace(cx.waker().clone());
                    Poll::Pending
                }
                Err(PushError::Closed(cause)) => {
                    let error = StreamError::SessionLost(cause);
                    locked.mux.fail(key, error.clone(), &mut woken);
                    Poll::Ready(Err(error.into()))
                }
            }
        };
        wake(woken);
        poll
    }

    pub(super) fn poll_shutdown(&self, key: Key, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let _old: Option<Waker>; // Dropped after the lock.
        {
            let mut locked = self.locked.lock();
            let state = locked.mux.state(key)?;
            match (state.send.ending, &state.failure) {
                (Ending::Sent, _) => return Poll::Ready(Ok(())),
                (_, Some(error)) => return Poll::Ready(Err(error.clone().into())),
                (Ending::Due, None) => {
                    _old = state.writer.replace(cx.waker().clone());
                }
                (Ending::Open, None) => {
                    _old = state.writer.replace(cx.waker().clone());
                    state.send.ending = Ending::Due;
                    let (class, total) = (state.class, state.send.sent);
                    locked.mux.note(key, class, What::End, &Content::End { total });
                }
            }
        }
        self.flush();
        let mut locked = self.locked.lock();
        let state = locked.mux.state(key)?;
        match (state.send.ending, &state.failure) {
            (Ending::Sent, _) => Poll::Ready(Ok(())),
            (_, Some(error)) => Poll::Ready(Err(error.clone().into())),
            (Ending::Open | Ending::Due, None) => Poll::Pending,
        }
    }

    /// The application asks for the abort.
    pub(super) fn abort(&self, key: Key, reason: &str) {
        let _state = self.locked.lock().mux.close(key, AbortCode::Requested, reason, true);
        self.flush();
    }

    /// The handle goes.
    pub(super) fn dropped(&self, key: Key) {
        let state = self.locked.lock().mux.close(key, AbortCode::Dropped, "dropped", false);
        if state.is_some() {
            self.flush();
        }
    }

    /// Pushes notices until none is left or the port is full. One at a time: who comes second leaves it to the
    /// first, also when it comes from inside the port.
    fn flush(&self) {
        let mut locked = self.locked.lock();
        if locked.flushing {
            return;
        }
        locked.flushing = true;
        loop {
            let retries = locked.retries;
            let Some((label, notice)) = locked.mux.take_notice() else { break };
            drop(locked);
            let pushed = self.port.push(notice.class, notice.body.clone(), None);
            let mut woken = Wakers::new();
            locked = self.locked.lock();
            let full = locked.mux.noticed(label, notice, pushed, &mut woken);
            if full && retries == locked.retries {
                break;
            }
            if !woken.is_empty() {
                drop(locked);
                wake(woken);
                locked = self.locked.lock();
            }
        }
        locked.flushing = false;
    }
}

impl Locked {
    fn wants_flush(&self) -> bool {
        !self.flushing && self.mux.has_notices()
    }
}

fn writable(state: &State) -> Result<(), StreamError> {
    match (&state.failure, state.send.ending) {
        (_, Ending::Due | Ending::Sent) => Err(StreamError::Ended),
        (Some(error), Ending::Open) => Err(error.clone()),
        (None, Ending::Open) => Ok(()),
    }
}

fn wake(woken: Wakers) {
    woken.into_iter().for_each(Waker::wake);
}
