//! What is told of a show: figures, one a line.

use crate::labs::form;
pub(crate) use crate::labs::form::{Form, Show, Tried};

/// What was seen.
pub(crate) type Figures = Vec<String>;

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
        Err(skip) => form::tell_skip("rendezvous lab", name, &skip),
    }
}

/// Runs shows one after the other in their long form; fails at the end if any failed.
pub(crate) fn all(shows: &[Show<Figures>]) {
    form::each(shows, |name, outcome, took| {
        tell(name, outcome);
        println!("({:.0} s)\n", took.as_secs_f64());
    });
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
