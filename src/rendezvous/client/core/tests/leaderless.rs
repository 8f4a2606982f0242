//! What a node does while nobody leads, or nobody knows who does.

use std::time::Duration;

use super::super::CoreConfig;
use super::world::{MS, World};
use crate::rendezvous::damp::errors_of;
use crate::rendezvous::words::ToNode;

const SECOND: Duration = Duration::from_secs(1);

/// Joined at `a:1`, whose process has died just now.
fn leader_died(seed: u64) -> World {
    leader_died_of(World::new(seed))
}

fn leader_died_of(mut world: World) -> World {
    world.run(SECOND);
    assert!(world.standing().is_joined());
    let server = world.servers[0].id;
    world.client.handle_link(world.now, server, false);
    world.stop(0);
    world.sought.clear();
    world
}

fn asked(world: &World) -> Vec<&str> {
    world.sought.iter().map(|(_, address)| address.as_str()).collect()
}

fn has_leader(world: &World) -> bool {
    world.at.is_some() && world.at == world.leader()
}

#[test]
fn it_stays_with_one_that_knows_no_leader_and_goes_as_soon_as_it_is_told_of_one() {
    for seed in 0..50 {
        for next in [1, 2] {
            let mut world = leader_died(seed);
            world.run(490 * MS);
            assert_eq!(world.sought.len(), 1, "seed {seed}: {:?}", world.sought);
            world.elect(next);
            world.run(11 * MS);
            assert!(has_leader(&world) && world.standing().is_joined(), "seed {seed}: {:?}", world.sought);
            world.check(&[]);
        }
    }
}

#[test]
fn a_leader_that_is_gone_is_not_gone_to_because_another_still_names_it() {
    for seed in 0..50 {
        let mut world = leader_died(seed);
        world.named = Some("a:1");
        world.run(490 * MS);
        assert_eq!(world.sought.len(), 1, "seed {seed}: {:?}", world.sought);
        assert!(!asked(&world).contains(&"a:1"));
        world.named = None;
        world.elect(2);
        world.run(11 * MS);
        assert!(has_leader(&world), "seed {seed}: {:?}", world.sought);
    }
}

#[test]
fn a_leader_that_came_back_at_its_address_is_found_though_it_was_gone() {
    for seed in 0..50 {
        let mut world = leader_died(seed);
        world.named = Some("a:1");
        world.run(300 * MS);
        world.servers[0].up = true;
        world.elect_unheard(0);
        world.run(2 * SECOND);
        assert!(has_leader(&world), "seed {seed}: {:?}", world.sought);
    }
    // Also if nobody but the others knows where it is.
    for seed in 0..50 {
        let mut world = leader_died_of(World::listed(&["b:1", "c:1"], CoreConfig::default(), seed));
        world.named = Some("a:1");
        world.run(300 * MS);
        world.servers[0].up = true;
        world.elect_unheard(0);
        world.run(3 * SECOND);
        assert!(has_leader(&world), "seed {seed}: {:?}", world.sought);
    }
}

#[test]
fn one_that_is_cut_off_from_the_others_is_left_for_the_next() {
    for seed in 0..50 {
        let mut world = leader_died(seed);
        world.run(200 * MS);
        let here = world.at.unwrap();
        world.elect_unheard(3 - here);
        // It says nothing, and names nobody.
        world.named = Some("nobody");
        world.run(2 * SECOND);
        assert!(has_leader(&world), "seed {seed}: {:?}", world.sought);
    }
}

#[test]
fn while_nobody_leads_it_asks_about_once_a_second_whatever_it_is_told() {
    for named in [None, Some("a:1"), Some("b:1"), Some("c:1"), Some("d:1")] {
        let mut world = leader_died(7);
        world.named = named;
        world.run(60 * SECOND);
        let all = world.sought.len();
        // At most three names are followed between two waits.
        let most = if named.is_none() { 130 } else { 400 };
        assert!((50..=most).contains(&all), "{named:?}: {all}");
    }
}

#[test]
fn who_stood_still_does_not_take_its_leader_for_dead() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.run(SECOND);
        assert!(has_leader(&world));
        // What came meanwhile was not read.
        world.now += 10 * SECOND;
        world.client.handle_timeout(world.now);
        world.drain();
        world.sought.clear();
        world.run(300 * MS);
        assert!(has_leader(&world) && world.standing().is_joined(), "{seed}: {:?}", world.sought);
        assert!(!world.sought.is_empty(), "it does not know how long that was for others");
    }
}

#[test]
fn one_that_puts_it_off_for_ever_is_left_for_others() {
    let mut world = World::new(1);
    world.run(SECOND);
    world.servers[0].leads = None;
    world.servers[0].puts_off = true;
    world.elect_unheard(1);
    // It said something, perhaps, and is told to come again, for ever.
    world.back.push_back(ToNode::Later { term: world.term, after: SECOND });
    world.run(5 * SECOND);
    assert!(!has_leader(&world), "it waits for a while: {:?}", world.sought);
    world.run(7 * SECOND);
    assert!(has_leader(&world) && world.standing().is_joined(), "{:?}", world.sought);
}

#[test]
fn one_that_is_ready_late_is_waited_for() {
    let mut world = World::new(1);
    world.servers[0].puts_off = true;
    world.run(5 * SECOND);
    let asked = world.sought.len();
    world.servers[0].puts_off = false;
    world.run(SECOND);
    assert!(world.standing().is_joined());
    assert_eq!(world.sought.len(), asked, "nobody else was asked");
}

#[test]
fn a_refusal_is_logged_once_a_minute_however_often_it_is_asked() {
    let mut world = World::new(1);
    world.run(SECOND);
    let errors = errors_of(|| {
        // Two histories that know nothing of each other.
        world.replace_log(super::world::Log::new(8));
        world.run(50 * SECOND);
    });
    assert!(world.sought.len() > 20, "{:?}", world.sought);
    assert_eq!(errors, 1);
}
