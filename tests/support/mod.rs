//! Processes for tests: started, watched, and always ended. Every wait has a deadline and fails with what was said.

#[allow(dead_code, reason = "each test binary uses its own part")]
pub(crate) mod network;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Far beyond what a busy machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What an output has said so far; a thread reads it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Output>);

#[derive(Debug, Default)]
struct Output {
    said: Mutex<Said>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn listen(mut from: impl Read + Send + 'static) -> Heard {
        let heard = Heard::default();
        let teller = heard.clone();
        thread::spawn(move || {
            let mut piece = vec![0; 65536];
            loop {
                let len = from.read(&mut piece).unwrap_or(0);
                let mut said = teller.0.said();
                said.bytes.extend_from_slice(&piece[..len]);
                said.ended = len == 0;
                teller.0.news.notify_all();
                if len == 0 {
                    return;
                }
            }
        });
        heard
    }

    /// Waits until `found` finds something in what was said; the second argument says whether that was all.
    pub(crate) fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&[u8], bool) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        let mut said = self.0.said();
        loop {
            if let Some(it) = found(&said.bytes, said.ended) {
                return it;
            }
            let left = end.saturating_duration_since(Instant::now());
            let text = String::from_utf8_lossy(&said.bytes);
            assert!(
                !left.is_zero() && !said.ended,
                "waited for {what}, heard {} bytes: {text:.2000}",
                said.bytes.len()
            );
            said = self.0.news.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line that has something to it.
    pub(crate) fn line<T>(&self, what: &str, mut found: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_for(what, |said, _| String::from_utf8_lossy(said).lines().find_map(&mut found))
    }

    /// All of it, once it has ended.
    pub(crate) fn all(&self) -> Vec<u8> {
        self.wait_for("the end", |said, ended| ended.then(|| said.to_vec()))
    }

    /// How much was said so far.
    pub(crate) fn len(&self) -> usize {
        self.0.said().bytes.len()
    }
}

/// A running `karere`. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Karere {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Heard,
    pub(crate) stderr: Heard,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails with what was said if it ended otherwise.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stderr, String::from_utf8_lossy(&self.stdout));
        self
    }

    /// The last line of standard output, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = String::from_utf8_lossy(&self.stdout);
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}\n{}", self.stderr))
    }
}

impl Karere {
    /// Starts it with these arguments, separated by spaces, and paths behind them.
    pub(crate) fn start(arguments: &str, paths: &[&Path]) -> Karere {
        Karere::start_with(arguments, paths, Stdio::piped())
    }

    /// The same with another standard output.
    pub(crate) fn start_with(arguments: &str, paths: &[&Path], stdout: Stdio) -> Karere {
        Karere::spawn(Command::new(env!("CARGO_BIN_EXE_karere")), arguments, paths, stdout)
    }

    /// The same with so few file descriptors.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn start_with_descriptors(most: u32, arguments: &str, paths: &[&Path]) -> Karere {
        let mut command = Command::new("sh");
        let order = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        command.args(["-c", &order, env!("CARGO_BIN_EXE_karere")]);
        Karere::spawn(command, arguments, paths, Stdio::piped())
    }

    /// Starts any command with these arguments: what wraps it, or another program.
    pub(crate) fn spawn(mut command: Command, arguments: &str, paths: &[&Path], stdout: Stdio) -> Karere {
        command.args(arguments.split_whitespace()).args(paths);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("karere starts");
        let stdout = child.stdout.take().map(Heard::listen).unwrap_or_default();
        let stderr = child.stderr.take().map(Heard::listen).unwrap_or_default();
        Karere { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let parse = |line: &str| line.strip_prefix("listening on ")?.parse().ok();
        self.stderr.line("the address", parse)
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, data: &[u8]) {
        self.stdin.as_mut().expect("its input is open").write_all(data).expect("it reads");
    }

    /// Ends its standard input.
    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// The id of its process.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let order = format!("kill -{name} {}", self.child.id());
        let done = Command::new("sh").args(["-c", &order]).status().expect("a shell");
        assert!(done.success(), "{order}");
    }

    /// Ends it the hard way.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        self.end_input();
        self.end_with_input_open()
    }

    /// The same while its standard input stays open.
    #[track_caller]
    pub(crate) fn end_with_input_open(&mut self) -> Ended {
        let status = self.wait();
        let stderr = String::from_utf8_lossy(&self.stderr.all()).into_owned();
        let stdout =
            if self.stdout.len() > 0 || self.reads_stdout() { self.stdout.all() } else { Vec::new() };
        Ended { code: status.code(), stdout, stderr }
    }

    fn reads_stdout(&self) -> bool {
        // The reading thread holds the other half.
        Arc::strong_count(&self.stdout.0) > 1
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            let said =
                || self.stderr.wait_for("", |said, _| Some(String::from_utf8_lossy(said).into_owned()));
            assert!(Instant::now() < end, "it does not end: {}", said());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Karere {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that do not repeat, the same for the same seed.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Waits until there is something, and says what was waited for if there never is.
#[allow(dead_code, reason = "each test binary uses its own part")]
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(it) = found() {
            return it;
        }
        assert!(Instant::now() < end, "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
