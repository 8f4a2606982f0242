//! A few worlds in the suite; many by `karere sim`.

mod found;

use super::{Kind, replay, simulate};

#[test]
fn nothing_is_violated_in_a_few_worlds() {
    let report = simulate(Kind::Messengers, 1, 6, 2, |_| true);
    let first = report.violations.first().map(|outcome| (outcome.seed, outcome.violation.clone()));
    assert_eq!(first, None);
    assert!(report.least.0 >= 5 && report.least.2.as_secs() >= 60, "{:?}", report.least);
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in [3, 4] {
        let (one, other) = (replay(Kind::Messengers, seed), replay(Kind::Messengers, seed));
        let differ = one.1.iter().zip(&other.1).position(|(one, other)| one != other);
        let at = differ.map(|at| (&one.1[at], &other.1[at]));
        assert_eq!(at, None, "seed {seed}");
        assert_eq!(one.0, other.0);
    }
}
