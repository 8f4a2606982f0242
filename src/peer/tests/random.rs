//! Lists of operations at random, then healing: everything comes once, or its end says otherwise because a side
//! forgot; and both are on one link within bounded time.

use std::time::Duration;

use proptest::prelude::*;

use super::net::{Door, Fate, Told};
use super::pair::{A, B, Pair};
use super::side::{CREDIT, stream};
use crate::limits::{CREDIT_BYTES_MIN, HELLO, LIVENESS, REDIAL_MAX, RESUME_LEASE};
use crate::wire::Class;

#[derive(Clone, Debug)]
enum Op {
    Send {
        side: usize,
        class: Class,
        bytes: usize,
    },
    Advance {
        millis: u64,
    },
    /// The newest connection breaks now, or the next one when it has carried so much.
    Break {
        told: Told,
    },
    Doom {
        fate: Fate,
    },
    Door {
        side: usize,
        door: Door,
    },
    Delays {
        there: u64,
        back: u64,
    },
    Forget {
        side: usize,
    },
    Slow {
        side: usize,
        slow: bool,
    },
    Stingy {
        side: usize,
        stingy: bool,
    },
    Handle {
        side: usize,
    },
    Contact {
        side: usize,
    },
    /// Another process begins at the address, with the same contacts.
    Restart {
        side: usize,
        told: Told,
    },
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![3 => Just(Told::Both), 2 => (0..2usize).prop_map(Told::Only), 1 => Just(Told::Nobody)]
}

fn ops() -> impl Strategy<Value = Op> {
    let side = || 0..2usize;
    let class = prop_oneof![Just(Class::Urgent), Just(Class::Normal), Just(Class::Bulk)];
    let sizes = prop_oneof![8 => 0..300usize, 3 => 300..9000usize, 1 => 60_000..300_000usize];
    let door = prop_oneof![3 => Just(Door::Open), 1 => Just(Door::Shut), 1 => Just(Door::Nowhere)];
    let wait = prop_oneof![6 => 0..8u64, 3 => 0..120u64, 1 => 0..7000u64];
    let cut = || prop_oneof![3 => 0..1500usize, 1 => 0..200_000usize];
    prop_oneof![
        12 => (side(), class, sizes).prop_map(|(side, class, bytes)| Op::Send { side, class, bytes }),
        16 => wait.prop_map(|millis| Op::Advance { millis }),
        4 => told().prop_map(|told| Op::Break { told }),
        4 => (cut(), told()).prop_map(|(bytes, told)| Op::Doom { fate: Fate::Break { bytes, told } }),
        2 => cut().prop_map(|bytes| Op::Doom { fate: Fate::Flip { bytes } }),
        1 => (side(), told()).prop_map(|(side, told)| Op::Restart { side, told }),
        2 => (side(), door).prop_map(|(side, door)| Op::Door { side, door }),
        1 => (0..40u64, 0..40u64).prop_map(|(there, back)| Op::Delays { there, back }),
        1 => side().prop_map(|side| Op::Forget { side }),
        1 => (side(), any::<bool>()).prop_map(|(side, slow)| Op::Slow { side, slow }),
        1 => (side(), any::<bool>()).prop_map(|(side, stingy)| Op::Stingy { side, stingy }),
        2 => side().prop_map(|side| Op::Handle { side }),
        1 => side().prop_map(|side| Op::Contact { side }),
    ]
}

fn apply(pair: &mut Pair, op: Op, contacts: &mut [bool; 2]) {
    match op {
        Op::Send { side, class, bytes } => drop(pair.send_on(side, stream(class), bytes)),
        Op::Advance { millis } => pair.run(Duration::from_millis(millis)),
        Op::Break { told } => pair.break_link(told),
        Op::Doom { fate } => pair.net.fates.push_back(Some(fate)),
        Op::Door { side, door } => pair.net.doors[side] = door,
        Op::Delays { there, back } => pair.net.delays = [there, back].map(Duration::from_millis),
        Op::Forget { side } => pair.forget(side),
        Op::Slow { side, slow } => pair.sides[side].slow = slow,
        Op::Stingy { side, stingy } => pair.sides[side].stingy = stingy,
        Op::Handle { side } => {
            let now = pair.now;
            pair.sides[side].rooms.values_mut().for_each(|room| {
                room.handle(now);
            });
            pair.poll();
        }
        Op::Restart { side, told } => {
            pair.restart(side, told);
            for side in [A, B].into_iter().filter(|side| contacts[*side]) {
                pair.add_contact(side);
            }
            pair.poll();
        }
        Op::Contact { side } => {
            if !std::mem::replace(&mut contacts[side], true) {
                pair.add_contact(side);
                pair.poll();
            }
        }
    }
}

fn heal(pair: &mut Pair) {
    pair.net.doors = [Door::Open; 2];
    pair.net.fates.clear();
    pair.conns.iter_mut().for_each(super::net::Conn::forgive);
    for side in &mut pair.sides {
        (side.slow, side.stingy) = (false, false);
    }
    pair.poll();
}

/// A silent link is found out, a dial that goes nowhere ends, the last back-off and one wait after `Duplicate` end.
const CALM: Duration =
    LIVENESS.saturating_add(HELLO).saturating_add(REDIAL_MAX).saturating_add(HELLO.saturating_mul(2));

fn run(credit_bytes: u64, both: bool, ops: Vec<Op>) {
    let mut pair = Pair::new(credit_bytes);
    let mut contacts = [true, both];
    for side in [A, B] {
        if contacts[side] {
            pair.add_contact(side);
        }
    }
    let forgets = ops.iter().any(|op| matches!(op, Op::Forget { .. }));
    let restarts = ops.iter().any(|op| matches!(op, Op::Restart { .. }));
    ops.into_iter().for_each(|op| apply(&mut pair, op, &mut contacts));
    heal(&mut pair);
    let over = forgets || restarts || pair.sides.iter().any(|side| !side.overs.is_empty());
    // Who only accepted keeps what it has for a process that is no more.
    let limit = if restarts { CALM + RESUME_LEASE } else { CALM };
    pair.finish(limit, !over);
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(300), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn everything_comes_once_and_both_end_on_one_link(
        both in any::<bool>(),
        ops in prop::collection::vec(ops(), 1..80),
    ) {
        run(CREDIT, both, ops);
    }

    #[test]
    fn the_smallest_credit_is_enough(both in any::<bool>(), ops in prop::collection::vec(ops(), 1..80)) {
        run(CREDIT_BYTES_MIN, both, ops);
    }
}
