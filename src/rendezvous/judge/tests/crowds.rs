//! Many missing at once.

use super::super::{Evidence, Health};
use super::hall::{EVICTION, Hall, PING, PROBE, id, ms, secs};

#[test]
fn a_third_missing_is_no_crowd() {
    let mut hall = Hall::of(9);
    hall.kill([1, 2, 3]);
    hall.pass(EVICTION + PROBE);
    assert_eq!(hall.evicted().len(), 3);
}

#[test]
fn above_a_third_they_go_one_at_a_time_at_growing_pace_and_all_go() {
    let mut hall = Hall::of(40);
    let heard = hall.heard_at(1);
    hall.kill(1..=38);
    hall.pass(secs(120));
    let evicted = hall.evicted();
    assert_eq!(evicted.len(), 38, "all who are dead");
    assert!(evicted[0].0 >= heard + EVICTION / 2 + EVICTION * 2, "{:?}", evicted[0]);
    let gaps: Vec<_> = evicted.windows(2).map(|two| two[1].0 - two[0].0).collect();
    let slow = &gaps[..36];
    assert!(slow.iter().all(|gap| *gap >= PING), "one at a time: {gaps:?}");
    assert!(slow.windows(2).all(|two| two[1] <= two[0]), "at growing pace: {gaps:?}");
    assert!(slow[0] >= EVICTION && slow[35] <= PING + PROBE, "{gaps:?}");
    assert!(hall.all_healthy());
}

#[test]
fn in_a_crowd_each_goes_by_fresh_testimony() {
    let mut hall = Hall::of(10);
    hall.kill(1..=5);
    hall.pass(secs(60));
    for (at, member, why) in hall.evicted() {
        let asked = hall.probes().into_iter().filter(|(_, _, suspect, _)| *suspect == member);
        assert!(asked.clone().all(|(asked, ..)| asked + PROBE >= at), "{at:?} {why:?}");
        assert!(asked.count() >= 3);
    }
    assert_eq!(hall.evicted().len(), 5);
}

#[test]
fn one_that_another_reaches_does_not_hold_up_the_crowd() {
    let mut hall = Hall::of(10);
    hall.deafen([1]);
    hall.pass(ms(100));
    hall.kill(2..=6);
    hall.pass(secs(60));
    let evicted: Vec<_> = hall.evicted().into_iter().map(|(_, member, _)| member).collect();
    assert_eq!(evicted.len(), 5);
    assert!(!evicted.contains(&id(1)));
    assert!(matches!(hall.health(1), Some(Health::Vouched { .. })));
}

#[test]
fn a_break_of_the_leaders_own_network_evicts_nobody_if_it_is_short_and_few_if_it_is_long() {
    for (broken, most) in [(secs(11), 0), (secs(16), 1), (secs(18), 2)] {
        let mut hall = Hall::of(30);
        hall.deafen(1..=30);
        hall.pass(broken);
        hall.deaf.clear();
        hall.pass(secs(60));
        assert!(hall.evicted().len() <= most, "{broken:?}: {:?}", hall.evicted());
        assert!(hall.evicted().iter().all(|(_, _, why)| *why == Evidence::NoWitness));
        assert!(hall.all_healthy());
    }
}

#[test]
fn a_number_that_goes_up_and_down_around_a_third_starves_no_eviction() {
    let mut hall = Hall::of(10);
    hall.kill([1, 2, 3]);
    // One more flickers: suspected for some hundred milliseconds every three seconds.
    for _ in 0..20 {
        hall.deafen([4]);
        hall.pass(ms(2_700));
        hall.deaf.clear();
        hall.pass(ms(1_300));
    }
    assert_eq!(hall.evicted().len(), 3, "{:?}", hall.evicted());
    let last = hall.evicted()[2].0;
    assert!(last <= secs(30), "{last:?}");
}

#[test]
fn a_round_that_began_before_the_crowd_convicts_nobody_out_of_turn() {
    let mut hall = Hall::of(9);
    hall.kill([1]);
    let heard = hall.heard_at(1);
    hall.pass(ms(2_600));
    // They are suspected when the first is silent and its witnesses are being asked.
    hall.kill([2, 3, 4, 5]);
    hall.pass(ms(60_000));
    let evicted = hall.evicted();
    assert_eq!(evicted.len(), 5);
    assert!(evicted[0].0 >= heard + EVICTION * 2, "{evicted:?}");
}

#[test]
fn a_crowd_that_others_reach_starves_nobody_who_is_dead() {
    let mut hall = Hall::of(150);
    // One round each takes longer than each waits for its next.
    hall.deafen(1..=110);
    hall.pass(secs(60));
    hall.kill([150]);
    hall.pass(secs(90));
    let evicted: Vec<_> = hall.evicted().into_iter().map(|(_, member, _)| member).collect();
    assert_eq!(evicted, [id(150)]);
}

#[test]
fn the_first_to_fall_silent_do_not_go_before_the_others_are_counted() {
    let mut hall = Hall::of(30);
    hall.deafen(1..=10);
    hall.pass(PING);
    hall.deafen(11..=30);
    hall.pass(secs(9));
    hall.deaf.clear();
    hall.pass(secs(30));
    assert!(hall.evicted().is_empty(), "{:?}", hall.evicted());
}

#[test]
fn a_crowd_long_after_another_waits_as_long_as_the_first() {
    let mut hall = Hall::of(12);
    hall.deafen(1..=6);
    hall.pass(secs(15));
    hall.deaf.clear();
    hall.pass(secs(60));
    let heard = hall.heard_at(1);
    hall.kill(1..=6);
    hall.pass(secs(60));
    let evicted = hall.evicted();
    assert_eq!(evicted.len(), 6);
    assert!(evicted[0].0 >= heard + EVICTION * 2, "{evicted:?}");
}
