//! `karere proxy`: the fault proxy as a process of its own, for tests. Not shown in the help.
//!
//! With `--control` it obeys lines of JSON on standard input: `{"inject":"reset"}`, `{"target":"127.0.0.1:7400"}`,
//! `{"heal":true}`, `{"counts":true}`; it ends with standard input.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use karere::faults::{Fault, FaultCounts, Pace, Plan, Proxy, Rate, Schedule};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};

use crate::output::{self, Failure, JsonTo};
use crate::signals::Signals;

/// Options of `karere proxy`. A pace is `LEAST-MOST` or `LEAST-MOSTxCOUNT`, in milliseconds or bytes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to forward to.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Every draw comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A whole plan as JSON, instead of the options below.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Resets.
    #[arg(long, value_name = "MS-MS", value_parser = parse_pace)]
    reset_every_ms: Option<Pace>,
    /// Connections that fall silent for ever.
    #[arg(long, value_name = "MS-MS", value_parser = parse_pace)]
    silence_every_ms: Option<Pace>,
    /// One direction falls silent for ever.
    #[arg(long, value_name = "MS-MS", value_parser = parse_pace)]
    one_way_every_ms: Option<Pace>,
    /// Each connection is cut after so many bytes.
    #[arg(long, value_name = "BYTES-BYTES", value_parser = parse_pace)]
    cut_after_bytes: Option<Pace>,
    /// One bit is flipped.
    #[arg(long, value_name = "BYTES-BYTES", value_parser = parse_pace)]
    flip_every_bytes: Option<Pace>,
    /// Every byte comes that much later.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// Bytes a second, of each connection and direction.
    #[arg(long)]
    rate: Option<u64>,
    /// Bytes of buffer with --rate.
    #[arg(long, default_value_t = 65536)]
    buffer_bytes: u32,
    /// Lines of JSON on standard output: the address, each fault, counts at the end.
    #[arg(long)]
    json: bool,
    /// Obeys lines on standard input, and ends with it.
    #[arg(long)]
    control: bool,
}

fn parse_pace(text: &str) -> Result<Pace, String> {
    let wrong = || "LEAST-MOST or LEAST-MOSTxCOUNT".to_owned();
    let (span, count) = match text.split_once('x') {
        Some((span, count)) => (span, Some(count)),
        None => (text, None),
    };
    let (least, most) = span.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let pace = Pace::from(number(least)?..=number(most)?);
    Ok(match count {
        Some(count) => pace.at_most(number(count)?),
        None => pace,
    })
}

/// A line on standard input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    Inject(Fault),
    Target(SocketAddr),
    Heal(bool),
    /// True or false: they are told after every order.
    Counts(serde::de::IgnoredAny),
}

/// A line on standard output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum News {
    Listening { address: SocketAddr },
    Fault { seconds: f64, connection: u64, fault: Fault, detail: String },
    Obeyed { connections: usize },
    Counts(FaultCounts),
}

/// Runs the command until a signal comes, or with `--control` until standard input ends.
///
/// # Errors
/// If it cannot listen, or an order cannot be understood.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let plan = options.plan()?;
    let proxy = Proxy::start(options.listen, options.to, plan)
        .map_err(|error| Failure::new(format!("cannot listen on {}: {error}", options.listen)))?;
    let mut events = proxy.events();
    let mut orders = options.control.then(|| BufReader::new(stdin()).lines());
    let say = |news: News| if options.json { output::json_line(JsonTo::Stdout, &news) } else { Ok(()) };
    say(News::Listening { address: proxy.address() })?;
    output::say(&format!("listening on {}", proxy.address()));
    loop {
        tokio::select! {
            () = signals.any() => break,
            Some(event) = events.next() => say(News::Fault {
                seconds: output::seconds(event.at),
                connection: event.connection,
                fault: event.fault,
                detail: event.detail,
            })?,
            order = next(&mut orders) => match order? {
                Some(order) => say(obey(&proxy, order))?,
                None => break,
            },
        }
    }
    say(News::Counts(proxy.counts()))?;
    proxy.stop().await;
    Ok(())
}

/// The next order; without `--control` none ever comes. Cancel safe.
async fn next(orders: &mut Option<Lines<BufReader<Stdin>>>) -> Result<Option<Order>, Failure> {
    let Some(lines) = orders else { return std::future::pending().await };
    let line = lines.next_line().await.map_err(|error| Failure::new(format!("no orders: {error}")))?;
    let Some(line) = line else { return Ok(None) };
    serde_json::from_str(&line)
        .map(Some)
        .map_err(|error| Failure::new(format!("`{line}` is no order: {error}")))
}

fn obey(proxy: &Proxy, order: Order) -> News {
    match order {
        Order::Inject(fault) => return News::Obeyed { connections: proxy.inject(fault) },
        Order::Target(target) => proxy.set_target(target),
        Order::Heal(true) => proxy.heal(),
        Order::Heal(false) | Order::Counts(_) => {}
    }
    News::Counts(proxy.counts())
}

impl Options {
    fn plan(&self) -> Result<Plan, Failure> {
        if let Some(path) = &self.plan {
            let wrong = |error: String| Failure::new(format!("no plan in {}: {error}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            return serde_json::from_str(&text).map_err(|error| wrong(error.to_string()));
        }
        let schedule = Schedule {
            reset_every_ms: self.reset_every_ms,
            silence_every_ms: self.silence_every_ms,
            one_way_every_ms: self.one_way_every_ms,
            cut_after_bytes: self.cut_after_bytes,
            flip_every_bytes: self.flip_every_bytes,
            ..Schedule::default()
        };
        let rate =
            self.rate.map(|bytes_per_second| Rate { bytes_per_second, buffer_bytes: self.buffer_bytes });
        Ok(Plan { delay_ms: self.delay_ms, rate, ..Plan::new(self.seed, schedule) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_span_and_perhaps_a_count() {
        assert_eq!(parse_pace("150-600"), Ok(Pace::from(150..=600)));
        assert_eq!(parse_pace("1-2x3"), Ok(Pace::from(1..=2).at_most(3)));
        for wrong in ["", "5", "5-", "a-b", "1-2x"] {
            assert!(parse_pace(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn orders_are_lines_of_json() {
        let order: Order = serde_json::from_str(r#"{"inject":{"silence":{"drain":false}}}"#).unwrap();
        assert!(matches!(order, Order::Inject(Fault::Silence { drain: false })));
        let order: Order = serde_json::from_str(r#"{"inject":"reset"}"#).unwrap();
        assert!(matches!(order, Order::Inject(Fault::Reset)));
        let order: Order = serde_json::from_str(r#"{"target":"127.0.0.1:9"}"#).unwrap();
        assert!(matches!(order, Order::Target(_)));
    }
}
