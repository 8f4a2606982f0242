//! Claims on the state: what one command does, and what holds after any commands.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::follower::Follower;
use super::leases::LEASE_NAME_BYTES_MAX;
use super::*;
use crate::Kind;
use crate::rendezvous::common::Token;
use crate::router::MessageKey;

const CLUSTER: ClusterId = ClusterId(7);

fn id(number: u8) -> MemberId {
    MemberId::from_parts(1, number.into())
}

fn member(number: u8) -> Member {
    Member {
        id: id(number),
        endpoints: vec![format!("10.0.0.{number}:7400").parse().unwrap()],
        name: String::new(),
        labels: BTreeMap::new(),
        joined: None,
    }
}

fn route(number: u8) -> Route {
    let names = ["orders.place", "stock.reserve", "payments.take"];
    let key = MessageKey::of_kind(Kind::new(names[usize::from(number) % 3], 1));
    Route { key, host: u32::from(number / 3) + 1 }
}

fn join(number: u8) -> Op {
    Op::Join { member: member(number), keep: false }
}

fn acquire(number: u8, name: &str) -> Op {
    Op::Lease { member: id(number), op: LeaseOp::Acquire { name: name.into(), wait: true } }
}

fn leave(number: u8) -> Op {
    Op::Leave { member: id(number), why: Why::Left }
}

/// A state whose history has begun, and a counter of places.
struct Log {
    state: State,
    index: u64,
}

impl Log {
    fn founded() -> Self {
        let mut log = Self { state: State::default(), index: 0 };
        assert_eq!(log.one(Op::Found { cluster: CLUSTER }), Outcome::Done);
        log
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Outcome> {
        // Not every place of the log is a command of ours.
        self.index += 2;
        self.state.apply(self.index, &encode(ops))
    }

    fn one(&mut self, op: Op) -> Outcome {
        self.apply(&[op]).remove(0)
    }

    fn number(&self) -> u64 {
        self.state.view_id().number
    }
}

#[test]
fn joins_of_one_command_make_one_view_and_say_the_same_joined_view() {
    let mut log = Log::founded();
    assert_eq!(log.apply(&[join(1), join(2)]), [Outcome::Done, Outcome::Done]);
    assert_eq!(log.number(), 1);
    assert_eq!(log.one(join(3)), Outcome::Done);
    let joined: Vec<_> = log.state.members().map(|member| member.joined.unwrap().number).collect();
    assert_eq!(joined, [1, 1, 2]);
    assert_eq!(log.one(join(3)), Outcome::Already, "asked again because its answer was lost");
    assert_eq!(log.number(), 2);
}

#[test]
fn who_is_gone_cannot_come_again_under_its_id() {
    let mut log = Log::founded();
    log.apply(&[join(1), join(2)]);
    assert_eq!(log.one(leave(1)), Outcome::Done);
    assert_eq!(log.one(leave(1)), Outcome::Already);
    assert_eq!(log.one(join(1)), Outcome::Refused(Refused::Gone));
    // Who says that it has joined, and is no member, was evicted longer ago than is remembered.
    let stale = Member { joined: Some(ViewId { generation: 1, number: 1 }), ..member(9) };
    assert_eq!(log.one(Op::Join { member: stale, keep: false }), Outcome::Refused(Refused::Gone));
}

#[test]
fn nothing_is_decided_before_history_begins_or_while_some_of_it_is_missing() {
    let mut log = Log { state: State::default(), index: 0 };
    assert_eq!(log.one(join(1)), Outcome::Refused(Refused::NotFounded));
    log.one(Op::Found { cluster: CLUSTER });
    assert_eq!(log.one(Op::Found { cluster: ClusterId(8) }), Outcome::Already);
    assert_eq!(log.state.cluster(), Some(CLUSTER));
    let seen = ViewId { generation: 4, number: 11 };
    assert_eq!(log.one(Op::Suspend { seen }), Outcome::Done);
    assert_eq!(log.state.suspended(), Some(seen));
    assert_eq!(log.one(join(1)), Outcome::Refused(Refused::NeedsRecovery(seen)));
    assert_eq!(log.one(Op::Recover { above: 0 }), Outcome::Done);
    assert_eq!(log.state.view_id(), ViewId { generation: 5, number: 1 });
    let before = Member { joined: Some(ViewId { generation: 4, number: 3 }), ..member(1) };
    assert_eq!(log.one(Op::Join { member: before.clone(), keep: true }), Outcome::Done);
    assert_eq!(log.state.member(id(1)), Some(&before), "it stays who it was");
    assert_eq!(log.state.view_id(), ViewId { generation: 5, number: 2 });
}

#[test]
fn a_recovery_keeps_members_and_tells_them_of_a_view_above_all_others() {
    let mut log = Log::founded();
    log.apply(&[join(1), join(2)]);
    let before = log.state.index();
    log.one(Op::Recover { above: 6 });
    assert_eq!(log.state.view_id(), ViewId { generation: 7, number: 1 });
    assert_eq!(log.state.members().len(), 2);
    let (_, change) = log.state.change_after(before).unwrap();
    let change: Change = postcard::from_bytes(&change).unwrap();
    assert_eq!((change.view, change.joined.len(), change.left.len()), (Some(log.state.view_id()), 0, 0));
}

#[test]
fn no_generation_comes_for_which_a_token_has_no_bits() {
    let mut log = Log::founded();
    log.apply(&[join(1), acquire(1, "a")]);
    let first = log.state.leases().next().unwrap().holder.unwrap().1;
    let seen = ViewId { generation: GENERATION_MAX, number: 1 };
    assert!(matches!(log.one(Op::Suspend { seen }), Outcome::Refused(Refused::Unsound(_))));
    let before = log.state.view_id();
    assert!(matches!(log.one(Op::Recover { above: GENERATION_MAX }), Outcome::Refused(Refused::Full(_))));
    assert_eq!(log.state.view_id(), before);
    assert_eq!(log.one(Op::Recover { above: GENERATION_MAX - 1 }), Outcome::Done);
    assert_eq!(log.state.view_id(), ViewId { generation: GENERATION_MAX, number: 1 });
    let release = Op::Lease { member: id(1), op: LeaseOp::Release { name: "a".into() } };
    log.apply(&[release, acquire(1, "a")]);
    assert!(log.state.leases().next().unwrap().holder.unwrap().1 > first);
    assert!(matches!(log.one(Op::Recover { above: 0 }), Outcome::Refused(Refused::Full(_))));
    assert_eq!(log.state.view_id().number, 1, "views never go back");
}

#[test]
fn a_snapshot_that_no_state_ever_made_is_refused_and_changes_nothing() {
    let sound = || {
        let mut log = Log::founded();
        log.apply(&[join(1), join(2), acquire(1, "a"), acquire(2, "a")]);
        log.state
    };
    let breaks: [fn(&mut State); 7] = [
        |state| state.kept.view.number = u64::MAX,
        |state| state.kept.view.generation = GENERATION_MAX + 1,
        |state| state.kept.suspended = Some(ViewId { generation: GENERATION_MAX, number: 0 }),
        |state| state.kept.gone.push_back(id(1)),
        |state| drop(state.kept.members.remove(&id(2))),
        |state| state.kept.cluster = None,
        |state| state.index = u64::MAX,
    ];
    for (which, breaks) in breaks.into_iter().enumerate() {
        let mut broken = sound();
        breaks(&mut broken);
        let mut state = sound();
        let before = state.snapshot();
        assert!(state.restore(&broken.snapshot()).is_err(), "{which}");
        assert_eq!(state.snapshot(), before, "{which}");
        assert_eq!(state.restore(&sound().snapshot()), Ok(()));
    }
}

#[test]
fn a_change_of_routes_counts_once_and_in_its_order() {
    let mut log = Log::founded();
    log.one(join(1));
    let change = |from, to, add: &[u8], remove: &[u8]| Op::Routes {
        member: id(1),
        from,
        to,
        add: add.iter().map(|number| route(*number)).collect(),
        remove: remove.iter().map(|number| route(*number)).collect(),
    };
    assert_eq!(log.one(change(0, 1, &[1, 2], &[])), Outcome::Done);
    assert_eq!(log.one(change(0, 1, &[1, 2], &[])), Outcome::Already, "said again to another leader");
    assert_eq!(log.one(change(2, 3, &[4], &[])), Outcome::Refused(Refused::RoutesBehind(1)));
    assert_eq!(log.one(change(1, 2, &[3], &[1])), Outcome::Done);
    let routes: BTreeSet<Route> = log.state.routes_of(id(1)).cloned().collect();
    assert_eq!(routes, [route(2), route(3)].into());
    assert_eq!(log.one(change(0, 7, &[5], &[])), Outcome::Done, "all anew");
    assert_eq!(log.state.routes_of(id(1)).count(), 1);
    assert_eq!(log.state.changes_of(id(1)), Some(7));
}

#[test]
fn a_lease_goes_to_the_next_who_waits_when_its_holder_is_gone_with_a_higher_token() {
    let mut log = Log::founded();
    log.apply(&[join(1), join(2), join(3)]);
    assert_eq!(log.one(acquire(1, "a")), Outcome::Done);
    let first = log.state.leases().next().unwrap().holder.unwrap();
    log.apply(&[acquire(2, "a"), acquire(3, "a")]);
    log.one(Op::Lease { member: id(2), op: LeaseOp::Release { name: "a".into() } });
    log.one(Op::Leave { member: id(1), why: Why::Silent });
    let second = log.state.leases().next().unwrap().holder.unwrap();
    assert_eq!((first.0, second.0), (id(1), id(3)));
    assert!(second.1 > first.1);
    // Also over a recovery, whose log may begin anew.
    log.one(Op::Recover { above: 0 });
    log.apply(&[leave(3), acquire(2, "a")]);
    assert!(log.state.leases().next().unwrap().holder.unwrap().1 > second.1);
}

#[test]
fn who_gets_a_lease_in_the_same_command_as_another_gets_a_higher_token() {
    let mut log = Log::founded();
    log.apply(&[join(1), join(2), join(3), acquire(1, "a"), acquire(2, "a"), acquire(3, "a")]);
    let first = log.state.leases().next().unwrap().holder.unwrap().1;
    log.apply(&[leave(1), leave(2)]);
    let (holder, token) = log.state.leases().next().unwrap().holder.unwrap();
    assert_eq!((holder, token.get()), (id(3), first.get() + 2));
}

#[test]
fn what_is_too_much_is_refused_and_changes_nothing() {
    let mut log = Log::founded();
    let loud = Member { name: "n".repeat(MEMBER_BYTES_MAX), ..member(1) };
    let nowhere = Member { endpoints: Vec::new(), ..member(2) };
    for bad in [loud, nowhere] {
        let outcome = log.one(Op::Join { member: bad, keep: false });
        assert!(matches!(outcome, Outcome::Refused(Refused::Unsound(_))), "{outcome:?}");
    }
    log.one(join(3));
    let long = "l".repeat(LEASE_NAME_BYTES_MAX + 1);
    assert!(matches!(log.one(acquire(3, &long)), Outcome::Refused(Refused::Unsound(_))));
    assert_eq!((log.number(), log.state.leases().count()), (1, 0));
}

#[test]
fn who_is_further_behind_than_what_is_kept_gets_no_changes() {
    let mut log = Log::founded();
    let begin = log.state.index();
    for round in 0..5_000_u32 {
        log.one(if round % 2 == 0 { join(1 + (round / 2 % 200) as u8) } else { leave(0) });
        let at = log.state.members().next().map(|member| member.id);
        if let Some(member) = at.filter(|_| round % 2 == 1) {
            log.one(Op::Leave { member, why: Why::Left });
        }
        log.state.kept.gone.clear();
    }
    assert_eq!(log.state.change_after(begin), None);
    assert_eq!(log.state.change_after(log.state.index()), None);
    let (index, _) = log.state.change_after(log.state.index - 4).unwrap();
    assert!(index > log.state.index - 4);
}

fn some_op() -> impl Strategy<Value = Op> {
    let name = || prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    prop_oneof![
        5 => (0..8_u8).prop_map(join),
        1 => (0..8_u8, 1..4_u64).prop_map(|(number, generation)| Op::Join {
            member: Member { joined: Some(ViewId { generation, number: 1 }), ..member(number) },
            keep: true,
        }),
        3 => (0..8_u8).prop_map(leave),
        6 => (0..8_u8, 0..4_u64, 1..5_u64, any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(|(number, from, to, add, remove)| {
            let some = |numbers: Vec<u8>| numbers.into_iter().take(4).map(|number| route(number % 12)).collect();
            Op::Routes { member: id(number), from, to, add: some(add), remove: some(remove) }
        }),
        3 => (0..8_u8, name(), any::<bool>()).prop_map(|(number, name, wait)| Op::Lease {
            member: id(number),
            op: LeaseOp::Acquire { name, wait },
        }),
        2 => (0..8_u8, name()).prop_map(|(number, name)| Op::Lease { member: id(number), op: LeaseOp::Release { name } }),
        1 => (0..3_u64).prop_map(|above| Op::Recover { above }),
        1 => (1..4_u64, 0..9_u64).prop_map(|(generation, number)| Op::Suspend { seen: ViewId { generation, number } }),
        1 => Just(Op::Found { cluster: ClusterId(9) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn copies_follow_and_servers_agree_whatever_is_decided(
        commands in prop::collection::vec(prop::collection::vec(some_op(), 1..5), 1..60),
        starts in any::<prop::sample::Index>(),
    ) {
        let mut log = Log::founded();
        let mut restored = State::default();
        restored.restore(&log.state.snapshot()).unwrap();
        let (mut early, mut late) = (Follower::of(&log.state), None);
        let start = starts.index(commands.len());
        let mut tokens: BTreeMap<String, Token> = BTreeMap::new();
        let mut met: BTreeSet<MemberId> = BTreeSet::new();
        let mut gone: BTreeSet<MemberId> = BTreeSet::new();
        for (at, ops) in commands.iter().enumerate() {
            let outcomes = log.apply(ops);
            prop_assert_eq!(outcomes.len(), ops.len());
            prop_assert_eq!(restored.apply(log.index, &encode(ops)), outcomes);
            prop_assert_eq!(restored.snapshot(), log.state.snapshot());
            if at % 7 == 3 {
                // A server that restarts from a snapshot goes on like the others.
                restored = State::default();
                restored.restore(&log.state.snapshot()).unwrap();
            }
            early.follow(&log.state);
            prop_assert_eq!(&early, &Follower::of(&log.state));
            let late = late.get_or_insert_with(|| if at >= start { Follower::of(&log.state) } else { Follower::default() });
            if at >= start && late.at > 0 {
                late.follow(&log.state);
                prop_assert_eq!(&*late, &early);
            }
            let now: BTreeSet<MemberId> = log.state.members().map(|member| member.id).collect();
            gone.extend(met.difference(&now).copied());
            met.extend(now.iter().copied());
            prop_assert!(gone.is_disjoint(&now), "who is gone came back");
            let counted: usize = now.iter().map(|id| log.state.routes_of(*id).count()).sum();
            prop_assert_eq!(counted, log.state.routes);
            for lease in log.state.leases() {
                let (holder, token) = lease.holder.unwrap();
                prop_assert!(now.contains(&holder), "a lease of nobody");
                prop_assert!(tokens.insert(lease.name, token).is_none_or(|before| before <= token));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_command_or_snapshot_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut log = Log::founded();
        log.one(join(1));
        let before = log.state.snapshot();
        let mut bad = vec![9];
        bad.extend(&bytes);
        let outcomes = log.state.apply(99, &bad);
        prop_assert!(matches!(&outcomes[..], [Outcome::Refused(Refused::Unreadable(_))]));
        prop_assert!(log.state.restore(&bad).is_err());
        // A sound version with anything behind it: nothing panics.
        bad[0] = 1;
        drop(log.state.restore(&bad[..bad.len().min(before.len() - 1)]));
        drop(super::command::decode(&bad));
    }
}
