//! Processes of a lab: the test binary itself, started again with a job in its environment, that says what it sees in lines of JSON and
//! takes orders, a line each.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::support::network::Teller;

/// Between two looks at what was said.
const LOOK: Duration = Duration::from_millis(3);

/// Starts the program with this job, in the variable that it looks for.
pub(crate) fn start(mut command: Command, variable: &str, job: &impl Serialize) -> Teller {
    command.env(variable, serde_json::to_string(job).unwrap());
    Teller::start(command, "--exact worker --nocapture --test-threads=1")
}

/// The last words of a process.
pub(crate) fn story(name: &str, process: &Teller) -> String {
    let tail = |said: &[u8], _| {
        let text = String::from_utf8_lossy(said).into_owned();
        let lines: Vec<_> = text.lines().map(|line| format!("  {line:.400}")).collect();
        Some(lines[lines.len().saturating_sub(25)..].join("\n"))
    };
    let process = &process.process;
    let (said, errors) = (process.stdout.wait_for("", tail), process.stderr.wait_for("", tail));
    format!("{name}:\n{said}\n{errors}")
}

/// Waits until something is found, and no longer than `within`: then it fails with the story.
#[track_caller]
pub(crate) fn until<S, T>(
    what: &str,
    within: Duration,
    state: &mut S,
    mut found: impl FnMut(&mut S) -> Option<T>,
    story: impl Fn(&S) -> String,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(it) = found(state) {
            return it;
        }
        assert!(Instant::now() < end, "waited for {what}\n{}", story(state));
        thread::sleep(LOOK);
    }
}
