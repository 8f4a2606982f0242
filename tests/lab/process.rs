//! Worker processes as their test sees them.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::labs::network::Namespace;
use crate::labs::process;
use crate::support::network::Teller;
use crate::worker::{JOB, Job};

/// Long enough for a busy machine; nothing that works comes near it.
const DEADLINE: Duration = Duration::from_secs(60);

/// One worker process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) teller: Teller,
    /// As JSON.
    pub(crate) member: String,
    pub(crate) id: String,
    pub(crate) address: String,
    /// Where it began to be listened to, in what it said.
    mark: usize,
}

impl Worker {
    pub(crate) fn start(within: Option<&Namespace>, job: &Job) -> Self {
        let exe = std::env::current_exe().unwrap();
        let command = match within {
            Some(namespace) => {
                let mut command = namespace.enter();
                command.arg(exe);
                command
            }
            None => Command::new(exe),
        };
        let teller = process::start(command, JOB, job);
        let mut this =
            Self { teller, member: String::new(), id: String::new(), address: String::new(), mark: 0 };
        let started = this.wait("its start", |worker| worker.last("started"));
        this.member = text(&started["member"]);
        this.id = text(&started["me"]);
        this.address = text(&started["address"]);
        this
    }

    /// All lines of one event since the mark.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        self.teller.lines(event, self.mark)
    }

    pub(crate) fn last(&self, event: &str) -> Option<Value> {
        self.all(event).pop()
    }

    /// Forgets what was said before.
    pub(crate) fn mark(&mut self) {
        self.mark = self.teller.process.stdout.len();
    }

    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        process::until(what, DEADLINE, &mut &*self, |this| found(this), |this| this.story())
    }

    /// Its last words.
    pub(crate) fn story(&self) -> String {
        process::story(&format!("worker {}", self.id), &self.teller)
    }

    pub(crate) fn order(&mut self, order: &str) {
        self.teller.process.write(format!("{order}\n").as_bytes());
    }

    /// Orders what is answered by a line of the same name.
    #[track_caller]
    pub(crate) fn ask(&mut self, what: &str) -> Value {
        let before = self.all(what).len();
        self.order(what);
        self.wait(what, |worker| worker.all(what).into_iter().nth(before))
    }

    /// What it was told of a peer since the mark, in order.
    pub(crate) fn told(&self, of: &str) -> Vec<String> {
        self.all("peer").iter().filter(|line| line["who"] == of).map(|line| short(&line["what"])).collect()
    }

    /// When a message of a member was handled here for the first time after a moment; `None`: not yet. If the flow never
    /// stopped for longer than [`GAP`](crate::worker::GAP), that is the moment itself.
    #[track_caller]
    pub(crate) fn heard_after(&mut self, from: &str, moment: u64) -> Option<u64> {
        let last = self.ask("heard")["last"][from].as_u64()?;
        let ended = |line: &Value| line["at_ms"].as_u64().unwrap();
        let of = |event: &str| self.all(event).into_iter().filter(|line| line["from"] == from);
        let first = of("first").map(|line| ended(&line)).find(|at| *at >= moment);
        let spans = |gap: &Value| gap["since_ms"].as_u64().unwrap() <= moment && ended(gap) >= moment;
        let gap = of("gap").find(spans).map(|gap| ended(&gap));
        (last > moment).then(|| first.or(gap).unwrap_or(moment))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `Disconnected { peer: .., reason: Silence }` becomes `Disconnected (Silence)`.
fn short(what: &Value) -> String {
    let what = what.as_str().unwrap_or_default();
    let name = what.split([' ', '{']).next().unwrap_or_default();
    match what.split("reason: ").nth(1) {
        Some(reason) => format!("{name} ({})", reason.trim_end_matches([' ', '}'])),
        None => name.to_owned(),
    }
}
