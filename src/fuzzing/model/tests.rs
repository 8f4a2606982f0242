//! The model's own tests: walking through all of it is `tests/model`'s.

use std::collections::HashMap;

use super::*;

fn world(scenario: &'static Scenario, way: &[Action]) -> World {
    let mut world = World::new(scenario);
    way.iter().for_each(|action| world.apply(*action));
    world
}

fn actions(world: &World) -> Vec<Action> {
    let mut actions = Vec::new();
    world.actions(&mut actions);
    actions
}

/// What may come of a world, whatever the order in which its connections stand, and how.
fn successors(scenario: &'static Scenario, way: &[Action]) -> Vec<(u128, Vec<Action>)> {
    let next = actions(&world(scenario, way)).into_iter().map(|action| {
        let way: Vec<_> = way.iter().copied().chain([action]).collect();
        (world(scenario, &way).digest(), way)
    });
    let mut next: Vec<_> = next.collect();
    next.sort_unstable();
    next
}

/// Two worlds of one digest: the same may come of them, and of what comes of them, some steps far. What a digest leaves
/// out may take some steps to show.
fn agree(scenario: &'static Scenario, random: &mut fastrand::Rng, one: &[Action], other: &[Action]) {
    let (mut one, mut other) = (one.to_vec(), other.to_vec());
    for _ in 0..6 {
        let (ones, others) = (successors(scenario, &one), successors(scenario, &other));
        let digests = |all: &[(u128, Vec<Action>)]| Vec::from_iter(all.iter().map(|(digest, _)| *digest));
        assert_eq!(digests(&ones), digests(&others), "{}: {one:?} and {other:?} differ", scenario.name);
        if ones.is_empty() {
            return;
        }
        let at = random.usize(..ones.len());
        (one, other) = (ones[at].1.clone(), others[at].1.clone());
    }
}

/// Walks by chance, and compares each world with the one that was met first under its digest.
fn compare(scenario: &'static Scenario, random: &mut fastrand::Rng, walks: usize) -> usize {
    let mut met: HashMap<u128, Vec<Action>> = HashMap::new();
    let mut compared = 0;
    for _ in 0..walks {
        let (mut way, mut here) = (Vec::new(), World::new(scenario));
        for _ in 0..40 {
            let Some(action) = random.choice(actions(&here)) else { break };
            way.push(action);
            here.apply(action);
            assert!(here.faults().is_empty(), "{}: {way:?}: {:?}", scenario.name, here.faults());
            let first = met.entry(here.digest()).or_insert_with(|| way.clone());
            if *first != way && random.u8(..) < 15 {
                agree(scenario, random, first, &way);
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn worlds_of_one_digest_lead_to_the_same_worlds() {
    let mut random = fastrand::Rng::with_seed(4);
    let compared: usize = scenarios().iter().map(|scenario| compare(scenario, &mut random, 200)).sum();
    assert!(compared > 500, "only {compared} were met twice and compared");
}

#[test]
fn a_way_leads_to_the_same_world_each_time_and_everything_ends_from_there() {
    let mut random = fastrand::Rng::with_seed(5);
    for scenario in scenarios() {
        for _ in 0..10 {
            let (mut way, mut here) = (Vec::new(), World::new(scenario));
            for _ in 0..random.usize(..50) {
                let Some(action) = random.choice(actions(&here)) else { break };
                way.push(action);
                here.apply(action);
            }
            assert_eq!(here.digest(), world(scenario, &way).digest(), "{}: {way:?}", scenario.name);
            assert_eq!(here.calm(random.bool()), Ok(()), "{}: {way:?}", scenario.name);
        }
    }
}
