//! `karere send`: a file or standard input into a byte stream; ends well only when the receiver has confirmed it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use karere::Messenger;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::converse::{Transfer, Trouble, converse};
use crate::node::{self, Books, Broken, Network};
use crate::output::{self, CODE_LOST, Failure, JsonTo};
use crate::pipe::{PROTOCOL, SequenceCounts};
use crate::progress::{PROGRESS_EVERY, Progress};
use crate::signals::Signals;
use crate::source::Source;

/// How long the goodbye may take after the receiver has confirmed everything: a dead link and a redial.
const LEAVE_CONFIRMED: Duration = Duration::from_secs(12);
/// How long to wait for the name of whoever has taken the receiver's place.
const NAME_HEIR: Duration = Duration::from_millis(500);
/// How long the abort of a failed stream may take to reach the receiver.
const LEAVE_FAILED: Duration = Duration::from_secs(2);

/// Options of `karere send`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the receiver listens: HOST:PORT, or :PORT on this machine.
    address: String,
    /// What to send; standard input without it.
    file: Option<PathBuf>,
    /// One line of JSON on standard output at the end.
    #[arg(long)]
    json: bool,
    /// A line of JSON on standard error every 200 ms.
    #[arg(long, hide = true)]
    progress_json: bool,
    /// How long to wait for somebody to answer at the address, in seconds.
    #[arg(long, default_value_t = 30.0, value_parser = parse_seconds)]
    timeout: f64,
    /// The name that the receiver's certificate must be for; without it, the host of the address.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
    #[command(flatten)]
    network: Network,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    // A day is for ever, and fits any clock.
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 86400 seconds".to_owned()) }
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary {
    ok: bool,
    /// Data read from the source.
    bytes: u64,
    seconds: f64,
    /// Of all data, if it was read to the end.
    sha256: Option<String>,
    blocks: u64,
    #[serde(flatten)]
    books: Books,
    /// Data that may have arrived, at most.
    indeterminate_bytes_max: u64,
    /// What the receiver saw, once it has answered.
    receiver: Option<SequenceCounts>,
    error: Option<String>,
    code: u8,
}

/// Runs the command.
///
/// # Errors
/// Unless the receiver has confirmed length and SHA-256. With [`CODE_LOST`] it was replaced, or the session was lost.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let started = Instant::now();
    let source = Source::open(options.file.as_ref())?;
    let transfer = Transfer::default();
    let mut books = Books::default();
    let outcome = send(&options, source, &transfer, &mut books).await;
    let time = started.elapsed();
    if options.json {
        let summary = Summary {
            ok: outcome.is_ok(),
            bytes: transfer.bytes(),
            seconds: output::seconds(time),
            sha256: transfer.sha(),
            blocks: transfer.blocks(),
            books,
            indeterminate_bytes_max: books.indeterminate_bytes_max().min(transfer.bytes()),
            receiver: transfer.seen_by_receiver(),
            error: outcome.as_ref().err().map(|failure| failure.what.clone()),
            code: outcome.as_ref().err().map_or(0, |failure| failure.code),
        };
        output::json_line(JsonTo::Stdout, &summary)?;
    }
    if outcome.is_ok() && !options.json {
        let sha = transfer.sha().unwrap_or_default();
        let (bytes, rate) = (transfer.bytes(), output::rate(transfer.bytes(), time));
        let Books { resent, reconnects, .. } = books;
        let seconds = time.as_secs_f64();
        output::say(&format!("sent and confirmed: {bytes} bytes in {seconds:.1} s ({rate}), sha256 {sha}"));
        output::say(&format!("{reconnects} reconnects, {resent} messages resent, none lost"));
    }
    outcome
}

async fn send(
    options: &Options,
    source: Source,
    transfer: &Transfer,
    books: &mut Books,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let give_up = Duration::from_secs_f64(options.timeout);
    let messenger = node::dialler(&options.network, give_up).await?;
    let (contact, stream) = tokio::select! {
        dialled = node::dial(&messenger, &options.address, options.tls_name.as_deref(), PROTOCOL, give_up) => dialled?,
        () = signals.any() => return Err(Failure::new("interrupted").state("nothing was sent")),
    };
    let progress = Progress::new(options.progress_json, source.header().size);
    let (mut read, mut write) = tokio::io::split(stream);
    let outcome = {
        let conversation = converse(&mut read, &mut write, source, transfer);
        tokio::pin!(conversation);
        let mut tick = interval(PROGRESS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                new = contact.replaced() => break Err(Trouble::Replaced(new)),
                () = signals.any() => break Err(Trouble::Here("interrupted".to_owned())),
                _ = tick.tick() => {
                    *books = Books::of(&messenger);
                    progress.show(transfer.bytes(), books);
                }
                outcome = &mut conversation => break outcome,
            }
        }
    };
    let outcome = match outcome {
        // The loss shows first at the stream; who has taken the place is known a moment later.
        Err(Trouble::Broken(Broken::SessionLost(cause))) => {
            match timeout(NAME_HEIR, contact.replaced()).await {
                Ok(new) => Err(Trouble::Replaced(new)),
                Err(_) => Err(Trouble::Broken(Broken::SessionLost(cause))),
            }
        }
        outcome => outcome,
    };
    let leave = if outcome.is_ok() { LEAVE_CONFIRMED } else { LEAVE_FAILED };
    if let Err(trouble) = &outcome {
        node::abort(read.unsplit(write), trouble.reason());
    }
    farewell(&messenger, leave).await;
    *books = Books::of(&messenger);
    progress.show(transfer.bytes(), books);
    progress.finish();
    outcome.map_err(|trouble| explain(&trouble, &options.address, transfer, books))
}

/// Says goodbye within the time; what happens then no longer matters to the data.
async fn farewell(messenger: &Messenger, time: Duration) {
    if timeout(time + Duration::from_secs(1), messenger.leave(time)).await.is_err() {
        tracing::debug!("the goodbye took too long");
    }
}

fn explain(trouble: &Trouble, to: &str, transfer: &Transfer, books: &Books) -> Failure {
    let Books { messages, acked, not_sent, indeterminate, .. } = *books;
    let bytes = transfer.bytes();
    let lost = |failure: Failure| {
        let doubtful = books.indeterminate_bytes_max().min(bytes);
        let state = format!(
            "{indeterminate} of {messages} messages (at most {doubtful} of {bytes} bytes) are indeterminate; \
             {acked} were acknowledged by the process that is gone, {not_sent} were not sent"
        );
        failure.state(state).tries("send it again from the start").code(CODE_LOST)
    };
    match trouble {
        Trouble::Replaced(new) => lost(
            Failure::new(format!("the receiver at {to} was replaced in mid-stream"))
                .by(format!("another process, member {new:.8}")),
        ),
        Trouble::Broken(Broken::SessionLost(cause)) => {
            lost(Failure::new(format!("the stream to {to} was lost in mid-stream: {cause}")))
        }
        Trouble::Broken(Broken::Aborted(reason)) => Failure::new(format!("the receiver gave up: {reason}"))
            .by(format!("the receiver at {to}"))
            .state(format!("not confirmed after {bytes} bytes")),
        Trouble::Broken(Broken::Other(text)) => Failure::new(format!("the stream to {to} broke: {text}"))
            .state(format!("not confirmed after {bytes} bytes")),
        Trouble::Verdict(text) => Failure::new(format!("not received as it was sent: {text}"))
            .by(format!("the receiver at {to}"))
            .state("the receiver has discarded it"),
        Trouble::Here(text) if transfer.sha().is_some() => Failure::new(text.clone()).state(format!(
            "all {bytes} bytes were handed over, not confirmed: the receiver may have kept them"
        )),
        Trouble::Here(text) => Failure::new(text.clone())
            .state(format!("not confirmed after {bytes} bytes; the receiver discards it")),
    }
}
