//! The first beginning of a cluster, and what never begins one.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::disk::Platter;
use super::world::{World, names, secs};
use crate::rendezvous::raft::founding::{Founding, Met, Verdict, decide};
use crate::rendezvous::raft::types::Server;
use crate::rendezvous::raft::wire::Introduction;
use crate::rendezvous::raft::{Standing, Store};

#[tokio::test(start_paused = true)]
async fn servers_with_empty_disks_that_start_at_once_found_one_cluster() {
    for count in [3, 5] {
        let world = World::of(count as u64, count).await;
        let leader = world.leader().await;
        let all: Vec<usize> = (0..count).collect();
        world.decide(b"first").await;
        world.agree(&all, &[b"first".to_vec()]).await;
        let servers = world.log(leader).servers();
        assert_eq!(servers.iter().filter(|server| server.votes).count(), count);
        let clusters: Vec<_> = all.iter().map(|at| world.log(*at).house.cluster()).collect();
        assert!(
            clusters[0].is_some() && clusters.iter().all(|cluster| *cluster == clusters[0]),
            "{clusters:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_founded_before_all_that_are_listed_are_there() {
    let mut world = World::new(1);
    world.plan(3);
    world.start(0).await;
    world.start(1).await;
    tokio::time::sleep(secs(60)).await;
    for at in [0, 1] {
        let Standing::Founding { missing } = world.standing(at) else { panic!("{:?}", world.standing(at)) };
        assert_eq!(missing, [format!("{}: not met", world.address(2))]);
        assert_eq!(world.log(at).house.cluster(), None);
    }
    world.start(2).await;
    world.leader().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_alone_founds_at_once_and_may_always_speak() {
    let mut world = World::of(2, 1).await;
    world.until(secs(1), "it leads", |world| world.speaker().is_some()).await;
    world.decide(b"one").await;
    let Standing::Leader { term } = world.standing(0) else { panic!() };
    world.kill(0, false).await;
    world.start(0).await;
    world.until(secs(1), "it leads again", |world| world.speaker().is_some()).await;
    assert_eq!(world.server(0).book.commands(), [b"one".to_vec()]);
    assert!(matches!(world.standing(0), Standing::Leader { term: now } if now >= term));
    tokio::time::sleep(secs(100)).await;
    assert!(world.speaker().is_some());
}

#[tokio::test(start_paused = true)]
async fn servers_that_all_start_again_go_on_and_found_nothing() {
    let mut world = World::of(3, 3).await;
    world.decide(b"before").await;
    let cluster = world.log(0).house.cluster();
    world.agree(&[0, 1, 2], &[b"before".to_vec()]).await;
    for at in 0..3 {
        world.kill(at, at == 1).await;
    }
    for at in 0..3 {
        world.start(at).await;
    }
    world.decide(b"after").await;
    world.agree(&[0, 1, 2], &[b"before".to_vec(), b"after".to_vec()]).await;
    assert_eq!(world.log(1).house.cluster(), cluster);
}

#[tokio::test(start_paused = true)]
async fn one_that_lost_its_disk_is_no_member_and_disturbs_nobody() {
    let mut world = World::of(4, 3).await;
    world.decide(b"before").await;
    world.kill(2, false).await;
    *world.disk(2) = Platter::default();
    let store = Store::open(world.disk(2).open(), &names(), 77).await.unwrap();
    world.start_on(2, store).await;
    world.until(secs(10), "it knows", |world| world.standing(2) == Standing::NotMember).await;
    world.decide(b"after").await;
    tokio::time::sleep(secs(10)).await;
    assert_eq!(world.standing(2), Standing::NotMember);
    let house = &world.log(world.leader().await).house;
    assert_eq!(house.cluster(), world.log(0).house.cluster());
    assert!(world.server(2).book.commands().is_empty());
    let refused = world.log(2).house.counts.wrong_server.load(Ordering::Relaxed);
    assert!(refused > 0, "what was meant for the server before was refused");
}

#[tokio::test(start_paused = true)]
async fn a_disk_of_another_cluster_is_refused() {
    let mut world = World::of(5, 3).await;
    world.decide(b"ours").await;
    world.kill(2, false).await;
    let id = world.log(0).servers().iter().find(|server| server.address == world.address(2)).unwrap().id;
    *world.disk(2) = Platter::default();
    let store = Store::open(world.disk(2).open(), &names(), id).await.unwrap();
    store.set_cluster(4711).await.unwrap();
    world.start_on(2, store).await;
    for _ in 0..10 {
        world.decide(b"more").await;
    }
    tokio::time::sleep(secs(10)).await;
    let house = &world.log(2).house;
    assert!(house.counts.wrong_cluster.load(Ordering::Relaxed) > 0);
    assert!(world.server(2).book.commands().is_empty());
    assert_eq!(house.cluster(), Some(4711));
}

// ---- what is decided ----

fn who(server: u64) -> Introduction {
    Introduction { server, cluster: None, listed: 3, joins: false }
}

fn met(others: [Met; 2]) -> BTreeMap<String, Met> {
    ["b:1".to_owned(), "c:1".to_owned()].into_iter().zip(others).collect()
}

#[test]
fn only_the_lowest_of_all_founds() {
    let (two, three) = (Met::Server(who(2)), Met::Server(who(3)));
    let Verdict::Found(servers) = decide(&who(1), "a:1", &met([two.clone(), three.clone()])) else {
        panic!()
    };
    let addresses: Vec<_> = servers.iter().map(|(id, Server { address })| (*id, address.as_str())).collect();
    assert_eq!(addresses, [(1, "a:1"), (2, "b:1"), (3, "c:1")]);
    assert!(matches!(decide(&who(9), "a:1", &met([two, three])), Verdict::Wait(Founding::Waits(_))));
}

#[test]
fn one_that_is_missing_or_does_not_fit_is_waited_for() {
    let two = || Met::Server(who(2));
    for (third, says) in [
        (Met::Nobody, "not met"),
        (Met::Oneself, "itself"),
        (Met::Server(Introduction { listed: 5, ..who(3) }), "lists 5 servers, not 3"),
        (Met::Server(Introduction { joins: true, ..who(3) }), "waits to be added"),
        (Met::Server(who(1)), "number of this server"),
        (Met::Server(who(2)), "a copy"),
    ] {
        let Verdict::Wait(Founding::Waits(missing)) = decide(&who(1), "a:1", &met([two(), third])) else {
            panic!("{says}")
        };
        assert!(
            missing.len() == 1 && missing[0].starts_with("c:1: ") && missing[0].contains(says),
            "{missing:?}"
        );
    }
}

#[test]
fn nothing_is_founded_beside_a_cluster() {
    let of = Met::Server(Introduction { cluster: Some(7), ..who(3) });
    for second in [Met::Nobody, Met::Server(who(2))] {
        let verdict = decide(&who(1), "a:1", &met([second, of.clone()]));
        assert_eq!(verdict, Verdict::Wait(Founding::WaitsToBeAdded));
    }
    let joiner = Introduction { joins: true, ..who(1) };
    let verdict = decide(&joiner, "a:1", &met([Met::Server(who(2)), Met::Server(who(3))]));
    assert_eq!(verdict, Verdict::Wait(Founding::WaitsToBeAdded));
}
