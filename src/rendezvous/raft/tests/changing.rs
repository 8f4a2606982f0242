//! Servers come and go.

use super::world::{World, secs};
use crate::rendezvous::raft::{ChangeError, Standing};

#[tokio::test(start_paused = true)]
async fn servers_are_added_while_commands_are_decided_and_the_old_ones_removed() {
    let mut world = World::new(1);
    world.plan(3);
    world.configure(|config| (config.snapshot_every, config.keep) = (20, 5));
    for at in 0..3 {
        world.start(at).await;
    }
    let mut acked = Vec::new();
    for number in 0_u8..60 {
        world.decide(&[number]).await;
        acked.push(vec![number]);
    }
    for new in 3..6 {
        assert_eq!(world.add_joiner(), new);
        world.start(new).await;
        assert_eq!(world.standing(new), Standing::NotMember);
        let leader = world.leader().await;
        let id = world.log(leader).add(&world.address(new)).await.unwrap();
        assert_eq!(id, world.log(new).id());
        world.agree(&[0, new], &acked).await;
        assert!(matches!(world.standing(new), Standing::Follower { .. }));
    }
    for old in 0..3 {
        let leader = world.leader().await;
        let removed = world.log(leader).remove(&world.address(old)).await.unwrap();
        assert_eq!(removed, world.log(old).id());
        world.decide(&[200 + old as u8]).await;
        acked.push(vec![200 + old as u8]);
    }
    let leader = world.leader().await;
    assert!(leader >= 3);
    let servers = world.log(leader).servers();
    assert!(servers.len() == 3 && servers.iter().all(|server| server.votes), "{servers:?}");
    world.agree(&[3, 4, 5], &acked).await;
    for old in 0..3 {
        assert!(world.log(old).lease(super::world::now()).is_none());
        world.kill(old, false).await;
    }
    world.decide(b"without them").await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_removed_stops_leading_and_another_is_elected() {
    let world = World::of(2, 3).await;
    let leader = world.leader().await;
    world.log(leader).remove(&world.address(leader)).await.unwrap();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    world.leader_of(&others).await;
    world.until(secs(5), "it knows", |world| world.standing(leader) == Standing::NotMember).await;
    assert!(world.log(leader).lease(super::world::now()).is_none());
    world.decide(b"after").await;
    world.agree(&others, &[b"after".to_vec()]).await;
    tokio::time::sleep(secs(10)).await;
    assert_eq!(world.standing(leader), Standing::NotMember);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_added_or_removed_is_refused_with_the_reason() {
    let mut world = World::of(3, 3).await;
    let leader = world.leader().await;
    let other = (leader + 1) % 3;
    let log = world.log(leader).clone();
    assert!(matches!(
        world.log(other).add("10.0.0.9:7500").await,
        Err(ChangeError::NotLeader { leader: Some(_) })
    ));
    assert!(matches!(log.add("10.0.0.9:7500").await, Err(ChangeError::NotMet { .. })));
    assert!(matches!(log.remove("10.0.0.9:7500").await, Err(ChangeError::Unknown { .. })));
    assert_eq!(log.add(&world.address(other)).await, Ok(world.log(other).id()), "it is there already");
    // One that founded a cluster of its own.
    let foreign = world.add_foreign();
    let alone = world.address(foreign);
    world.start(foreign).await;
    world
        .until(secs(2), "it leads its own", |world| {
            matches!(world.standing(foreign), Standing::Leader { .. })
        })
        .await;
    assert!(matches!(log.add(&alone).await, Err(ChangeError::Unfit { .. })));
    // One at a time.
    let joiner = world.add_joiner();
    world.start(joiner).await;
    let address = world.address(joiner);
    let there = world.address(other);
    let (first, second) = tokio::join!(log.add(&address), log.remove(&there));
    assert_eq!(first, Ok(world.log(joiner).id()));
    assert_eq!(second, Err(ChangeError::Busy));
    assert_eq!(log.servers().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_is_not_removed() {
    let world = World::of(4, 1).await;
    let leader = world.leader().await;
    assert_eq!(world.log(leader).remove(&world.address(0)).await, Err(ChangeError::Last));
    world.decide(b"still").await;
}
