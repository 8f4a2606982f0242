//! The lab: real processes, real faults of the kernel, and what the application saw of them.
//!
//! Each fault runs here in a short form. `cargo test --test lab -- --ignored --nocapture` runs all of them with the default
//! times, one after the other, and prints the table (some minutes; `LAB_ONLY=disk` for those with that in their name).
//! What needs root, `ip` or a kernel that can it says so and is skipped where they are missing. Nothing leaves loopback
//! and the network namespaces that a test makes, which carry the test's process id and go with it.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "lab/cluster.rs"]
mod cluster;
#[path = "lab/ends.rs"]
mod ends;
#[path = "lab/network.rs"]
mod network;
#[path = "lab/process.rs"]
mod process;
#[path = "lab/report.rs"]
mod report;
mod support;
#[path = "../examples/shared/traffic.rs"]
mod traffic;
#[path = "lab/worker.rs"]
mod worker;

use report::{Fault, short};

const FAULTS: [Fault; 3] =
    [("kill and restart", ends::kill_and_restart), ("freeze", ends::freeze), ("doze", ends::doze)];

/// No test: the program that the tests start in other processes.
#[test]
fn worker() {
    let Ok(job) = std::env::var(worker::JOB) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(worker::run(serde_json::from_str(&job).unwrap()));
    std::process::exit(0);
}

#[test]
#[ignore = "some minutes: all faults with the default times, and the table of them"]
fn the_table() {
    report::table(&FAULTS);
}

#[test]
fn what_was_meant_for_a_killed_process_never_reaches_the_next_one_on_its_address() {
    short("kill and restart", ends::kill_and_restart);
}

#[test]
fn a_frozen_process_is_told_in_time_and_goes_on_where_it_was_when_it_thaws() {
    short("freeze", ends::freeze);
}

#[test]
fn a_process_that_freezes_for_less_than_liveness_is_not_suspected() {
    short("doze", ends::doze);
}
