//! The command `sim`: what it prints, and that a seed can be run again. Needs the feature `testing`.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::{Command, Output};

use serde_json::Value;

fn sim(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_karere")).arg("sim").args(options).output().unwrap()
}

fn last_line(output: &Output) -> Value {
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

#[test]
fn the_last_line_of_json_sums_up_the_seeds() {
    let output = sim(&["--seeds", "4", "--seed", "100", "--json"]);
    let sum = last_line(&output);
    assert_eq!((&sum["seeds"], &sum["violations"]), (&4.into(), &0.into()), "{sum}");
    assert!(output.status.success());
    assert!(sum["virtual_seconds"].as_f64().unwrap() >= 240.0, "{sum}");
    assert!(sum["messages"].as_u64().unwrap() >= 4_000, "{sum}");
    assert!(sum["faults"].as_object().unwrap().len() > 10, "{sum}");
    assert!(sum["wall_seconds"].is_f64(), "{sum}");
    let routers = &sum["routers"];
    assert!(routers["worlds"].as_u64().unwrap() >= 1 && routers["flows"].as_u64().unwrap() > 100, "{sum}");
    assert_eq!((&routers["hung"], &routers["misdelivered"]), (&0.into(), &0.into()), "{sum}");
}

#[test]
fn a_replay_tells_the_same_each_time() {
    let [one, other] = [(); 2].map(|()| sim(&["--replay", "7", "--json"]));
    assert!(one.stdout.len() > 100_000, "a trace of what happened");
    assert!(one.stdout == other.stdout, "the same world");
    assert_eq!(last_line(&one)["violation"], Value::Null);
}

#[test]
fn nothing_is_violated_in_a_few_worlds_of_a_rendezvous_and_a_replay_tells_the_same() {
    let sum = last_line(&sim(&["--rendezvous", "--seeds", "6", "--json"]));
    assert_eq!((&sum["seeds"], &sum["violations"]), (&6.into(), &0.into()), "{sum}");
    let told = &sum["rendezvous"];
    assert_eq!(told["worlds"], 6, "{sum}");
    for what in ["views", "terms", "messages", "looks", "grants"] {
        assert!(told[what].as_u64().unwrap() > 10, "{what}: {sum}");
    }
    // The second is of a cluster whose terms began anew when its disks were lost; its nodes were never let in again.
    for seed in ["7", "33"] {
        let [one, other] = [(); 2].map(|()| sim(&["--rendezvous", "--replay", seed, "--json"]));
        assert!(one.stdout == other.stdout, "the same world");
        assert_eq!(last_line(&one)["violation"], Value::Null, "seed {seed}");
    }
}
