//! `karere node`: joins a network, tells what happens there, and leaves when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use karere::rendezvous::{JoinBuilder, JoinError, Joined, Standing};
use karere::{Member, MemberId, StartError, View};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::look::At;
use crate::node::bind_failure;
use crate::output::Failure;
use crate::settings::{Settings, Time};
use crate::signals::Signals;
use crate::told::Teller;

/// After so long without success it is said why, and tried anew.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long the goodbye may take.
const LEAVE: Duration = Duration::from_secs(5);

/// Options of `karere node`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    at: At,
    /// Where to listen: HOST:PORT, :PORT, port 0 for any free one, HOST:FIRST-LAST for the first free one. By default any free port of
    /// every address.
    #[arg(long, value_name = "ADDR", env = "KARERE_BIND")]
    bind: Option<String>,
    /// Where others reach this node. By default the address by which it reaches its server, and the port it listens on.
    #[arg(long, value_name = "ADDR", env = "KARERE_ADVERTISE")]
    advertise: Option<String>,
    /// A free attribute of this node, as zone=a. May be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Give up if it has not joined within this, as 30s. By default it goes on trying.
    #[arg(long, value_name = "TIME")]
    give_up: Option<Time>,
    /// What happens as lines of JSON on standard output.
    #[arg(long)]
    json: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

impl Options {
    fn settings(&self) -> Result<Settings, Failure> {
        let mut all = self.at.settings()?;
        all.over("node.bind", "--bind", self.bind.clone(), |file| &mut file.node.bind);
        all.over("node.advertise", "--advertise", self.advertise.clone(), |file| &mut file.node.advertise);
        all.file.node.labels.extend(self.labels.iter().cloned());
        Ok(all)
    }
}

/// Runs the command.
///
/// # Errors
/// It cannot join, or has to leave without being told to.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let teller = Teller::new(options.json);
    let settings = options.settings()?;
    let builder = settings.node()?;
    let mut signals = Signals::new()?;
    let node = tokio::select! {
        node = join(&settings, builder, options.give_up, teller) => node?,
        () = signals.any() => return teller.tell("left", json!({}), "left, without having joined"),
    };
    let outcome = follow(&node, &mut signals, teller).await;
    // The library keeps to its deadline; this is for a library that does not.
    if timeout(LEAVE + Duration::from_secs(1), node.leave(LEAVE)).await.is_err() {
        tracing::warn!("the goodbye took too long");
    }
    teller.tell("left", json!({}), "left")?;
    outcome
}

/// Tries again and again.
async fn join(
    settings: &Settings,
    builder: JoinBuilder,
    give_up: Option<Time>,
    teller: Teller,
) -> Result<Joined, Failure> {
    let began = Instant::now();
    loop {
        let left = give_up.map(|time| time.0.saturating_sub(began.elapsed()));
        let attempt = builder.clone().give_up(left.map_or(ATTEMPT, |left| left.min(ATTEMPT)));
        let error = match attempt.start().await {
            Ok(node) => return Ok(node),
            Err(error) => error,
        };
        let is_over = left.is_some_and(|left| left <= ATTEMPT);
        match &error {
            JoinError::NoServer { .. } | JoinError::NoLeader { .. } if !is_over => {
                let why = error.to_string();
                teller.tell("seeking", json!({"why": why}), &format!("not joined yet: {why}"))?;
            }
            _ => return Err(failed(settings, &error)),
        }
    }
}

fn failed(settings: &Settings, error: &JoinError) -> Failure {
    let failure = match error {
        JoinError::Setup(error) => return settings.blame_setup(error),
        JoinError::Start(StartError::Config(error)) => return settings.blame_messenger(error),
        JoinError::Start(error) => {
            let bind = settings.file.node.bind.as_deref().unwrap_or(":0");
            bind_failure(bind, &error.to_string())
        }
        JoinError::NoServer { .. } => Failure::new(error.to_string())
            .tries("`karere rendezvous` at one of these addresses, or another --rendezvous LIST"),
        JoinError::Refused(why) if why.contains("recover") => Failure::new(error.to_string()),
        JoinError::Refused(_) => Failure::new(error.to_string())
            .tries("the --environment, --network and certificates of the servers, and the same version"),
        JoinError::NoLeader { .. } => Failure::new(error.to_string()).tries("`karere rendezvous servers`"),
        _ => Failure::new(error.to_string()),
    };
    failure.state("it has not joined; nothing is left of it")
}

/// Tells what happens, until a signal comes.
async fn follow(node: &Joined, signals: &mut Signals, teller: Teller) -> Result<(), Failure> {
    let rendezvous = node.rendezvous();
    let mut standing = rendezvous.standing();
    let mut seen = Seen::default();
    loop {
        let now = standing.borrow_and_update().clone();
        seen.note(teller, node.messenger().member(), rendezvous.view(), &now)?;
        if now == Standing::Left {
            return Err(Failure::new("no leader was heard for so long that this node has left (stop_after)")
                .state("it is a member no more")
                .tries("`karere rendezvous servers`, then `karere node` again"));
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() {
                return Err(Failure::new("the node was closed"));
            },
            () = signals.any() => return Ok(()),
        }
    }
}

/// What was told last.
#[derive(Default)]
struct Seen {
    me: Option<MemberId>,
    view: Option<Arc<View>>,
    standing: Standing,
}

impl Seen {
    fn note(
        &mut self,
        teller: Teller,
        me: Member,
        view: Option<Arc<View>>,
        standing: &Standing,
    ) -> Result<(), Failure> {
        let was = std::mem::replace(&mut self.standing, standing.clone());
        match standing {
            Standing::Joined { view } => {
                let id = me.id.to_string();
                let at: Vec<_> = me.endpoints.iter().map(ToString::to_string).collect();
                if self.me.replace(me.id) != Some(me.id) {
                    let with = json!({"id": id, "view": view.to_string(), "endpoints": at});
                    let line = format!("joined as {id} at {}, view {view}", at.join(","));
                    teller.tell("joined", with, &line)?;
                } else if !was.is_joined() {
                    let with = json!({"id": id, "view": view.to_string()});
                    teller.tell("back", with, &format!("back: a leader is heard again, view {view}"))?;
                }
            }
            Standing::Frozen { since } if !matches!(was, Standing::Frozen { .. }) => {
                let silent = since.elapsed().as_millis() as u64;
                let line = format!("frozen: no leader was heard for {silent} ms; the last view stays");
                teller.tell("frozen", json!({"silent_ms": silent}), &line)?;
            }
            other if *other != was => {
                let (event, with) = match other {
                    Standing::Seeking => ("seeking", json!({})),
                    Standing::Evicted => ("evicted", json!({})),
                    Standing::Refused(why) => ("refused", json!({"why": why})),
                    _ => ("standing", json!({"standing": other.to_string()})),
                };
                teller.tell(event, with, &other.to_string())?;
            }
            _ => {}
        }
        self.note_view(teller, view)
    }

    fn note_view(&mut self, teller: Teller, view: Option<Arc<View>>) -> Result<(), Failure> {
        let Some(view) = view else { return Ok(()) };
        if self.view.as_ref().is_some_and(|was| was.id() == view.id()) {
            return Ok(());
        }
        let was: BTreeMap<MemberId, Member> = match self.view.replace(Arc::clone(&view)) {
            Some(was) => was.members().iter().map(|member| (member.id, member.clone())).collect(),
            None => BTreeMap::new(),
        };
        let shown = |member: &Member| match member.name.as_str() {
            "" => member.id.to_string(),
            name => format!("{name} {}", member.id),
        };
        let came: Vec<&Member> =
            view.members().iter().filter(|member| !was.contains_key(&member.id)).collect();
        let went: Vec<&Member> = was.values().filter(|member| !view.contains(member.id)).collect();
        let ids =
            |members: &[&Member]| members.iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
        let mut line = format!("view {}: {} members", view.id(), view.members().len());
        came.iter().for_each(|member| line.push_str(&format!("; came {}", shown(member))));
        went.iter().for_each(|member| line.push_str(&format!("; went {}", shown(member))));
        let all: Vec<&Member> = view.members().iter().collect();
        let with = json!({"view": view.id().to_string(), "members": ids(&all), "came": ids(&came), "went": ids(&went)});
        teller.tell("view", with, &line)
    }
}
