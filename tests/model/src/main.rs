//! Walks through every order of events of the scenarios in `karere::fuzzing::model`, stepping the real `Session` and
//! `Peer`. `cargo run --release --manifest-path tests/model/Cargo.toml -- --help`

mod options;
mod report;
mod walk;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    let options = match Options::from_args() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    // Panics of the rooms are findings: they are told with the way that led there.
    std::panic::set_hook(Box::new(|_| {}));
    let mut sound = true;
    for scenario in options.scenarios() {
        let walked = walk::walk(scenario, &options);
        report::print(&walked, &options);
        sound &= walked.is_sound();
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
