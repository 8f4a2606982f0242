//! Processes that die, freeze, and come back as another.

use std::time::Duration;

use crate::cluster::{Cluster, last};
use crate::labs::form::Form;
use crate::labs::network::Tried;
use crate::report::Row;
use crate::worker::unix_millis;

/// Another process starts on the address of one that was killed; the view says so only once it was noticed.
pub(crate) fn kill_and_restart(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_loopback(3, form);
    let address = all.workers[1].address.clone();
    all.workers[1].teller.process.kill();
    all.told(0, 1, "Disconnected");
    let began = unix_millis();
    let heir = all.add(&address, None);
    // Meanwhile all go on sending to the dead one, at whose address the heir answers.
    let noticed = all.told(0, 1, "Replaced") - began;
    assert!(noticed <= all.redial_ms(), "noticed after {noticed} ms: {}", all.story());
    let at = unix_millis();
    all.install(&[0, 2, heir], &[0, 2, heir]);
    let took = all.flow_ms(&[0, 2, heir], at);
    assert!(took <= 1000, "{took} ms: {}", all.story());
    let saw = all.saw(0, 1);
    all.unnoticed(&[0, 2]);
    let row = all.settle(&[0, 2, heir]);
    assert!(row.not_sent + row.indeterminate > 0, "what went to the dead one has ended: {row:?}");
    Ok(vec![Row {
        fault: "kill -9, another process on its address".to_owned(),
        saw,
        took_ms: Some(took),
        promise: format!("after the view 1 s; noticed after {noticed} ms"),
        ..row
    }])
}

/// Frozen for longer than liveness, and back.
pub(crate) fn freeze(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_loopback(3, form);
    let stopped = unix_millis();
    all.workers[1].teller.process.signal("STOP");
    let noticed = all.told(0, 1, "Disconnected") - stopped;
    assert!(noticed <= all.silence_ms(), "{noticed} ms: {}", all.story());
    last(form.pick(all.liveness() / 2, all.liveness() * 2));
    let at = unix_millis();
    all.workers[1].teller.process.signal("CONT");
    let took = all.flow_ms(&[0, 1, 2], at);
    assert!(took <= all.redial_ms(), "{took} ms: {}", all.story());
    all.unnoticed(&[0, 2]);
    let frozen = (at - stopped) as f64 / 1000.0;
    let saw = all.saw(0, 1);
    let row = all.settle(&[0, 1, 2]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    Ok(vec![Row {
        fault: format!("SIGSTOP for {frozen:.1} s, SIGCONT"),
        saw,
        took_ms: Some(took),
        promise: format!("{} ms; told after {noticed} ms of {}", all.redial_ms(), all.silence_ms()),
        ..row
    }])
}

/// Frozen for less than liveness: nobody is suspected.
pub(crate) fn doze(form: Form) -> Tried<Vec<Row>> {
    let mut all = Cluster::on_loopback(2, form);
    let links = |all: &mut Cluster| all.workers[0].ask("totals")["peers"][0]["links"].clone();
    let before = links(&mut all);
    for _ in 0..form.pick(2, 3) {
        all.workers[1].teller.process.signal("STOP");
        last(all.liveness().mul_f64(0.5));
        all.workers[1].teller.process.signal("CONT");
        last(Duration::from_millis(200));
    }
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1], at);
    let saw = all.saw(0, 1);
    assert_eq!(links(&mut all), before, "{}", all.story());
    let row = all.settle(&[0, 1]);
    Ok(vec![Row {
        fault: format!("SIGSTOP for {:.1} s, again and again", all.liveness().as_secs_f64() * 0.5),
        saw,
        took_ms: Some(took),
        promise: "the link stays".to_owned(),
        ..row
    }])
}
