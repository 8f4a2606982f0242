//! The two processes: `karere listen` and `karere send`, as anybody would start them. Killed when dropped.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::node::Books;
use crate::output::{self, Failure};
use crate::progress::Line;

/// How long a process may take to listen.
const START: Duration = Duration::from_secs(15);
/// The last line of a process; more is none of ours.
const RESULT_BYTES_MAX: u64 = 64 * 1024;

/// What `karere send --json` ends with.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Summary {
    pub(super) ok: bool,
    pub(super) bytes: u64,
    pub(super) blocks: u64,
    #[serde(flatten)]
    pub(super) books: Books,
    pub(super) error: Option<String>,
}

/// What `karere listen --json` says of a stream.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    pub(super) file: Option<PathBuf>,
    pub(super) blocks: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) missing: u64,
    pub(super) error: Option<String>,
}

/// A process with its outputs.
#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    stdout: ChildStdout,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Process {
    fn start<S: AsRef<OsStr>>(
        name: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot start {name}: {error}"));
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.args(args).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if std::env::var_os("KARERE_LOG").is_none() {
            // That links break is no news here.
            command.env("KARERE_LOG", "error");
        }
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = stdout.zip(stderr).ok_or_else(|| failed(&"it has no output"))?;
        Ok(Process { name, child, stdout, stderr: BufReader::new(stderr).lines() })
    }

    /// The next line on standard error; none at its end. Cancel safe.
    async fn next_line(&mut self) -> Option<String> {
        match self.stderr.next_line().await {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!(name = self.name, %error, "its standard error cannot be read");
                None
            }
        }
    }

    /// Its last words and its end: what it says in JSON, if it ended well or said so.
    async fn result<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let name = self.name;
        let failed = |why: String| Failure::new(format!("{name} failed: {why}"));
        let mut text = Vec::new();
        let mut stdout = (&mut self.stdout).take(RESULT_BYTES_MAX);
        let stderr = &mut self.stderr;
        let errors = async {
            while let Ok(Some(line)) = stderr.next_line().await {
                tell(name, &line);
            }
        };
        let (read, ()) = tokio::join!(stdout.read_to_end(&mut text), errors);
        read.map_err(|error| failed(error.to_string()))?;
        let status = self.child.wait().await.map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| failed(format!("{status}, no result: {error}")))
    }
}

fn tell(name: &str, line: &str) {
    output::say(&format!("  {name}: {line}"));
}

/// `karere listen --once`.
#[derive(Debug)]
pub(super) struct Receiver {
    process: Process,
    address: SocketAddr,
}

impl Receiver {
    /// Starts it and waits until it listens.
    pub(super) async fn start(out_dir: &Path) -> Result<Receiver, Failure> {
        let args = ["listen", "--bind", "127.0.0.1:0", "--once", "--json", "--out-dir"].map(OsStr::new);
        let mut process = Process::start("listen", args.into_iter().chain([out_dir.as_os_str()]))?;
        let listening = async {
            while let Some(line) = process.next_line().await {
                match line.strip_prefix("listening on ").and_then(|address| address.parse().ok()) {
                    Some(address) => return Some(address),
                    None => tell("listen", &line),
                }
            }
            None
        };
        let address = timeout(START, listening).await.ok().flatten();
        let address = address.ok_or_else(|| Failure::new("the receiver does not listen"))?;
        Ok(Receiver { process, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its end, and what it received. Not cancel safe.
    pub(super) async fn wait(&mut self) -> Result<Report, Failure> {
        self.process.result().await
    }
}

/// `karere send`.
#[derive(Debug)]
pub(super) struct Sender {
    process: Process,
    progress: watch::Sender<Option<Line>>,
}

impl Sender {
    pub(super) fn start(to: SocketAddr, file: &Path) -> Result<Sender, Failure> {
        let to = to.to_string();
        let args = ["send", "--json", "--progress-json", to.as_str()].map(OsStr::new);
        let process = Process::start("send", args.into_iter().chain([file.as_os_str()]))?;
        Ok(Sender { process, progress: watch::Sender::new(None) })
    }

    /// How it stands, for whoever waits for it.
    pub(super) fn progress(&self) -> watch::Receiver<Option<Line>> {
        self.progress.subscribe()
    }

    /// The next progress line; none at the end. Cancel safe.
    pub(super) async fn next_line(&mut self) -> Option<Line> {
        while let Some(text) = self.process.next_line().await {
            match serde_json::from_str::<Line>(&text) {
                Ok(line) => {
                    self.progress.send_replace(Some(line.clone()));
                    return Some(line);
                }
                Err(_) => tell("send", &text),
            }
        }
        None
    }

    /// Its end, and what it says of it, once its progress has ended. Not cancel safe.
    pub(super) async fn wait(&mut self) -> Result<Summary, Failure> {
        self.process.result().await
    }
}
