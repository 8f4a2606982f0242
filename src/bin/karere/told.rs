//! What a command that stays tells while it runs: lines for people, or lines of JSON, on standard output.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::output::{self, Failure, JsonTo};

/// Where it is told, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teller {
    json: bool,
}

impl Teller {
    pub(crate) const fn new(json: bool) -> Teller {
        Teller { json }
    }

    /// One event: its name and what belongs to it, or a line for people.
    ///
    /// # Errors
    /// Nobody reads it.
    pub(crate) fn tell(self, event: &str, with: Value, line: &str) -> Result<(), Failure> {
        if !self.json {
            let written = writeln!(io::stdout().lock(), "{line}");
            return written.map_err(|error| Failure::new(format!("cannot write: {error}")));
        }
        let mut all = json!({"at_ms": unix_millis(), "event": event});
        if let (Value::Object(all), Value::Object(with)) = (&mut all, with) {
            all.extend(with);
        }
        output::json_line(JsonTo::Stdout, &all)
    }
}

/// The wall clock, to the microsecond.
fn unix_millis() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as f64 / 1e3
}
