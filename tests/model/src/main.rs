//! Walks through every order of events of the scenarios in `karere::fuzzing::model`, stepping the real `Session` and
//! `Peer` (and `Roster`, `Link`, codec, intakes, receipts): model checking without a model that could be wrong. The
//! checker is stateright's, breadth first.
//!
//! ```text
//! cargo run --release --manifest-path tests/model/Cargo.toml              # the quick scenarios, in every run of the checks
//! cargo run --release --manifest-path tests/model/Cargo.toml -- --all     # all of them
//! cargo run --release --manifest-path tests/model/Cargo.toml -- --scenario links --threads 2
//! cargo run --release --manifest-path tests/model/Cargo.toml -- --scenario full --breaks 2 --calm-every 200 --threads 2
//! tests/model/broken                                                      # breaks the code in many places: each must be found
//! ```
//!
//! What it says of a scenario: states reached (counted each time, so these are the transitions), states that differ, how
//! deep (in steps: a break is of one step with what it matters to), how long, whether that is all of them, each property that does not hold with the shortest way there, and what the
//! scenario was to show and did not (a scenario in which nothing happens proves nothing). It ends with 1 if anything does
//! not hold.
//!
//! What makes it small enough, and why nothing is lost by it: breaks only where they matter (`mod.rs` of the folder below),
//! connections on which nobody can learn anything are over at once (`World::sweep`), messages that are over are not told
//! from each other (`World::digest_books`).
//!
//! What a scenario leaves to choice, what it bounds, and how time is treated is said in `src/fuzzing/model/`: `mod.rs`
//! (choice, breaks, time), `scenario.rs` (bounds), `digest.rs` (when two worlds are the same), `books.rs` (what must hold
//! after each action), `calm.rs` (everything ends when nothing breaks any more: run from every state).
//!
//! Not in any scenario: credit, chunks, several messages in one batch, datagrams, probes, idle links, times to live, keys,
//! TLS, more than one stream of a class and admission, more than two addresses, delayed acknowledgements, jitter, a message
//! that waits while its write is blocked (but for `links-lazy`).

mod options;
mod report;
mod trail;
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
