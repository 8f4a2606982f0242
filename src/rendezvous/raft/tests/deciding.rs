//! What is proposed, decided, kept.

use bytes::Bytes;

use super::world::{World, millis, secs};
use crate::rendezvous::raft::log::COMMAND_BYTES_MAX;
use crate::rendezvous::raft::{ProposeError, Standing};

#[tokio::test(start_paused = true)]
async fn what_was_decided_survives_the_loss_of_any_two_of_five() {
    let mut world = World::of(1, 5).await;
    let mut acked = Vec::new();
    for round in 0_u8..10 {
        let lost = [usize::from(round) % 5, usize::from(round + 1 + round / 5) % 5];
        for number in 0_u8..5 {
            let command = vec![round, number];
            world.decide(&command).await;
            acked.push(command);
        }
        for at in lost {
            world.kill(at, round % 2 == 0).await;
        }
        let up = world.up();
        world.agree(&up, &acked).await;
        for at in lost {
            world.start(at).await;
        }
    }
    world.agree(&[0, 1, 2, 3, 4], &acked).await;
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_command_is_the_machines() {
    let world = World::of(2, 3).await;
    let leader = world.leader().await;
    let mut before = 0;
    for number in 0_u8..20 {
        let answer = world.log(leader).propose(Bytes::from(vec![number])).await.unwrap();
        let index = u64::from_be_bytes(answer[..].try_into().unwrap());
        assert!(index > before);
        before = index;
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_commands_pass_many_at_once_and_a_larger_one_is_refused() {
    let world = World::of(3, 3).await;
    let leader = world.leader().await;
    let log = world.log(leader);
    let large = |number: u8| Bytes::from(vec![number; COMMAND_BYTES_MAX]);
    let mut all = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (log, large) = (std::sync::Arc::clone(log), large(number));
        all.spawn(async move { log.propose(large).await });
    }
    while let Some(proposed) = all.join_next().await {
        proposed.unwrap().unwrap();
    }
    let acked: Vec<Vec<u8>> = (0..20).map(|number| large(number).to_vec()).collect();
    world.agree(&[0, 1, 2], &acked).await;
    let bytes = COMMAND_BYTES_MAX + 1;
    let refused = log.propose(Bytes::from(vec![0; bytes])).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes, max: COMMAND_BYTES_MAX }));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_away_gets_what_it_missed_also_when_entries_are_gone() {
    let mut world = World::new(4);
    world.plan(3);
    world.configure(|config| (config.snapshot_every, config.keep) = (20, 5));
    for at in 0..3 {
        world.start(at).await;
    }
    let leader = world.leader().await;
    let away = (leader + 1) % 3;
    world.decide(b"before").await;
    world.kill(away, false).await;
    let mut acked = vec![b"before".to_vec()];
    for number in 0_u8..100 {
        world.decide(&[number]).await;
        acked.push(vec![number]);
    }
    let purged = world.log(leader).house.raft().unwrap().metrics().borrow().purged.map(|id| id.index);
    assert!(purged > Some(20), "{purged:?}");
    world.start(away).await;
    world.agree(&[0, 1, 2], &acked).await;
    let snapshot = world.log(away).snapshot().await.unwrap();
    assert!(snapshot.len() > 100);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_its_server_which_says_so_and_no_other() {
    let mut world = World::of(5, 3).await;
    let leader = world.leader().await;
    world.decide(b"before").await;
    world.disk(leader).fill();
    let proposed = tokio::time::timeout(secs(30), world.log(leader).propose("lost".into())).await.unwrap();
    assert!(matches!(proposed, Err(ProposeError::Stopped { .. })), "{proposed:?}");
    let stopped = |world: &World| matches!(world.standing(leader), Standing::Stopped { .. });
    world.until(secs(5), "it says so", stopped).await;
    let Standing::Stopped { why } = world.standing(leader) else { panic!() };
    assert!(why.contains("full") || why.contains("space"), "{why}");
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    world.leader_of(&others).await;
    world.decide(b"after").await;
    world.agree(&others, &[b"before".to_vec(), b"after".to_vec()]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_messenger_is_the_end_of_the_log() {
    let world = World::of(6, 1).await;
    world.leader().await;
    let standing = world.log(0).standing();
    world.server(0).messenger.close().await;
    assert!(matches!(*standing.borrow(), Standing::Stopped { .. }));
    let proposed = tokio::time::timeout(millis(5000), world.log(0).propose("late".into())).await.unwrap();
    assert!(matches!(proposed, Err(ProposeError::Stopped { .. })), "{proposed:?}");
}
