//! What is asked of servers that run.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use karere::MemberId;
use karere::rendezvous::{Admin, AdminError};
use serde_json::json;

use crate::look::{self, At};
use crate::output::{self, CODE_USAGE, Failure, JsonTo};
use crate::table::Table;

/// Asks, and closes.
async fn ask<T>(at: &At, question: impl AsyncFnOnce(&Admin) -> Result<T, AdminError>) -> Result<T, Failure> {
    let (messenger, admin) = at.admin().await?;
    let told = question(&admin).await;
    messenger.close().await;
    told.map_err(|error| look::failed(&error))
}

pub(super) async fn add(at: &At, address: &str) -> Result<(), Failure> {
    let added = ask(at, async |admin| admin.add_server(address).await).await;
    added.map_err(|failure| match failure.tries {
        Some(_) => failure,
        None => failure.tries(format!(
            "`karere rendezvous --join --advertise {address}` there, with an empty data directory"
        )),
    })?;
    output::say(&format!("{address} is one of the servers now"));
    Ok(())
}

pub(super) async fn remove(at: &At, server: &str) -> Result<(), Failure> {
    let removed = ask(at, async |admin| admin.remove_server(server).await).await;
    removed.map_err(|failure| match failure.tries {
        Some(_) => failure,
        None => failure.tries("a number or an address of `karere rendezvous servers`"),
    })?;
    output::say(&format!(
        "{server} is none of the servers any more; end it, and do not start it with this data again"
    ));
    Ok(())
}

pub(super) async fn evict(at: &At, member: MemberId) -> Result<(), Failure> {
    ask(at, async |admin| admin.evict(member).await).await.map_err(|failure| match failure.tries {
        Some(_) => failure,
        None => failure.tries("an id of `karere members`"),
    })?;
    output::say(&format!("{member} is not a member any more"));
    Ok(())
}

pub(super) async fn servers(options: look::Options) -> Result<(), Failure> {
    let told = ask(&options.at, async |admin| admin.servers().await).await?;
    if options.json {
        let one = |server: &karere::rendezvous::ServerSeen| {
            json!({"id": server.id.to_string(), "address": server.address, "voter": server.voter, "matched": server.matched,
                "leads": told.leader == Some(server.id)})
        };
        let servers: Vec<_> = told.servers.iter().map(one).collect();
        let line = json!({"by": told.by, "this": told.this.to_string(), "cluster": told.cluster, "term": told.term,
            "leader": told.leader.map(|leader| leader.to_string()), "standing": told.standing, "servers": servers});
        return output::json_line(JsonTo::Stdout, &line);
    }
    let mut table = Table::new(["id", "address", "", "votes", "has"]);
    for server in &told.servers {
        table.row([
            server.id.to_string(),
            server.address.clone(),
            if told.leader == Some(server.id) { "leads".to_owned() } else { String::new() },
            if server.voter { "yes" } else { "not yet" }.to_owned(),
            server.matched.map(|matched| matched.to_string()).unwrap_or_default(),
        ]);
    }
    table.print(&format!("{}: {}", told.by, told.standing))
}

/// The snapshot is beside the file until all of it is there.
pub(super) async fn snapshot(at: &At, path: &Path, json: bool) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let refuse = |error: io::Error| {
        let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
        failure.state("what was there is there still")
    };
    let mut file = File::create(beside).map_err(refuse)?;
    let fetched = ask(at, async |admin| admin.snapshot(|piece| file.write_all(piece)).await).await;
    let kept = fetched.and_then(|bytes| {
        file.sync_all().and_then(|()| fs::rename(beside, path)).map_err(refuse)?;
        Ok(bytes)
    });
    let bytes = kept.inspect_err(|_| {
        // It is nothing whole.
        let _ = fs::remove_file(beside);
    })?;
    if json {
        return output::json_line(JsonTo::Stdout, &json!({"file": path, "bytes": bytes}));
    }
    output::say(&format!("{}: {bytes} bytes", path.display()));
    Ok(())
}

pub(super) async fn recover(at: &At, yes: bool) -> Result<(), Failure> {
    sure(
        yes,
        &[
            "The servers run, and nodes know of a history that is not on their disks. If those disks, or a snapshot of them, can still be",
            "found, stop here and bring them back: then nothing is lost.",
            "Otherwise history begins anew, in a higher generation:",
            "- nodes that live and come within a few seconds keep their ids, their sessions and what is under way between them;",
            "- nodes that come later, or are no members of a cluster that has some, are evicted, and come again as new members by themselves;",
            "- routes are announced again by their nodes; named leases are free, and get higher tokens.",
        ],
    )?;
    ask(at, async |admin| admin.recover().await).await?;
    output::say("history goes on in a new generation: `karere view`, `karere members`");
    Ok(())
}

/// Says what will happen, and asks whether it may.
pub(super) fn sure(yes: bool, what: &[&str]) -> Result<(), Failure> {
    what.iter().for_each(|line| output::say(line));
    if yes {
        return Ok(());
    }
    let not = |why: &str| Err(Failure::new(why).state("nothing has changed"));
    if !io::stdin().is_terminal() {
        let failure = not("nobody is there to be asked");
        return failure.map_err(|failure| failure.tries("--yes").code(CODE_USAGE));
    }
    let _ = write!(io::stderr(), "Go on? [y/N] ");
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(_) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
        Ok(_) => not("not done, as you said"),
        Err(error) => not(&format!("no answer can be read: {error}")),
    }
}
