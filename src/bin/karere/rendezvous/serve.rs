//! One server, until a signal ends it.

use std::time::Duration;

use karere::StartError;
use karere::rendezvous::{Server, ServerError, ServerStanding};
use serde_json::json;
use tokio::time::timeout;

use super::Serve;
use crate::node::bind_failure;
use crate::output::Failure;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::told::Teller;

/// How long the goodbye may take.
const LEAVE: Duration = Duration::from_secs(5);

impl Serve {
    fn settings(&self) -> Result<Settings, Failure> {
        let mut all = Settings::of(&self.source)?;
        all.over("rendezvous.bind", "--bind", self.bind.clone(), |file| &mut file.rendezvous.bind);
        let advertise = self.advertise.clone();
        all.over("rendezvous.advertise", "--advertise", advertise, |file| &mut file.rendezvous.advertise);
        all.over("rendezvous.peers", "--peers", self.peers.clone(), |file| &mut file.rendezvous.peers);
        all.over("rendezvous.data", "--data", self.data.clone(), |file| &mut file.rendezvous.data);
        all.over("rendezvous.admins", "--admins", self.admins.clone(), |file| &mut file.rendezvous.admins);
        let join = self.join.then_some(true);
        all.over("rendezvous.join", "--join", join, |file| &mut file.rendezvous.join);
        Ok(all)
    }
}

/// Runs it.
///
/// # Errors
/// It cannot start, or its disk fails.
pub(super) async fn run(options: Serve) -> Result<(), Failure> {
    let teller = Teller::new(options.json);
    let settings = options.settings()?;
    let builder = settings.server()?;
    let data = builder.directory().unwrap_or_default();
    let mut signals = Signals::new()?;
    let started = tokio::select! {
        started = builder.start() => started,
        () = signals.any() => return Ok(()),
    };
    let server = started.map_err(|error| failed(&settings, &data, &error))?;
    let bound = server.local_address().map(|bound| bound.to_string()).unwrap_or_default();
    let shown = data.display();
    teller.tell(
        "started",
        json!({"address": server.address().to_string(), "bound": bound, "data": data}),
        &format!("listening on {bound}; nodes join {}; data in {shown}", server.address()),
    )?;
    let outcome = watch(&server, &mut signals, teller).await;
    // The library keeps to its deadline; this is for a library that does not.
    if timeout(LEAVE + Duration::from_secs(1), server.leave(LEAVE)).await.is_err() {
        tracing::warn!("the goodbye took too long");
    }
    teller.tell("left", json!({}), "left")?;
    outcome
}

/// Tells how it stands, until a signal comes.
async fn watch(server: &Server, signals: &mut Signals, teller: Teller) -> Result<(), Failure> {
    let mut standing = server.standing();
    loop {
        let now = standing.borrow_and_update().clone();
        tell(teller, &now)?;
        if let ServerStanding::Stopped { why } = now {
            return Err(Failure::new(format!("the server has stopped: {why}")));
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() {
                return Err(Failure::new("the server has stopped"));
            },
            () = signals.any() => return Ok(()),
        }
    }
}

fn tell(teller: Teller, standing: &ServerStanding) -> Result<(), Failure> {
    let line = standing.to_string();
    let (event, with) = match standing {
        ServerStanding::Founding { missing } => ("founding", json!({"missing": missing})),
        ServerStanding::Follows { term, leader } => ("follows", json!({"term": term, "leader": leader})),
        ServerStanding::Elected { term } => ("elected", json!({"term": term})),
        ServerStanding::Leads { term } => ("leads", json!({"term": term})),
        ServerStanding::NotMember => ("waits", json!({})),
        ServerStanding::Stopped { why } => ("stopped", json!({"why": why})),
        _ => ("standing", json!({"standing": line})),
    };
    teller.tell(event, with, &line)
}

/// Why a server did not start.
pub(super) fn failed(settings: &Settings, data: &std::path::Path, error: &ServerError) -> Failure {
    match error {
        ServerError::Start(StartError::Bind { address, .. }) => {
            let bind = settings.file.rendezvous.bind.as_deref().unwrap_or(address);
            bind_failure(bind, &error.to_string()).state("nothing was started")
        }
        ServerError::Data(why) => Failure::new(why.clone())
            .by(format!("the data directory {}", data.display()))
            .state("nothing was changed"),
        other => settings.blame_server(other),
    }
}
