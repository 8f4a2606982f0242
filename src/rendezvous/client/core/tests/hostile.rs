//! What a server says that no honest one would, as the fuzzer found it: it breaks nothing, and nothing of it stays.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::copy::NotApplied;
use super::super::routes::{OwnRoutes, UNSAID_MORE};
use super::claims::joined;
use super::world::{MS, World, adds, member, route};
use crate::rendezvous::common::{Change, ClusterId, RoutesChange, Why};
use crate::rendezvous::words::{Everything, Health, ToNode, ToServer};
use crate::router::RouteChange;
use crate::{Member, ViewId};

fn say(world: &mut World, word: impl FnOnce(u64) -> ToNode) {
    let (from, term) = (world.servers[world.at.unwrap()].id, world.term);
    world.client.handle_word(world.now, from, word(term));
    world.drain();
}

fn change(change: &Change) -> ToNode {
    ToNode::Change { term: 1, change: postcard::to_stdvec(change).unwrap().into() }
}

fn everything(everything: &Everything) -> ToNode {
    let piece = postcard::to_stdvec(everything).unwrap().into();
    ToNode::Everything { term: 1, part: 0, parts: 1, piece }
}

/// It was evicted, and is welcome again as another one; of what there is it knows nothing.
fn reborn(world: &mut World) -> Member {
    say(world, |term| ToNode::Evicted { term, why: Some(Why::Silent) });
    let joined = Some(ViewId { generation: 1, number: 1 });
    let me = Member { joined, ..world.client.me.clone() };
    let member = me.clone();
    say(world, |term| ToNode::Welcome { term, cluster: ClusterId(7), member, changes: 0 });
    me
}

#[test]
fn who_was_evicted_installs_no_view_that_it_has_seen() {
    // The world looks at each view.
    let mut world = joined(1);
    let views = world.views.clone();
    let me = reborn(&mut world);
    let view = ViewId { generation: 1, number: 1 };
    let early = Change { index: 1, view: Some(view), joined: vec![me], ..Change::default() };
    say(&mut world, |_| change(&early));
    assert_eq!(world.views, views);

    let mut world = joined(2);
    let views = world.views.clone();
    let me = reborn(&mut world);
    let view = *views.last().unwrap();
    let all = Everything {
        cluster: ClusterId(7),
        index: 9,
        view,
        members: vec![(me, Vec::new())],
        leases: Vec::new(),
    };
    say(&mut world, |_| everything(&all));
    assert_eq!(world.views, views);
}

#[test]
fn a_view_has_the_members_that_it_had() {
    let mut world = joined(1);
    let (me, before) = (world.client.me.clone(), world.up.clone());
    let view = *world.views.last().unwrap();
    let members = vec![(me, Vec::new()), (member(60), vec![route(1)])];
    let all = Everything { cluster: ClusterId(7), index: 9, view, members, leases: Vec::new() };
    say(&mut world, |_| everything(&all));
    assert_eq!(world.up, before);
    world.check(&[]);
}

#[test]
fn members_that_come_twice_or_go_without_having_come_and_routes_of_nobody_are_not_believed() {
    let world = joined(1);
    let at = world.client.copy().index();
    let view = ViewId { generation: 1, number: 50 };
    let sound = Change { index: at + 1, after: at, view: Some(view), ..Change::default() };
    let routes = RoutesChange { member: member(60).id, anew: false, add: vec![route(1)], remove: Vec::new() };
    let known = member(50);
    let broken = [
        Change { joined: vec![known.clone()], ..sound.clone() },
        Change { joined: vec![member(60), member(60)], ..sound.clone() },
        Change { left: vec![(member(60).id, Why::Left)], ..sound.clone() },
        Change { left: vec![(known.id, Why::Left), (known.id, Why::Left)], ..sound.clone() },
        Change { routes: vec![routes.clone()], ..sound.clone() },
        Change {
            left: vec![(known.id, Why::Left)],
            routes: vec![RoutesChange { member: known.id, ..routes }],
            ..sound
        },
    ];
    for change in broken {
        let mut world = joined(1);
        let copy = &mut world.client.copy;
        assert!(matches!(copy.apply(&change), Err(NotApplied::Broken(_))), "{change:?}");
        world.check(&[]);
    }
}

#[test]
fn what_is_known_of_members_goes_with_them() {
    let mut world = joined(1);
    let other = member(50).id;
    let changed = vec![(other, Health::Silent)];
    say(&mut world, |term| ToNode::Health { term, all: false, changed });
    world.client.handle_evidence(world.now, other, true);
    assert_eq!((world.client.health.len(), world.client.reports.len()), (1, 1));
    let me = world.client.me.clone();
    let view = ViewId { generation: 1, number: 60 };
    let all = Everything {
        cluster: ClusterId(7),
        index: 60,
        view,
        members: vec![(me, Vec::new())],
        leases: Vec::new(),
    };
    say(&mut world, |_| everything(&all));
    assert_eq!((world.client.health.len(), world.client.reports.len()), (0, 0));

    let mut world = joined(1);
    let changed = vec![(other, Health::Silent)];
    say(&mut world, |term| ToNode::Health { term, all: false, changed });
    say(&mut world, |term| ToNode::Evicted { term, why: None });
    assert_eq!(world.client.health.len(), 0);
}

#[test]
fn a_report_that_cannot_be_said_yet_wakes_nobody_up() {
    let mut world = joined(1);
    let server = world.servers[world.at.unwrap()].id;
    world.client.handle_session_lost(world.now, server);
    world.client.handle_evidence(world.now, member(50).id, true);
    world.drain();
    // A leader of a history that was recovered: first it says everything.
    let me = world.client.me.clone();
    say(&mut world, |term| ToNode::Welcome { term, cluster: ClusterId(9), member: me, changes: 0 });
    let next = world.client.poll_timeout(world.now).unwrap();
    assert!(next > world.now, "it turns on the spot");
}

#[test]
fn a_leader_that_knows_the_last_change_of_all_breaks_nothing() {
    let mut own = OwnRoutes::default();
    own.announce(adds([1]));
    drop(own.handle_welcome(u64::MAX));
    assert!(matches!(own.poll(), Some(ToServer::Routes { from: 0, .. })));
    own.announce(adds([2]));
    assert!(own.poll().is_some());
}

#[test]
fn routes_that_come_and_go_while_nobody_listens_take_no_room() {
    let mut own = OwnRoutes::default();
    own.announce(adds([1]));
    assert!(own.poll().is_some());
    for number in 2..4_000 {
        own.announce(adds([number]));
        own.announce(RouteChange { added: Vec::new(), removed: vec![route(number)] });
        let (unsaid, all) = own.backlog();
        assert!(unsaid <= 2 * all + UNSAID_MORE, "{unsaid} of {all}");
    }
    // Whatever was said is replaced by what there is.
    let mut known: BTreeSet<_> = (5..9).map(route).collect();
    own.handle_decided(1);
    while let Some(ToServer::Routes { from, to, add, remove }) = own.poll() {
        if from == 0 {
            known.clear();
        }
        known.retain(|route| !remove.contains(route));
        known.extend(add);
        own.handle_decided(to);
    }
    assert_eq!(known, BTreeSet::from([route(1)]));
    let (announced, registered, _) = own.progress();
    assert_eq!(announced, registered);
}

#[test]
fn a_server_that_evicts_whoever_comes_makes_two_new_members_a_second_at_most() {
    let mut world = joined(1);
    let (at, begin) = (world.at.unwrap(), world.now);
    let from = world.servers[at].id;
    while world.now - begin < Duration::from_secs(3) {
        // Said so often as it likes, whether or not anybody asked.
        for _ in 0..10 {
            let term = world.term;
            world.client.handle_word(world.now, from, ToNode::Evicted { term, why: None });
            world.drain();
        }
        world.now += MS * 20;
        world.client.handle_timeout(world.now);
        world.drain();
    }
    assert!((3..=8).contains(&world.reborn), "{}", world.reborn);
}
