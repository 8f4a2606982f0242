//! Heads as they lie before a message's body, written and read by hand: there are two for each request, and by a general encoder they
//! cost a tenth of it. All places are fixed but for what a head may lack; bits at its beginning say what that is.

use std::sync::Arc;

use super::super::key::KeyId;
use super::{
    ActorRef, Callback, Control, Correlation, Distribution, Envelope, FlowHead, ReplyHead, TraceContext,
};
use crate::{MemberId, ViewId};

/// What came before a body is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("a head that ends before it is whole")]
    Short,
    #[error("a head with bits that mean nothing here: {0:#x}")]
    Unknown(u16),
    #[error(transparent)]
    Words(#[from] postcard::Error),
}

/// What stands before a body, or alone.
pub(crate) trait Head: Sized {
    /// Appends it.
    fn write(&self, out: Vec<u8>) -> Result<Vec<u8>, HeadError>;
    /// Reads one, and leaves what is behind it.
    fn read(from: &mut &[u8]) -> Result<Self, HeadError>;
}

const IDEMPOTENT: u16 = 1;
const TELL: u16 = 1 << 1;
const CALLBACK: u16 = 1 << 2;
/// Who waits is not who began the flow.
const OTHER: u16 = 1 << 3;
const JOINED: u16 = 1 << 4;
const AFFINITY: u16 = 1 << 5;
const TRACE: u16 = 1 << 6;
const TRAIL: u16 = 1 << 7;
const TO: u16 = 0b11 << 8;
const TO_ALL: u16 = 1 << 8;
const TO_NODE: u16 = 2 << 8;
const TO_ACTOR: u16 = 3 << 8;
const FLOW_BITS: u16 = 0x3ff;

/// The outcome is a failure.
const FAILED: u16 = 1;
const REPLY_BITS: u16 = FAILED | TRAIL;

impl Head for FlowHead {
    fn write(&self, mut out: Vec<u8>) -> Result<Vec<u8>, HeadError> {
        let Self { number, host, left_ms, envelope } = self;
        let Envelope { key, flow, hops, depth, to, idempotent, tell, callback, affinity, trace, trail } =
            &**envelope;
        let bit = |is: bool, bit: u16| if is { bit } else { 0 };
        let other = callback.as_ref().is_some_and(|callback| callback.member != flow.member);
        let joined = callback.as_ref().is_some_and(|callback| callback.joined.is_some());
        let bits = bit(*idempotent, IDEMPOTENT)
            | bit(*tell, TELL)
            | bit(callback.is_some(), CALLBACK)
            | bit(other, OTHER)
            | bit(joined, JOINED)
            | bit(affinity.is_some(), AFFINITY)
            | bit(trace.is_some(), TRACE)
            | bit(trail.is_some(), TRAIL)
            | match to {
                Distribution::Unicast => 0,
                Distribution::Broadcast => TO_ALL,
                Distribution::Node(_) => TO_NODE,
                Distribution::Actor(_) => TO_ACTOR,
            };
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&host.to_le_bytes());
        out.extend_from_slice(&left_ms.to_le_bytes());
        out.extend_from_slice(&key.0.to_be_bytes());
        put_flow(&mut out, *flow);
        out.push(*hops);
        out.extend_from_slice(&depth.to_le_bytes());
        match to {
            Distribution::Unicast | Distribution::Broadcast => {}
            Distribution::Node(node) => out.extend_from_slice(&node.to_bytes()),
            Distribution::Actor(actor) => put_actor(&mut out, *actor),
        }
        if let Some(Callback { keys, member, joined, hub, promise }) = callback {
            out.push(count(keys.len()));
            keys.iter().for_each(|key| out.extend_from_slice(&key.0.to_be_bytes()));
            if other {
                out.extend_from_slice(&member.to_bytes());
            }
            if let Some(ViewId { generation, number }) = joined {
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&hub.to_le_bytes());
            out.extend_from_slice(&promise.to_le_bytes());
        }
        if let Some(affinity) = affinity {
            out.extend_from_slice(&affinity.to_le_bytes());
        }
        if let Some(TraceContext { trace_id, parent_id, flags }) = trace {
            out.extend_from_slice(&trace_id.to_be_bytes());
            out.extend_from_slice(&parent_id.to_be_bytes());
            out.push(*flags);
        }
        put_trail(&mut out, trail.as_deref());
        Ok(out)
    }

    fn read(from: &mut &[u8]) -> Result<Self, HeadError> {
        let bits = u16::from_le_bytes(take(from)?);
        if bits & !FLOW_BITS != 0 || bits & CALLBACK == 0 && bits & (OTHER | JOINED) != 0 {
            return Err(HeadError::Unknown(bits));
        }
        let has = |bit: u16| bits & bit != 0;
        let number = u64::from_le_bytes(take(from)?);
        let host = u32::from_le_bytes(take(from)?);
        let left_ms = u32::from_le_bytes(take(from)?);
        let key = take_key(from)?;
        let flow = take_flow(from)?;
        let [hops] = take(from)?;
        let depth = u16::from_le_bytes(take(from)?);
        let to = match bits & TO {
            TO_ALL => Distribution::Broadcast,
            TO_NODE => Distribution::Node(MemberId::from_bytes(take(from)?)),
            TO_ACTOR => Distribution::Actor(take_actor(from)?),
            _ => Distribution::Unicast,
        };
        let callback = if has(CALLBACK) {
            let [count] = take(from)?;
            let keys = (0..count).map(|_| take_key(from)).collect::<Result<_, _>>()?;
            let member = if has(OTHER) { MemberId::from_bytes(take(from)?) } else { flow.member };
            let joined = if has(JOINED) {
                let generation = u64::from_le_bytes(take(from)?);
                Some(ViewId { generation, number: u64::from_le_bytes(take(from)?) })
            } else {
                None
            };
            let hub = u32::from_le_bytes(take(from)?);
            Some(Callback { keys, member, joined, hub, promise: u64::from_le_bytes(take(from)?) })
        } else {
            None
        };
        let affinity = if has(AFFINITY) { Some(u64::from_le_bytes(take(from)?)) } else { None };
        let trace = if has(TRACE) {
            let (trace_id, parent_id) = (u128::from_be_bytes(take(from)?), u64::from_be_bytes(take(from)?));
            let [flags] = take(from)?;
            Some(TraceContext { trace_id, parent_id, flags })
        } else {
            None
        };
        let trail = take_trail(from, has(TRAIL))?;
        let (idempotent, tell) = (has(IDEMPOTENT), has(TELL));
        let envelope =
            Envelope { key, flow, hops, depth, to, idempotent, tell, callback, affinity, trace, trail };
        Ok(Self { number, host, left_ms, envelope: Arc::new(envelope) })
    }
}

impl Head for ReplyHead {
    fn write(&self, mut out: Vec<u8>) -> Result<Vec<u8>, HeadError> {
        let Self { hub, promise, flow, hops, outcome, trail, left_ms } = self;
        let bits = if outcome.is_err() { FAILED } else { 0 } | if trail.is_some() { TRAIL } else { 0 };
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(&hub.to_le_bytes());
        out.extend_from_slice(&promise.to_le_bytes());
        put_flow(&mut out, *flow);
        out.push(*hops);
        out.extend_from_slice(&left_ms.to_le_bytes());
        put_trail(&mut out, trail.as_deref());
        match outcome {
            Ok(key) => {
                out.extend_from_slice(&key.0.to_be_bytes());
                Ok(out)
            }
            // Seldom, and of many kinds.
            Err(failure) => Ok(postcard::to_extend(failure, out)?),
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, HeadError> {
        let bits = u16::from_le_bytes(take(from)?);
        if bits & !REPLY_BITS != 0 {
            return Err(HeadError::Unknown(bits));
        }
        let hub = u32::from_le_bytes(take(from)?);
        let promise = u64::from_le_bytes(take(from)?);
        let flow = take_flow(from)?;
        let [hops] = take(from)?;
        let left_ms = u32::from_le_bytes(take(from)?);
        let trail = take_trail(from, bits & TRAIL != 0)?;
        let outcome = if bits & FAILED == 0 { Ok(take_key(from)?) } else { Err(read_words(from)?) };
        Ok(Self { hub, promise, flow, hops, outcome, trail, left_ms })
    }
}

impl Head for Control {
    fn write(&self, out: Vec<u8>) -> Result<Vec<u8>, HeadError> {
        Ok(postcard::to_extend(self, out)?)
    }

    fn read(from: &mut &[u8]) -> Result<Self, HeadError> {
        read_words(from)
    }
}

fn read_words<W: serde::de::DeserializeOwned>(from: &mut &[u8]) -> Result<W, HeadError> {
    let (words, rest) = postcard::take_from_bytes(from)?;
    *from = rest;
    Ok(words)
}

/// As a count of things that are few: what is more is not said.
fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn put_flow(out: &mut Vec<u8>, Correlation { member, number }: Correlation) {
    out.extend_from_slice(&member.to_bytes());
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_actor(out: &mut Vec<u8>, ActorRef { node, host }: ActorRef) {
    out.extend_from_slice(&node.to_bytes());
    out.extend_from_slice(&host.to_le_bytes());
}

fn put_trail(out: &mut Vec<u8>, trail: Option<&[ActorRef]>) {
    if let Some(trail) = trail {
        let count = count(trail.len());
        out.push(count);
        trail.iter().take(count.into()).for_each(|actor| put_actor(out, *actor));
    }
}

#[inline]
fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], HeadError> {
    let (taken, rest) = from.split_first_chunk::<N>().ok_or(HeadError::Short)?;
    *from = rest;
    Ok(*taken)
}

fn take_key(from: &mut &[u8]) -> Result<KeyId, HeadError> {
    take(from).map(|bytes| KeyId(u128::from_be_bytes(bytes)))
}

fn take_flow(from: &mut &[u8]) -> Result<Correlation, HeadError> {
    Ok(Correlation { member: MemberId::from_bytes(take(from)?), number: u64::from_le_bytes(take(from)?) })
}

fn take_actor(from: &mut &[u8]) -> Result<ActorRef, HeadError> {
    Ok(ActorRef { node: MemberId::from_bytes(take(from)?), host: u32::from_le_bytes(take(from)?) })
}

fn take_trail(from: &mut &[u8], is_there: bool) -> Result<Option<Vec<ActorRef>>, HeadError> {
    if !is_there {
        return Ok(None);
    }
    let [count] = take(from)?;
    (0..count).map(|_| take_actor(from)).collect::<Result<Vec<_>, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Failure;
    use super::*;

    fn member() -> impl Strategy<Value = MemberId> {
        any::<[u8; 16]>().prop_map(MemberId::from_bytes)
    }

    fn key() -> impl Strategy<Value = KeyId> {
        any::<u128>().prop_map(KeyId)
    }

    fn correlation() -> impl Strategy<Value = Correlation> {
        (member(), any::<u64>()).prop_map(|(member, number)| Correlation { member, number })
    }

    fn actor() -> impl Strategy<Value = ActorRef> {
        (member(), any::<u32>()).prop_map(|(node, host)| ActorRef { node, host })
    }

    fn trail() -> impl Strategy<Value = Option<Vec<ActorRef>>> {
        prop::option::of(prop::collection::vec(actor(), 0..4))
    }

    fn to() -> impl Strategy<Value = Distribution> {
        prop_oneof![
            Just(Distribution::Unicast),
            Just(Distribution::Broadcast),
            member().prop_map(Distribution::Node),
            actor().prop_map(Distribution::Actor),
        ]
    }

    /// Of a flow that this member began, or another.
    fn callback(began: MemberId) -> impl Strategy<Value = Option<Callback>> {
        let joined = prop::option::of((any::<u64>(), any::<u64>()));
        let who = prop_oneof![Just(began), member()];
        let all = (prop::collection::vec(key(), 0..4), who, joined, any::<u32>(), any::<u64>());
        prop::option::of(all.prop_map(|(keys, member, joined, hub, promise)| Callback {
            keys: keys.into_iter().collect(),
            member,
            joined: joined.map(|(generation, number)| ViewId { generation, number }),
            hub,
            promise,
        }))
    }

    fn trace() -> impl Strategy<Value = Option<TraceContext>> {
        prop::option::of(
            (any::<u128>(), any::<u64>(), any::<u8>())
                .prop_map(|(trace_id, parent_id, flags)| TraceContext { trace_id, parent_id, flags }),
        )
    }

    fn flow_head() -> impl Strategy<Value = FlowHead> {
        let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>());
        let rest = (to(), any::<bool>(), any::<bool>(), prop::option::of(any::<u64>()), trace(), trail());
        let flow = correlation().prop_flat_map(|flow| (Just(flow), callback(flow.member)));
        (key(), flow, numbers, rest).prop_map(|(key, (flow, callback), numbers, rest)| {
            let (number, host, left_ms, hops, depth) = numbers;
            let (to, idempotent, tell, affinity, trace, trail) = rest;
            let envelope =
                Envelope { key, flow, hops, depth, to, idempotent, tell, callback, affinity, trace, trail };
            FlowHead { number, host, left_ms, envelope: envelope.into() }
        })
    }

    fn reply_head() -> impl Strategy<Value = ReplyHead> {
        let failure = prop_oneof![
            key().prop_map(Failure::Unroutable),
            member().prop_map(Failure::Departed),
            ".{0,40}".prop_map(Failure::Handler),
            Just(Failure::Full),
        ];
        let outcome = prop_oneof![key().prop_map(Ok), failure.prop_map(Err)];
        let numbers = (any::<u32>(), any::<u64>(), any::<u8>(), any::<u32>());
        (numbers, correlation(), outcome, trail()).prop_map(|(numbers, flow, outcome, trail)| {
            let (hub, promise, hops, left_ms) = numbers;
            ReplyHead { hub, promise, flow, hops, outcome, trail, left_ms }
        })
    }

    /// It comes back as it went, what is behind it stays, and no part of it is taken for all of it.
    fn comes_back<H: Head + PartialEq + std::fmt::Debug>(head: H) {
        let mut bytes = head.write(Vec::new()).unwrap();
        let length = bytes.len();
        bytes.extend_from_slice(b"body");
        let mut from = &bytes[..];
        assert_eq!(H::read(&mut from).unwrap(), head);
        assert_eq!(from, b"body");
        for cut in 0..length {
            assert!(H::read(&mut &bytes[..cut]).is_err(), "cut at {cut} of {length}");
        }
    }

    proptest! {
        #[test]
        fn a_head_of_a_flow_comes_back_as_it_went(head in flow_head()) {
            comes_back(head);
        }

        #[test]
        fn a_head_of_a_reply_comes_back_as_it_went(head in reply_head()) {
            comes_back(head);
        }

        #[test]
        fn what_is_read_of_any_bytes_is_written_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..300), bits in 0..0x400_u16) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_chunk_mut::<2>() {
                *first = bits.to_le_bytes();
            }
            let mut from = &bytes[..];
            if let Ok(head) = FlowHead::read(&mut from) {
                let written = head.write(Vec::new()).unwrap();
                let read = &bytes[..bytes.len() - from.len()];
                // A caller that is said though it is who began the flow is left out.
                prop_assert!(written == read || bits & OTHER != 0 && written.len() + 16 == read.len());
            }
        }
    }

    #[test]
    fn bits_that_mean_nothing_are_refused() {
        let head = FlowHead {
            number: 1,
            host: 1,
            left_ms: 1,
            envelope: Arc::new(Envelope {
                key: KeyId(1),
                flow: Correlation { member: MemberId::from_bytes([1; 16]), number: 1 },
                hops: 0,
                depth: 0,
                to: Distribution::Unicast,
                idempotent: false,
                tell: false,
                callback: None,
                affinity: None,
                trace: None,
                trail: None,
            }),
        };
        let bytes = head.write(Vec::new()).unwrap();
        assert!(FlowHead::read(&mut &bytes[..]).is_ok());
        for bit in [OTHER, JOINED, 1 << 10, 1 << 15] {
            let mut bent = bytes.clone();
            bent[..2].copy_from_slice(&bit.to_le_bytes());
            assert_eq!(FlowHead::read(&mut &bent[..]), Err(HeadError::Unknown(bit)));
        }
        let mut bent = [0_u8; 80];
        bent[..2].copy_from_slice(&4_u16.to_le_bytes());
        assert_eq!(ReplyHead::read(&mut &bent[..]), Err(HeadError::Unknown(4)));
    }
}
