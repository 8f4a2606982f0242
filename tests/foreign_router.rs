//! "Shows 7": the example `foreign_router` as processes, through the fault proxy; one node is removed from the view while it
//! lives, another is killed. Between survivors nothing is lost, doubled or out of order.
//!
//! The example stands beside this test: `cargo test` builds it, `cargo test --test foreign_router` does not, so after a
//! change run `cargo build --example foreign_router` first.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::{Command, Stdio};

use serde_json::Value;

#[allow(dead_code, reason = "each test binary uses its own part")]
mod support;

use support::Karere;

fn run(flags: &str) -> Value {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name("examples/foreign_router");
    let mut all = Karere::spawn(Command::new(&path), flags, &[], Stdio::piped());
    all.end_with_input_open().with(0).json()
}

fn check(report: &Value, nodes: u64, orders: u64) {
    for what in ["lost", "twice", "out_of_order"] {
        assert_eq!(report[what], 0, "{what}: {report}");
    }
    assert_eq!((&report["good"], &report["books_balance"]), (&true.into(), &true.into()), "{report}");
    let number = |what: &str| report[what].as_u64().unwrap();
    assert_eq!(number("survivors"), nodes - 2, "one removed, one killed: {report}");
    assert_eq!(number("orders"), orders * (nodes - 2));
    assert_eq!(number("answered") + number("departed"), number("orders"), "{report}");
    assert!(number("departed") < number("orders") / 2, "the survivors go on: {report}");
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len() as u64, (nodes - 2) * (nodes - 3));
    for pair in pairs {
        assert_eq!(pair["sent"], pair["received"], "{pair}");
        assert!(pair["sent"].as_u64().unwrap() > orders / 10, "messages flow between all: {report}");
    }
    for actors in report["actors"].as_array().unwrap() {
        let [one, other] = [0, 1].map(|at| actors[at].as_u64().unwrap());
        assert!(one.abs_diff(other) <= 2, "redundant actors take turns: {report}");
    }
}

#[test]
fn through_resets_cuts_and_delays_survivors_lose_nothing_and_nothing_comes_twice_or_out_of_order() {
    let report = run("--orders 20000 --faults --json");
    println!("{report}");
    check(&report, 5, 20_000);
    let faults = &report["faults"];
    let broken = faults["resets"].as_u64().unwrap() + faults["cuts"].as_u64().unwrap();
    assert!(broken >= 10, "hardly anything broke: {report}");
}

#[test]
fn without_faults_and_with_seven_nodes_it_is_the_same() {
    let report = run("--nodes 7 --orders 3000 --json");
    println!("{report}");
    check(&report, 7, 3000);
}
