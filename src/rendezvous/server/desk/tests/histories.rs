//! Random histories: whatever comes, in whatever order, nothing is said outside a lease or another term (the hall looks at each word),
//! nobody's changes have a gap, what is registered is told once, and in the end everybody knows the same.

use std::time::Duration;

use proptest::prelude::*;

use super::hall::{Hall, PING, SETTLE, id, member, routes};
use crate::rendezvous::server::desk::Order;
use crate::rendezvous::server::desk::config::{NODE_ASKED_MAX, VERSIONS_MAX};
use crate::rendezvous::state::{LeaseOp, State};
use crate::rendezvous::words::{Report, ToServer};

const NODES: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Hello(u64),
    /// More routes; said again from the first if it is not known what was taken.
    Routes(u64, u32),
    Lease(u64, bool),
    Leave(u64),
    Report(u64, u64, bool),
    Probed(u64, u64, bool),
    Alive(u64, bool),
    Full(u64),
    RoomForOne(u64),
    Room(u64),
    SessionOver(u64),
    Evict(u64),
    Lease0(bool),
    Decides(bool),
    Decide,
    Unknown,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..=NODES;
    prop_oneof![
        6 => node().prop_map(Step::Hello),
        6 => (node(), 0..50_u32).prop_map(|(n, host)| Step::Routes(n, host)),
        2 => (node(), any::<bool>()).prop_map(|(n, take)| Step::Lease(n, take)),
        1 => node().prop_map(Step::Leave),
        1 => (node(), node(), any::<bool>()).prop_map(|(n, of, lost)| Step::Report(n, of, lost)),
        2 => (node(), node(), any::<bool>()).prop_map(|(n, of, yes)| Step::Probed(n, of, yes)),
        2 => (node(), any::<bool>()).prop_map(|(n, alive)| Step::Alive(n, alive)),
        2 => node().prop_map(Step::Full),
        3 => node().prop_map(Step::RoomForOne),
        2 => node().prop_map(Step::Room),
        1 => node().prop_map(Step::SessionOver),
        1 => node().prop_map(Step::Evict),
        2 => any::<bool>().prop_map(Step::Lease0),
        2 => any::<bool>().prop_map(Step::Decides),
        3 => Just(Step::Decide),
        1 => Just(Step::Unknown),
        3 => (1..4_000_u64).prop_map(Step::Advance),
    ]
}

/// How many changes each node has said.
type Said = std::collections::BTreeMap<u64, u64>;

fn run(hall: &mut Hall, said: &mut Said, step: Step) {
    match step {
        Step::Hello(n) => hall.hello(n),
        Step::Routes(n, host) => {
            let before = hall.copies.get(&id(n)).map_or(0, |copy| copy.registered);
            let to = said.get(&n).copied().unwrap_or(0).max(before) + 1;
            said.insert(n, to);
            let _maybe_full = hall.handed(n, routes(before, to, [host]));
        }
        Step::Lease(n, take) => {
            let name = "only".to_owned();
            let op = if take { LeaseOp::Acquire { name, wait: true } } else { LeaseOp::Release { name } };
            let _maybe_full = hall.handed(n, ToServer::Lease { number: 1, op });
        }
        Step::Leave(n) => drop(hall.handed(n, ToServer::Leave)),
        Step::Report(n, of, lost) => {
            let what = if lost { Report::Lost } else { Report::Heard };
            drop(hall.handed(n, ToServer::Report { of: id(of), what }));
        }
        Step::Probed(n, of, answered) => {
            drop(hall.handed(n, ToServer::Probed { member: id(of), answered }));
        }
        Step::Alive(n, true) => drop(hall.alive.insert(id(n))),
        Step::Alive(n, false) => drop(hall.alive.remove(&id(n))),
        Step::Full(n) => drop(hall.full.entry(id(n)).or_default()),
        Step::RoomForOne(n) => hall.room_for_one(id(n)),
        Step::Room(n) => hall.room(id(n)),
        Step::SessionOver(n) => {
            // What was on its way to it is lost with the session.
            hall.full.remove(&id(n));
            hall.desk.handle_gone(id(n));
            hall.copies.entry(id(n)).or_default().fed = false;
        }
        Step::Evict(n) => hall.order(1, Order::Evict(id(n))),
        Step::Lease0(leased) => hall.leased = leased,
        Step::Decides(decides) => hall.decides = decides,
        Step::Decide => {
            hall.decide();
            hall.pump();
        }
        Step::Unknown => {
            if let Some(command) = hall.proposed.pop_front() {
                // Decided all the same: nobody here knows.
                hall.apply(&command);
                hall.desk.handle_decided(hall.now, &hall.state, None);
                hall.pump();
            }
        }
        Step::Advance(millis) => hall.advance(Duration::from_millis(millis)),
    }
}

fn bounded(hall: &Hall) {
    assert!(hall.desk.versions.len() <= VERSIONS_MAX);
    assert!(hall.desk.nodes.len() <= usize::try_from(NODES).unwrap() + 1);
    assert!(hall.desk.nodes.values().all(|node| node.asked + node.words.len() <= NODE_ASKED_MAX + 4));
    assert!(hall.desk.line.len() <= hall.desk.nodes.len());
    assert!(hall.proposed.len() <= 1, "one command at a time");
}

/// All faults end; those who are gone come as new ones.
fn settle(hall: &mut Hall) {
    (hall.leased, hall.decides) = (true, true);
    hall.pump();
    let everybody: Vec<_> = (1..=NODES + 20).map(id).collect();
    everybody.iter().for_each(|one| hall.room(*one));
    let mut fresh = NODES;
    for n in 1..=NODES {
        hall.alive.insert(id(n));
        hall.hello(n);
        hall.advance(SETTLE + PING);
        if hall.state.member(id(n)).is_none() {
            fresh += 1;
            hall.alive.insert(id(fresh));
            hall.copies.entry(id(fresh)).or_default().member = Some(member(fresh));
            hall.hello(fresh);
            hall.advance(SETTLE + PING);
        }
    }
    let members: Vec<u64> = (1..=fresh).filter(|n| hall.state.member(id(*n)).is_some()).collect();
    assert_eq!(members.len(), usize::try_from(NODES).unwrap());
    for n in members {
        assert!(hall.is_current(n), "{n}: {:?} of {:?}", hall.copy(n), hall.state);
        let told = hall.copy(n).registered;
        assert_eq!(Some(told), hall.state.changes_of(id(n)), "what is registered is told");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_happens_everybody_hears_the_same_in_the_same_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut hall = Hall::over(State::default(), 0);
        hall.pump();
        let mut said = Said::new();
        for step in steps {
            run(&mut hall, &mut said, step);
            bounded(&hall);
        }
        settle(&mut hall);
    }
}
