//! Lists of operations at random, then healing: whatever happened, every message ends once and in order.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::pair::{A, B, Pair, ROOMY};
use super::side::CUSTOM;
use crate::limits::{CREDIT_BYTES, CREDIT_BYTES_MIN, KIB};
use crate::wire::Class;
use crate::wire::Protocol;

#[derive(Clone, Debug)]
enum Op {
    Push {
        side: usize,
        stream: StreamId,
        bytes: usize,
        tracked: bool,
        /// Time to live in milliseconds.
        millis: Option<u64>,
        key: Option<u64>,
    },
    /// A timer rings, perhaps for nothing.
    Timeout {
        side: usize,
    },
    Write {
        side: usize,
    },
    Carry {
        from: usize,
        bytes: usize,
    },
    /// What is under way arrives up to these bytes, the rest never.
    Cut {
        bytes: [usize; 2],
    },
    StepLink {
        dialler: usize,
    },
    /// The hello is older than what the old link brought last.
    DialEarly {
        by: usize,
        bytes: usize,
    },
    Link,
    Advance {
        millis: u64,
    },
    Handle {
        side: usize,
        deliveries: usize,
    },
    Grant {
        side: usize,
    },
    Restart {
        side: usize,
    },
    /// From the next link on the next but `after` message of the other side is not understood.
    Refuse {
        side: usize,
        after: u32,
    },
    UnderstandAll {
        side: usize,
    },
}

fn streams() -> impl Strategy<Value = StreamId> {
    let protocols =
        prop_oneof![3 => Just(Protocol::APPLICATION), 1 => Just(Protocol::BYTES), 1 => Just(CUSTOM)];
    let classes = prop_oneof![Just(Class::Urgent), Just(Class::Normal), Just(Class::Bulk)];
    (protocols, classes).prop_map(|(protocol, class)| StreamId::new(protocol, class, true))
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0),
        8 => 1..200usize,
        2 => 3_900..4_200usize,
        2 => 4 * KIB..64 * KIB + 2,
        2 => 64 * KIB + 1..400 * KIB,
    ]
}

fn keys() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.3, 0..3u64)
}

fn ops() -> impl Strategy<Value = Op> {
    let side = || 0..2usize;
    let bytes = || prop_oneof![0..64usize, 0..2_000usize, 0..300_000usize];
    prop_oneof![
        12 => (side(), streams(), sizes(), any::<bool>(), prop::option::weighted(0.3, 0..60u64), keys())
            .prop_map(|(side, stream, bytes, tracked, millis, key)| Op::Push {
                side, stream, bytes, tracked, millis, key
            }),
        2 => side().prop_map(|side| Op::Timeout { side }),
        8 => side().prop_map(|side| Op::Write { side }),
        8 => (side(), bytes()).prop_map(|(from, bytes)| Op::Carry { from, bytes }),
        2 => (bytes(), bytes()).prop_map(|(a, b)| Op::Cut { bytes: [a, b] }),
        3 => side().prop_map(|dialler| Op::StepLink { dialler }),
        2 => (side(), bytes()).prop_map(|(by, bytes)| Op::DialEarly { by, bytes }),
        3 => Just(Op::Link),
        2 => (0..40u64).prop_map(|millis| Op::Advance { millis }),
        4 => (side(), 1..4usize).prop_map(|(side, deliveries)| Op::Handle { side, deliveries }),
        2 => side().prop_map(|side| Op::Grant { side }),
        1 => side().prop_map(|side| Op::Restart { side }),
        1 => (side(), 0..4u32).prop_map(|(side, after)| Op::Refuse { side, after }),
        1 => side().prop_map(|side| Op::UnderstandAll { side }),
    ]
}

fn apply(pair: &mut Pair, op: Op) {
    match op {
        // Full is an answer; whether the room comes back is checked at the end.
        Op::Push { side, stream, bytes, tracked, millis: None, key: None } => {
            let _ = pair.try_push(side, stream, bytes, tracked);
        }
        Op::Push { side, stream, bytes, tracked, millis, key } => {
            let expires = millis.map(|millis| pair.now + Duration::from_millis(millis));
            let _ = pair.try_push_under(side, stream, bytes, tracked, Terms { expires, key });
        }
        Op::Timeout { side } => pair.time_out(side),
        Op::Write { side } => {
            pair.write(side);
        }
        Op::Carry { from, bytes } => {
            pair.carry_some(from, bytes);
        }
        Op::Cut { bytes: [a, b] } => {
            pair.carry_some(A, a);
            pair.carry_some(B, b);
            pair.cut();
        }
        Op::StepLink { dialler } => pair.step_link(dialler),
        Op::DialEarly { by, bytes } => pair.dial_early(by, bytes),
        Op::Link => pair.link(),
        Op::Advance { millis } => pair.advance(Duration::from_millis(millis)),
        Op::Handle { side, deliveries } => (0..deliveries).for_each(|_| pair.handle(side)),
        Op::Grant { side } => pair.grant(side),
        Op::Restart { side } => pair.restart(side, Cause::SessionLost),
        Op::Refuse { side, after } => {
            let tag = pair.next_tag() + after;
            pair.sides[side].refuses.insert(tag);
        }
        Op::UnderstandAll { side } => pair.sides[side].refuses.clear(),
    }
}

fn run(credit_bytes: u64, budget: BudgetLimits, ops: Vec<Op>) {
    let mut pair = Pair::with(credit_bytes, budget);
    for side in &mut pair.sides {
        (side.slow, side.stingy) = (true, true);
    }
    ops.into_iter().for_each(|op| apply(&mut pair, op));
    pair.finish();
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(1000), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_message_ends_once_and_in_order(ops in prop::collection::vec(ops(), 1..120)) {
        run(CREDIT_BYTES, ROOMY, ops);
    }

    #[test]
    fn the_smallest_credit_and_little_room_are_enough(ops in prop::collection::vec(ops(), 1..120)) {
        let little = BudgetLimits { process_bytes: 2_000_000, reserve_bytes: 100_000, queue_bytes: 600_000 };
        run(CREDIT_BYTES_MIN, little, ops);
    }
}
