//! The rendezvous as real processes: servers, nodes with routes and traffic between them, and what each of them sees and when.
//!
//! Each show runs here in a short form. `cargo test --release --test rendezvous_lab -- --ignored --nocapture` runs all of them with the
//! default times, one after the other, and prints the figures (some 15 minutes; `LAB_ONLY=leader` for those with that in their name).
//! All processes read one clock, so that times can be compared. Nothing leaves loopback and the network namespaces that a show makes.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "rendezvous_lab/killing.rs"]
mod killing;
#[path = "rendezvous_lab/known.rs"]
mod known;
#[allow(dead_code, reason = "shared with the other lab, which uses more of it")]
mod labs;
#[path = "rendezvous_lab/outage.rs"]
mod outage;
#[path = "rendezvous_lab/process.rs"]
mod process;
#[path = "rendezvous_lab/report.rs"]
mod report;
#[path = "rendezvous_lab/scale.rs"]
mod scale;
#[path = "rendezvous_lab/split.rs"]
mod split;
#[allow(dead_code, reason = "shared with others, which use more of it")]
mod support;
#[path = "../examples/shared/traffic.rs"]
mod traffic;
#[path = "rendezvous_lab/worker.rs"]
mod worker;
#[path = "rendezvous_lab/world.rs"]
mod world;

use labs::form::Show;
use report::{Figures, short};

const SHOWS: [Show<Figures>; 7] = [
    ("known to all", known::known),
    ("killed and frozen", known::killed_and_frozen),
    ("leader killed", killing::leader_killed),
    ("all servers killed", outage::all_servers_killed),
    ("all disks lost", outage::all_disks_lost),
    ("split", split::split),
    ("scale", scale::scale),
];

/// No test: the program that the tests start in other processes.
#[test]
fn worker() {
    let Ok(job) = std::env::var(worker::JOB) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(worker::run(serde_json::from_str(&job).unwrap()));
    std::process::exit(0);
}

#[test]
#[ignore = "some 15 minutes: all shows with the default times, and their figures"]
fn the_figures() {
    report::all(&SHOWS);
}

#[test]
fn who_joins_leaves_or_changes_its_routes_is_known_to_all() {
    short("known to all", known::known);
}

#[test]
fn who_is_killed_or_stands_still_is_dropped_and_who_wakes_up_comes_again() {
    short("killed and frozen", known::killed_and_frozen);
}

#[test]
fn a_leader_that_is_killed_costs_no_registration_no_member_and_no_message() {
    short("leader killed", killing::leader_killed);
}

#[test]
fn while_all_servers_are_dead_traffic_goes_on_and_who_came_meanwhile_is_known_soon_after() {
    short("all servers killed", outage::all_servers_killed);
}

#[test]
fn when_all_disks_are_lost_nodes_keep_their_ids_once_an_operator_says_so() {
    short("all disks lost", outage::all_disks_lost);
}

#[test]
fn after_a_split_one_history_remains() {
    short("split", split::split);
}

#[test]
fn a_join_and_a_change_of_routes_cost_one_message_a_node() {
    short("scale", scale::scale);
}
