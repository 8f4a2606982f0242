//! What people and scripts read: errors with what to do, JSON lines, sizes.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// The command failed.
pub(crate) const CODE_ERROR: u8 = 1;
/// The command was not used as it can be.
pub(crate) const CODE_USAGE: u8 = 2;
/// The receiver was replaced by another process, or the session with it was lost, in mid-stream.
pub(crate) const CODE_LOST: u8 = 3;

/// Why a command ends with an exit code other than 0, told to a person who can act on it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) what: String,
    /// Who or what is behind it.
    pub(crate) by: Option<String>,
    /// What state it leaves.
    pub(crate) state: Option<String>,
    /// What to do.
    pub(crate) tries: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), by: None, state: None, tries: None, code: CODE_ERROR }
    }

    pub(crate) fn by(self, by: impl Into<String>) -> Failure {
        Failure { by: Some(by.into()), ..self }
    }

    pub(crate) fn state(self, state: impl Into<String>) -> Failure {
        Failure { state: Some(state.into()), ..self }
    }

    pub(crate) fn tries(self, tries: impl Into<String>) -> Failure {
        Failure { tries: Some(tries.into()), ..self }
    }

    pub(crate) fn code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        let details = [("by: ", &self.by), ("now:", &self.state), ("try:", &self.tries)];
        for (label, text) in details {
            if let Some(text) = text {
                write!(f, "\n  {label}  {text}")?;
            }
        }
        Ok(())
    }
}

/// Tells a failure on standard error.
pub(crate) fn complain(failure: &Failure) {
    say(&failure.to_string());
}

/// A line on standard error. Nobody reading it is no reason to fail.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Where JSON lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonTo {
    /// Standard output.
    Stdout,
    /// Standard error, when standard output carries data.
    Stderr,
}

/// Writes a value as one line of JSON.
///
/// # Errors
/// If it cannot be written: a script that waits for it would wait in vain.
pub(crate) fn json_line(to: JsonTo, value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value).map_err(|error| Failure::new(format!("no JSON: {error}")))?;
    line.push(b'\n');
    let written = match to {
        JsonTo::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(&line).and_then(|()| out.flush())
        }
        JsonTo::Stderr => io::stderr().lock().write_all(&line),
    };
    written.map_err(|error| Failure::new(format!("cannot write the JSON line: {error}")))
}

/// Bytes for people: `1.50 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for next in UNITS.iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.2} {unit}")
}

/// Megabytes (10^6 bytes) a second.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(1e-6);
    format!("{:.1} MB/s", bytes as f64 / 1e6 / seconds)
}

/// Seconds with a tenth of a millisecond, as they stand in JSON.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_what_by_whom_and_what_to_do() {
        let failure = Failure::new("cannot bind :1: no permission").by("the system").tries("--bind :7400");
        let text = "error: cannot bind :1: no permission\n  by:   the system\n  try:  --bind :7400";
        assert_eq!(failure.to_string(), text);
    }

    #[test]
    fn sizes_are_short_and_exact_below_a_kibibyte() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.00 KiB");
        assert_eq!(size(3 << 29), "1.50 GiB");
        assert_eq!(size(u64::MAX), "16384.00 PiB");
    }
}
