//! Ways that disappear: links down, black holes, one direction only, and what is gone when a view says so.

use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, last};
use crate::labs::form::Form;
use crate::labs::network::{Network, Socket, TIME_WAIT, Tried, sockets};
use crate::report::Row;
use crate::worker::unix_millis;

/// Three members; the second is cut off for a time, by one means, and is whole again afterwards.
fn outage(
    form: Form,
    fault: &str,
    time: Duration,
    begin: impl FnOnce(&Network),
    end: impl FnOnce(&Network),
) -> Tried<Row> {
    let mut all = Cluster::on_hosts(3, 0, form)?;
    let began = unix_millis();
    begin(all.network());
    last(time);
    end(all.network());
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1, 2], at);
    // What began before liveness was over may have to wait for it; after that dials are under way.
    let silent = (began + all.silence_ms()).saturating_sub(at);
    let promise = all.redial_ms().max(silent);
    assert!(took <= promise, "{took} ms of {promise}: {}", all.story());
    all.unnoticed(&[0, 2]);
    let seen = (all.saw(0, 1), all.saw(1, 0));
    let row = all.settle(&[0, 1, 2]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    Ok(Row {
        fault: format!("{fault} for {:.1} s", (at - began) as f64 / 1000.0),
        saw: if seen.0 == seen.1 { seen.0 } else { format!("{}; the cut off: {}", seen.0, seen.1) },
        took_ms: Some(took),
        promise: format!("{promise} ms"),
        ..row
    })
}

/// The interface of one goes down: for less than liveness, and for much longer.
pub(crate) fn link_down(form: Form) -> Tried<Vec<Row>> {
    let times = form.pick([1000, 4000], [3000, 20_000]);
    let down = |ms| {
        let time = Duration::from_millis(ms);
        outage(form, "`ip link set down`", time, |network| network.link_down(1), |network| network.link_up(1))
    };
    times.into_iter().map(down).collect()
}

/// The router swallows what goes both ways, without a word to anybody.
pub(crate) fn black_hole(form: Form) -> Tried<Vec<Row>> {
    let time = Duration::from_secs(form.pick(4, 20));
    Ok(vec![outage(form, "black hole both ways, then the routes come back,", time, cut_off, let_back)?])
}

/// The second member is alone, and nobody is told.
fn cut_off(network: &Network) {
    network.blackhole(1);
    [0, 2].into_iter().for_each(|to| network.blackhole_at(1, to));
}

fn let_back(network: &Network) {
    [0, 2].into_iter().for_each(|to| network.mend_at(1, to));
    network.route(1, 1);
}

/// One direction only: silently on the way, and in the table of the sender, where each call fails at once.
pub(crate) fn one_way(form: Form) -> Tried<Vec<Row>> {
    let time = Duration::from_secs(form.pick(3, 20));
    let on_the_way = outage(
        form,
        "blackhole route in the router, one way only,",
        time,
        |network| network.blackhole(1),
        |network| network.route(1, 1),
    )?;
    let at_home = outage(
        form,
        "blackhole route in the sender's table",
        time,
        |network| [0, 2].into_iter().for_each(|by| network.blackhole_at(by, 1)),
        |network| [0, 2].into_iter().for_each(|by| network.mend_at(by, 1)),
    )?;
    Ok(vec![on_the_way, at_home, one_way_and_idle(form)?])
}

/// While nothing is under way. To the side that is heard it is silence as well: what comes from the other stays
/// unacknowledged, and after one time-out TCP repeats the oldest of it and sends nothing new. So nobody can be told
/// `OneWaySilence` over that connection, nor over a new one.
fn one_way_and_idle(form: Form) -> Tried<Row> {
    let mut all = Cluster::on_hosts(2, 0, form)?;
    all.workers.iter_mut().for_each(|worker| worker.order("pause"));
    all.wait("quiet", |all| {
        let settled = all.workers.iter_mut().all(|worker| worker.ask("totals")["settled"] == true);
        settled.then_some(())
    });
    let began = unix_millis();
    all.network().blackhole(1);
    let told = [(0, 1), (1, 0)].map(|(who, of)| all.told(who, of, "Disconnected") - began);
    // One more ping was heard here, and silence counts from there.
    let promised = [all.silence_ms() + all.ping_ms(), all.silence_ms()];
    assert!(told[0] <= promised[0] && told[1] <= promised[1], "{told:?} ms of {promised:?}: {}", all.story());
    all.network().route(1, 1);
    all.workers.iter_mut().for_each(|worker| worker.order("resume"));
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1], at);
    assert!(took <= all.redial_ms(), "{took} ms: {}", all.story());
    let saw = all.saw(0, 1);
    let row = all.settle(&[0, 1]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    Ok(Row {
        fault: "one way only, nothing under way, until the link is given up".to_owned(),
        saw,
        took_ms: Some(took),
        promise: format!("{} ms; told after {told:?} ms of {promised:?}", all.redial_ms()),
        ..row
    })
}

/// A route that comes and goes: bursts of loss. TCP repeats after 200, 600, 1400 and 3000 ms, and each repetition may fall into
/// another hole. Within a short liveness time only the first two count: holes come so seldom there that the second never
/// meets one, however late a busy machine lifts them.
pub(crate) fn flapping(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_hosts(2, 0, form)?;
    let (rounds, black, white) = (form.pick(5, 30), 200, form.pick(800, 300));
    for _ in 0..rounds {
        all.network().blackhole(1);
        last(Duration::from_millis(black));
        all.network().route(1, 1);
        last(Duration::from_millis(white));
    }
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1], at);
    assert!(took <= all.redial_ms(), "{took} ms: {}", all.story());
    let saw = all.saw(0, 1);
    assert_eq!(saw, "nothing", "no false death: {}", all.story());
    let row = all.settle(&[0, 1]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    let promise = "the link stays".to_owned();
    let fault = format!("a route that is black for {black} of {} ms, {rounds} times", black + white);
    Ok(vec![Row { fault, saw, took_ms: Some(took), promise, ..row }])
}

/// A black hole that never lifts, and a view without the member behind it: its sockets are gone from the kernel, and it
/// is not dialled again. When it comes back after all it is told.
pub(crate) fn removal(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_hosts(3, 0, form)?;
    let (pid, address) = (all.workers[0].teller.process.id(), Network::address(1));
    // TIME-WAIT is the kernel's memory of a connection that ended in order (both dialled at the start, and one was too many):
    // no process has it, and nothing is sent.
    let is_to_it = |socket: &Socket| socket.remote == address && socket.state != TIME_WAIT;
    let to_it = || sockets(pid).into_iter().filter(is_to_it).collect::<Vec<_>>();
    assert!(!to_it().is_empty(), "there is a link: {}", all.story());
    cut_off(all.network());
    // Time enough for its queue to fill, not for its link to be given up.
    last(all.liveness() / 3);
    all.install(&[0, 2], &[0, 2]);
    let installed = all.workers[0].last("installed").and_then(|line| line["at_ms"].as_u64()).unwrap();
    let left = loop {
        let (left, at) = (to_it(), unix_millis());
        if left.is_empty() || at > installed + 1000 {
            break left;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let took = unix_millis().saturating_sub(installed);
    assert!(left.is_empty() && took <= 100, "{took} ms: {left:?} {}", all.story());
    let quiet = Instant::now();
    while quiet.elapsed() < form.pick(all.liveness(), all.liveness() * 3) {
        assert_eq!(to_it(), [], "it is dialled again: {}", all.story());
        thread::sleep(Duration::from_millis(2));
    }
    all.unnoticed(&[0, 2]);
    let saw = all.saw(0, 1);
    let row = all.settle(&[0, 2]);
    assert!(row.not_sent + row.indeterminate > 0, "what went to it has ended: {row:?}");
    let_back(all.network());
    let back = unix_millis();
    let told = all.told(1, 0, "Expelled").saturating_sub(back);
    assert!(told <= all.redial_ms(), "told after {told} ms: {}", all.story());
    Ok(vec![Row {
        fault: "black hole for ever, then a view without it".to_owned(),
        saw: format!("{saw}; when it is back: Expelled, told there after {told} ms"),
        took_ms: Some(took.max(1)),
        promise: "100 ms until the kernel has no socket to it; no dial".to_owned(),
        ..row
    }])
}
