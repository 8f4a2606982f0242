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
#[path = "lab/holes.rs"]
mod holes;
mod labs;
#[path = "lab/others.rs"]
mod others;
#[path = "lab/process.rs"]
mod process;
#[path = "lab/report.rs"]
mod report;
#[path = "lab/ring.rs"]
mod ring;
#[path = "lab/shortage.rs"]
mod shortage;
mod support;
#[path = "../examples/shared/traffic.rs"]
mod traffic;
#[path = "lab/worker.rs"]
mod worker;

use labs::form::Show;
use report::{Row, short};

const FAULTS: [Show<Vec<Row>>; 15] = [
    ("kill and restart", ends::kill_and_restart),
    ("freeze", ends::freeze),
    ("doze", ends::doze),
    ("reset", others::reset),
    ("link down", holes::link_down),
    ("black hole", holes::black_hole),
    ("one way", holes::one_way),
    ("flapping", holes::flapping),
    ("removal", holes::removal),
    ("moved address", others::moved_address),
    ("narrow", others::narrow),
    ("slow line", others::slow_line),
    ("full disk", shortage::full_disk),
    ("descriptors", shortage::descriptors),
    ("ring", ring::ring),
];

/// No test: the program that the tests start in other processes.
#[test]
fn worker() {
    let Ok(job) = std::env::var(worker::JOB) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(worker::run(serde_json::from_str(&job).unwrap()));
    std::process::exit(0);
}

/// No test either: many members in one process.
#[test]
fn ring_of_members() {
    let Ok(job) = std::env::var(ring::RING) else { return };
    let (members, secs) = job.split_once(' ').unwrap();
    let idle = std::time::Duration::from_secs(secs.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(ring::run(members.parse().unwrap(), idle));
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

#[test]
fn a_connection_that_the_kernel_resets_in_mid_stream_loses_nothing() {
    short("reset", others::reset);
}

#[test]
fn a_link_that_goes_down_and_comes_back_loses_nothing() {
    short("link down", holes::link_down);
}

#[test]
fn a_black_hole_that_lifts_has_lost_nothing() {
    short("black hole", holes::black_hole);
}

#[test]
fn a_way_that_is_black_in_one_direction_is_noticed_and_loses_nothing() {
    short("one way", holes::one_way);
}

#[test]
fn a_route_that_comes_and_goes_loses_nothing() {
    short("flapping", holes::flapping);
}

#[test]
fn a_member_removed_behind_a_black_hole_leaves_no_socket_in_the_kernel_and_is_not_dialled() {
    short("removal", holes::removal);
}

#[test]
fn who_takes_over_an_address_gets_nothing_of_what_was_meant_for_another() {
    short("moved address", others::moved_address);
}

#[test]
fn a_way_that_takes_smaller_packets_from_now_on_keeps_its_link() {
    short("narrow", others::narrow);
}

#[test]
fn a_slow_full_line_is_no_dead_one_and_urgent_comes_first() {
    short("slow line", others::slow_line);
}

#[test]
fn a_full_disk_is_told_to_the_sender_and_the_next_stream_arrives() {
    short("full disk", shortage::full_disk);
}

#[test]
fn without_descriptors_linked_members_notice_nothing_and_a_new_one_follows_when_there_are_some() {
    short("descriptors", shortage::descriptors);
}

#[test]
fn many_members_in_one_process_meet_their_neighbours_and_leave_nothing_behind() {
    short("ring", ring::ring);
}
