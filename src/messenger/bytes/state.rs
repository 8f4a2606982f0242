//! One end of one byte stream: offsets, windows, what is not read yet. Pure; it knows neither lock nor port.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::error::StreamError;
use super::wire::MessageError;
use crate::limits::{BYTES_RECORD_MAX, BYTES_WINDOW, OWN_FRAME_BYTES};
use crate::wire::Class;

/// A window update is sent when the reader freed this share of the window: few messages, and the writer never sees
/// the end of its window as long as both keep pace.
const WINDOW_SHARE: u64 = 4;

/// What a peer did wrong with one stream. That stream is aborted; the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("data up to byte {upto}, the window ends at {granted}")]
    BeyondWindow { upto: u64, granted: u64 },
    #[error("data or an end after the end")]
    AfterEnd,
    #[error("an end after {total} bytes, {received} were received")]
    EndTotal { total: u64, received: u64 },
    #[error("opened with an id that is in use")]
    OpenTwice,
    #[error("a message in class {found:?} of a byte stream in class {expected:?}")]
    Class { found: Class, expected: Class },
    #[error(transparent)]
    Malformed(#[from] MessageError),
}

/// Our own end of the sending direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// May be written to.
    Open,
    /// Shut down; the message that says so waits for room.
    Due,
    /// Shut down, and on its way.
    Sent,
}

#[derive(Debug)]
pub(super) struct SendSide {
    pub(super) sent: u64,
    /// Absolute: the peer takes bytes up to here.
    limit: u64,
    pub(super) ending: Ending,
}

impl SendSide {
    /// How much one data message may take now; 0 is "wait for the window".
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.sent).min(BYTES_RECORD_MAX as u64) as usize
    }

    /// Windows may overtake each other on their way into the port, so a lower one says nothing.
    pub(super) fn handle_window(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

#[derive(Debug)]
pub(super) struct ReceiveSide {
    /// Not read yet; then `tail`.
    ready: VecDeque<Bytes>,
    /// Small pieces are copied together: each of them alone would cost a slot, and hold the whole batch it came in.
    tail: BytesMut,
    received: u64,
    read: u64,
    /// Absolute: what the peer was told that it may send, or is about to be.
    granted: u64,
    /// The peer's end was seen, and all before it was received.
    ended: bool,
}

impl ReceiveSide {
    pub(super) fn handle_data(&mut self, bytes: Bytes) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        let upto = self.received.saturating_add(bytes.len() as u64);
        if upto > self.granted {
            return Err(Fault::BeyondWindow { upto, granted: self.granted });
        }
        self.received = upto;
        if bytes.len() < OWN_FRAME_BYTES {
            self.tail.extend_from_slice(&bytes);
            if self.tail.len() >= BYTES_RECORD_MAX {
                self.seal_tail();
            }
        } else {
            self.seal_tail();
            self.ready.push_back(bytes);
        }
        Ok(())
    }

    pub(super) fn handle_end(&mut self, total: u64) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        if total != self.received {
            return Err(Fault::EndTotal { total, received: self.received });
        }
        self.ended = true;
        Ok(())
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(self.tail.split().freeze());
        }
    }

    fn take(&mut self, bytes_max: usize) -> Option<Bytes> {
        let taken = match self.ready.front_mut() {
            Some(front) if front.len() > bytes_max => front.split_to(bytes_max),
            Some(_) => self.ready.pop_front()?,
            None if self.tail.is_empty() => return None,
            None => self.tail.split_to(bytes_max.min(self.tail.len())).freeze(),
        };
        self.read += taken.len() as u64;
        debug_assert!(self.read <= self.received && self.received <= self.granted);
        Some(taken)
    }

    /// The new limit to announce, if enough was read since the last one. Counts as granted from now on, before it is
    /// sent: the answer may be faster than we are.
    fn grant(&mut self) -> Option<u64> {
        let limit = self.read + BYTES_WINDOW;
        if self.ended || limit - self.granted < BYTES_WINDOW / WINDOW_SHARE {
            return None;
        }
        self.granted = limit;
        Some(limit)
    }
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Read {
    /// Some bytes, at least one; and a window to announce.
    Bytes(Bytes, Option<u64>),
    /// Everything was read.
    End,
    Wait,
    Failed(StreamError),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct State {
    pub(super) class: Class,
    pub(super) send: SendSide,
    pub(super) receive: ReceiveSide,
    pub(super) failure: Option<StreamError>,
    /// Of the reading task; of the task that writes or shuts down.
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl State {
    /// `limit`: what the peer takes from the start.
    pub(super) fn new(class: Class, limit: u64) -> Self {
        Self {
            class,
            send: SendSide { sent: 0, limit, ending: Ending::Open },
            receive: ReceiveSide {
                ready: VecDeque::new(),
                tail: BytesMut::new(),
                received: 0,
                read: 0,
                granted: BYTES_WINDOW,
                ended: false,
            },
            failure: None,
            reader: None,
            writer: None,
        }
    }

    /// Bytes that are there are given out also after a failure if the end was seen: then they are whole.
    pub(super) fn read(&mut self, bytes_max: usize) -> Read {
        if let Some(bytes) = self.receive.take(bytes_max) {
            let grant = if self.failure.is_none() { self.receive.grant() } else { None };
            return Read::Bytes(bytes, grant);
        }
        match &self.failure {
            _ if self.receive.ended => Read::End,
            Some(error) => Read::Failed(error.clone()),
            None => Read::Wait,
        }
    }

    /// Both directions have ended, and nothing can go wrong any more.
    pub(super) fn finished(&self) -> bool {
        self.receive.ended && self.send.ending == Ending::Sent
    }

    pub(super) const fn peer_ended(&self) -> bool {
        self.receive.ended
    }

    /// The first failure stays. `false`: it has failed before, or is finished.
    pub(super) fn fail(&mut self, error: StreamError) -> bool {
        if self.failure.is_some() || self.finished() {
            return false;
        }
        self.failure = Some(error);
        if !self.receive.ended {
            self.receive.ready = VecDeque::new();
            self.receive.tail = BytesMut::new();
        }
        true
    }
}
