//! The command line of karere: pipes, a rendezvous, nodes, and what shows them.
//!
//! Exit codes: 0 only for success; 1 an error; 2 wrong usage; 3 the receiver was replaced or lost in mid-stream.

mod certs;
mod config;
mod converse;
mod demo;
mod intake;
mod join;
mod listen;
mod look;
mod node;
mod output;
mod pipe;
mod progress;
mod proxy;
mod receive;
mod rendezvous;
mod send;
mod settings;
mod signals;
#[cfg(feature = "testing")]
mod sim;
mod sink;
mod source;
mod table;
mod told;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use output::Failure;

/// The commands wait for the network most of the time; hashing and files have threads of their own.
const WORKERS: usize = 2;

/// A reliable TCP messenger: every byte once and in order, through a network that keeps breaking.
#[derive(Parser)]
#[command(name = "karere", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receive streams: to standard output, one sender at a time, or each into a file of a directory.
    Listen(listen::Options),
    /// Send a file, or standard input; ends well only when the receiver has it all, with the same SHA-256.
    Send(send::Options),
    /// A server of the one address that a network needs; also more servers, fewer, snapshots, recovery.
    Rendezvous(Box<rendezvous::Options>),
    /// A node that joins a network, tells what happens there, and stays.
    Node(join::Options),
    /// Who is in the network.
    Members(look::Options),
    /// Which view of the network is valid.
    View(look::Options),
    /// Who handles what in the network.
    Routes(look::Options),
    /// Looks at a file of settings, or writes one to begin with.
    Config(config::Options),
    /// An authority and certificates for development, for --tls-ca, --tls-cert and --tls-key.
    Certs(certs::Options),
    /// The whole thing, breaking and mending, in one terminal.
    Demo(demo::Options),
    /// A proxy that breaks connections on purpose, for tests.
    #[command(hide = true)]
    Proxy(proxy::Options),
    /// Worlds from seeds, in virtual time, with everything that can go wrong in them; what does not hold is told with its
    /// seed.
    #[cfg(feature = "testing")]
    Sim(sim::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logs(cli.command.is_quiet());
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

impl Command {
    /// Whether its messengers' warnings are expected, and many.
    const fn is_quiet(&self) -> bool {
        #[cfg(feature = "testing")]
        if matches!(self, Self::Sim(_)) {
            return true;
        }
        false
    }
}

fn run(command: Command) -> Result<(), Failure> {
    // It has runtimes of its own.
    #[cfg(feature = "testing")]
    if let Command::Sim(options) = &command {
        return sim::run(options);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Listen(options) => listen::run(options).await,
            Command::Send(options) => send::run(options).await,
            Command::Rendezvous(options) => rendezvous::run(*options).await,
            Command::Node(options) => join::run(options).await,
            Command::Members(options) => look::members(options).await,
            Command::View(options) => look::view(options).await,
            Command::Routes(options) => look::routes(options).await,
            Command::Config(options) => config::run(&options),
            Command::Certs(options) => certs::run(&options),
            Command::Demo(options) => demo::run(options).await,
            Command::Proxy(options) => proxy::run(options).await,
            #[cfg(feature = "testing")]
            Command::Sim(_) => Ok(()),
        }
    });
    // A thread may be stuck in a read of standard input or a write to a full pipe: nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// Logs go to standard error, warnings and worse (if quiet: nothing) unless `KARERE_LOG` or `RUST_LOG` says otherwise.
fn start_logs(quiet: bool) {
    let otherwise = if quiet { "off" } else { "warn" };
    let filter = EnvFilter::try_from_env("KARERE_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new(otherwise));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
