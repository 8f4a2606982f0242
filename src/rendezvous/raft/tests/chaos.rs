//! Whatever goes wrong: one leader a term, one lease at a time, and nothing lost that was acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::world::{World, millis, secs};

const SERVERS: usize = 5;
const STEPS: usize = 60;

async fn run(seed: u64) -> (usize, usize) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut world = World::new(seed);
    world.plan(SERVERS);
    world.configure(|config| (config.snapshot_every, config.keep) = (40, 10));
    for at in 0..SERVERS {
        world.start(at).await;
    }
    world.leader().await;
    let acked: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    for step in 0..STEPS {
        // Half of what happens happens to whoever leads.
        let leads = world.speaker().filter(|_| chance.bool());
        let one = leads.unwrap_or_else(|| chance.usize(..SERVERS));
        let other = chance.usize(..SERVERS);
        let what = chance.u32(..12);
        tracing::info!(step, what, one, other, at = ?super::world::now(), "chaos");
        match what {
            0 | 1 if world.up().len() > 2 => world.kill(one, chance.bool()).await,
            2..5 if !world.is_up(one) => world.start(one).await,
            5 => world.lab.part(world.place(one), world.place(other)),
            6 => world.lab.block(world.place(one), world.place(other)),
            7 if one != other => world.isolate(&[one, other]),
            8 if world.is_up(one) => world.server(one).run.freeze(),
            9 if world.is_up(one) => world.server(one).run.thaw(),
            10 => world.lab.heal(),
            _ => {}
        }
        for number in 0_u8..3 {
            // Whoever thinks that it leads is asked, rightly or not.
            for at in world.up() {
                let log = Arc::clone(world.log(at));
                let (acked, command) = (Arc::clone(&acked), vec![step as u8, number, at as u8]);
                tokio::spawn(async move {
                    if let Ok(Ok(_)) =
                        tokio::time::timeout(secs(3), log.propose(Bytes::from(command.clone()))).await
                    {
                        acked.lock().push(command);
                    }
                });
            }
        }
        tokio::time::sleep(millis(chance.u64(20..1500))).await;
        world.check();
    }
    world.lab.heal();
    for at in 0..SERVERS {
        if world.is_up(at) {
            world.server(at).run.thaw();
        } else {
            world.start(at).await;
        }
    }
    world.decide(b"the last").await;
    tokio::time::sleep(secs(5)).await;
    let acked = acked.lock().clone();
    world.agree(&[0, 1, 2, 3, 4], &acked).await;
    (acked.len(), world.terms())
}

#[tokio::test(start_paused = true)]
async fn one_leader_a_term_one_lease_at_a_time_and_nothing_acknowledged_is_lost() {
    let seeds = std::env::var("RAFT_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(6);
    let (mut acked, mut terms) = (0, 0);
    let first = std::env::var("RAFT_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let (more, led) = run(seed).await;
        (acked, terms) = (acked + more, terms + led);
    }
    println!("{seeds} seeds: {acked} commands acknowledged, {terms} terms");
    assert!(acked > seeds as usize * 20 && terms > seeds as usize, "{acked} commands, {terms} terms");
}
