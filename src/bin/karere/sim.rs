//! `karere sim`: worlds from seeds, with everything that can go wrong in them. Feature `testing`.

use std::time::Duration;

use clap::Args;
use karere::testing::{self, Coverage, Kind, Outcome, Report, Routers};
use serde_json::{Value, json};

use crate::output::{self, Failure};

/// Options of `karere sim`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first one.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many at the same time; as many as there are cores, if nothing is said.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Stops at the first seed in which something does not hold.
    #[arg(long)]
    first: bool,
    /// Runs one seed and prints what happens in it.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "seed", "first"])]
    replay: Option<u64>,
    /// Worlds of a rendezvous: servers, and nodes that follow them.
    #[cfg(feature = "rendezvous")]
    #[arg(long)]
    rendezvous: bool,
    /// Instead: what a join and a change of routes cost where so many nodes follow a rendezvous of three servers.
    #[cfg(feature = "rendezvous")]
    #[arg(long, value_name = "NODES", value_delimiter = ',', conflicts_with_all = ["seeds", "seed", "replay"])]
    scale: Vec<usize>,
    /// Which fault met which state how often.
    #[arg(long)]
    coverage: bool,
    /// A line of JSON on standard output, the last one.
    #[arg(long)]
    json: bool,
}

/// At most so many seeds are named one by one.
const NAMED: usize = 20;

impl Options {
    const fn kind(&self) -> Kind {
        #[cfg(feature = "rendezvous")]
        if self.rendezvous {
            return Kind::Rendezvous;
        }
        Kind::Messengers
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let kind = options.kind();
    #[cfg(feature = "rendezvous")]
    if !options.scale.is_empty() {
        return scale(&options.scale, options.json);
    }
    if let Some(seed) = options.replay {
        return replay(kind, seed, options.json);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    let report = testing::simulate(kind, options.seed, options.seeds, threads, |outcome| {
        if outcome.violation.is_some() {
            complain(kind, outcome);
        }
        !(options.first && outcome.violation.is_some())
    });
    if options.coverage {
        print_coverage(&report.coverage);
    }
    if options.json {
        println!("{}", summary(&report));
    } else {
        print_report(&report);
    }
    if report.violations.is_empty() {
        return Ok(());
    }
    let count = report.violations.len();
    Err(Failure::new(format!("a guarantee did not hold in {count} of {} seeds", report.seeds))
        .tries("the replay of one of them, as said above"))
}

#[cfg(feature = "rendezvous")]
fn scale(sizes: &[usize], json: bool) -> Result<(), Failure> {
    if !json {
        println!(
            "nodes  all joined  views  join: messages    bytes  all know  route: messages    bytes  all know"
        );
    }
    for nodes in sizes {
        let seen = testing::scale(*nodes).map_err(Failure::new)?;
        let (join, route) = (seen.join, seen.route);
        let seconds = |time: Duration| time.as_secs_f64();
        if json {
            let cost = |cost: testing::Cost| json!({"messages": cost.messages, "bytes": cost.bytes, "seconds": seconds(cost.until_all_know)});
            println!(
                "{}",
                json!({"nodes": seen.nodes, "all_joined_seconds": seconds(seen.all_joined), "views": seen.views, "join": cost(join), "route": cost(route)})
            );
            continue;
        }
        println!(
            "{:5}  {:8.3} s  {:5}  {:14}  {:7}  {:5.0} ms  {:15}  {:7}  {:5.0} ms",
            seen.nodes,
            seconds(seen.all_joined),
            seen.views,
            join.messages,
            join.bytes,
            1e3 * seconds(join.until_all_know),
            route.messages,
            route.bytes,
            1e3 * seconds(route.until_all_know),
        );
    }
    Ok(())
}

fn complain(kind: Kind, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    output::say(&format!(
        "seed {}: {}: {} (after {:.3} s)\n  replay: cargo run --release --features testing -- sim {}--replay {}",
        outcome.seed,
        violation.invariant,
        violation.text,
        violation.at.as_secs_f64(),
        if kind == Kind::Messengers { "" } else { "--rendezvous " },
        outcome.seed
    ));
}

fn replay(kind: Kind, seed: u64, json: bool) -> Result<(), Failure> {
    let (outcome, lines) = testing::replay(kind, seed);
    lines.iter().for_each(|line| println!("{line}"));
    if json {
        let violation =
            outcome.violation.as_ref().map(|one| json!({"invariant": one.invariant, "text": one.text}));
        println!(
            "{}",
            json!({"seed": seed, "messages": outcome.messages, "digest": format!("{:016x}", outcome.digest),
                   "virtual_seconds": outcome.virtual_time.as_secs_f64(), "violation": violation})
        );
    }
    match outcome.violation {
        None => Ok(()),
        Some(violation) => Err(Failure::new(format!("{}: {}", violation.invariant, violation.text))),
    }
}

fn summary(report: &Report) -> Value {
    let named: Vec<_> = report.violations.iter().take(NAMED).map(|outcome| {
        let violation = outcome.violation.as_ref();
        json!({"seed": outcome.seed, "invariant": violation.map(|one| &one.invariant), "text": violation.map(|one| &one.text)})
    }).collect();
    json!({
        "seeds": report.seeds,
        "violations": report.violations.len(),
        "virtual_seconds": report.virtual_time.as_secs_f64(),
        "messages": report.messages,
        "members": report.members,
        "faults": report.faults,
        "byte_streams": {"opened": report.byte_streams.0, "ended": report.byte_streams.1},
        "routers": routers(&report.routers),
        "rendezvous": rendezvous(report),
        "bent": report.bent,
        "cut": report.cut,
        "least": {"members": report.least.0, "messages": report.least.1, "virtual_seconds": report.least.2.as_secs_f64()},
        "wall_seconds": report.wall.as_secs_f64(),
        "failed": named,
    })
}

fn routers(routers: &Routers) -> Value {
    json!({
        "worlds": routers.worlds,
        "flows": routers.flows,
        "outcomes": routers.outcomes,
        "crashed": routers.crashed,
        "hung": routers.hung,
        "misdelivered": routers.misdelivered,
        "handled": routers.handled,
        "forwarded": routers.forwarded,
        "returned": routers.returned,
        "rerouted": routers.rerouted,
        "dead": routers.dead,
        "late": routers.late,
        "discoveries": routers.discoveries,
    })
}

fn rendezvous(report: &Report) -> Value {
    #[cfg(feature = "rendezvous")]
    {
        let told = &report.rendezvous;
        json!({
            "worlds": told.worlds,
            "views": told.views,
            "terms": told.terms,
            "messages": told.messages,
            "looks": told.looks,
            "evicted": told.evicted,
            "grants": told.grants,
        })
    }
    #[cfg(not(feature = "rendezvous"))]
    {
        let _none = report;
        Value::Null
    }
}

fn print_report(report: &Report) {
    let per_second = report.seeds as f64 / report.wall.max(Duration::from_millis(1)).as_secs_f64();
    println!(
        "{} seeds, {} violations; {:.0} virtual s, {} processes, {} messages; {:.1} s, {per_second:.1} seeds/s",
        report.seeds,
        report.violations.len(),
        report.virtual_time.as_secs_f64(),
        report.members,
        report.messages,
        report.wall.as_secs_f64(),
    );
    let (members, messages, time) = report.least;
    println!("byte streams: {} opened, {} accepted and ended", report.byte_streams.0, report.byte_streams.1);
    let routers = &report.routers;
    let outcomes: Vec<_> = routers.outcomes.iter().map(|(ended, count)| format!("{ended} {count}")).collect();
    println!(
        "routers in {} worlds: {} flows, {} messages handled, {} rerouted; {}; crashed with their process {}, hung {}, misdelivered {}",
        routers.worlds,
        routers.flows,
        routers.handled,
        routers.rerouted,
        outcomes.join(", "),
        routers.crashed,
        routers.hung,
        routers.misdelivered,
    );
    println!("rendezvous: {}", rendezvous(report));
    println!("the smallest: {members} processes, {messages} messages, {:.0} virtual s", time.as_secs_f64());
    let faults: Vec<_> = report.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    println!("faults: {}; bent on the way {}, cut on the way {}", faults.join(", "), report.bent, report.cut);
}

fn print_coverage(coverage: &Coverage) {
    let states = Coverage::states();
    println!("fault\t{}", states.join("\t"));
    for (fault, hits) in coverage.rows() {
        let hits: Vec<_> = hits.iter().map(u64::to_string).collect();
        println!("{fault}\t{}", hits.join("\t"));
    }
}
