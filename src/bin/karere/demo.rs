//! `karere demo`: a real file, from one process to another, through a network that keeps breaking; then the books.

mod acts;
mod books;
mod children;
mod material;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use karere::faults::{Plan, Proxy};
use tokio::time::{sleep_until, timeout};

use crate::output::{self, Failure, JsonTo};
use crate::signals::Signals;
use acts::Conductor;
use books::{Balance, Samples};
use children::{Receiver, Sender};
use material::{Original, Workshop};

/// A little more than a hundred million bytes.
const SIZE_BYTES: u64 = 100 << 20;
/// Enough that data still flows when the last fault happens.
const SIZE_BYTES_MIN: u64 = 16 << 20;
/// Sparse faults need no more; the disk has to hold it twice.
const SIZE_BYTES_MAX: u64 = 4 << 30;
/// Beyond the time asked for: three silent links, slow machines, the end at full speed.
const GRACE: Duration = Duration::from_secs(90);
/// How long a process may take to end once its work is done.
const END: Duration = Duration::from_secs(30);

/// Options of `karere demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What breaks, and when, comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long it goes on breaking; longer if not every kind of fault has happened by then.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The size of the file, in bytes.
    #[arg(long, default_value_t = SIZE_BYTES, value_parser = clap::value_parser!(u64).range(SIZE_BYTES_MIN..=SIZE_BYTES_MAX))]
    size: u64,
    /// One line of JSON on standard output at the end.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If anything is off: a byte that differs, a block lost, doubled or out of order, a fault that never happened, a process
/// that fails or hangs. No process and no file is left in any case.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let started = Instant::now();
    let mut workshop = Workshop::new()?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(options.seconds) + GRACE;
    let mut samples = Samples::default();
    let outcome = tokio::select! {
        outcome = play(&options, workshop.path(), &mut samples) => outcome,
        () = signals.any() => Err(Failure::new("interrupted")),
        () = sleep_until(deadline) => Err(Failure::new("it hangs: not done long after its time")),
    };
    // The processes are gone by now: they are killed when their handles drop.
    workshop.clear();
    let mut balance = match outcome {
        Ok(balance) => balance,
        Err(failure) if options.json => Balance::of_failure(&failure),
        Err(failure) => return Err(failure),
    };
    balance.seconds = output::seconds(started.elapsed());
    if options.json {
        output::json_line(JsonTo::Stdout, &balance)?;
    } else {
        balance.print()?;
    }
    if balance.ok {
        return Ok(());
    }
    let failure = Failure::new(format!("the books do not balance: {}", balance.problems.join("; ")));
    Err(failure.tries(format!("karere demo --seed {} again, with KARERE_LOG=debug", options.seed)))
}

/// From the file to the books. Dropped early, it ends everything it has started.
async fn play(options: &Options, dir: &Path, samples: &mut Samples) -> Result<Balance, Failure> {
    output::say(&format!("a file of {} from seed {}", output::size(options.size), options.seed));
    let original = Original::make(dir, options.size, options.seed).await?;
    let mut receiver = Receiver::start(&dir.join("received")).await?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let proxy = Proxy::start(any, receiver.address(), Plan { seed: options.seed, ..Plan::default() })
        .map_err(|error| Failure::new(format!("cannot start the proxy: {error}")))?;
    output::say(&format!(
        "karere send {}  ->  the proxy  ->  karere listen {}",
        proxy.address(),
        receiver.address()
    ));
    let mut conductor =
        Conductor::new(&proxy, options.seed, options.size, Duration::from_secs(options.seconds));
    // Before the first byte, so that the file lasts.
    conductor.set_pace(0);
    let mut sender = Sender::start(proxy.address(), &original.path)?;
    {
        let conduct = conductor.conduct(sender.progress());
        tokio::pin!(conduct);
        let mut conducting = true;
        loop {
            tokio::select! {
                line = sender.next_line() => match line {
                    Some(line) => samples.take(&line),
                    None => break,
                },
                done = &mut conduct, if conducting => {
                    conducting = false;
                    done?;
                }
            }
        }
    }
    let summary = timeout(END, sender.wait());
    let summary = summary.await.map_err(|_| Failure::new("the sender does not end"))??;
    if let Some(error) = &summary.error {
        output::say(&format!("  send: {error}"));
    }
    let report = timeout(END, receiver.wait());
    let report = report.await.map_err(|_| Failure::new("the receiver does not end"))??;
    let copy = original.compare(report.file.as_deref()).await;
    let balance = Balance::new(&summary, &report, copy, conductor.faults(), samples);
    proxy.stop().await;
    Ok(balance)
}
