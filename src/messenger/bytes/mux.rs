//! All byte streams of one session: who is meant by a message, what a fault costs, which session counts. Pure; what
//! it wants to say waits in its [`Notices`], whom it wants to wake goes into [`Wakers`].

use std::collections::HashMap;
use std::task::Waker;

use bytes::Bytes;
use smallvec::SmallVec;
use tracing::{debug, trace, warn};

use super::PushError;
use super::error::{OpenError, StreamError};
use super::notices::{Label, Notice, Notices, What};
use super::state::{Ending, Fault, State};
use super::wire::{self, AbortCode, Content, Head, Malformed};
use crate::limits::{BYTE_STREAMS_MAX, BYTES_WINDOW};
use crate::member::MemberId;
use crate::session::Cause;
use crate::wire::Class;

/// One end of one byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Counts sessions. A message only ever finds streams of its own session.
    incarnation: u64,
    id: u64,
    /// This is the opener's end. In a session with oneself both ends live in one table.
    ours: bool,
}

impl Key {
    pub(super) const fn head(self) -> Head {
        Head { id: self.id, from_opener: self.ours }
    }
}

/// Woken after the lock is released: a waker is foreign code.
pub(super) type Wakers = SmallVec<[Waker; 2]>;

/// Refusals that wait for room. A peer that keeps to the limit has no more streams open than that; one that does not
/// goes without an answer.
const REFUSALS_MAX: usize = 2 * BYTE_STREAMS_MAX;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Mux {
    peer: MemberId,
    next_id: u64,
    incarnation: u64,
    /// The epoch of the session, once it is known.
    settled: Option<u64>,
    /// Messages of lower epochs are ignored.
    floor: u64,
    /// Every end that somebody holds; those of earlier sessions too.
    streams: HashMap<Key, State>,
    /// How many of them belong to this session.
    open: usize,
    notices: Notices,
}

impl Mux {
    pub(super) fn new(peer: MemberId) -> Self {
        Self {
            peer,
            next_id: 1,
            incarnation: 0,
            settled: None,
            floor: 0,
            streams: HashMap::new(),
            open: 0,
            notices: Notices::default(),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn len(&self) -> usize {
        self.open
    }

    pub(super) fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    // ---- messages ----

    /// Whether a message of this epoch counts. A higher one than before says that the session before is over.
    pub(super) fn admit(&mut self, epoch: u64, woken: &mut Wakers) -> bool {
        if epoch < self.floor {
            trace!(peer = %self.peer, epoch, floor = self.floor, "late message of byte streams");
            return false;
        }
        if self.settled.is_some_and(|settled| epoch > settled) {
            self.end_session(Cause::SessionLost, woken);
        }
        self.settled = Some(epoch);
        self.floor = epoch;
        true
    }

    /// Some: the peer opened this one, by this name.
    pub(super) fn handle(&mut self, class: Class, body: Bytes, woken: &mut Wakers) -> Option<(Key, String)> {
        let (head, content) = match wire::decode(body) {
            Ok(message) => message,
            Err(malformed) => {
                self.handle_malformed(class, malformed, woken);
                return None;
            }
        };
        let key = self.key(head);
        match content {
            Content::Open { window, name } => {
                return self.handle_open(key, class, window, woken).then_some((key, name));
            }
            Content::Data(bytes) => self.with_live(key, class, woken, |state, woken| {
                state.receive.handle_data(bytes)?;
                woken.extend(state.reader.take());
                Ok(())
            }),
            Content::Window { limit } => self.with_live(key, class, woken, |state, woken| {
                state.send.handle_window(limit);
                woken.extend(state.writer.take());
                Ok(())
            }),
            Content::End { total } => self.with_live(key, class, woken, |state, woken| {
                state.receive.handle_end(total)?;
                woken.extend(state.reader.take());
                Ok(())
            }),
            Content::Abort { code, text } => {
                debug!(peer = %self.peer, id = key.id, code, text, "byte stream aborted by the peer");
                self.notices.forget(key);
                self.fail(key, StreamError::Aborted { reason: text }, woken);
            }
        }
        None
    }

    const fn key(&self, head: Head) -> Key {
        Key { incarnation: self.incarnation, id: head.id, ours: !head.from_opener }
    }

    fn handle_open(&mut self, key: Key, class: Class, window: u64, woken: &mut Wakers) -> bool {
        if self.streams.contains_key(&key) {
            self.fault(key, Fault::OpenTwice, woken);
            return false;
        }
        if self.is_full() {
            self.refuse(key, class, AbortCode::TooMany, "too many byte streams");
            return false;
        }
        self.insert(key, State::new(class, window));
        true
    }

    fn handle_malformed(&mut self, class: Class, malformed: Malformed, woken: &mut Wakers) {
        let Malformed { error, head, opens } = malformed;
        warn!(peer = %self.peer, %error, "malformed message of byte streams");
        let Some(key) = head.map(|head| self.key(head)) else { return };
        if self.streams.contains_key(&key) {
            self.fault(key, error.into(), woken);
        } else if opens {
            self.refuse(key, class, AbortCode::Fault, &error.to_string());
        }
    }

    /// Ends that are not here were aborted or dropped here before, and what is under way to them is ignored.
    fn with_live(
        &mut self,
        key: Key,
        class: Class,
        woken: &mut Wakers,
        f: impl FnOnce(&mut State, &mut Wakers) -> Result<(), Fault>,
    ) {
        let Some(state) = self.streams.get_mut(&key).filter(|state| state.failure.is_none()) else { return };
        let result = if state.class == class {
            f(state, woken)
        } else {
            Err(Fault::Class { found: class, expected: state.class })
        };
        if let Err(fault) = result {
            self.fault(key, fault, woken);
        }
    }

    fn fault(&mut self, key: Key, fault: Fault, woken: &mut Wakers) {
        warn!(peer = %self.peer, id = key.id, %fault, "byte stream aborted");
        let Some(class) = self.streams.get(&key).map(|state| state.class) else { return };
        self.abort(key, class, AbortCode::Fault, &fault.to_string());
        self.fail(key, StreamError::from(&fault), woken);
    }

    fn refuse(&mut self, key: Key, class: Class, code: AbortCode, text: &str) {
        if self.notices.aborts() >= REFUSALS_MAX {
            warn!(peer = %self.peer, id = key.id, "byte stream refused without an answer");
            return;
        }
        self.abort(key, class, code, text);
    }

    // ---- the session ----

    /// All of its streams fail, and nothing more is said of them. `over`: its epoch; `next`: that of the session after it.
    pub(super) fn session_over(&mut self, cause: Cause, over: u64, next: Option<u64>, woken: &mut Wakers) {
        if let (Some(next), Some(settled)) = (next, self.settled)
            && next <= settled
        {
            return; // A message of that session came first, and has said it.
        }
        self.end_session(cause, woken);
        // Its first message may come only now: it was delivered before, and its handler is slow.
        let above = self.settled.map_or(over, |settled| settled.max(over)).saturating_add(1);
        self.floor = self.floor.max(next.unwrap_or(above));
        self.settled = next;
    }

    fn end_session(&mut self, cause: Cause, woken: &mut Wakers) {
        debug!(peer = %self.peer, streams = self.open, %cause, "the session of the byte streams is over");
        let old: SmallVec<[Key; 8]> =
            self.streams.keys().filter(|key| key.incarnation == self.incarnation).copied().collect();
        debug_assert_eq!(old.len(), self.open);
        for key in old {
            self.fail(key, StreamError::SessionLost(cause), woken);
        }
        self.incarnation += 1;
        self.open = 0;
        self.notices.clear();
    }

    // ---- our own ends ----

    /// To be told to the peer next; see [`Mux::opened`].
    pub(super) fn open(&mut self, class: Class) -> Result<Key, OpenError> {
        if self.is_full() {
            return Err(OpenError::TooMany { most: BYTE_STREAMS_MAX });
        }
        let key = Key { incarnation: self.incarnation, id: self.next_id, ours: true };
        self.next_id += 1;
        self.insert(key, State::new(class, BYTES_WINDOW));
        Ok(key)
    }

    /// What became of the message that tells the peer of it. An error: there is no such stream; its state is
    /// to be dropped outside of the lock.
    pub(super) fn opened(
        &mut self,
        key: Key,
        pushed: Result<(), PushError>,
    ) -> (Result<(), OpenError>, Option<State>) {
        let error = match pushed {
            Ok(()) if key.incarnation == self.incarnation => return (Ok(()), None),
            // The session went in between. The message may have gone into the next one: nobody is behind it.
            Ok(()) => {
                let class = self.streams.get(&key).map(|state| state.class).unwrap_or_default();
                let current = Key { incarnation: self.incarnation, ..key };
                self.abort(current, class, AbortCode::Dropped, "its session is over");
                OpenError::Closed(Cause::SessionLost)
            }
            Err(PushError::Full) => OpenError::Full,
            Err(PushError::Closed(cause)) => OpenError::Closed(cause),
        };
        (Err(error), self.remove(key))
    }

    /// The state of an end that somebody holds.
    pub(super) fn state(&mut self, key: Key) -> Result<&mut State, StreamError> {
        let state = self.streams.get_mut(&key);
        debug_assert!(state.is_some(), "an end is kept as long as its handle");
        state.ok_or(StreamError::SessionLost(Cause::Closed))
    }

    /// The end goes. `abort`: also if all that is missing is room for our own end. The state is to be dropped
    /// outside of the lock.
    pub(super) fn close(&mut self, key: Key, code: AbortCode, reason: &str, abort: bool) -> Option<State> {
        let state = self.remove(key)?;
        let clean = state.finished() || (state.peer_ended() && state.send.ending == Ending::Due && !abort);
        if !clean && state.failure.is_none() {
            self.abort(key, state.class, code, reason);
        }
        Some(state)
    }

    pub(super) fn fail(&mut self, key: Key, error: StreamError, woken: &mut Wakers) {
        if let Some(state) = self.streams.get_mut(&key)
            && state.fail(error)
        {
            woken.extend(state.reader.take());
            woken.extend(state.writer.take());
        }
    }

    /// Failed and finished ends count until they are dropped, and dropped ones until the peer is told: both take
    /// memory.
    fn is_full(&self) -> bool {
        self.open + self.notices.aborts() >= BYTE_STREAMS_MAX
    }

    fn insert(&mut self, key: Key, state: State) {
        self.open += 1;
        let before = self.streams.insert(key, state);
        debug_assert!(before.is_none(), "{key:?} is there already");
    }

    fn remove(&mut self, key: Key) -> Option<State> {
        let state = self.streams.remove(&key)?;
        if key.incarnation == self.incarnation {
            self.open -= 1;
        }
        Some(state)
    }

    // ---- what waits for room ----

    /// Control messages of streams whose session is over are dropped.
    pub(super) fn note(&mut self, key: Key, class: Class, what: What, content: &Content) {
        if key.incarnation == self.incarnation {
            self.notices.put((key, what), Notice { class, body: wire::encode(key.head(), content) });
        }
    }

    fn abort(&mut self, key: Key, class: Class, code: AbortCode, text: &str) {
        self.notices.forget(key);
        let content = Content::Abort { code: code as u16, text: text.to_owned() };
        self.note(key, class, What::Abort, &content);
    }

    pub(super) fn take_notice(&mut self) -> Option<(Label, Notice)> {
        self.notices.take_next()
    }

    /// What became of a notice that was taken. `true`: the port was full, and it waits again.
    pub(super) fn noticed(
        &mut self,
        label: Label,
        notice: Notice,
        pushed: Result<(), PushError>,
        woken: &mut Wakers,
    ) -> bool {
        let (key, what) = label;
        match pushed {
            Ok(()) => {
                if what == What::End
                    && let Some(state) = self.streams.get_mut(&key).filter(|state| state.failure.is_none())
                {
                    state.send.ending = Ending::Sent;
                    woken.extend(state.writer.take());
                }
                false
            }
            Err(PushError::Full) => {
                if key.incarnation == self.incarnation {
                    self.notices.put_back(label, notice);
                }
                true
            }
            Err(PushError::Closed(cause)) => {
                self.fail(key, StreamError::SessionLost(cause), woken);
                false
            }
        }
    }
}
