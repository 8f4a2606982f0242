//! `karere members`, `view`, `routes`: what any rendezvous server knows of the network.

use std::collections::BTreeMap;

use clap::Args;
use karere::rendezvous::{Admin, AdminError, Members, Routing};
use karere::{Member, Messenger};
use serde::Serialize;

use crate::output::{self, Failure, JsonTo};
use crate::settings::{List, Settings, Source};
use crate::table::Table;

/// Options of these commands.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) at: At,
    /// One line of JSON on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which network.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The rendezvous servers of the network, as rdv1:7500,rdv2:7500; any one that answers is enough.
    #[arg(long, value_name = "LIST", env = "KARERE_RENDEZVOUS")]
    pub(crate) rendezvous: Option<List>,
    #[command(flatten)]
    pub(crate) source: Source,
}

impl At {
    /// Settings of the file, with what was said here over them.
    ///
    /// # Errors
    /// The file is wrong.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = Settings::of(&self.source)?;
        let said = self.rendezvous.clone();
        settings.over("node.rendezvous", "--rendezvous", said, |file| &mut file.node.rendezvous);
        Ok(settings)
    }

    /// Somebody to ask, and the messenger by which it is done; to be closed in the end.
    ///
    /// # Errors
    /// The servers are not known, or the messenger does not start.
    pub(crate) async fn admin(&self) -> Result<(Messenger, Admin), Failure> {
        let settings = self.settings()?;
        let servers = settings.servers()?.0;
        let builder = settings.tool()?;
        let started = builder.start().await;
        let messenger =
            started.map_err(|error| Failure::new(format!("cannot start the messenger: {error}")))?;
        let admin = Admin::new(&messenger, servers).map_err(|error| settings.blame_setup(&error))?;
        Ok((messenger, admin))
    }
}

/// What the servers say, as what failed.
pub(crate) fn failed(error: &AdminError) -> Failure {
    let all = |tried: &[(String, String)]| {
        tried.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
    };
    match error {
        AdminError::Nobody { tried } => {
            let failure = Failure::new("no rendezvous server answers").by(all(tried));
            let refused = tried.iter().any(|(_, why)| why.contains("refuses"));
            let failure = failure.state("nothing has changed");
            if refused {
                return failure.tries("the --environment, --network and certificates of the servers");
            }
            failure.tries("`karere rendezvous` there, or another --rendezvous LIST")
        }
        AdminError::NoLeader { tried } => {
            let failure = Failure::new("no rendezvous server leads, and only the leader changes anything");
            failure
                .by(all(tried))
                .state("nothing has changed")
                .tries("more than half of the servers must run and reach each other: `karere rendezvous servers`; if they are lost for good, `karere rendezvous recover --data DIR` on one of those left")
        }
        AdminError::Refused { server, why } => {
            Failure::new(why.clone()).by(format!("the server at {server}"))
        }
        AdminError::Denied { server, why } => {
            let failure = Failure::new(why.clone()).by(format!("the server at {server}"));
            failure.tries("the certificate of one who may: --name, --tls-cert, --tls-key")
        }
        AdminError::Unknown { server, why } => {
            let failure = Failure::new(format!("the server at {server} has not answered: {why}"));
            failure
                .state("nobody knows whether it was done")
                .tries("`karere rendezvous servers` and `karere members`, and again")
        }
        AdminError::NoServer { server, why } => {
            let failure = Failure::new(format!("{server} is no rendezvous server of this version: {why}"));
            failure.state("nothing has changed").tries("another --rendezvous LIST")
        }
        other => Failure::new(other.to_string()),
    }
}

/// Asks and closes.
async fn ask<T>(
    options: &Options,
    question: impl AsyncFnOnce(&Admin) -> Result<T, AdminError>,
) -> Result<T, Failure> {
    let (messenger, admin) = options.at.admin().await?;
    let told = question(&admin).await;
    messenger.close().await;
    told.map_err(|error| failed(&error))
}

#[derive(Debug, Serialize)]
struct MemberLine {
    id: String,
    name: String,
    endpoints: Vec<String>,
    labels: BTreeMap<String, String>,
    joined: Option<String>,
    health: String,
}

impl MemberLine {
    fn new(member: &Member, health: impl ToString) -> MemberLine {
        MemberLine {
            id: member.id.to_string(),
            name: member.name.clone(),
            endpoints: member.endpoints.iter().map(ToString::to_string).collect(),
            labels: member.labels.clone(),
            joined: member.joined.map(|view| view.to_string()),
            health: health.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
struct MembersLine {
    by: String,
    cluster: Option<String>,
    view: String,
    term: u64,
    members: Vec<MemberLine>,
}

/// `karere members`: who is in.
///
/// # Errors
/// No server answers.
pub(crate) async fn members(options: Options) -> Result<(), Failure> {
    let told = ask(&options, async |admin| admin.members().await).await?;
    let lines: Vec<_> = told.members.iter().map(|(member, health)| MemberLine::new(member, health)).collect();
    if options.json {
        let Members { by, cluster, view, term, .. } = told;
        let line = MembersLine { by, cluster, view: view.to_string(), term, members: lines };
        return output::json_line(JsonTo::Stdout, &line);
    }
    let mut table = Table::new(["id", "name", "address", "joined", "health", "labels"]);
    for line in lines {
        let labels = line.labels.iter().map(|(key, value)| format!("{key}={value}"));
        table.row([
            line.id,
            line.name,
            line.endpoints.join(","),
            line.joined.unwrap_or_default(),
            line.health,
            labels.collect::<Vec<_>>().join(","),
        ]);
    }
    let (count, by) = (told.members.len(), &told.by);
    table.print(&format!("view {}, term {}: {count} members, says {by}", told.view, told.term))
}

#[derive(Debug, Serialize)]
struct ViewLine {
    by: String,
    cluster: Option<String>,
    generation: u64,
    number: u64,
    term: u64,
    members: Vec<String>,
}

/// `karere view`: which view is valid.
///
/// # Errors
/// No server answers.
pub(crate) async fn view(options: Options) -> Result<(), Failure> {
    let told = ask(&options, async |admin| admin.members().await).await?;
    let line = ViewLine {
        by: told.by,
        cluster: told.cluster,
        generation: told.view.generation,
        number: told.view.number,
        term: told.term,
        members: told.members.iter().map(|(member, _)| member.id.to_string()).collect(),
    };
    if options.json {
        return output::json_line(JsonTo::Stdout, &line);
    }
    let mut table = Table::new(["generation", "number", "term", "members", "cluster"]);
    table.row([
        line.generation.to_string(),
        line.number.to_string(),
        line.term.to_string(),
        line.members.len().to_string(),
        line.cluster.unwrap_or_else(|| "none yet".to_owned()),
    ]);
    table.print(&format!("view {}, says {}", told.view, line.by))
}

#[derive(Debug, Serialize)]
struct RouteLine {
    key: String,
    identity: String,
    version: u16,
    /// Hexadecimal: it may be any bytes.
    partition: String,
    member: String,
    host: u32,
}

#[derive(Debug, Serialize)]
struct RoutesLine {
    by: String,
    view: String,
    routes: Vec<RouteLine>,
}

/// `karere routes`: who handles what.
///
/// # Errors
/// No server answers.
pub(crate) async fn routes(options: Options) -> Result<(), Failure> {
    let Routing { by, view, routes, .. } = ask(&options, async |admin| admin.routes().await).await?;
    let line = |member: &karere::MemberId, route: &karere::router::Route| RouteLine {
        key: route.key.to_string(),
        identity: route.key.identity().to_owned(),
        version: route.key.version(),
        partition: route.key.partition().iter().map(|byte| format!("{byte:02x}")).collect(),
        member: member.to_string(),
        host: route.host,
    };
    let mut lines: Vec<_> = routes
        .iter()
        .flat_map(|(member, routes)| routes.iter().map(move |route| line(member, route)))
        .collect();
    lines.sort_by(|a, b| (&a.key, &a.member, a.host).cmp(&(&b.key, &b.member, b.host)));
    if options.json {
        return output::json_line(JsonTo::Stdout, &RoutesLine { by, view: view.to_string(), routes: lines });
    }
    let mut table = Table::new(["key", "member", "host"]);
    let count = lines.len();
    for line in lines {
        table.row([line.key, line.member, line.host.to_string()]);
    }
    table.print(&format!("view {view}: {count} routes, says {by}"))
}
