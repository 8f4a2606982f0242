//! The network is cut in two: the leader with two nodes here, the other servers with two nodes there.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::process::at;
use crate::report::{Figures, Form, Tried};
use crate::worker::unix_ms;
use crate::world::{World, members};

const NODES: usize = 4;

pub(crate) fn split(form: Form) -> Tried<Figures> {
    let mut all = World::on_hosts(NODES, form)?;
    let four: Vec<usize> = (0..NODES).collect();
    let leader = all.servers.wait_for_leader();
    let ids: Vec<String> = four.iter().map(|who| all.nodes[*who].id()).collect();
    // Hosts: servers 0 to 2, nodes from 3 on.
    let few: Vec<usize> = vec![leader, 3, 4];
    let many: Vec<usize> = (0..3 + NODES).filter(|host| !few.contains(host)).collect();
    let (few_nodes, many_nodes) = ([0, 1], [2, 3]);
    // Each of the commands that cut takes some milliseconds, on a busy machine many: the others may elect before the last.
    let began = unix_ms();
    for (a, b) in few.iter().flat_map(|a| many.iter().map(move |b| (*a, *b))) {
        all.network().blackhole_at(a, b);
        all.network().blackhole_at(b, a);
    }
    let cut = unix_ms();
    let new = all.wait("a new leader", |all| {
        let running = all.servers.running.iter().enumerate().filter(|(at, _)| *at != leader);
        let led = running.filter_map(|(_, server)| server.as_ref()?.all("leads").last().map(at));
        led.filter(|led| *led > began).min_by(f64::total_cmp)
    });
    // When the old leader spoke last to those on its side.
    let (mut frozen, mut last): (f64, f64) = (0.0, f64::MIN);
    for who in few_nodes {
        let is = |line: &serde_json::Value| line["standing"] == "frozen";
        let line = all.nodes[who].wait("to be frozen", |node| node.first("standing", cut, is));
        frozen = frozen.max(at(&line) - cut);
        last = last.max(at(&line) - line["silent_ms"].as_f64().unwrap() - cut);
    }
    assert!(last < new - cut, "two leaders speak: {}", all.story());
    // Those on the other side go on, with views of their own; those here with the last view, and with each other.
    let mut evicted: f64 = 0.0;
    for who in few_nodes {
        evicted = all.seen_ms(&many_nodes, &ids[who], false, cut).into_iter().fold(evicted, f64::max);
    }
    all.wait_for_traffic(&few_nodes);
    all.wait_for_traffic(&many_nodes);
    for who in few_nodes {
        let view = all.nodes[who].first("view", cut, |_| true);
        assert_eq!(view, None, "nobody decides here: {}", all.story());
    }
    for who in many_nodes {
        let frozen = all.nodes[who].last("standing").is_some_and(|line| line["standing"] == "joined");
        assert!(frozen, "{}", all.story());
    }
    thread::sleep(Duration::from_secs(1));

    let healed = unix_ms();
    for (a, b) in few.iter().flat_map(|a| many.iter().map(move |b| (*a, *b))) {
        all.network().mend_at(a, b);
        all.network().mend_at(b, a);
    }
    for who in few_nodes {
        let id = ids[who].clone();
        all.nodes[who].wait("another id", |node| Some(node.id()).filter(|now| *now != id));
    }
    all.wait_until_all_see_all(&four);
    let whole = unix_ms() - healed;
    all.wait_for_traffic(&four);
    all.settle(&many_nodes);
    let messages = all.settle(&four);
    let views = one_history(&mut all);
    Ok(vec![
        format!("servers 1|2, the leader with two of {NODES} nodes on the smaller side"),
        format!(
            "the old leader's side: it spoke last {last:.0} ms after the cut, its nodes are frozen after {frozen:.0} ms; no view there"
        ),
        format!(
            "the other side: a leader after {:.0} ms; the two that are cut off are dropped after {evicted:.0} ms",
            new - cut
        ),
        format!(
            "healed: all {NODES} see each other {whole:.0} ms later; {views} views, each the same on all who had it, in one order"
        ),
        format!("messages between the nodes meanwhile: {messages}, lost 0, twice 0, out of order 0"),
    ])
}

/// Views of all nodes are parts of one sequence: each grows, and the same number is the same view everywhere. How many there were.
fn one_history(all: &mut World) -> usize {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for who in 0..all.nodes.len() {
        for view in all.nodes[who].all("view", 0.0) {
            assert_eq!(view["grows"], true, "{view}");
            let (id, members) = (view["view"].as_str().unwrap().to_owned(), members(&view));
            let known = seen.entry(id.clone()).or_insert_with(|| members.clone());
            assert_eq!(*known, members, "view {id} at {}", all.nodes[who].name);
        }
    }
    seen.len()
}
