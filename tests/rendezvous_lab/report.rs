//! What is told of a show: figures, one a line.

use std::io::Write;
use std::time::Instant;

pub(crate) use crate::network::{Skip, Tried};

/// The short form of a show runs with each `cargo test`, with shorter times of the servers; the long one has their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Short,
    Long,
}

impl Form {
    /// Of two values the one for this form.
    pub(crate) fn pick<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

/// What was seen.
pub(crate) type Figures = Vec<String>;

/// A name, and what does it.
pub(crate) type Show = (&'static str, fn(Form) -> Tried<Figures>);

/// A test in its short form: fails as the show fails, prints a skip also where output is captured.
pub(crate) fn short(name: &str, show: impl FnOnce(Form) -> Tried<Figures>) {
    tell(name, show(Form::Short));
}

fn tell(name: &str, outcome: Tried<Figures>) {
    match outcome {
        Ok(figures) => {
            println!("{name}:");
            figures.iter().for_each(|figure| println!("- {figure}"));
        }
        // `println!` would be captured.
        Err(Skip(why)) => drop(writeln!(std::io::stderr(), "rendezvous lab: skipped: {name}: {why}")),
    }
}

/// Runs shows one after the other in their long form; fails at the end if any failed.
pub(crate) fn all(shows: &[Show]) {
    let mut failed = Vec::new();
    let wanted = std::env::var("LAB_ONLY").unwrap_or_default();
    for (name, show) in shows.iter().filter(|(name, _)| name.contains(&wanted)) {
        let began = Instant::now();
        match std::panic::catch_unwind(|| show(Form::Long)) {
            Ok(outcome) => tell(name, outcome),
            Err(_told_already) => failed.push(*name),
        }
        println!("({:.0} s)\n", began.elapsed().as_secs_f64());
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// Times in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn add(&mut self, ms: f64) {
        self.0.push(ms);
    }

    pub(crate) fn extend(&mut self, ms: impl IntoIterator<Item = f64>) {
        self.0.extend(ms);
    }

    /// The one below which this part of them lies.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1) as f64;
        sorted.get((last * part).round() as usize).copied().unwrap_or_default()
    }

    /// `p50 12 ms, p99 40 ms, most 44 ms of 150`.
    pub(crate) fn text(&self) -> String {
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| self.at(part));
        format!("p50 {half:.0} ms, p99 {most:.0} ms, most {all:.0} ms of {}", self.0.len())
    }
}
