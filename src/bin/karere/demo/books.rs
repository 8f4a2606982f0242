//! The books: sampled while it goes on, balanced at the end.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::acts::{Faults, Kind};
use super::children::{Report, Summary};
use super::material::Copy;
use crate::node::Books;
use crate::output::{self, Failure};
use crate::progress::Line;

/// What the sender's progress lines told.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    taken: u64,
    last: Books,
    /// The first sample that was off.
    off: Option<String>,
}

impl Samples {
    /// Every message is in exactly one place, and what is acknowledged stays so.
    pub(super) fn take(&mut self, line: &Line) {
        let books = line.books;
        let fell = books.acked < self.last.acked || books.messages < self.last.messages;
        if self.off.is_none() && (fell || !books.are_balanced()) {
            self.off = Some(format!("the books at {} s are off: {books:?}", line.seconds));
        }
        self.taken += 1;
        self.last = books;
    }
}

/// The last line of `--json`.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Balance {
    pub(super) ok: bool,
    /// Blocks handed to the messenger.
    sent: u64,
    /// Blocks the receiver saw, for the first time each.
    delivered: u64,
    /// Blocks that did not come.
    lost: u64,
    /// Blocks that came again.
    duplicated: u64,
    /// Blocks that came late.
    reordered: u64,
    /// Messages that may have arrived.
    indeterminate: u64,
    /// Messages that were never written.
    not_sent: u64,
    /// Connections after the first.
    reconnects: u64,
    /// Messages written again.
    resent: u64,
    pub(super) seconds: f64,
    bytes: u64,
    sha256: Option<String>,
    faults: Faults,
    /// How often the books were looked at while it went on.
    samples: u64,
    /// What is off.
    pub(super) problems: Vec<String>,
}

impl Balance {
    pub(super) fn new(
        sent: &Summary,
        received: &Report,
        copy: Copy,
        faults: &Faults,
        samples: &Samples,
    ) -> Balance {
        let (sha256, differs) = match copy {
            Copy::Same(sha) => (Some(sha.to_string()), None),
            Copy::Differs(how) => (None, Some(how)),
        };
        let mut balance = Balance {
            sent: sent.blocks,
            delivered: received.blocks,
            lost: received.missing.max(sent.blocks.saturating_sub(received.blocks)),
            duplicated: received.doubled,
            reordered: received.reordered,
            indeterminate: sent.books.indeterminate,
            not_sent: sent.books.not_sent,
            reconnects: sent.books.reconnects,
            resent: sent.books.resent,
            bytes: sent.bytes,
            sha256,
            faults: faults.clone(),
            samples: samples.taken,
            ..Balance::default()
        };
        balance.problems = balance.find_problems(sent, received, samples);
        balance.problems.extend(differs);
        balance.ok = balance.problems.is_empty();
        balance
    }

    /// It did not get as far as books.
    pub(super) fn of_failure(failure: &Failure) -> Balance {
        Balance { problems: vec![failure.what.clone()], ..Balance::default() }
    }

    fn find_problems(&self, sent: &Summary, received: &Report, samples: &Samples) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        let mut expect = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let said = |error: &Option<String>| error.clone().unwrap_or_else(|| "it does not say why".to_owned());
        expect(sent.ok, format!("the sender failed: {}", said(&sent.error)));
        expect(received.ok, format!("the receiver failed: {}", said(&received.error)));
        let zeros = [
            (self.lost, "blocks lost"),
            (self.duplicated, "blocks duplicated"),
            (self.reordered, "blocks reordered"),
            (self.indeterminate, "messages indeterminate"),
            (self.not_sent, "messages not sent"),
        ];
        for (count, what) in zeros {
            expect(count == 0, format!("{count} {what}"));
        }
        expect(
            self.sent == self.delivered,
            format!("{} blocks sent, {} delivered", self.sent, self.delivered),
        );
        expect(sent.books.are_balanced(), format!("the last books are off: {:?}", sent.books));
        expect(samples.taken > 0, "the books were never looked at".to_owned());
        for kind in Kind::ALL {
            expect(self.faults.contains_key(&kind), format!("{} never happened", kind.name()));
        }
        problems.extend(samples.off.clone());
        problems
    }

    /// The table for people.
    pub(super) fn print(&self) -> Result<(), Failure> {
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
        let time = Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        let sha = self.sha256.as_deref().map_or("NOT the same bytes", |_| "the same SHA-256 on disk");
        let lines = [
            format!("sent           {:>9} blocks    {} bytes", self.sent, self.bytes),
            format!("delivered      {:>9} blocks    {sha}", self.delivered),
            format!("lost           {:>9}", self.lost),
            format!("duplicated     {:>9}", self.duplicated),
            format!("reordered      {:>9}", self.reordered),
            format!("indeterminate  {:>9}", self.indeterminate),
            format!("reconnects     {:>9}", self.reconnects),
            format!("resent         {:>9} messages", self.resent),
            format!("faults         {}", faults.join(", ")),
            format!("books          balanced in {} samples and at the end", self.samples),
            format!("time           {:.1} s, {}", self.seconds, output::rate(self.bytes, time)),
            if self.ok { "ok".to_owned() } else { format!("NOT ok: {}", self.problems.join("; ")) },
        ];
        let text = format!("\n{}\n", lines.join("\n"));
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| Failure::new(format!("cannot write the books: {error}")))
    }
}
