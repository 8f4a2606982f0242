//! What travels with a message from node to node, as the wire has it and as the router keeps it.

use std::cell::Cell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::key::{KeyId, MessageKey};
use crate::{MemberId, ViewId};

mod head;
mod wide;

pub(crate) use head::{Head, HeadError};

/// Of a callback point; seldom more than one.
pub(crate) type Keys = SmallVec<[KeyId; 1]>;

/// Which flow of messages something belongs to: who began it, and which of that node's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Correlation {
    /// The node where the flow began.
    #[serde(with = "wide::member")]
    pub member: MemberId,
    /// Its number there.
    pub number: u64,
}

impl std::fmt::Display for Correlation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.member, self.number)
    }
}

/// A W3C trace context (Trace Context, Level 1): carried along, never looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: u128,
    /// The span that sent this.
    pub parent_id: u64,
    /// Sampled, and the like.
    pub flags: u8,
}

/// One place of an actor: a host, on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorRef {
    /// The node.
    #[serde(with = "wide::member")]
    pub node: MemberId,
    /// The host there.
    pub host: u32,
}

/// Where the answer of a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Callback {
    /// The first message of the flow with one of these ends it.
    pub(crate) keys: Keys,
    /// Who waits, and the view in which it joined.
    pub(crate) member: MemberId,
    pub(crate) joined: Option<ViewId>,
    /// Which of its hubs, and which promise there.
    pub(crate) hub: u32,
    pub(crate) promise: u64,
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// To one provider.
    Unicast,
    /// To all of them.
    Broadcast,
    /// To this node and no other.
    Node(MemberId),
    /// To this actor and no other.
    Actor(ActorRef),
}

/// What travels with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) key: KeyId,
    pub(crate) flow: Correlation,
    /// How often the flow went from node to node; as it travels, without the way that it is on.
    pub(crate) hops: u8,
    /// How many handlers it went through. Messages of different depths never wait for each other's room.
    pub(crate) depth: u16,
    pub(crate) to: Distribution,
    /// May be handled twice rather than not at all.
    pub(crate) idempotent: bool,
    /// Its sender waits to hear that a host has it.
    pub(crate) tell: bool,
    pub(crate) callback: Option<Callback>,
    /// Picks the provider.
    pub(crate) affinity: Option<u64>,
    pub(crate) trace: Option<TraceContext>,
    /// Where it was, if that is wanted.
    pub(crate) trail: Option<Vec<ActorRef>>,
}

/// A message as it goes to another node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FlowHead {
    /// Of this sender to this node: what the node says of it, it says of this number.
    pub(crate) number: u64,
    /// Which host is to have it; 0: all that hold the route.
    pub(crate) host: u32,
    /// Milliseconds it may still live.
    pub(crate) left_ms: u32,
    pub(crate) envelope: Arc<Envelope>,
}

/// Why a promise does not get its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Unroutable(KeyId),
    Departed(#[serde(with = "wide::member")] MemberId),
    Handler(String),
    Limit,
    Expired,
    Full,
}

/// The end of a flow, on its way home.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReplyHead {
    pub(crate) hub: u32,
    pub(crate) promise: u64,
    pub(crate) flow: Correlation,
    pub(crate) hops: u8,
    /// The answer's key, or what went wrong.
    pub(crate) outcome: Result<KeyId, Failure>,
    pub(crate) trail: Option<Vec<ActorRef>>,
    /// Milliseconds it may still live.
    pub(crate) left_ms: u32,
}

/// Why a message came back: it was certainly not handled there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Returned {
    /// No such host there, or not for this key any more.
    NotHere,
    /// No room.
    Busy,
    /// Its time was over before a handler began it.
    Expired,
}

/// A route that a node tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteRecord {
    pub(crate) key: MessageKey,
    pub(crate) host: u32,
}

/// What routers say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// These were handled, and all that came of them found its place.
    Done(Vec<u64>),
    /// A host has it.
    Accepted(u64),
    /// These come back.
    Returned { number: u64, why: Returned },
    /// Routes of the sender; `all`: these and no others. A part of a list that is too long for one message goes first.
    Routes { all: bool, add: Vec<RouteRecord>, remove: Vec<(KeyId, u32)> },
    /// Who holds these? None: all that the node has.
    Discover(Vec<KeyId>),
}

/// Longer texts of handlers are cut.
pub(crate) const TEXT_BYTES_MAX: usize = 1024;
/// Nodes that a trail remembers.
pub(crate) const TRAIL_MAX: usize = 32;
/// Keys that end a flow.
pub(crate) const CALLBACK_KEYS_MAX: usize = 16;

/// A buffer that grew beyond this is not kept.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is encoded, in a buffer that the next one uses again: so a message costs no allocation on its way to the messenger.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// What `write` appends.
    pub(crate) fn write<E>(write: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        // Taken out, so that a `Serialize` that encodes something itself finds another one.
        let mut scratch = SCRATCH.take();
        scratch.clear();
        write(scratch).map(Self)
    }

    /// Head and body in one message.
    pub(crate) fn encode<H: Head>(head: &H, body: &[u8]) -> Result<Self, HeadError> {
        Self::write(|out| {
            let mut out = head.write(out)?;
            out.extend_from_slice(body);
            Ok(out)
        })
    }

    pub(crate) fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.0).into()
    }
}

impl std::ops::Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if (1..=SCRATCH_BYTES_MAX).contains(&self.0.capacity()) {
            SCRATCH.set(std::mem::take(&mut self.0));
        }
    }
}

/// Head and body in one message.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn encode<H: Head>(head: &H, body: &[u8]) -> Result<Bytes, HeadError> {
    Scratch::encode(head, body).map(Scratch::into_bytes)
}

/// What comes behind the head is the body.
pub(crate) fn decode<H: Head>(bytes: &Bytes) -> Result<(H, Bytes), HeadError> {
    let mut rest = &bytes[..];
    let head = H::read(&mut rest)?;
    let body = bytes.slice(bytes.len() - rest.len()..);
    Ok((head, body))
}

/// As much of a text as may travel.
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

impl Envelope {
    /// What comes from another node and breaks a bound is not taken.
    pub(crate) fn is_sound(&self) -> bool {
        self.trail.as_ref().is_none_or(|trail| trail.len() <= TRAIL_MAX)
            && self.callback.as_ref().is_none_or(|callback| callback.keys.len() <= CALLBACK_KEYS_MAX)
    }
}

/// Bytes that a body takes in queues.
pub(crate) trait Body {
    fn bytes(&self) -> usize;
}

impl Body for BytesMut {
    fn bytes(&self) -> usize {
        self.len()
    }
}
