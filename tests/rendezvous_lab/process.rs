//! Nodes as their show sees them.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::labs::process;
use crate::support::network::Teller;
use crate::worker::{JOB, Job};

/// Long enough for a busy machine; nothing that works comes near it.
const DEADLINE: Duration = Duration::from_secs(60);

/// One node. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) teller: Teller,
    pub(crate) name: String,
    /// What it has said so far, and how many bytes that was.
    said: Vec<Value>,
    read: usize,
}

impl Worker {
    pub(crate) fn start(command: Command, job: &Job) -> Self {
        let teller = process::start(command, JOB, job);
        let mut this = Self { teller, name: job.name.clone(), said: Vec::new(), read: 0 };
        this.wait("its start", |worker| worker.first("started", 0.0, |_| true));
        this
    }

    /// What is new.
    fn listen(&mut self) {
        let from = self.read;
        let parse = |said: &[u8], _| {
            let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1).max(from);
            let text = String::from_utf8_lossy(&said[from..whole]);
            let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            Some((whole, lines))
        };
        let (read, lines) = self.teller.process.stdout.wait_for("", parse);
        self.read = read;
        self.said.extend(lines);
    }

    /// All lines of one event, from a moment on.
    pub(crate) fn all(&mut self, event: &str, from_ms: f64) -> Vec<Value> {
        self.listen();
        let is = |line: &&Value| line["event"] == event && at(line) >= from_ms;
        self.said.iter().filter(is).cloned().collect()
    }

    /// The first one from a moment on for which this holds.
    pub(crate) fn first(
        &mut self,
        event: &str,
        from_ms: f64,
        holds: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        self.listen();
        let is = |line: &&Value| line["event"] == event && at(line) >= from_ms && holds(line);
        self.said.iter().find(is).cloned()
    }

    pub(crate) fn last(&mut self, event: &str) -> Option<Value> {
        self.listen();
        self.said.iter().rev().find(|line| line["event"] == event).cloned()
    }

    #[track_caller]
    pub(crate) fn wait<T>(&mut self, what: &str, found: impl FnMut(&mut Self) -> Option<T>) -> T {
        process::until(what, DEADLINE, self, found, Self::story)
    }

    /// When it said this, from a moment on.
    #[track_caller]
    pub(crate) fn when(
        &mut self,
        what: &str,
        event: &str,
        from_ms: f64,
        holds: impl Fn(&Value) -> bool,
    ) -> f64 {
        let line = self.wait(what, |worker| worker.first(event, from_ms, &holds));
        at(&line)
    }

    pub(crate) fn order(&mut self, order: &str) {
        self.teller.process.write(format!("{order}\n").as_bytes());
    }

    /// Orders what is answered by a line of this name.
    #[track_caller]
    pub(crate) fn ask_for(&mut self, order: &str, answer: &str) -> Value {
        let before = self.all(answer, 0.0).len();
        self.order(order);
        self.wait(order, |worker| worker.all(answer, 0.0).into_iter().nth(before))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, what: &str) -> Value {
        self.ask_for(what, what)
    }

    /// Who it is now.
    pub(crate) fn id(&mut self) -> String {
        let line = self.last("standing").or_else(|| self.last("started")).unwrap();
        line["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn is_joined(&mut self) -> bool {
        self.last("standing").is_some_and(|line| line["standing"] == "joined")
    }

    /// Whether this other one is in the view that it has.
    pub(crate) fn sees(&mut self, id: &str) -> bool {
        self.last("view").is_some_and(|view| holds(&view["members"], id))
    }

    /// Its last words.
    pub(crate) fn story(&self) -> String {
        process::story(&format!("node {}", self.name), &self.teller)
    }
}

/// When a line was said, in milliseconds of the clock that all processes share.
pub(crate) fn at(line: &Value) -> f64 {
    line["at_ms"].as_f64().unwrap_or_default()
}

/// Whether a list holds a text.
pub(crate) fn holds(list: &Value, text: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|one| one == text))
}
