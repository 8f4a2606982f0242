//! `karere listen`: takes streams in, to standard output one after the other, or each into a file.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use karere::{ByteStream, Messenger};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::node::{self, Network};
use crate::output::{self, Failure, JsonTo};
use crate::pipe::PROTOCOL;
use crate::receive::{Report, receive};
use crate::signals::Signals;
use crate::sink::Outlet;

/// Files written at the same time; each has a thread and about a mebibyte.
const FILES_MAX: usize = 16;
/// Senders that wait for their turn. Their windows hold them up; more are turned away.
const WAITING_MAX: usize = 64;
/// How long the goodbye may take.
const LEAVE: Duration = Duration::from_secs(5);
/// How long streams may take to stop.
const STOP: Duration = Duration::from_secs(3);

/// Options of `karere listen`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen: HOST:PORT, :PORT for all addresses, port 0 for any free one, HOST:FIRST-LAST for the first
    /// free one.
    #[arg(long, value_name = "ADDR")]
    bind: String,
    /// End after the first complete stream.
    #[arg(long)]
    once: bool,
    /// Each stream into a file of this directory, instead of all to standard output.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// A line of JSON for each stream: on standard output with --out-dir, else on standard error.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: Network,
}

/// Runs the command.
///
/// # Errors
/// If it cannot listen, if standard output can take no more, or if it is stopped before its work is done.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let outlet = outlet(options.out_dir.as_deref())?;
    let mut signals = Signals::new()?;
    let (messenger, address) = node::listen(&options.bind, &options.network).await?;
    output::say(&format!("listening on {address}"));
    let json = options.json.then_some(match outlet {
        Outlet::Stdout => JsonTo::Stderr,
        Outlet::Directory(_) => JsonTo::Stdout,
    });
    let mut hall = Hall::new(outlet);
    let outcome = serve(&messenger, &mut hall, &mut signals, options.once, json).await;
    hall.stop().await;
    // The library keeps to its deadline; this is for a library that does not.
    if timeout(LEAVE + Duration::from_secs(1), messenger.leave(LEAVE)).await.is_err() {
        tracing::warn!("the goodbye took too long");
    }
    outcome
}

fn outlet(dir: Option<&std::path::Path>) -> Result<Outlet, Failure> {
    let Some(dir) = dir else { return Ok(Outlet::Stdout) };
    if !dir.is_dir() {
        let failure = Failure::new(format!("cannot write to {}: it is no directory", dir.display()));
        return Err(failure.tries(format!("mkdir -p {}", dir.display())));
    }
    Ok(Outlet::Directory(Arc::from(dir)))
}

/// Until a signal comes, or with `once` until a stream is complete.
async fn serve(
    messenger: &Messenger,
    hall: &mut Hall,
    signals: &mut Signals,
    once: bool,
    json: Option<JsonTo>,
) -> Result<(), Failure> {
    loop {
        hall.seat();
        tokio::select! {
            stream = messenger.accept_stream() => match stream {
                Some(stream) => hall.admit(stream),
                None => return Err(Failure::new("the messenger was closed")),
            },
            Some(report) = hall.next() => {
                tell(&report, json)?;
                judge(&report, once)?;
                if report.ok && once {
                    return Ok(());
                }
            }
            () = signals.any() => {
                let failure = Failure::new("stopped by a signal");
                return match (hall.is_empty(), once) {
                    (true, false) => Ok(()),
                    (true, true) => Err(failure.state("no stream was received")),
                    (false, _) => Err(failure.state("what was not complete is given up, its senders are told")),
                };
            }
        }
    }
}

fn tell(report: &Report, json: Option<JsonTo>) -> Result<(), Failure> {
    if let Some(to) = json {
        return output::json_line(to, report);
    }
    let from = report.from.get(24..).unwrap_or(&report.from);
    let time = Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    let (bytes, rate) = (report.bytes, output::rate(report.bytes, time));
    match &report.error {
        None => {
            let file =
                report.file.as_ref().map(|file| format!(" into {}", file.display())).unwrap_or_default();
            let sha = report.sha256.as_deref().unwrap_or_default();
            let seconds = report.seconds;
            output::say(&format!(
                "received {bytes} bytes from {from}{file} in {seconds:.1} s ({rate}), sha256 {sha}"
            ));
        }
        Some(error) => output::say(&format!("a stream from {from} failed after {bytes} bytes: {error}")),
    }
    Ok(())
}

/// A stream that failed ends the command only if nothing good can come after it.
fn judge(report: &Report, once: bool) -> Result<(), Failure> {
    if report.closed {
        let failure = Failure::new("standard output is closed");
        return Err(failure.by("whoever read it").state("the sender was told"));
    }
    if !report.ok && report.stained {
        let what = format!("{} bytes of a stream that failed are on standard output", report.bytes);
        if once {
            let failure = Failure::new(what).state("they cannot be taken back, so nothing more was received");
            return Err(failure.tries("--out-dir, or standard output into a file"));
        }
        output::say(&format!("warning: {what}; the next stream comes behind them"));
    }
    Ok(())
}

/// Streams that are received, and those that wait for it.
struct Hall {
    outlet: Outlet,
    seats: usize,
    waiting: VecDeque<ByteStream>,
    running: JoinSet<Report>,
    stop: CancellationToken,
}

impl Hall {
    fn new(outlet: Outlet) -> Hall {
        let seats = match outlet {
            Outlet::Stdout => 1,
            Outlet::Directory(_) => FILES_MAX,
        };
        let stop = CancellationToken::new();
        Hall { outlet, seats, waiting: VecDeque::new(), running: JoinSet::new(), stop }
    }

    fn admit(&mut self, stream: ByteStream) {
        if stream.name() != PROTOCOL {
            tracing::warn!(peer = %stream.peer(), name = stream.name(), "a stream for something else");
            let reason = format!("this is `karere listen`, which takes {PROTOCOL}");
            node::abort(stream, &reason);
        } else if self.waiting.len() >= WAITING_MAX {
            tracing::warn!(peer = %stream.peer(), "too many senders");
            node::abort(stream, "too many senders wait already; try again later");
        } else {
            self.waiting.push_back(stream);
        }
    }

    /// Begins to receive as many as may be received at once.
    fn seat(&mut self) {
        while self.running.len() < self.seats
            && let Some(stream) = self.waiting.pop_front()
        {
            self.running.spawn(receive(stream, self.outlet.clone(), self.stop.clone()));
        }
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The next one that ended; none if none is running. Cancel safe.
    async fn next(&mut self) -> Option<Report> {
        loop {
            match self.running.join_next().await? {
                Ok(report) => return Some(report),
                // A bug; the other streams go on.
                Err(error) => tracing::error!(%error, "a receiving task failed"),
            }
        }
    }

    /// Gives up everything that is not complete, and tells the senders.
    async fn stop(&mut self) {
        const REASON: &str = "the receiver was stopped";
        self.waiting.drain(..).for_each(|stream| node::abort(stream, REASON));
        self.stop.cancel();
        let ended = async { while self.running.join_next().await.is_some() {} };
        if timeout(STOP, ended).await.is_err() {
            self.running.shutdown().await;
        }
    }
}
