//! How a transfer goes, told while it goes: a bar for people, lines of JSON for the demo.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::node::Books;
use crate::output::{self, JsonTo};

/// How often it is told.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// One line of `send --progress-json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Data handed to the messenger so far.
    pub(crate) bytes: u64,
    /// Since the start.
    pub(crate) seconds: f64,
    /// The messenger's books at one moment.
    #[serde(flatten)]
    pub(crate) books: Books,
}

/// Shows progress, or does not.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    json: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar if standard error is a terminal, unless lines of JSON are asked for.
    pub(crate) fn new(json: bool, size: Option<u64>) -> Progress {
        let bar = (!json && io::stderr().is_terminal()).then(|| bar(size));
        Progress { started: Instant::now(), json, bar }
    }

    /// Tells how it stands now.
    pub(crate) fn show(&self, bytes: u64, books: &Books) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(format!("{} resent, {} reconnects", books.resent, books.reconnects));
        }
        if self.json {
            let line = Line { bytes, seconds: output::seconds(self.started.elapsed()), books: *books };
            // Whoever asked for it has stopped reading: that is no reason to stop sending.
            let _ = output::json_line(JsonTo::Stderr, &line);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    let template = match size {
        Some(_) => "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}  {msg}",
        None => "{spinner} {bytes} {binary_bytes_per_sec} {elapsed}  {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar
}
