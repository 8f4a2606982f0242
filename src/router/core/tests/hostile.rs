//! Bytes of strangers: whatever decodes is taken or refused, and nothing panics or stays for ever.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::super::envelope::{
    ActorRef, Callback, Control, Correlation, Distribution, Envelope, Failure, FlowHead, ReplyHead, Returned,
    RouteRecord, TraceContext, decode, encode,
};
use super::net::*;
use crate::ViewId;

/// One of each, as an honest router says it.
fn honest(number: u64, host: u32) -> Vec<Bytes> {
    let envelope = Envelope {
        key: key("a").id(),
        flow: Correlation { member: member(2), number },
        hops: 1,
        depth: 1,
        to: Distribution::Unicast,
        idempotent: false,
        tell: true,
        callback: Some(Callback {
            keys: [key("b").id()].into_iter().collect(),
            member: member(2),
            joined: Some(ViewId { generation: 1, number: 1 }),
            hub: 1,
            promise: 1,
        }),
        affinity: Some(1),
        trace: Some(TraceContext { trace_id: 1, parent_id: 1, flags: 1 }),
        trail: Some(vec![ActorRef { node: member(2), host: 1 }]),
    };
    let head = FlowHead { number, host, left_ms: 1_000, envelope: envelope.into() };
    let reply = ReplyHead {
        hub: 1,
        promise: 1,
        flow: Correlation { member: member(1), number: 1 },
        hops: 1,
        outcome: Err(Failure::Handler("no luck".to_owned())),
        trail: None,
        left_ms: 1_000,
    };
    let record = RouteRecord { key: key("a"), host: 1 };
    let controls = [
        Control::Done(vec![1, 2, 3]),
        Control::Accepted(1),
        Control::Returned { number: 1, why: Returned::Busy },
        Control::Routes { all: true, add: vec![record], remove: vec![(key("b").id(), 1)] },
        Control::Discover(vec![key("a").id()]),
    ];
    let heads = [encode(&head, b"body").unwrap(), encode(&reply, b"").unwrap()];
    heads.into_iter().chain(controls.iter().map(|control| encode(control, &[]).unwrap())).collect()
}

/// Gives the bytes to a node, as each of the three types.
fn give(net: &mut Net, bytes: &Bytes) {
    if let Ok((head, body)) = decode::<FlowHead>(bytes) {
        let blob = Blob(body.len() as u64);
        net.act(1, |core, now| core.handle_flow(now, member(2), head, blob));
    }
    if let Ok((head, body)) = decode::<ReplyHead>(bytes) {
        net.act(1, |core, _| core.handle_reply(head, Some(Blob(body.len() as u64))));
    }
    if let Ok((control, _)) = decode::<Control>(bytes) {
        net.act(1, |core, now| core.handle_control(now, member(2), control));
    }
}

proptest! {
    #[test]
    fn what_a_stranger_says_neither_panics_nor_stays(
        spoilt in prop::collection::vec((0..7_usize, 1..4_u64, 0..4_u32, prop::collection::vec((0..400_usize, any::<u8>()), 0..4), 0..400_usize), 1..30),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut net = Net::of(2);
        let host = net.host(1, &[&key("a")]);
        net.request(1, 1, 1, &[&key("b")], order(&key("c"), 1));
        give(&mut net, &Bytes::from(noise));
        for (which, number, host, changes, cut) in spoilt {
            let mut bytes = honest(number, host)[which].to_vec();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(cut.max(1));
            give(&mut net, &Bytes::from(bytes));
        }
        while let Some(work) = net.work(1, host) {
            net.handled(1, &work, Ok(vec![product(&key("b"), 1)]));
        }
        net.pass(Duration::from_secs(40));
        while let Some(work) = net.work(1, host) {
            net.handled(1, &work, Ok(Vec::new()));
        }
        net.pass(Duration::from_secs(5));
        let (waiting, promises, _) = net.side(1).core.open();
        prop_assert_eq!((waiting, promises), (0, 0));
    }
}
