//! `cargo bench --bench views`: what a view change costs those who stay, and what is left of those who go. Ends with an
//! error when a bound is missed. `-- --quick` measures less; `-- teardown` (or `waiters`, `churn`, `hung`) only that.
//!
//! All members are in this process, so the machine is busy with their work as well. Linux only: it looks into `/proc`.

mod churn;
mod field;
mod hung;
mod proc;
mod report;
mod teardown;
mod waiters;

use std::process::ExitCode;

use report::Report;

const SECTIONS: [&str; 4] = ["teardown", "waiters", "churn", "hung"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
    if has("--test") {
        return ExitCode::SUCCESS;
    }
    if !proc::is_there() {
        println!("skipped: there is no /proc here");
        return ExitCode::SUCCESS;
    }
    let all = !SECTIONS.into_iter().any(has);
    let quick = has("--quick");
    let mut report = Report::default();
    // Those who stay; those who come and go, and the load, run beside it.
    let builder = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all();
        builder
    };
    let inside = builder().worker_threads(2).build().expect("a runtime");
    let outside = builder().worker_threads(1).build().expect("a runtime");
    inside.block_on(async {
        if all || has("teardown") {
            teardown::measure(&mut report, outside.handle(), quick).await;
        }
        if all || has("waiters") {
            waiters::measure(&mut report, outside.handle(), quick).await;
        }
        if all || has("churn") {
            churn::measure(&mut report, outside.handle(), quick).await;
        }
        if all || has("hung") {
            hung::measure(&mut report, outside.handle(), quick).await;
        }
    });
    inside.shutdown_background();
    outside.shutdown_background();
    report.close()
}
