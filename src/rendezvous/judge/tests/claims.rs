//! One rule, one claim.

use super::super::config::JudgeConfigError;
use super::super::probes::PROBES_MAX;
use super::super::{Action, Evidence, Health, JudgeConfig, ProbeId, Report};
use super::hall::{EVICTION, Hall, Nature, PING, PROBE, SETTLE, id, ms, secs};
use crate::MemberId;

fn witnesses(evidence: &Evidence) -> Vec<MemberId> {
    match evidence {
        Evidence::Witnesses(lost) => lost.to_vec(),
        Evidence::NoWitness => Vec::new(),
    }
}

#[test]
fn a_dead_member_is_suspected_then_silent_then_evicted_by_three_witnesses() {
    let mut hall = Hall::of(7);
    hall.kill([4]);
    let heard = hall.heard_at(4);
    hall.pass(secs(10));
    let since = hall.start + heard;
    let changes = hall.changes(4);
    let expected = [(heard + EVICTION / 2, Health::Suspected), (heard + EVICTION, Health::Silent { since })];
    assert_eq!(changes, expected);
    let evicted = hall.evicted();
    assert_eq!(evicted.len(), 1);
    let (at, member, why) = &evicted[0];
    assert_eq!(*member, id(4));
    assert!(*at <= heard + EVICTION + PROBE, "within eviction and probe time: {at:?}");
    assert_eq!(witnesses(why).len(), 3);
    assert_eq!(hall.probes().len(), 3, "and nobody else was asked");
    assert_eq!(hall.health(4), None, "the view has removed it");
    assert!(hall.all_healthy());
}

#[test]
fn pings_go_out_once_in_each_interval_and_pongs_are_not_published() {
    let mut hall = Hall::of(5);
    hall.pass(secs(60));
    assert_eq!(hall.log.len(), 60, "pings, and nothing else: {:?}", hall.log);
    assert!(hall.log.windows(2).all(|two| two[1].0 - two[0].0 == PING));
}

#[test]
fn each_change_of_health_is_told_once() {
    let mut hall = Hall::of(5);
    hall.deafen([2]);
    hall.pass(secs(4));
    hall.deaf.clear();
    hall.pass(secs(20));
    let told: Vec<_> = hall.changes(2).into_iter().map(|(_, health)| health).collect();
    assert_eq!(told, [Health::Suspected, Health::Healthy]);
}

#[test]
fn reports_alone_evict_nobody() {
    let mut hall = Hall::of(14);
    for _ in 0..40 {
        for reporter in (1..=14).filter(|reporter| *reporter != 6) {
            hall.report(reporter, 6, Report::Lost);
        }
        hall.pass(ms(500));
    }
    assert!(hall.evicted().is_empty() && hall.probes().is_empty());
    assert_eq!(hall.health(6), Some(Health::Healthy));
}

#[test]
fn three_reports_convict_as_soon_as_the_member_is_silent() {
    let mut hall = Hall::of(6);
    hall.kill([6]);
    hall.pass(ms(300));
    for reporter in [1, 3, 5] {
        hall.report(reporter, 6, Report::Lost);
    }
    let heard = hall.heard_at(6);
    hall.pass(secs(10));
    assert!(hall.probes().is_empty());
    assert_eq!(hall.evicted(), [(heard + EVICTION, id(6), hall.evicted()[0].2.clone())]);
    assert_eq!(witnesses(&hall.evicted()[0].2), [id(1), id(3), id(5)]);
}

#[test]
fn one_report_is_one_of_three_sayings() {
    for reporter in 1..=5 {
        let mut hall = Hall::of(6);
        hall.deafen([6]);
        hall.pass(ms(300));
        (0..3).for_each(|_| hall.report(reporter, 6, Report::Lost));
        hall.pass(ms(4_500));
        let asked: Vec<_> = hall.probes().into_iter().map(|(_, witness, _, _)| witness).collect();
        assert_eq!(asked.len(), 2);
        assert!(!asked.contains(&id(reporter)), "it has said what it knows");
        assert!(hall.evicted().is_empty(), "the others reach it");
    }
}

#[test]
fn a_report_that_is_taken_back_does_not_count() {
    let mut hall = Hall::of(6);
    hall.kill([6]);
    hall.pass(ms(300));
    for reporter in [1, 3, 5] {
        hall.report(reporter, 6, Report::Lost);
    }
    hall.report(3, 6, Report::Heard);
    hall.pass(secs(5));
    assert_eq!(hall.probes().len(), 1, "one is missing of three");
    assert!(hall.evicted().is_empty());
}

#[test]
fn one_witness_that_reaches_it_outweighs_all_who_do_not_for_as_long_as_it_does() {
    let mut hall = Hall::of(12);
    hall.deafen([12]);
    (1..=10).for_each(|other| hall.cut(other, 12));
    hall.pass(ms(4_500));
    hall.report(11, 12, Report::Heard);
    hall.pass(ms(700));
    hall.report(11, 12, Report::Heard);
    assert!(matches!(hall.health(12), Some(Health::Vouched { .. })));
    let from = hall.at();
    hall.pass(secs(600));
    assert!(hall.evicted().is_empty());
    let asked: Vec<_> =
        hall.probes().into_iter().filter(|(at, witness, _, _)| *at > from && *witness == id(11)).collect();
    let gaps: Vec<_> = asked.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap <= secs(9)), "asked again for as long as it lasts: {gaps:?}");
    assert!(gaps.iter().skip(4).all(|gap| *gap >= secs(8)), "but ever later: {gaps:?}");
    assert_eq!(hall.changes(12).len(), 3, "suspected, silent, vouched: told once each");

    hall.kill([12]);
    hall.pass(secs(12));
    assert_eq!(hall.evicted().len(), 1, "and goes when nobody reaches it any more");
}

#[test]
fn a_mute_witness_is_replaced_by_another() {
    let mut hall = Hall::of(9);
    (1..=3).for_each(|number| hall.nature(number, Nature::Mute));
    (7..=8).for_each(|number| hall.nature(number, Nature::Mute));
    hall.kill([9]);
    let heard = hall.heard_at(9);
    hall.pass(secs(40));
    let evicted = hall.evicted();
    assert_eq!(evicted.len(), 1);
    assert!(evicted[0].0 <= heard + EVICTION + PROBE * 6, "{evicted:?}");
    assert!(witnesses(&evicted[0].2).iter().all(|witness| [4, 5, 6].map(id).contains(witness)));
}

#[test]
fn nobody_is_asked_twice_in_a_round_and_mute_witnesses_are_no_testimony() {
    let mut hall = Hall::of(5);
    (1..=4).for_each(|number| hall.nature(number, Nature::Mute));
    hall.kill([5]);
    hall.pass(secs(13));
    let mut asked: Vec<_> = hall.probes().into_iter().map(|(_, witness, _, _)| witness).take(4).collect();
    asked.sort_unstable();
    assert_eq!(asked, (1..=4).map(id).collect::<Vec<_>>());
    hall.pass(secs(60));
    assert!(hall.evicted().is_empty(), "they are there, so it needs one of them");
    hall.nature(2, Nature::Honest);
    hall.pass(secs(30));
    assert_eq!(hall.evicted().len(), 1, "one is enough if nobody else says anything");
}

#[test]
fn with_nobody_to_ask_the_pings_suffice() {
    let mut hall = Hall::of(1);
    hall.kill([1]);
    let heard = hall.heard_at(1);
    hall.pass(secs(20));
    assert_eq!(hall.evicted(), [(heard + EVICTION, id(1), Evidence::NoWitness)]);
}

#[test]
fn of_two_members_the_other_is_the_witness() {
    let mut hall = Hall::of(2);
    hall.deafen([1]);
    hall.pass(secs(60));
    assert!(hall.evicted().is_empty());
    hall.kill([1]);
    hall.pass(secs(12));
    assert_eq!(witnesses(&hall.evicted()[0].2), [id(2)]);
}

#[test]
fn what_a_suspect_says_counts_for_nothing() {
    let mut hall = Hall::of(12);
    hall.deafen([1, 2]);
    hall.pass(secs(4));
    hall.kill([12]);
    hall.pass(secs(1));
    hall.say(1, 12, Report::Lost);
    hall.say(2, 12, Report::Lost);
    hall.say(12, 12, Report::Heard);
    hall.pass(ms(3_600));
    let about: Vec<_> = hall.probes().into_iter().filter(|(_, _, suspect, _)| *suspect == id(12)).collect();
    assert_eq!(about.len(), 3, "their reports are none of the three");
    assert!(about.iter().all(|(_, witness, _, _)| ![1, 2].map(id).contains(witness)));
    hall.say(1, 12, Report::Heard);
    assert!(matches!(hall.health(12), Some(Health::Silent { .. })));
    hall.pass(secs(3));
    assert!(hall.evicted().iter().any(|(_, member, _)| *member == id(12)), "nor do they save it");
}

#[test]
fn what_was_said_before_the_silence_counts_for_nothing() {
    let mut hall = Hall::of(6);
    for reporter in 1..=5 {
        hall.report(reporter, 6, Report::Lost);
    }
    hall.pass(secs(2));
    assert!(hall.heard_at(6) > hall.at() - secs(2), "it was heard since");
    hall.deafen([6]);
    hall.pass(secs(30));
    assert!(hall.evicted().is_empty(), "they reach it");
    assert!(hall.probes().len() >= 3);
}

#[test]
fn one_that_is_heard_while_probes_are_under_way_is_healthy_and_late_answers_change_nothing() {
    let mut hall = Hall::of(6);
    (1..=5).for_each(|number| hall.nature(number, Nature::Mute));
    hall.deafen([6]);
    hall.pass(ms(5_200));
    let probes = hall.probes();
    assert_eq!(probes.len(), 3);
    hall.heard(id(6));
    assert_eq!(hall.health(6), Some(Health::Healthy));
    for (_, witness, _, probe) in &probes {
        hall.answer(*witness, *probe, false);
    }
    hall.pass(ms(5_100));
    let again = hall.probes();
    assert_eq!(again.len(), 6, "a new silence, a new round");
    for (_, witness, _, probe) in probes {
        hall.answer(witness, probe, false);
    }
    assert!(hall.evicted().is_empty(), "answers of the old round");
    for (_, witness, _, probe) in &again[3..] {
        let other = (1..=5).map(id).find(|other| other != witness).unwrap();
        hall.answer(other, *probe, false);
        hall.answer(*witness, ProbeId(probe.0.wrapping_add(1_000)), false);
    }
    assert!(hall.evicted().is_empty(), "somebody else's answers, and to what nobody asked");
    for (_, witness, _, probe) in &again[3..] {
        hall.heard(*witness);
        hall.answer(*witness, *probe, false);
    }
    assert_eq!(hall.evicted().len(), 1);
}

#[test]
fn a_witness_with_two_wrong_claims_is_not_asked_and_its_lost_does_not_count() {
    let mut hall = Hall::of(6);
    for sick in [1, 2, 3] {
        hall.report(sick, 4, Report::Lost);
        hall.report(sick, 5, Report::Lost);
    }
    hall.pass(secs(2));
    hall.deafen([6]);
    hall.pass(ms(100));
    for sick in [1, 2, 3] {
        hall.report(sick, 6, Report::Lost);
    }
    hall.pass(secs(6));
    assert!(hall.evicted().is_empty());
    let asked: std::collections::BTreeSet<_> =
        hall.probes().into_iter().map(|(_, witness, ..)| witness).collect();
    assert_eq!(asked, [4, 5].map(id).into());
}

#[test]
fn one_bad_link_is_no_reason_to_doubt() {
    let mut hall = Hall::of(6);
    for (one, other) in [(1, 2), (2, 1), (3, 4), (4, 3)] {
        hall.report(one, other, Report::Lost);
    }
    hall.pass(secs(2));
    hall.kill([6]);
    hall.pass(ms(100));
    for reporter in [1, 2, 3] {
        hall.report(reporter, 6, Report::Lost);
    }
    hall.pass(secs(6));
    assert_eq!(hall.evicted().len(), 1);
    assert!(hall.probes().is_empty());
}

#[test]
fn where_all_are_doubtful_they_are_asked_rather_than_nobody() {
    let mut hall = Hall::of(5);
    for one in 1..=4 {
        (1..=4).filter(|other| *other != one).for_each(|other| hall.report(one, other, Report::Lost));
    }
    hall.pass(secs(2));
    hall.deafen([5]);
    hall.pass(secs(20));
    assert!(hall.evicted().is_empty(), "they reach it");
    hall.kill([5]);
    hall.pass(secs(12));
    assert_eq!(witnesses(&hall.evicted()[0].2).len(), 3);
}

#[test]
fn claims_that_are_right_or_old_make_nobody_doubtful() {
    let mut hall = Hall::of(9);
    hall.report(1, 2, Report::Lost);
    hall.report(1, 3, Report::Lost);
    hall.pass(secs(70));
    hall.kill([8]);
    hall.pass(ms(100));
    hall.report(1, 8, Report::Lost);
    hall.pass(secs(3));
    hall.kill([9]);
    hall.pass(ms(100));
    hall.report(1, 9, Report::Lost);
    hall.report(2, 9, Report::Lost);
    hall.report(3, 9, Report::Lost);
    hall.pass(secs(10));
    let nine = hall.evicted().into_iter().find(|(_, member, _)| *member == id(9)).unwrap();
    assert_eq!(witnesses(&nine.2), [1, 2, 3].map(id));
}

#[test]
fn a_new_leader_gives_everybody_the_time_to_find_it_and_the_eviction_time() {
    let mut hall = Hall::unheard(6, 3);
    hall.deafen([6]);
    hall.kill([6]);
    hall.pass(SETTLE + EVICTION - ms(1));
    assert!(hall.probes().is_empty());
    assert_eq!(hall.health(6), Some(Health::Suspected));
    hall.pass(PROBE);
    assert_eq!(hall.evicted().len(), 1);
}

#[test]
fn one_that_found_the_new_leader_has_no_more_time_than_others() {
    let mut hall = Hall::unheard(6, 3);
    hall.pass(ms(100));
    hall.kill([6]);
    let heard = hall.heard_at(6);
    hall.pass(EVICTION + PROBE);
    assert_eq!(hall.evicted().len(), 1);
    assert_eq!(hall.changes(6)[0], (heard + EVICTION / 2, Health::Suspected));
}

#[test]
fn time_in_which_the_leader_stood_still_counts_for_nobodys_silence() {
    for first in [false, true] {
        let mut hall = Hall::of(1);
        if first {
            // A report is read before the timers run.
            hall.join(2);
            hall.now += secs(60);
            hall.say(2, 1, Report::Lost);
        }
        hall.stall(secs(60));
        hall.pass(secs(30));
        assert!(hall.evicted().is_empty() && hall.all_healthy());
    }
}

#[test]
fn an_eviction_that_came_to_nothing_is_said_again() {
    let mut hall = Hall::of(5);
    hall.views = false;
    hall.kill([5]);
    hall.pass(secs(30));
    let times: Vec<_> = hall.evicted().into_iter().map(|(at, ..)| at).collect();
    assert!(times.len() >= 3, "{times:?}");
    assert!(times.windows(2).all(|two| two[1] - two[0] >= EVICTION && two[1] - two[0] <= EVICTION + PROBE));
}

#[test]
fn one_that_left_is_forgotten_and_what_it_was_asked_another_is_asked() {
    let mut hall = Hall::of(6);
    (1..=5).for_each(|number| hall.nature(number, Nature::Mute));
    hall.kill([6]);
    hall.pass(ms(5_100));
    let (_, witness, ..) = hall.probes()[0];
    let number = (1..=5).find(|number| id(*number) == witness).unwrap();
    hall.leave(number);
    assert_eq!(hall.probes().len(), 4, "at once");
    hall.leave(6);
    hall.pass(secs(20));
    assert_eq!(hall.probes().len(), 4);
    assert!(hall.evicted().is_empty() && hall.all_healthy());
    assert_eq!(hall.judge.health().count(), 4);
}

#[test]
fn strangers_change_nothing() {
    let mut hall = Hall::of(3);
    hall.judge.handle_heard(hall.now, id(77));
    hall.judge.handle_left(hall.now, id(77));
    hall.judge.handle_report(hall.now, id(77), id(1), Report::Lost);
    hall.judge.handle_report(hall.now, id(1), id(77), Report::Lost);
    hall.judge.handle_joined(hall.now, id(1));
    hall.pass(secs(10));
    assert_eq!(hall.judge.health().count(), 3);
    assert!(hall.all_healthy() && hall.evicted().is_empty());
}

#[test]
fn probes_under_way_are_bounded_and_every_case_has_its_turn() {
    let mut hall = Hall::of(100);
    hall.kill(1..=30);
    let heard = hall.heard_at(1);
    hall.pass(secs(12));
    assert_eq!(hall.evicted().len(), 30);
    let first = hall.probes().into_iter().filter(|(at, ..)| *at <= heard + EVICTION).count();
    assert_eq!(first, PROBES_MAX);
}

#[test]
fn times_that_do_not_hold_together_are_refused() {
    let new = JudgeConfig::new;
    assert_eq!(new(ms(1), secs(5), secs(2), secs(3)), Err(JudgeConfigError::PingTooOften(ms(1))));
    let early = JudgeConfigError::EvictionTooEarly { eviction: secs(3), ping: secs(1) };
    assert_eq!(new(secs(1), secs(3), secs(2), secs(3)), Err(early));
    assert_eq!(new(secs(1), secs(5), ms(3), secs(3)), Err(JudgeConfigError::ProbeTooShort(ms(3))));
    let days = secs(2 * 24 * 60 * 60);
    assert_eq!(new(secs(1), days, secs(2), secs(3)), Err(JudgeConfigError::TooLong(days)));
    let usual = JudgeConfig::default();
    assert_eq!(new(usual.ping(), usual.eviction(), usual.probe(), usual.settle()), Ok(usual));
}

#[test]
fn what_was_not_told_yet_is_told_as_it_is_and_once() {
    for leaves in [false, true] {
        let mut hall = Hall::of(1);
        hall.kill([1]);
        hall.pass(EVICTION - PING);
        let mut now = hall.now;
        for _ in 0..30 {
            now += ms(100);
            hall.judge.handle_timeout(now);
        }
        if leaves {
            hall.judge.handle_left(now, id(1));
        } else {
            hall.judge.handle_heard(now, id(1));
        }
        let actions: Vec<_> = std::iter::from_fn(|| hall.judge.poll_action()).collect();
        let healthy = Action::Health { member: id(1), health: Health::Healthy };
        assert_eq!(actions, if leaves { vec![Action::Ping] } else { vec![Action::Ping, healthy] });
    }
}

#[test]
fn one_who_reached_it_has_the_first_word_but_holds_nobody_up_by_saying_nothing() {
    let mut hall = Hall::of(8);
    hall.nature(1, Nature::Mute);
    hall.kill([8]);
    hall.pass(ms(300));
    hall.report(1, 8, Report::Heard);
    (2..=4).for_each(|reporter| hall.report(reporter, 8, Report::Lost));
    let heard = hall.heard_at(8);
    hall.pass(secs(8));
    let asked: Vec<_> = hall.probes().into_iter().map(|(_, witness, ..)| witness).collect();
    assert_eq!(asked, [id(1)]);
    assert_eq!(hall.evicted()[0].0, heard + EVICTION + PROBE);
}

#[test]
fn the_last_word_of_a_witness_counts() {
    let mut hall = Hall::of(8);
    hall.kill([8]);
    hall.pass(ms(300));
    hall.report(1, 8, Report::Heard);
    (1..=3).for_each(|reporter| hall.report(reporter, 8, Report::Lost));
    let heard = hall.heard_at(8);
    hall.pass(secs(8));
    assert!(hall.probes().is_empty());
    assert_eq!(hall.evicted()[0].0, heard + EVICTION);
}

#[test]
fn what_was_said_before_a_round_ended_counts_for_nothing_in_the_next() {
    let mut hall = Hall::of(6);
    hall.deafen([6]);
    hall.pass(ms(300));
    hall.report(1, 6, Report::Lost);
    hall.report(2, 6, Report::Lost);
    hall.pass(ms(4_500));
    assert_eq!(hall.probes().len(), 1, "two had said so");
    hall.pass(ms(1_000));
    assert_eq!(hall.probes().len(), 4, "all three are asked anew");
    for (_, witness, _, probe) in hall.probes() {
        hall.answer(witness, probe, false);
    }
    hall.pass(ms(2_000));
    assert_eq!(hall.probes().len(), 7, "and answers to what is over are none");
}

#[test]
fn with_a_round_its_questions_end_and_answers_that_come_later_count_for_nothing() {
    let mut hall = Hall::of(6);
    (2..=5).for_each(|number| hall.nature(number, Nature::Sick));
    hall.deafen([6]);
    hall.pass(ms(300));
    hall.report(1, 6, Report::Heard);
    hall.pass(ms(4_350));
    assert_eq!(hall.probes().len(), 3, "three were asked");
    assert!(
        matches!(hall.health(6), Some(Health::Vouched { .. })),
        "and the first has said that it reaches it"
    );
    assert!(hall.judge.probes.is_empty(), "so nothing more is wanted of the others");
    hall.pass(ms(1_100));
    assert_eq!(hall.probes().len(), 6, "who said \"lost\" meanwhile is asked again as everybody is");
}
