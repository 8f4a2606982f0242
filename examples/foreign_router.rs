//! A router of another make on the messenger, in five processes: each node orders from the others, redundant actors
//! take turns, answers go back. In the middle one node is removed from the view while it lives, then another is killed.
//! At the end every pair of the three that are left must have received what was sent, once and in order.
//!
//! ```text
//! cargo run --release --example foreign_router
//! cargo run --release --example foreign_router -- --faults
//! ```
//!
//! `--faults`: every link runs through a proxy that resets, cuts and delays connections (feature `faults`, which the
//! default features bring). The router is in `shared/foreign/router.rs`; all that it knows of karere is the trait
//! `RouterTransport`. Membership is what the parent says: it gives each node the views on its standard input.

#[path = "shared/foreign/cluster.rs"]
mod cluster;
#[path = "shared/foreign/links.rs"]
mod links;
#[path = "shared/foreign/node.rs"]
mod node;
#[path = "shared/foreign/report.rs"]
mod report;
#[path = "shared/foreign/router.rs"]
mod router;
#[path = "shared/foreign/words.rs"]
mod words;

use std::process::ExitCode;

/// What ends the program.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: foreign_router [--nodes N] [--orders N] [--faults] [--seed N] [--json]
  --nodes   processes, at least 5: two of them go                        default 5
  --orders  orders that each node sends; each is answered                default 20000
  --faults  all links through the fault proxy
  --seed    of the faults                                                default 1
  --json    the report as one line of JSON";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) nodes: u64,
    pub(crate) orders: u64,
    pub(crate) faults: bool,
    pub(crate) seed: u64,
    pub(crate) json: bool,
    /// The parent's word to a child: which node it is.
    node: Option<u64>,
}

impl Options {
    fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self { nodes: 5, orders: 20_000, faults: false, seed: 1, json: false, node: None };
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let mut number = || {
                let value = arguments.next().ok_or_else(|| format!("{flag} takes a value\n{USAGE}"))?;
                value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}\n{USAGE}"))
            };
            match flag.as_str() {
                "--nodes" => options.nodes = number()?,
                "--orders" => options.orders = number()?,
                "--seed" => options.seed = number()?,
                "--node" => options.node = Some(number()?),
                "--faults" => options.faults = true,
                "--json" => options.json = true,
                _ => return Err(format!("{flag} is unknown\n{USAGE}").into()),
            }
        }
        if options.nodes < 5 || options.orders == 0 {
            return Err(format!("at least 5 nodes and one order\n{USAGE}").into());
        }
        Ok(options)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ended = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => match options.node {
            Some(index) => node::run(index, options.nodes, options.orders).await.map(|()| true),
            None => cluster::run(&options).await,
        },
        Err(wrong) => Err(wrong),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("foreign_router: {error}");
            ExitCode::from(2)
        }
    }
}
