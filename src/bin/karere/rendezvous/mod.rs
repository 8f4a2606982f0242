//! `karere rendezvous`: a server, and what is done to servers.

mod disk;
mod order;
mod serve;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::look::At;
use crate::output::Failure;
use crate::settings::{List, Source};

/// Options of `karere rendezvous`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    serve: Serve,
}

/// A server.
#[derive(Debug, Args)]
struct Serve {
    /// Where to listen. By default :7500.
    #[arg(long, value_name = "ADDR", env = "KARERE_RENDEZVOUS_BIND")]
    bind: Option<String>,
    /// Where nodes and the other servers reach this one, if that is not what is bound.
    #[arg(long, value_name = "ADDR", env = "KARERE_RENDEZVOUS_ADVERTISE")]
    advertise: Option<String>,
    /// All servers of the cluster, the same list on each, for the first start. Without it this one is alone.
    #[arg(long, value_name = "LIST", env = "KARERE_RENDEZVOUS_PEERS")]
    peers: Option<List>,
    /// The directory of this server: its votes, its log, its snapshots. By default one of this user's, which is told.
    #[arg(long, value_name = "DIR", env = "KARERE_RENDEZVOUS_DATA")]
    data: Option<PathBuf>,
    /// Wait to be added to a cluster that runs: `karere rendezvous add`.
    #[arg(long)]
    join: bool,
    /// Names whose certificates may change the cluster: add, remove, evict, recover, snapshot. Needs TLS. By default whoever is let in may.
    #[arg(long, value_name = "LIST", env = "KARERE_RENDEZVOUS_ADMINS")]
    admins: Option<List>,
    #[command(flatten)]
    source: Source,
    /// What happens as lines of JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One server more. It waits at the address already: `karere rendezvous --join` there.
    Add {
        /// Where it is.
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[command(flatten)]
        at: At,
    },
    /// One server less.
    Remove {
        /// Its number or its address, as `karere rendezvous servers` tells them.
        #[arg(value_name = "ID|ADDRESS")]
        server: String,
        #[command(flatten)]
        at: At,
    },
    /// The servers, as one of them sees them.
    Servers(crate::look::Options),
    /// Takes a member out of the network. If it lives, it comes again as another one.
    Evict {
        /// Its id.
        #[arg(value_name = "MEMBER")]
        member: karere::MemberId,
        #[command(flatten)]
        at: At,
    },
    /// All that the servers have decided, into a file, while they run; with --data all that is on the disk of one that does not run, for
    /// when too few are left to elect a leader.
    Snapshot {
        /// The file. It is replaced if it is there.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        at: At,
        /// The directory of a server that does not run: what is on it is copied, also what was not decided, and nothing there changes.
        /// No server is asked.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// One line of JSON on standard output.
        #[arg(long)]
        json: bool,
    },
    /// A snapshot into an empty data directory: of a server that is then the only one.
    Restore {
        /// The snapshot.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        on: On,
    },
    /// Lets the network go on without what is lost. With --rendezvous: the servers run, and their disks have lost what nodes still know. With
    /// --data: more than half of the servers are lost for good, and this one is to go on alone; it must not run now.
    Recover {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// The servers that run.
        #[arg(long, value_name = "LIST", conflicts_with = "data", required_unless_present = "data")]
        rendezvous: Option<List>,
        /// The directory of the server that is left.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where nodes reach that server from now on, if that has changed.
        #[arg(long, value_name = "ADDR", requires = "data")]
        advertise: Option<String>,
        #[command(flatten)]
        source: Source,
    },
}

/// Which disk, of which server.
#[derive(Debug, Args)]
struct On {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where nodes reach the server from now on.
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    #[command(flatten)]
    source: Source,
}

/// Runs the command.
///
/// # Errors
/// Why it could not be done, and in which state it leaves things.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.what {
        None => serve::run(options.serve).await,
        Some(What::Add { address, at }) => order::add(&at, &address).await,
        Some(What::Remove { server, at }) => order::remove(&at, &server).await,
        Some(What::Servers(options)) => order::servers(options).await,
        Some(What::Evict { member, at }) => order::evict(&at, member).await,
        Some(What::Snapshot { file, at, data: Some(data), json }) => {
            let on = On { data: Some(data), advertise: None, source: at.source };
            disk::snapshot(&file, on, json).await
        }
        Some(What::Snapshot { file, at, data: None, json }) => order::snapshot(&at, &file, json).await,
        Some(What::Restore { file, on }) => disk::restore(&file, on).await,
        Some(What::Recover { yes, rendezvous: None, data, advertise, source }) => {
            disk::recover(On { data, advertise, source }, yes).await
        }
        Some(What::Recover { yes, rendezvous, source, .. }) => {
            order::recover(&At { rendezvous, source }, yes).await
        }
    }
}
