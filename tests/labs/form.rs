//! The two forms of what a lab shows, and how all of it is shown.

use std::io::Write;
use std::time::{Duration, Instant};

pub(crate) use super::network::{Skip, Tried};

/// The short form runs with each `cargo test`, with shorter times; the long one has the default times, and makes the figures.
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

/// A name, and what does it.
pub(crate) type Show<T> = (&'static str, fn(Form) -> Tried<T>);

/// Runs them one after the other in their long form, those with `LAB_ONLY` in their name; fails at the end if any failed. `tell` is
/// given each that did not, and how long it took.
pub(crate) fn each<T>(shows: &[Show<T>], mut tell: impl FnMut(&str, Tried<T>, Duration)) {
    let mut failed = Vec::new();
    let wanted = std::env::var("LAB_ONLY").unwrap_or_default();
    for (name, show) in shows.iter().filter(|(name, _)| name.contains(&wanted)) {
        let began = Instant::now();
        match std::panic::catch_unwind(|| show(Form::Long)) {
            Ok(outcome) => tell(name, outcome, began.elapsed()),
            Err(_told_already) => failed.push(*name),
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// Told also where output is captured.
pub(crate) fn tell_skip(lab: &str, name: &str, Skip(why): &Skip) {
    // `println!` would be captured.
    let _gone = writeln!(std::io::stderr(), "{lab}: skipped: {name}: {why}");
}
