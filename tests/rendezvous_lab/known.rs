//! Who comes, goes, dies or stands still: when everybody knows.

use std::thread;
use std::time::Duration;

use crate::process::at;
use crate::report::{Figures, Form, Times, Tried};
use crate::world::World;

const NODES: usize = 5;
/// Goal of the issue, for all but deaths.
const PROMISE_MS: f64 = 200.0;

/// Joins, changes of routes, and leaves.
pub(crate) fn known(form: Form) -> Tried<Figures> {
    let mut all = World::on_loopback(NODES, form);
    let five: Vec<usize> = (0..NODES).collect();
    let [mut joins, mut routes, mut withdrawals, mut leaves] = <[Times; 4]>::default();
    for round in 0..form.pick(3, 50) {
        let mut guest = all.start_node(None);
        let (id, began) = (guest.id(), at(&guest.last("started").unwrap()));
        joins.extend(all.seen_ms(&five, &id, true, began));
        guest.wait("its own view", |guest| guest.sees(&id).then_some(()));

        let who = round % NODES;
        let key_of = |route: &str| format!("lab.work/1@{route}");
        all.nodes[who].order("keep");
        let kept =
            all.nodes[who].wait("a route", |node| node.all("keeping", 0.0).into_iter().nth(round / NODES));
        let (key, moment) = (key_of(kept["route"].as_str().unwrap()), at(&kept));
        let with = |list: &serde_json::Value| list.as_array().unwrap().iter().any(|route| route[0] == *key);
        for other in five.iter().filter(|other| **other != who) {
            let node = &mut all.nodes[*other];
            routes.add(node.when("a route", "routes", moment, |line| with(&line["came"])) - moment);
        }
        all.nodes[who].order("drop");
        let dropped =
            all.nodes[who].wait("its end", |node| node.all("dropping", 0.0).into_iter().nth(round / NODES));
        let moment = at(&dropped);
        for other in five.iter().filter(|other| **other != who) {
            let node = &mut all.nodes[*other];
            withdrawals.add(node.when("its end", "routes", moment, |line| with(&line["went"])) - moment);
        }

        guest.order("leave");
        let leaving = guest.wait("its leave", |guest| guest.last("leaving"));
        leaves.extend(all.seen_ms(&five, &id, false, at(&leaving)));
        guest.wait("its end", |guest| guest.last("left"));
    }
    let messages = all.settle(&five);
    let promise = form.pick(10.0 * PROMISE_MS, PROMISE_MS);
    let mut figures = Figures::new();
    for (what, times) in [
        ("a node joins, from the start of its rendezvous", &joins),
        ("a route comes", &routes),
        ("a route goes", &withdrawals),
        ("a node leaves, from its order to leave", &leaves),
    ] {
        assert!(times.at(0.99) <= promise, "{what}: {}: {}", times.text(), all.story());
        figures.push(format!("{what}, until each of the others knows: {}", times.text()));
    }
    figures.push(format!(
        "messages between the {NODES} nodes meanwhile: {messages}, lost 0, twice 0, out of order 0"
    ));
    Ok(figures)
}

/// Kill -9, and SIGSTOP for less and for longer than it takes to be dropped.
pub(crate) fn killed_and_frozen(form: Form) -> Tried<Figures> {
    let mut all = World::on_loopback(NODES, form);
    let five: Vec<usize> = (0..NODES).collect();
    let eviction = form.pick(Duration::from_secs(2), Duration::from_secs(5));
    let [mut deaths, mut stops, mut wakings] = <[Times; 3]>::default();
    for _ in 0..form.pick(1, 10) {
        let mut guest = all.start_node(None);
        let id = guest.id();
        all.seen_ms(&five, &id, true, 0.0);
        let moment = crate::worker::unix_ms();
        guest.teller.process.kill();
        deaths.extend(all.seen_ms(&five, &id, false, moment));
    }
    let calm = crate::worker::unix_ms();
    let doze = eviction.mul_f64(0.4);
    for who in [1, 3] {
        all.nodes[who].teller.process.signal("STOP");
        thread::sleep(doze);
        all.nodes[who].teller.process.signal("CONT");
        all.wait_for_traffic(&five);
    }
    assert_eq!(all.dropped(calm), Vec::<String>::new(), "for a doze: {}", all.story());
    for _ in 0..form.pick(1, 5) {
        let guest = all.start_node(None);
        all.nodes.push(guest);
        let who = NODES;
        let id = all.nodes[who].id();
        all.seen_ms(&five, &id, true, 0.0);
        let moment = crate::worker::unix_ms();
        all.nodes[who].teller.process.signal("STOP");
        stops.extend(all.seen_ms(&five, &id, false, moment));
        let moment = crate::worker::unix_ms();
        all.nodes[who].teller.process.signal("CONT");
        let reborn = all.nodes[who].wait("another id", |node| Some(node.id()).filter(|now| *now != id));
        wakings.extend(all.seen_ms(&five, &reborn, true, moment));
        let six: Vec<usize> = (0..=NODES).collect();
        all.wait_until_all_see_all(&six);
        all.wait_for_traffic(&six);
        all.settle(&five);
        let mut guest = all.nodes.remove(who);
        guest.order("leave");
        all.seen_ms(&five, &reborn, false, 0.0);
    }
    let messages = all.settle(&five);
    for (what, times) in [("killed", &deaths), ("frozen", &stops)] {
        // The eviction time, a ping, a probe and the judgement: nobody else is silent, so nothing slows it down.
        let promise = eviction.as_secs_f64() * 2e3 + 1e3;
        assert!(times.at(1.0) <= promise, "{what}: {}: {}", times.text(), all.story());
        let early = eviction.as_secs_f64() * 500.0;
        assert!(times.at(0.0) >= early, "{what}: {}: {}", times.text(), all.story());
    }
    Ok(vec![
        format!("kill -9, until each of the others knows (eviction {eviction:?}): {}", deaths.text()),
        format!("SIGSTOP for {doze:?}, twice: nobody is dropped"),
        format!("SIGSTOP, until each of the others knows: {}", stops.text()),
        format!("SIGCONT, until each of the others knows the new incarnation: {}", wakings.text()),
        format!("messages between the {NODES} nodes meanwhile: {messages}, lost 0, twice 0, out of order 0"),
    ])
}
