//! What is told of a fault: one row of the table.

use std::sync::Mutex;

use crate::labs::form::{self, Form, Show, Tried};

/// One fault: what was done, what the application saw, what came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) fault: String,
    /// Events that the application got, in order, or what a command said.
    pub(crate) saw: String,
    /// Until messages flowed again both ways, or until what was to be gone was gone, in milliseconds.
    pub(crate) took_ms: Option<u64>,
    /// What it is counted from, and what was asserted.
    pub(crate) promise: String,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) out_of_order: u64,
    /// Messages sent, by how they ended.
    pub(crate) acked: u64,
    pub(crate) not_sent: u64,
    pub(crate) indeterminate: u64,
}

/// All rows and skips of this process.
static TOLD: Mutex<(Vec<Row>, Vec<String>)> = Mutex::new((Vec::new(), Vec::new()));

/// A test in its short form: fails as the fault fails, prints a skip also where output is captured.
pub(crate) fn short(name: &str, fault: impl FnOnce(Form) -> Tried<Vec<Row>>) {
    tell(name, fault(Form::Short));
}

fn tell(name: &str, outcome: Tried<Vec<Row>>) {
    let mut told = TOLD.lock().unwrap();
    match outcome {
        Ok(rows) => {
            rows.iter().for_each(|row| println!("{}", line(row)));
            told.0.extend(rows);
        }
        Err(skip) => {
            form::tell_skip("lab", name, &skip);
            told.1.push(format!("{name}: {}", skip.0));
        }
    }
}

fn cells(row: &Row) -> [String; 10] {
    let took = match row.took_ms {
        // Shorter than what is told as a gap.
        Some(0) => "< 0.1 s".to_owned(),
        Some(ms) if ms < 1000 => format!("{ms} ms"),
        Some(ms) => format!("{:.1} s", ms as f64 / 1000.0),
        None => "-".to_owned(),
    };
    let Row { lost, twice, out_of_order, acked, not_sent, indeterminate, .. } = row;
    let counts = [lost, twice, out_of_order, acked, not_sent, indeterminate].map(u64::to_string);
    let [lost, twice, out_of_order, acked, not_sent, indeterminate] = counts;
    let (fault, saw, promise) = (row.fault.clone(), row.saw.clone(), row.promise.clone());
    [fault, saw, took, promise, lost, twice, out_of_order, acked, not_sent, indeterminate]
}

fn line(row: &Row) -> String {
    format!("| {} |", cells(row).join(" | "))
}

/// Runs faults one after the other in their long form and prints the table; fails at the end if any failed.
pub(crate) fn table(faults: &[Show<Vec<Row>>]) {
    let failed = std::panic::catch_unwind(|| form::each(faults, |name, outcome, _| tell(name, outcome)));
    let told = TOLD.lock().unwrap();
    println!(
        "\n| fault | what the application saw | took | promise | lost | twice | out of order | acked | not sent | indeterminate |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    told.0.iter().for_each(|row| println!("{}", line(row)));
    println!("\nskipped: {}", told.1.len());
    told.1.iter().for_each(|skip| println!("- {skip}"));
    drop(told);
    if let Err(failed) = failed {
        std::panic::resume_unwind(failed);
    }
}
