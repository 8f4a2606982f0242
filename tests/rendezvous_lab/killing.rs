//! The leader of the servers is killed, again and again, while nodes talk and register routes.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::process::at;
use crate::report::{Figures, Form, Times, Tried};
use crate::worker::unix_ms;
use crate::world::World;

const NODES: usize = 5;
/// Goal of the issue.
const PROMISE_MS: f64 = 1000.0;

pub(crate) fn leader_killed(form: Form) -> Tried<Figures> {
    let mut all = World::on_loopback(NODES, form);
    let five: Vec<usize> = (0..NODES).collect();
    five.iter().for_each(|who| {
        all.nodes[*who].order("quiet");
        all.nodes[*who].order("churn");
    });
    let began = unix_ms();
    let mut random = fastrand::Rng::with_seed(6);
    let [mut leaders, mut registrations] = <[Times; 2]>::default();
    let mut kept = 0;
    let rounds = form.pick(5, 100);
    for _ in 0..rounds {
        let leader = all.servers.wait_for_leader();
        // A registration that must outlive this leader: acknowledged before it dies.
        let who = random.usize(..NODES);
        let line = all.nodes[who].ask_for("keep", "kept");
        assert!(line["refused"].is_null(), "{line}");
        kept += 1;
        thread::sleep(Duration::from_millis(random.u64(..400)));

        let moment = unix_ms();
        all.servers.kill(leader);
        let next = all.wait("a new leader", |all| {
            let running = all.servers.running.iter().flatten();
            let led = running.flat_map(|server| server.all("leads").last().cloned());
            led.map(|line| at(&line)).filter(|led| *led > moment).min_by(f64::total_cmp)
        });
        leaders.add(next - moment);
        for who in &five {
            let acked = |line: &Value| line["refused"].is_null();
            let first = all.nodes[*who]
                .wait("a registration", |node| node.all("churned", next).into_iter().find(acked));
            registrations.add(at(&first) - moment);
        }
        all.servers.start_one(leader);
        all.wait("the old leader to follow", |all| {
            let server = all.servers.running[leader].as_ref()?;
            server.all("follows").iter().any(|line| line["leader"].is_string()).then_some(())
        });
    }
    let secs = (unix_ms() - began) / 1e3;
    five.iter().for_each(|who| all.nodes[*who].order("rest"));
    let mut acknowledged = kept;
    for who in &five {
        acknowledged += all.nodes[*who].all("churned", 0.0).len();
        let refused = all.nodes[*who].first("churned", 0.0, |line| !line["refused"].is_null());
        assert_eq!(refused, None);
        let kept_here: Vec<Value> = all.nodes[*who].all("kept", 0.0);
        let own = all.nodes[*who].ask("own");
        for route in kept_here {
            let key = format!("lab.work/1@{}", route["route"].as_str().unwrap());
            assert!(own["keys"].to_string().contains(&key), "the lab itself: {key}");
        }
    }
    let routes = all.routes_agree(&five);
    assert_eq!(all.dropped(0.0), Vec::<String>::new(), "healthy members: {}", all.story());
    let messages = all.settle(&five);
    let figures = vec![
        format!("leader killed {rounds} times in {secs:.0} s; until another leads: {}", leaders.text()),
        format!("until a node's next registration is acknowledged: {}", registrations.text()),
        format!(
            "registrations and withdrawals acknowledged: {acknowledged}; at the end each node knows exactly the {routes} routes that there are: lost 0"
        ),
        "healthy members dropped: 0".to_owned(),
        format!("messages between the {NODES} nodes meanwhile: {messages}, lost 0, twice 0, out of order 0"),
    ];
    if form == Form::Long && leaders.at(0.99) > PROMISE_MS {
        panic!("a new leader comes too late:\n- {}", figures.join("\n- "));
    }
    Ok(figures)
}
