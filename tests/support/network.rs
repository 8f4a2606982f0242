//! Rendezvous servers and nodes as processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use super::{Ended, Karere};

/// Addresses for servers that have to know each other's before they start. On Linux all of 127.0.0.0/8 is loopback: each call has an
/// address of its own there, so that no other process finds its port taken, or takes it.
pub(crate) fn addresses(count: usize) -> Vec<String> {
    static CALLS: AtomicU8 = AtomicU8::new(1);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = if cfg!(target_os = "linux") {
        format!("127.{}.{low}.{call}", 64 + high % 128)
    } else {
        "127.0.0.1".to_owned()
    };
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((host.as_str(), 0)).expect("a port")).collect();
    held.iter().map(|one| one.local_addr().expect("its address").to_string()).collect()
}

/// A process that tells what happens to it as lines of JSON.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) process: Karere,
}

impl Teller {
    pub(crate) fn start(command: Command, arguments: &str) -> Self {
        Self { process: Karere::spawn(command, arguments, &[], Stdio::piped()) }
    }

    /// All that it told of this kind, in whole lines.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        self.lines(event, 0)
    }

    /// The same after so many bytes.
    pub(crate) fn lines(&self, event: &str, after: usize) -> Vec<Value> {
        let parse = |said: &[u8], _| {
            let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let text = String::from_utf8_lossy(&said[after.min(whole)..whole]).into_owned();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Some(lines.filter(|line| line["event"] == event).collect())
        };
        self.process.stdout.wait_for("", parse)
    }

    /// Waits for an event for which this holds.
    #[track_caller]
    pub(crate) fn wait(&self, event: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["event"] == event && holds(&line)).then_some(line)
        };
        self.process.stdout.line(event, found)
    }

    /// Ends it by a signal, and well.
    #[track_caller]
    pub(crate) fn leave(mut self, signal: &str) -> Ended {
        self.process.signal(signal);
        self.process.end_with_input_open().with(0)
    }
}

/// The command itself.
pub(crate) fn karere() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karere"));
    // What the user of the machine has set is not meant for tests.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KARERE_") {
            command.env_remove(name);
        }
    }
    command
}

/// What starts the command, for the server with this number: on a host of its own, perhaps.
type Starts = Box<dyn Fn(usize) -> Command>;

/// Servers of one cluster.
pub(crate) struct Servers {
    pub(crate) addresses: Vec<String>,
    pub(crate) running: Vec<Option<Teller>>,
    directory: PathBuf,
    more: String,
    starts: Starts,
}

impl Servers {
    /// So many, with data below this directory and these arguments more.
    pub(crate) fn start(count: usize, directory: &Path, more: &str) -> Self {
        Self::start_at(addresses(count), directory, more, Box::new(|_| karere()))
    }

    /// The same at these addresses.
    pub(crate) fn start_at(addresses: Vec<String>, directory: &Path, more: &str, starts: Starts) -> Self {
        let (directory, more) = (directory.to_owned(), more.to_owned());
        let running = addresses.iter().map(|_| None).collect();
        let mut this = Self { addresses, running, directory, more, starts };
        (0..this.running.len()).for_each(|at| this.start_one(at));
        this
    }

    pub(crate) fn data(&self, at: usize) -> PathBuf {
        self.directory.join(format!("server-{at}"))
    }

    pub(crate) fn list(&self) -> String {
        self.addresses.join(",")
    }

    /// One of them, with whatever is in its directory.
    pub(crate) fn start_one(&mut self, at: usize) {
        let (address, data) = (&self.addresses[at], self.data(at));
        let peers = if self.addresses.len() > 1 { format!("--peers {}", self.list()) } else { String::new() };
        let arguments =
            format!("rendezvous --json --bind {address} {peers} --data {} {}", data.display(), self.more);
        let server = Teller::start((self.starts)(at), &arguments);
        server.wait("started", |_| true);
        self.running[at] = Some(server);
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut server) = self.running[at].take() {
            server.process.kill();
        }
    }

    /// Which of those that run said last that it leads, in the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let term = |at: usize| {
            let server = self.running[at].as_ref()?;
            let leads = server.all("leads").last().cloned()?;
            let follows =
                server.all("follows").last().map_or(0.0, |line| line["at_ms"].as_f64().unwrap_or(0.0));
            (leads["at_ms"].as_f64()? > follows).then(|| leads["term"].as_u64()).flatten()
        };
        (0..self.running.len()).filter_map(|at| Some((term(at)?, at))).max().map(|(_, at)| at)
    }

    #[track_caller]
    pub(crate) fn wait_for_leader(&self) -> usize {
        super::eventually("a leader", || self.leader())
    }
}
