//! Histories of chance, against an oracle.

use proptest::prelude::*;

use super::super::{Action, Health, ProbeId, Report};
use super::hall::{EVICTION, Hall, Nature, PING, PROBE, SETTLE, id, ms, secs};

/// What may happen; numbers choose among the members there are.
#[derive(Clone, Debug)]
enum Op {
    Kill(u64),
    Deafen(u64),
    Hear(u64),
    Cut(u64, u64),
    Become(u64, Nature),
    Report(u64, u64, Report),
    /// A report of one that is not heard by it.
    Say(u64, u64, Report),
    Answer(u64, u64, bool),
    Join,
    Leave(u64),
    Stall(u64),
    Pass(u64),
}

fn nature() -> impl Strategy<Value = Nature> {
    prop::sample::select(vec![Nature::Honest, Nature::Sick, Nature::Kind, Nature::Mute, Nature::Mad])
}

fn report() -> impl Strategy<Value = Report> {
    prop::sample::select(vec![Report::Lost, Report::Heard])
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..64_u64;
    prop_oneof![
        2 => who.clone().prop_map(Op::Kill),
        3 => who.clone().prop_map(Op::Deafen),
        3 => who.clone().prop_map(Op::Hear),
        2 => (who.clone(), who.clone()).prop_map(|(one, other)| Op::Cut(one, other)),
        2 => (who.clone(), nature()).prop_map(|(who, nature)| Op::Become(who, nature)),
        5 => (who.clone(), who.clone(), report()).prop_map(|(from, of, what)| Op::Report(from, of, what)),
        2 => (who.clone(), who.clone(), report()).prop_map(|(from, of, what)| Op::Say(from, of, what)),
        2 => (who.clone(), 0..200_u64, any::<bool>()).prop_map(|(who, probe, is)| Op::Answer(who, probe, is)),
        1 => Just(Op::Join),
        1 => who.prop_map(Op::Leave),
        1 => (0..20_000_u64).prop_map(Op::Stall),
        12 => (0..4_000_u64).prop_map(Op::Pass),
    ]
}

/// The number of a member that there is.
fn pick(hall: &Hall, number: u64) -> u64 {
    let there: Vec<u64> = (1..=200).filter(|number| hall.members.contains_key(&id(*number))).collect();
    there.get(number as usize % there.len().max(1)).copied().unwrap_or(1)
}

fn play(count: u64, seed: u64, ops: &[Op]) -> Hall {
    let mut hall = Hall::unheard(count, seed);
    let mut next = count;
    for op in ops {
        match *op {
            Op::Kill(who) => hall.kill([pick(&hall, who)]),
            Op::Deafen(who) => hall.deafen([pick(&hall, who)]),
            Op::Hear(who) => drop(hall.deaf.remove(&id(pick(&hall, who)))),
            Op::Cut(one, other) => hall.cut(pick(&hall, one), pick(&hall, other)),
            Op::Become(who, nature) if !hall.members.is_empty() => hall.nature(pick(&hall, who), nature),
            Op::Report(from, of, what) => {
                let (from, of) = (pick(&hall, from), pick(&hall, of));
                if !hall.dead.contains(&id(from)) && !hall.deaf.contains(&id(from)) {
                    hall.report(from, of, what);
                }
            }
            Op::Say(from, of, what) => hall.say(pick(&hall, from), pick(&hall, of), what),
            Op::Answer(who, probe, reached) => {
                let probes = hall.probes();
                let name = probes.get(probe as usize).map_or(ProbeId(probe), |(.., name)| *name);
                hall.answer(id(pick(&hall, who)), name, reached);
            }
            Op::Join => {
                next += 1;
                hall.join(next);
            }
            Op::Leave(who) => hall.leave(pick(&hall, who)),
            Op::Stall(time) => hall.stall(ms(time)),
            Op::Pass(time) => hall.pass(ms(time)),
            Op::Become(..) => {}
        }
        // The table is as long as the view.
        assert!(hall.judge.health().map(|(member, _)| member).eq(hall.members.keys().copied()));
    }
    hall
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The hall asserts of every eviction: of a member, unheard for the whole time, by witnesses heard lately or because there
    /// was none; and after every input that all is bounded.
    #[test]
    fn whatever_happens_only_the_unheard_go_and_in_the_end_all_dead_do_and_all_others_stay(
        count in 1..16_u64,
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut hall = play(count, seed, &ops);
        // The faults end. Each time the wait of a crowd and of each that is left, and what was put off.
        hall.deaf.clear();
        hall.cut.clear();
        hall.members.values_mut().for_each(|nature| *nature = Nature::Honest);
        let most = EVICTION * 3 + secs(10) + (PING + PROBE * 2) * hall.members.len() as u32;
        hall.pass(SETTLE + EVICTION + most);
        let log = hall.log.len();
        prop_assert!(hall.members.keys().all(|member| !hall.dead.contains(member)), "the dead are gone");
        prop_assert!(hall.all_healthy());
        hall.pass(secs(20));
        let quiet = hall.log[log..].iter().all(|(_, action)| *action == Action::Ping);
        prop_assert!(quiet, "and nothing is said any more");
    }

    #[test]
    fn two_identical_histories_give_identical_actions(
        count in 1..16_u64,
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let (one, other) = (play(count, seed, &ops), play(count, seed, &ops));
        let logs = [&one, &other].map(|hall| {
            // Moments are told apart by the clock at the beginning.
            let text = |(at, action): &(std::time::Duration, Action)| match action {
                Action::Evict { member, since, why } => format!("{at:?} {member} {:?} {why:?}", *since - hall.start),
                Action::Health { member, health: Health::Silent { since } | Health::Vouched { since } } => {
                    format!("{at:?} {member} {:?}", *since - hall.start)
                }
                Action::Health { .. } | Action::Ping | Action::Probe { .. } => format!("{at:?} {action:?}"),
            };
            hall.log.iter().map(text).collect::<Vec<_>>()
        });
        prop_assert_eq!(&logs[0], &logs[1]);
    }

    /// Whoever pongs stays, though all others but one lie about it in reports and probes.
    #[test]
    fn liars_evict_nobody_who_pongs(
        count in 2..12_u64,
        liars in prop::collection::vec((1..12_u64, prop::sample::select(vec![Nature::Sick, Nature::Mad])), 0..11),
        said in prop::collection::vec((1..12_u64, 1..12_u64, report(), 0..900_u64), 0..200),
    ) {
        let mut hall = Hall::of(count);
        for (liar, nature) in liars {
            if liar < count {
                hall.nature(liar, nature);
            }
        }
        for (from, of, what, time) in said {
            if from < count && of <= count {
                hall.report(from, of, what);
            }
            hall.pass(ms(time));
        }
        hall.pass(secs(20));
        prop_assert!(hall.evicted().is_empty() && hall.probes().is_empty() && hall.all_healthy());
    }

    /// Two that are sick say "lost" of everybody; the leader misses the pongs of one that all others reach.
    #[test]
    fn two_sick_witnesses_evict_nobody_whom_the_others_reach(
        count in 4..14_u64,
        seed in any::<u64>(),
        reports in any::<bool>(),
        minutes in 1..5_u64,
    ) {
        let mut hall = Hall::unheard(count, seed);
        hall.pass(PING * 2);
        hall.nature(1, Nature::Sick);
        hall.nature(2, Nature::Sick);
        hall.deafen([count]);
        for _ in 0..minutes * 6 {
            if reports {
                (2..=count).for_each(|of| hall.report(1, of, Report::Lost));
                (3..=count).for_each(|of| hall.report(2, of, Report::Lost));
            }
            hall.pass(secs(10));
        }
        prop_assert!(hall.evicted().is_empty(), "{:?}", hall.evicted());
        prop_assert!(!hall.probes().is_empty());
    }

    /// One member reaches it and has said so once; nobody else ever does.
    #[test]
    fn nobody_goes_whom_one_keeps_reaching(
        count in 3..14_u64,
        seed in any::<u64>(),
        reports in prop::collection::vec((2..14_u64, 0..8_000_u64), 0..40),
    ) {
        let mut hall = Hall::unheard(count, seed);
        hall.pass(PING * 2);
        hall.deafen([count]);
        (2..count).for_each(|other| hall.cut(other, count));
        hall.pass(EVICTION - PING);
        hall.pass(ms(60));
        hall.report(1, count, Report::Heard);
        for (from, time) in reports {
            if from < count {
                hall.report(from, count, Report::Lost);
            }
            hall.pass(ms(time));
        }
        hall.pass(secs(60));
        prop_assert!(hall.evicted().is_empty(), "{:?}", hall.evicted());
    }

    /// Within the eviction time and what a probe takes, whoever is dead, up to a third.
    #[test]
    fn the_dead_go_in_time_among_healthy_ones(
        count in 2..40_u64,
        seed in any::<u64>(),
        killed in prop::collection::btree_set(1..40_u64, 1..5),
        after in 0..1_000_u64,
        reports in prop::collection::vec((1..40_u64, 1..40_u64, 0..200_u64), 0..20),
    ) {
        let mut hall = Hall::unheard(count, seed);
        hall.pass(PING * 3 + ms(after));
        let killed: Vec<u64> = killed.into_iter().filter(|number| *number <= count).take((count as usize / 3).max(1)).collect();
        hall.kill(killed.iter().copied());
        for (from, of, time) in reports {
            let [from_id, of_id] = [from, of].map(id);
            if from <= count && !hall.dead.contains(&from_id) && hall.dead.contains(&of_id) {
                hall.report(from, of, Report::Lost);
            }
            hall.pass(ms(time));
        }
        hall.pass(ms(100));
        let heard: Vec<_> = killed.iter().map(|number| (*number, hall.heard_at(*number))).collect();
        hall.pass(EVICTION + PROBE);
        prop_assert_eq!(hall.evicted().len(), killed.len());
        for (number, heard) in heard {
            let at = hall.evicted().into_iter().find(|(_, member, _)| *member == id(number)).unwrap().0;
            prop_assert!(at >= heard + EVICTION && at <= heard + EVICTION + PROBE, "{:?} after {:?}", at, heard);
        }
    }

    /// However many die at once: above a third they go no faster than one a second, and all go.
    #[test]
    fn above_a_third_the_rate_falls_and_all_dead_go(count in 4..60_u64, dead in 1..60_u64, seed in any::<u64>()) {
        let mut hall = Hall::unheard(count, seed);
        hall.pass(PING * 3 + ms(500));
        let dead = dead.min(count);
        hall.kill(1..=dead);
        hall.pass(secs(25) + (PING + PROBE) * dead as u32);
        let evicted = hall.evicted();
        prop_assert_eq!(evicted.len() as u64, dead);
        for (gone, two) in evicted.windows(2).enumerate() {
            let missing = dead - gone as u64 - 1;
            if missing >= 2 && missing * 3 > count - gone as u64 - 1 {
                prop_assert!(two[1].0 - two[0].0 >= PING, "{:?}", two);
            }
        }
        prop_assert!(hall.all_healthy());
    }
}
