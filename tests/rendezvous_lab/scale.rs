//! What a join and a change of routes cost, by how many nodes there are: what the servers say, and when everybody knows.

use std::ops::{AddAssign, Sub};
use std::thread;
use std::time::Duration;

use crate::process::at;
use crate::report::{Figures, Form, Times, Tried};
use crate::world::World;

/// What is still on its way when everybody knows: that routes are registered, that somebody is healthy.
const REST: Duration = Duration::from_millis(200);

/// What nodes took from servers: messages, and the bytes of their records. Pings are datagrams, and not counted.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    messages: u64,
    bytes: u64,
}

impl Sub for Said {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { messages: self.messages - before.messages, bytes: self.bytes - before.bytes }
    }
}

impl AddAssign for Said {
    fn add_assign(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

/// One number of nodes.
#[derive(Debug, Default)]
struct Row {
    nodes: usize,
    join: (Times, Said),
    /// What the new one was told of that.
    joins: Said,
    route: (Times, Said),
    times: u64,
}

pub(crate) fn scale(form: Form) -> Tried<Figures> {
    let sizes = form.pick([3, 6].as_slice(), &[10, 25, 50]);
    let times = form.pick(2, 20);
    let rows: Vec<Row> = sizes.iter().map(|nodes| measure(*nodes, times, form)).collect();
    for row in &rows {
        check(row);
    }
    let mut figures = vec![
        "| nodes | join: messages, bytes (those to the new one) | all know | route: messages, bytes | all know |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    figures.extend(rows.iter().map(line));
    Ok(figures)
}

fn measure(nodes: usize, times: usize, form: Form) -> Row {
    let mut all = World::quiet(nodes, form);
    let everybody: Vec<usize> = (0..nodes).collect();
    let mut row = Row { nodes, times: times as u64, ..Row::default() };
    for round in 0..times {
        let before = heard(&mut all, &everybody);
        let mut guest = all.start_node(None);
        let (id, began) = (guest.id(), at(&guest.last("started").unwrap()));
        row.join.0.extend(all.seen_ms(&everybody, &id, true, began));
        guest.wait("its own view", |guest| guest.sees(&id).then_some(()));
        thread::sleep(REST);
        let own = said_to(&mut guest);
        row.joins += own;
        row.join.1 += own;
        row.join.1 += heard(&mut all, &everybody) - before;
        guest.order("leave");
        all.seen_ms(&everybody, &id, false, began);
        guest.wait("its end", |guest| guest.last("left"));
        thread::sleep(REST);

        let who = round % nodes;
        let before = heard(&mut all, &everybody);
        all.nodes[who].order("keep");
        let kept =
            all.nodes[who].wait("a route", |node| node.all("keeping", 0.0).into_iter().nth(round / nodes));
        let (key, moment) = (format!("lab.work/1@{}", kept["route"].as_str().unwrap()), at(&kept));
        let came =
            |line: &serde_json::Value| line["came"].as_array().unwrap().iter().any(|route| route[0] == *key);
        for other in everybody.iter().filter(|other| **other != who) {
            row.route.0.add(all.nodes[*other].when("a route", "routes", moment, came) - moment);
        }
        thread::sleep(REST);
        row.route.1 += heard(&mut all, &everybody) - before;
    }
    row
}

/// By all of these.
fn heard(all: &mut World, by: &[usize]) -> Said {
    let mut sum = Said::default();
    by.iter().for_each(|who| sum += said_to(&mut all.nodes[*who]));
    sum
}

fn said_to(node: &mut crate::process::Worker) -> Said {
    let told = node.ask("told");
    Said { messages: told["messages"].as_u64().unwrap(), bytes: told["bytes"].as_u64().unwrap() }
}

/// One message to each, and a few to whom it concerns: no more, however many there are.
fn check(row: &Row) {
    let nodes = row.nodes as u64;
    for (what, (_, said), to_one) in [("join", &row.join, 6), ("route", &row.route, 2)] {
        let each = said.messages as f64 / row.times as f64;
        let (least, most) = (nodes as f64, (nodes + to_one) as f64);
        assert!(least <= each && each <= most, "{what}: {each} messages of {least} to {most}: {row:?}");
        let to_others = said.bytes - if what == "join" { row.joins.bytes } else { 0 };
        let bytes = to_others as f64 / (row.times * nodes) as f64;
        assert!(bytes <= 250.0, "{what}: {bytes} bytes a node: {row:?}");
    }
}

fn line(row: &Row) -> String {
    let each = |sum: u64| (sum as f64 / row.times as f64).round();
    let cost = |said: &Said| format!("{}, {}", each(said.messages), each(said.bytes));
    format!(
        "| {} | {} ({}) | {} | {} | {} |",
        row.nodes,
        cost(&row.join.1),
        cost(&row.joins),
        row.join.0.text(),
        cost(&row.route.1),
        row.route.0.text(),
    )
}
