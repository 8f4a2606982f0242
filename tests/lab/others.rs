//! Addresses that lead elsewhere, connections that the kernel ends, packets that do not fit.

use std::time::Duration;

use crate::cluster::{Cluster, last};
use crate::labs::form::Form;
use crate::labs::network::Tried;
use crate::report::Row;
use crate::worker::unix_millis;

/// An address moves to another machine, where another process answers; then back; then for good, with a view that says so.
pub(crate) fn moved_address(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_hosts(2, 1, form)?;
    all.network().take_over(1, 2);
    let stranger = all.add_at(2, 1);
    all.told(0, 1, "Replaced");
    last(all.liveness());
    // The view still holds the first one.
    all.network().route(1, 1);
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1], at);
    assert!(took <= all.redial_ms(), "{took} ms: {}", all.story());
    let saw = all.saw(0, 1);
    let row = all.settle(&[0, 1]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    let came = all.workers[stranger].ask("totals");
    assert!((0..3).all(|class| came["classes"][class]["received"] == 0), "{came}");
    let back = Row {
        fault: "another machine takes the address, and gives it back".to_owned(),
        saw,
        took_ms: Some(took),
        promise: format!("{} ms; the other gets nothing", all.redial_ms()),
        ..row
    };

    // The machine is gone without a word; its address is another member's.
    all.mark();
    [0, 1].into_iter().for_each(|who| all.workers[who].order("resume"));
    let at = unix_millis();
    all.flow_ms(&[0, 1], at);
    all.network().link_down(1);
    all.network().route(1, 2);
    let at = unix_millis();
    all.install(&[0, stranger], &[0, stranger]);
    let took = all.flow_ms(&[0, stranger], at);
    assert!(took <= 1000, "the half-open socket delays nobody: {took} ms: {}", all.story());
    let saw = all.saw(0, 1);
    let row = all.settle(&[0, stranger]);
    let gone = Row {
        fault: "a machine loses its power, another has its address and its place in the view".to_owned(),
        saw,
        took_ms: Some(took),
        promise: "after the view 1000 ms".to_owned(),
        ..row
    };
    Ok(vec![back, gone])
}

/// How many links a member was told of.
fn connected(all: &Cluster, who: usize, of: usize) -> usize {
    all.workers[who].told(&all.id(of)).iter().filter(|told| *told == "Connected").count()
}

/// The kernel resets the connection in mid-stream, again and again.
pub(crate) fn reset(form: Form) -> Tried<Vec<Row>> {
    const PROMISE_MS: u64 = 1000;
    let mut all = Cluster::on_hosts_with(2, 0, form, |job| job.rates = [100, 100, 200])?;
    // More bulk than the line takes, so that something is always on its way.
    all.network().set_rate(1, 10_000, 100)?;
    let (rounds, mut longest) = (form.pick(10, 100), 0);
    let links = |all: &Cluster| [(0, 1), (1, 0)].map(|(who, of)| connected(all, who, of));
    for round in 0..rounds {
        let (by, before, at) = (round % 2, links(&all), unix_millis());
        let killed = all.network().kill_sockets(by, 1 - by)?;
        assert!(killed > 0, "there is a link: {}", all.story());
        // What came before the end of the old one does not count.
        all.wait("the next link", |all| {
            links(all).iter().zip(before).all(|(now, before)| *now > before).then_some(())
        });
        let up = unix_millis();
        longest = longest.max(up - at + all.flow_ms(&[0, 1], up));
    }
    assert!(longest <= PROMISE_MS, "{longest} ms: {}", all.story());
    all.network().set_rate(1, 1_000_000, 100)?;
    let row = all.settle(&[0, 1]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    let resent: u64 =
        [0, 1].map(|who| all.workers[who].ask("totals")["resent"].as_u64().unwrap()).iter().sum();
    assert!(resent > rounds as u64, "something was on its way: {resent}");
    let told = all.workers[0].told(&all.id(1)).iter().filter(|told| told.contains("Reset")).count();
    assert!(told >= rounds, "each was told: {told} {}", all.story());
    Ok(vec![Row {
        fault: format!("`ss -K` in mid-stream, {rounds} times"),
        saw: format!("Disconnected (Reset) and Connected, {told} times; {resent} messages sent again"),
        took_ms: Some(longest),
        promise: format!("{PROMISE_MS} ms each"),
        ..row
    }])
}

/// The way takes smaller packets from one moment to the next.
pub(crate) fn narrow(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_hosts(2, 0, form)?;
    let at = unix_millis();
    for mtu in [1280, 576, 1500] {
        all.network().set_mtu(1, mtu);
        last(Duration::from_millis(form.pick(500, 3000)));
    }
    let end = unix_millis();
    let took = all.flow_ms(&[0, 1], end);
    let (saw, seconds) = (all.saw(0, 1), (end - at) as f64 / 1000.0);
    assert_eq!(saw, "nothing", "{}", all.story());
    let row = all.settle(&[0, 1]);
    Ok(vec![Row {
        fault: format!("MTU of 1280, 576, 1500 on the way, within {seconds:.1} s"),
        saw,
        took_ms: Some(took),
        promise: "the link stays".to_owned(),
        ..row
    }])
}

/// A line of one megabit a second, filled with bulk.
pub(crate) fn slow_line(form: Form) -> Tried<Vec<Row>> {
    const KILOBITS: u32 = 1000;
    const QUEUE_MS: u32 = 200;
    // Bulk for several times the line's rate; the queue holds it up. Default times also in the short form: a megabit is slow.
    let change = |job: &mut crate::worker::Job| {
        job.rates = [20, 20, 100];
        job.liveness_ms = 5000;
    };
    let mut all = Cluster::on_hosts_with(2, 0, form, change)?;
    all.network().set_rate(1, KILOBITS, QUEUE_MS)?;
    // What was written while the line was fast (up to 384 KiB: one write of 256 and what may be unsent) takes three seconds of
    // it, and whatever is urgent waits behind that; from then on writes are as large as the line is fast.
    last(Duration::from_secs(5));
    all.workers.iter_mut().for_each(|worker| worker.order("delays"));
    last(Duration::from_secs(form.pick(5, 30)));
    let delays = all.workers[1].ask("totals")["delays"].clone();
    let dropped = all.network().dropped(1);
    let of = |class: usize, what: &str| delays[class][what].as_u64();
    let (urgent, bulk) = (of(0, "p99"), of(2, "p50"));
    // One chunk, what the kernel holds unsent, the token bucket's queue, and a loss now and then: some two seconds.
    assert!(of(0, "p50").is_some_and(|ms| ms < 3000), "{delays}");
    assert!(bulk.is_none() || urgent < bulk, "{delays}");
    let saw = all.saw(0, 1);
    assert!(!saw.contains("Disconnected"), "no false death: {saw} {}", all.story());
    all.network().set_rate(1, 1000 * KILOBITS, QUEUE_MS)?;
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1], at);
    let row = all.settle(&[0, 1]);
    let text = |delay: Option<u64>| delay.map_or("none came".to_owned(), |ms| format!("{ms} ms"));
    Ok(vec![Row {
        fault: format!("`tbf` of {KILOBITS} kbit/s under ten times as much bulk; {dropped} packets dropped"),
        saw: format!(
            "{saw}; urgent p50 {}, p99 {}; bulk p50 {}",
            text(of(0, "p50")),
            text(urgent),
            text(bulk)
        ),
        took_ms: Some(took),
        promise: "the link stays; urgent before bulk".to_owned(),
        ..row
    }])
}
