//! Views, breaks and restarts at random: nothing for members comes from one who is not in the view, nothing goes to one
//! that was removed, and in the end all who are in the last view talk.

use std::time::Duration;

use proptest::prelude::*;

use super::net::{Door, Fate, Told};
use super::pair::{A, B, Pair};
use super::side::CREDIT;
use crate::limits::{HELLO, LIVENESS, QUARANTINE, REDIAL_MAX, RESUME_LEASE};
use crate::member::{Member, MemberId, View, ViewId};
use crate::peer::ViewError;
use crate::wire::{Class, Protocol, StreamId};

#[derive(Clone, Debug)]
enum Op {
    Send {
        side: usize,
        open: bool,
        bytes: usize,
    },
    Advance {
        millis: u64,
    },
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
    Slow {
        side: usize,
        slow: bool,
    },
    Contact {
        side: usize,
    },
    Restart {
        side: usize,
        told: Told,
    },
    Leave {
        side: usize,
    },
    /// The membership system decides a view of whoever is there: A, B or both.
    Decide {
        a: bool,
        b: bool,
    },
    /// A side installs the next view that it has not installed yet.
    Install {
        side: usize,
    },
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![3 => Just(Told::Both), 2 => (0..2usize).prop_map(Told::Only), 1 => Just(Told::Nobody)]
}

fn ops() -> impl Strategy<Value = Op> {
    let side = || 0..2usize;
    let sizes = prop_oneof![8 => 0..300usize, 3 => 300..9000usize, 1 => 60_000..200_000usize];
    let door = prop_oneof![3 => Just(Door::Open), 1 => Just(Door::Shut), 1 => Just(Door::Nowhere)];
    let wait = prop_oneof![6 => 0..8u64, 3 => 0..120u64, 1 => 0..7000u64, 1 => 20_000..40_000u64];
    let cut = || prop_oneof![3 => 0..1500usize, 1 => 0..100_000usize];
    let decide = prop_oneof![4 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, true))];
    prop_oneof![
        12 => (side(), prop::bool::weighted(0.2), sizes)
            .prop_map(|(side, open, bytes)| Op::Send { side, open, bytes }),
        14 => wait.prop_map(|millis| Op::Advance { millis }),
        3 => told().prop_map(|told| Op::Break { told }),
        3 => (cut(), told()).prop_map(|(bytes, told)| Op::Doom { fate: Fate::Break { bytes, told } }),
        2 => (side(), door).prop_map(|(side, door)| Op::Door { side, door }),
        1 => (side(), any::<bool>()).prop_map(|(side, slow)| Op::Slow { side, slow }),
        2 => side().prop_map(|side| Op::Contact { side }),
        1 => (side(), told()).prop_map(|(side, told)| Op::Restart { side, told }),
        1 => side().prop_map(|side| Op::Leave { side }),
        3 => decide.prop_map(|(a, b)| Op::Decide { a, b }),
        6 => side().prop_map(|side| Op::Install { side }),
    ]
}

/// The membership system: all views ever decided, and how far each side has come.
#[derive(Default)]
struct System {
    views: Vec<View>,
    installed: [usize; 2],
    /// Who was in a view and is not in the newest.
    gone: Vec<MemberId>,
    /// Who said goodbye.
    left: Vec<MemberId>,
    seen: [usize; 2],
}

const fn number(at: usize) -> ViewId {
    ViewId { generation: 1, number: at as u64 }
}

impl System {
    fn decide(&mut self, pair: &Pair, a: bool, b: bool) {
        let at = self.views.len() + 1;
        let last = self.views.last();
        let joined = |id| last.and_then(|last| last.member(id)).and_then(|member| member.joined);
        let wanted =
            [(A, a), (B, b)].into_iter().filter(|(_, wanted)| *wanted).map(|(side, _)| pair.id(side));
        let ids = wanted.filter(|id| !self.gone.contains(id) && !self.left.contains(id));
        let member = |id| Member {
            id,
            endpoints: vec!["10.0.0.1:7400".parse().unwrap()],
            name: String::new(),
            labels: Default::default(),
            joined: joined(id).or(Some(number(at))),
        };
        let view = View::new(number(at), ids.map(member));
        let before = last.into_iter().flat_map(|last| last.members()).map(|member| member.id);
        self.gone.extend(before.filter(|id| !view.contains(*id)));
        self.views.push(view);
    }

    fn install(&mut self, pair: &mut Pair, side: usize) {
        let Some(view) = self.views.get(self.installed[side]).cloned() else { return };
        self.installed[side] += 1;
        let (now, other) = (pair.now, pair.id(1 - side));
        match pair.sides[side].install(now, view) {
            Ok(change) => {
                if pair.sides[side].roster.is_member(other) {
                    pair.sides[side].room(other);
                }
                pair.poll();
                for left in change.left {
                    let room = pair.sides[side].rooms.get(&left);
                    assert!(room.is_none(), "nothing is left of it in the same step");
                }
            }
            Err(ViewError::Expelled { .. }) if pair.sides[side].with.me.member.joined.is_some() => {
                self.restart(pair, side, Told::Both);
            }
            Err(ViewError::Expelled { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        self.check(pair);
    }

    /// It joins anew, and hears of the views that come.
    fn restart(&mut self, pair: &mut Pair, side: usize, told: Told) {
        pair.restart(side, told);
        self.installed[side] = self.views.len();
        self.seen[side] = 0;
    }

    /// What is for members came from members only.
    fn check(&mut self, pair: &Pair) {
        for side in [A, B] {
            let of = &pair.sides[side];
            for came in &of.came[self.seen[side]..] {
                let member = of.roster.view().is_some_and(|view| view.contains(came.from));
                assert!(came.stream.is_open() || member, "{came:?} came from one who is in no view");
            }
            self.seen[side] = of.came.len();
        }
    }
}

fn stream(open: bool) -> StreamId {
    StreamId::new(Protocol::APPLICATION, Class::Normal, open)
}

fn apply(pair: &mut Pair, system: &mut System, op: Op) {
    match op {
        Op::Send { side, open, bytes } => drop(pair.send_on(side, stream(open), bytes)),
        Op::Advance { millis } => pair.run(Duration::from_millis(millis)),
        Op::Break { told } => pair.break_link(told),
        Op::Doom { fate } => pair.net.fates.push_back(Some(fate)),
        Op::Door { side, door } => pair.net.doors[side] = door,
        Op::Slow { side, slow } => pair.sides[side].slow = slow,
        Op::Contact { side } => {
            let other = pair.id(1 - side);
            let held = pair.sides[side].rooms.get(&other).is_some_and(|room| room.peer.has_contact());
            if !held {
                pair.add_contact(side);
                pair.poll();
            }
        }
        Op::Restart { side, told } => system.restart(pair, side, told),
        Op::Leave { side } => {
            system.left.push(pair.id(side));
            pair.sides[side].rooms.values_mut().for_each(|room| room.peer.leave());
            pair.run(Duration::from_millis(50));
            system.restart(pair, side, Told::Both);
        }
        Op::Decide { a, b } => system.decide(pair, a, b),
        Op::Install { side } => system.install(pair, side),
    }
}

/// Whatever waits at a limit of time has seen it.
const CALM: Duration = LIVENESS
    .saturating_add(HELLO.saturating_mul(4))
    .saturating_add(REDIAL_MAX)
    .saturating_add(RESUME_LEASE)
    .saturating_add(QUARANTINE);

fn run(ops: Vec<Op>) {
    let mut pair = Pair::new(CREDIT);
    let mut system = System::default();
    for op in ops {
        apply(&mut pair, &mut system, op);
        system.check(&pair);
    }
    pair.net.doors = [Door::Open; 2];
    pair.net.fates.clear();
    pair.conns.iter_mut().for_each(super::net::Conn::forgive);
    for side in [A, B] {
        pair.sides[side].slow = false;
        // Who was removed comes back as another.
        if system.gone.contains(&pair.id(side)) {
            system.restart(&mut pair, side, Told::Both);
        }
    }
    system.decide(&pair, true, true);
    for side in [A, B] {
        while system.installed[side] < system.views.len() {
            system.install(&mut pair, side);
        }
    }
    let last = [A, B].map(|side| pair.send_on(side, stream(false), 100).expect("both are members"));
    pair.run_until(CALM, "both hear each other", |pair| {
        last.iter().all(|tag| pair.end_of(*tag) == Some(Ok(())))
    });
    pair.run(CALM);
    assert!(pair.is_drained() && pair.same_link().is_some());
    system.check(&pair);
    pair.check_ends(false);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn members_only_hear_members_and_all_of_the_last_view_talk(ops in prop::collection::vec(ops(), 1..80)) {
        run(ops);
    }
}
