//! Figures: a line of the table each, and one of JSON at the end.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

/// All figures so far, and whether each is within its bound.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Value>,
    missed: Vec<String>,
}

/// The value that so many hundredths are not above.
fn percentile<T: Copy>(sorted: &[T], hundredths: usize) -> T {
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    sorted[rank - 1]
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    percentile(&figures, 50)
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 1e2
}

impl Report {
    pub(crate) fn section(&self, title: &str) {
        println!("\n{title}");
    }

    pub(crate) fn head_of_times(&self) {
        println!("{:<44} {:>6} {:>9} {:>9} {:>9} {:>9}", "ms", "runs", "p50", "p99", "max", "bound");
    }

    /// Times of all runs. The bound is one of the 99th percentile.
    pub(crate) fn times(&mut self, figure: &str, mut times: Vec<Duration>, bound: Option<Duration>) {
        times.sort_unstable();
        let runs = times.len();
        let [p50, p99, max] = [50, 99, 100].map(|part| ms(percentile(&times, part)));
        let bound = bound.map(ms);
        let kept = bound.is_none_or(|bound| p99 <= bound);
        let shown = bound.map_or("-".to_owned(), |bound| format!("{bound:.0}"));
        println!("{figure:<44} {runs:>6} {p50:>9.2} {p99:>9.2} {max:>9.2} {shown:>9}{}", mark(kept));
        self.lines.push(json!({
            "bench": "views", "figure": figure, "unit": "ms", "runs": runs,
            "p50": p50, "p99": p99, "max": max, "bound_p99": bound, "kept": kept,
        }));
        self.note(figure, kept);
    }

    /// What there was before and after, and how much more of it is allowed.
    pub(crate) fn levels(&mut self, figure: &str, unit: &str, levels: (u64, u64, u64), more: Option<u64>) {
        let (start, most, end) = levels;
        let kept = more.is_none_or(|more| end <= start + more);
        let bound = more.map_or("-".to_owned(), |more| format!("+{more}"));
        println!(
            "{figure:<44} {unit:>6} start {start:>8}  most {most:>8}  end {end:>8}  bound {bound:>7}{}",
            mark(kept)
        );
        self.lines.push(json!({
            "bench": "views", "figure": figure, "unit": unit, "start": start, "most": most, "end": end,
            "bound_more": more, "kept": kept,
        }));
        self.note(figure, kept);
    }

    /// Interleaved rounds without and with something, per second; the bound is one of the median of their ratios.
    pub(crate) fn ratio(&mut self, figure: &str, unit: &str, rounds: &[(f64, f64)], least: f64) {
        let ratios: Vec<f64> =
            rounds.iter().map(|(without, with)| (with / without * 1e3).round() / 1e3).collect();
        let without = median(rounds.iter().map(|(without, _)| *without).collect()).round();
        let with = median(rounds.iter().map(|(_, with)| *with).collect()).round();
        let ratio = median(ratios.clone());
        let kept = ratio >= least;
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        println!(
            "{figure:<34} {unit:>6} {without:>11.0} {with:>11.0} {ratio:>6.2}  ({}){}",
            each.join(" "),
            mark(kept)
        );
        self.lines.push(json!({
            "bench": "views", "figure": figure, "unit": unit, "without": without, "with": with,
            "ratios": ratios, "median": ratio, "bound_least": least, "kept": kept,
        }));
        self.note(figure, kept);
    }

    fn note(&mut self, figure: &str, kept: bool) {
        if !kept {
            self.missed.push(figure.to_owned());
        }
    }

    /// The lines of JSON, and how it all ends.
    pub(crate) fn close(self) -> ExitCode {
        println!();
        self.lines.iter().for_each(|line| println!("{line}"));
        if self.missed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("missed: {}", self.missed.join(", "));
        // Where the machine is shared, a bound is looked at.
        let look = std::env::var_os("KARERE_BENCH_LOOK").is_some();
        if look { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

const fn mark(kept: bool) -> &'static str {
    if kept { "" } else { "  MISSED" }
}
