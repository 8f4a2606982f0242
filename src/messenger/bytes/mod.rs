//! Byte streams: protocol 1, many independent duplex streams of bytes inside one session (docs/PROTOCOL.md,
//! Protocols).
//!
//! The session below is reliable, exactly-once and ordered for each class, and all messages of one byte stream
//! travel in one class. So nothing here repeats or reorders; what this room adds is a window for each stream, its
//! end and its abort. Link losses do not show. The loss of the session aborts every stream of it: what was in flight
//! is gone, and a tail is never sent without its head.
//!
//! Rooms: [`wire`] the messages, [`state`] one stream, [`notices`] control messages that wait for room, [`mux`] all
//! streams of a session (no locks, no port), [`streams`] the lock and the port around it, [`stream`] what the
//! application holds.

#[cfg(any(test, feature = "testing"))]
pub(super) mod door;
mod error;
mod mux;
mod notices;
#[cfg(any(test, feature = "testing"))]
mod pattern;
mod state;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod wire;

pub use error::{OpenError, StreamError};
pub use stream::ByteStream;
pub(crate) use streams::Streams;

use std::task::Waker;

use bytes::Bytes;

use crate::session::Cause;
use crate::wire::Class;

/// Where messages of the byte-stream protocol go: the queue of one destination.
///
/// [`Streams`] never calls it with its own lock held, so a port may call back into the same `Streams`
/// ([`Streams::handle_message`], [`Streams::retry`]) from inside `push`. A port that holds a lock of its own while
/// it calls back must not need that lock for `push`: the callback pushes.
pub(crate) trait Port: Send + Sync + std::fmt::Debug {
    /// Queues one message of the byte-stream protocol, behind all earlier ones of its class.
    ///
    /// `Full`: nothing was queued. The waker, if one is given, is registered before `Full` is returned and woken
    /// when there may be room. Without a waker nobody is: when there may be room, the owner calls
    /// [`Streams::retry`] if [`Streams::needs_retry`], best before it wakes the wakers, so that windows and ends
    /// are not starved by data.
    fn push(&self, class: Class, body: Bytes, waker: Option<&Waker>) -> Result<(), PushError>;
}

/// Why a [`Port`] took no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// No room now.
    Full,
    /// Never again in this session: the streams that find out fail with [`StreamError::SessionLost`].
    Closed(Cause),
}
