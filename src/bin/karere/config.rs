//! `karere config`: looks at a file of settings, or writes one to begin with.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::{self, Failure};
use crate::settings::{EXAMPLE, Settings};

/// Options of `karere config`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Whether a file holds together: 0 if it does; what is wrong is told with its line.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// A file with every setting there is, on standard output.
    Example,
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    match &options.what {
        What::Check { file } => {
            Settings::load(file)?.check()?;
            output::say(&format!("{} is right", file.display()));
            Ok(())
        }
        What::Example => {
            let written = std::io::stdout().lock().write_all(EXAMPLE.as_bytes());
            written.map_err(|error| Failure::new(format!("cannot write: {error}")))
        }
    }
}
