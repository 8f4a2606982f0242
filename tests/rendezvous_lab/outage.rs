//! All servers die: the network lives on without them, and is one with them when they come back.

use std::thread;
use std::time::Duration;

use crate::process::at;
use crate::report::{Figures, Form, Tried};
use crate::support::Karere;
use crate::support::network::karere;
use crate::worker::unix_ms;
use crate::world::World;

const NODES: usize = 5;
/// Who came meanwhile is known to all so soon after the leader's return.
const PROMISE_MS: f64 = 5000.0;

/// When one of the servers said, after a moment, that it leads.
fn leads_ms(all: &mut World, moment: f64) -> f64 {
    all.wait("a leader", |all| {
        let running = all.servers.running.iter().flatten();
        let led = running.flat_map(|server| server.all("leads").last().cloned());
        led.map(|line| at(&line)).filter(|led| *led > moment).min_by(f64::total_cmp)
    })
}

pub(crate) fn all_servers_killed(form: Form) -> Tried<Figures> {
    let mut all = World::on_loopback(NODES, form);
    let five: Vec<usize> = (0..NODES).collect();
    let ids: Vec<String> = five.iter().map(|who| all.nodes[*who].id()).collect();
    let outage = form.pick(Duration::from_secs(10), Duration::from_secs(60));
    let before = all.count(&five);
    thread::sleep(outage / 4);
    let calm = all.count(&five);

    (0..3).for_each(|server| all.servers.kill(server));
    let died = unix_ms();
    all.count(&five);
    // Two come meanwhile, and find nobody.
    for _ in 0..2 {
        let node = all.start_node(None);
        all.nodes.push(node);
    }
    let begin = all.count(&five);
    thread::sleep(outage.saturating_sub(Duration::from_secs_f64((unix_ms() - died) / 1e3)));
    let end = all.count(&five);
    for who in &five {
        let frozen = all.nodes[*who].first("standing", died, |line| line["standing"] == "frozen");
        assert!(frozen.is_some(), "{}", all.nodes[*who].story());
    }
    let ratio = end.rate_since(begin) / calm.rate_since(before);
    assert!(ratio > 0.9, "{ratio}: {}", all.story());

    let back = unix_ms();
    (0..3).for_each(|server| all.servers.start_one(server));
    let led = leads_ms(&mut all, back);
    let new: Vec<String> = (NODES..NODES + 2).map(|who| all.nodes[who].id()).collect();
    let seven: Vec<usize> = (0..NODES + 2).collect();
    let mut known: f64 = 0.0;
    for id in &new {
        known = all.seen_ms(&seven, id, true, led).into_iter().fold(known, f64::max);
    }
    assert!(known <= PROMISE_MS, "{known} ms: {}", all.story());
    all.wait_until_all_see_all(&seven);
    assert_eq!(all.dropped(0.0), Vec::<String>::new(), "{}", all.story());
    let now: Vec<String> = five.iter().map(|who| all.nodes[*who].id()).collect();
    assert_eq!(now, ids, "they stay who they are");
    all.wait_for_traffic(&seven);
    let messages = all.settle(&seven);
    Ok(vec![
        format!(
            "all servers killed for {outage:?}: traffic between the nodes at {ratio:.3} of the rate before; the longest silence of one towards another {} ms ({} ms before)",
            end.silent_ms, calm.silent_ms
        ),
        format!("restarted from disk: a leader after {:.0} ms", led - back),
        format!(
            "two nodes that came meanwhile are known to all {known:.0} ms after that; nobody was dropped"
        ),
        format!("messages between the nodes meanwhile: {messages}, lost 0, twice 0, out of order 0"),
    ])
}

pub(crate) fn all_disks_lost(form: Form) -> Tried<Figures> {
    let mut all = World::on_loopback(NODES, form);
    let five: Vec<usize> = (0..NODES).collect();
    five.iter().for_each(|who| drop(all.nodes[*who].ask_for("keep", "kept")));
    let ids: Vec<String> = five.iter().map(|who| all.nodes[*who].id()).collect();
    (0..3).for_each(|server| {
        all.servers.kill(server);
        std::fs::remove_dir_all(all.servers.data(server)).unwrap();
    });
    let lost = unix_ms();
    (0..3).for_each(|server| all.servers.start_one(server));
    let led = leads_ms(&mut all, lost);
    let mut said = String::new();
    for who in &five {
        let line = all.nodes[*who].wait("a refusal", |node| {
            let refused =
                |line: &serde_json::Value| line["standing"].as_str().unwrap().starts_with("refused");
            node.first("standing", lost, refused)
        });
        said = line["standing"].as_str().unwrap().to_owned();
    }
    assert!(said.contains("karere rendezvous recover"), "{said}");
    // Who is new is not let in either: there would be two networks.
    let node = all.start_node(None);
    all.nodes.push(node);
    thread::sleep(Duration::from_secs(2));
    assert!(!all.nodes[NODES].is_joined(), "{}", all.story());
    let order = format!("rendezvous recover --yes --rendezvous {}", all.servers.list());
    let moment = unix_ms();
    Karere::spawn(karere(), &order, &[], std::process::Stdio::piped()).end().with(0);
    let mut known: f64 = 0.0;
    for who in &five {
        let again = all.nodes[*who].when("to be back", "view", moment, |view| {
            view["view"].as_str().unwrap().starts_with("2.") && crate::world::members(view).len() >= NODES
        });
        known = known.max(again - moment);
    }
    let six: Vec<usize> = (0..=NODES).collect();
    all.wait_until_all_see_all(&six);
    let now: Vec<String> = five.iter().map(|who| all.nodes[*who].id()).collect();
    assert_eq!(now, ids, "they keep their ids: {}", all.story());
    assert_eq!(all.dropped(0.0), Vec::<String>::new(), "{}", all.story());
    let routes = all.routes_agree(&six);
    all.wait_for_traffic(&six);
    let messages = all.settle(&six);
    Ok(vec![
        format!(
            "all disks lost: a leader of empty disks after {:.0} ms; every node says: {said}",
            led - lost
        ),
        format!(
            "`karere rendezvous recover --yes`: after {known:.0} ms all {NODES} nodes are members again, with the ids, sessions and {routes} routes they had"
        ),
        format!("messages between the nodes meanwhile: {messages}, lost 0, twice 0, out of order 0"),
    ])
}
