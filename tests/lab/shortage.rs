//! What a machine runs out of: room on its disk, file descriptors.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, last};
use crate::labs::form::Form;
use crate::labs::network::{Tried, has, is_root};
use crate::report::Row;
use crate::support::{Karere, bytes};
use crate::worker::unix_millis;

/// Nothing of a stream that does not fit may take longer to be told.
const TOLD: Duration = Duration::from_secs(10);

/// `karere listen` with a disk of one mebibyte of its own at `place`, in a mount namespace; `order` is for the shell,
/// in which `"$@"` is the command.
fn listen_on_small_disk(place: &Path, order: &str, options: &str) -> Karere {
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size=1m lab \"$0\" && {order}");
    command.args(["-m", "sh", "-c", &script]).arg(place).arg(env!("CARGO_BIN_EXE_karere"));
    Karere::spawn(command, &format!("listen --bind 127.0.0.1:0 {options}"), &[], Stdio::piped())
}

/// A stream larger than the disk, then one that fits: the first is an error at its sender, with the cause; the second
/// arrives; the listener lives on.
pub(crate) fn full_disk(_form: Form) -> Tried<Vec<Row>> {
    is_root()?;
    has("unshare")?;
    has("mount")?;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().to_str().unwrap();
    let to_file = format!("exec \"$@\" > {path}/out");
    let ways = [
        ("--out-dir", "exec \"$@\"", format!("--out-dir {path}")),
        ("standard output into a file", to_file.as_str(), String::new()),
    ];
    ways.iter()
        .map(|(way, order, options)| full(way, &listen_on_small_disk(place.path(), order, options)))
        .collect()
}

fn full(way: &str, listener: &Karere) -> Tried<Row> {
    let data = tempfile::tempdir().unwrap();
    let file = |name: &str, len: usize| {
        let path = data.path().join(name);
        std::fs::write(&path, bytes(len, 5)).unwrap();
        path
    };
    let send = |file: &Path| Karere::start(&format!("send --json {}", listener.address()), &[file]).end();
    let began = Instant::now();
    let large = send(&file("large", 3 << 20)).with(1);
    let took = began.elapsed();
    assert!(took < TOLD, "{took:?}");
    let said = large.json();
    let text = format!("{said} {}", large.stderr);
    assert!(text.to_lowercase().contains("no space left"), "the cause is told: {text}");
    let small = send(&file("small", 100_000)).with(0).json();
    listener.signal("TERM");
    let count = |of: &str| said[of].as_u64().unwrap_or_default() + small[of].as_u64().unwrap_or_default();
    Ok(Row {
        fault: format!("a disk of 1 MiB, `karere listen`, {way}: 3 MiB, then 100 kB"),
        saw: format!("sender: exit 1, `{}`; then exit 0", error(&said, &large.stderr)),
        took_ms: Some(took.as_millis() as u64),
        promise: format!("told within {} s; the next one arrives", TOLD.as_secs()),
        acked: count("acked"),
        not_sent: count("not_sent"),
        indeterminate: count("indeterminate"),
        ..Row::default()
    })
}

fn error(said: &Value, stderr: &str) -> String {
    let line = stderr.lines().find(|line| line.to_lowercase().contains("no space left")).unwrap_or_default();
    said["error"].as_str().unwrap_or(line).trim().to_owned()
}

/// How much processor time a process has had, in milliseconds.
fn processor_ms(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything: fields 14 and 15, in hundredths of a second.
    let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// No descriptor is left while one more member joins: those that are linked do not notice, and the new one follows when
/// there are some.
pub(crate) fn descriptors(form: Form) -> Tried<Vec<Row>> {
    has("prlimit")?;
    let mut all = Cluster::on_loopback(2, form);
    let pid = all.workers[0].teller.process.id();
    let limit = |most: usize| {
        let order = format!("prlimit --pid {pid} --nofile={most}:");
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success(), "{order}");
    };
    // Below all that are open: what is there stays, and no number is free.
    limit(3);
    let (spent, began) = (processor_ms(pid), unix_millis());
    let new = all.add("127.0.0.1:0", None);
    all.install(&[0, 1, new], &[0, 1, new]);
    all.flow_ms(&[1, new], began);
    all.told(new, 0, "Unreachable");
    last(form.pick(Duration::from_millis(500), all.liveness() * 2));
    let errors = all.workers[0].ask("totals")["accept_errors"].as_u64().unwrap();
    assert!(errors > 0, "{}", all.story());
    let (spent, lasted) = (processor_ms(pid) - spent, unix_millis() - began);
    // Pauses double, up to a second.
    assert!(errors <= 10 + lasted / 500, "{errors} in {lasted} ms: {}", all.story());
    assert!(spent < lasted / 2, "no spinning: {spent} ms of {lasted}: {}", all.story());
    all.unnoticed(&[0, 1]);
    limit(1024);
    let at = unix_millis();
    let took = all.flow_ms(&[0, 1, new], at);
    assert!(took <= all.redial_ms(), "{took} ms: {}", all.story());
    let saw = all.saw(new, 0);
    let row = all.settle(&[0, 1, new]);
    assert_eq!((row.not_sent, row.indeterminate), (0, 0), "{row:?}");
    Ok(vec![Row {
        fault: format!("no descriptor left for {:.1} s while one joins", lasted as f64 / 1000.0),
        saw: format!("those linked: nothing; the new one: {saw}; {errors} accept errors"),
        took_ms: Some(took),
        promise: format!("{} ms; no spinning ({} % of a processor)", all.redial_ms(), 100 * spent / lasted),
        ..row
    }])
}
