//! Flags, orders from standard input, and one line of JSON for each event: what both membership examples share.

use std::io::{BufRead, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use karere::{Endpoint, Timeouts};
use serde_json::{Value, json};

use crate::membership::Membership;
use crate::notes::Fact;

pub(crate) const USAGE: &str = "\
usage: membership [--bind ADDR] [--join ADDR]... [--name TEXT] [--rate PER_SECOND] [--liveness-ms MS] [--check-ms MS]
                  [--retry-ms MS]
Without --join it founds a cluster. Orders on standard input: `totals`, `pause` (no more numbered messages), `leave`;
the end of the input is `leave`.";

/// How often numbered messages go, and how long the wiring waits for anything.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How long a leaving member tries: half of it for a view without it.
pub(crate) const LEAVE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) bind: String,
    pub(crate) join: Vec<Endpoint>,
    pub(crate) name: String,
    /// Numbered messages a second, to each member.
    pub(crate) rate: u64,
    pub(crate) liveness: Duration,
    /// A suspect that does not acknowledge for so long is gone.
    pub(crate) check: Duration,
    /// What was not answered is asked again after this.
    pub(crate) retry: Duration,
}

impl Options {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            bind: "127.0.0.1:0".to_owned(),
            join: Vec::new(),
            name: String::new(),
            rate: 100,
            liveness: Timeouts::default().liveness,
            check: Duration::from_secs(1),
            retry: Duration::from_secs(1),
        };
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} takes a value\n{USAGE}"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
            match flag.as_str() {
                "--bind" => options.bind = value,
                "--join" => options.join.push(value.parse().map_err(|error| format!("--join: {error}"))?),
                "--name" => options.name = value,
                "--rate" => options.rate = number()?,
                "--liveness-ms" => options.liveness = Duration::from_millis(number()?),
                "--check-ms" => options.check = Duration::from_millis(number()?),
                "--retry-ms" => options.retry = Duration::from_millis(number()?),
                _ => return Err(format!("unknown: {flag}\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// The messenger's, with the liveness that was asked for.
    pub(crate) fn timeouts(&self) -> Timeouts {
        let default = Timeouts::default();
        let within = |time: Duration| time.min(self.liveness);
        Timeouts {
            ping: default.ping.min(self.liveness.mul_f64(0.3)),
            liveness: self.liveness,
            hello: within(default.hello),
            connect: within(default.connect),
            redial_max: within(default.redial_max),
            contact_give_up: within(default.hello),
            stuck: within(default.stuck),
            unreachable: within(default.unreachable),
            ..default
        }
    }

    /// How many numbered messages go at this tick.
    pub(crate) fn count(&self, tick: u64) -> u64 {
        let until = |tick: u64| self.rate * tick * TICK.as_millis() as u64 / 1000;
        until(tick + 1) - until(tick)
    }
}

/// What somebody asks for on standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Totals,
    Pause,
    Leave,
}

/// Reads orders, to the end of the input. Blocks its thread.
pub(crate) fn read_orders(mut give: impl FnMut(Order)) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.trim() {
            "totals" => give(Order::Totals),
            "pause" => give(Order::Pause),
            "leave" => give(Order::Leave),
            other => eprintln!("unknown: {other}\n{USAGE}"),
        }
    }
    give(Order::Leave);
}

/// One line: the event, what belongs to it, and where this member stands.
pub(crate) fn say(core: &Membership, event: &str, with: Value) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({"at_ms": at.as_millis() as u64, "event": event, "me": core.me().to_string(),
        "view": core.view().map(|view| view.id().to_string()),
        "members": core.view().into_iter().flat_map(|view| view.members()).map(|member| member.id.to_string())
            .collect::<Vec<_>>()});
    if let (Value::Object(line), Value::Object(with)) = (&mut line, with) {
        line.extend(with);
    }
    // Whoever read it may be gone; that is no reason to stop.
    let _gone = writeln!(std::io::stdout(), "{line}");
}

pub(crate) fn say_fact(core: &Membership, fact: &Fact) {
    match fact {
        Fact::Joined => say(core, "joined", json!({})),
        Fact::View => say(core, "view", json!({})),
        Fact::Suspect { who, why } => say(core, "suspect", json!({"who": who.to_string(), "why": why})),
        Fact::Checked { who, alive } => say(core, "checked", json!({"who": who.to_string(), "alive": alive})),
        Fact::Claimed { generation } => say(core, "claimed", json!({"generation": generation})),
        Fact::Waiting { answered, of } => say(core, "waiting", json!({"answered": answered, "of": of})),
        Fact::Expelled { by } => say(core, "expelled", json!({"by": by})),
    }
}
