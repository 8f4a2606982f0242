//! `karere rendezvous`, `node`, `members`, `view`, `routes` and `config`, as real processes.
#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "shared with others, which use more of it")]
mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;

use support::network::{Servers, Teller, addresses, karere};
use support::{Ended, Karere, eventually};

/// Paths in arguments have no spaces here.
fn run(arguments: &str) -> Ended {
    Karere::spawn(karere(), arguments, &[], std::process::Stdio::piped()).end()
}

fn asked(what: &str, list: &str) -> Value {
    run(&format!("{what} --json --rendezvous {list}")).with(0).json()
}

#[track_caller]
fn refused(arguments: &str, parts: &[&str]) {
    let ended = run(arguments).with(1);
    let said = &ended.stderr;
    assert!(said.contains("error: ") && parts.iter().all(|part| said.contains(part)), "{arguments}\n{said}");
}

fn node(list: &str, more: &str) -> Teller {
    let arguments = format!("node --json --bind 127.0.0.1:0 --rendezvous {list} {more}");
    Teller::start(karere(), &arguments)
}

fn joined(node: &Teller) -> String {
    node.wait("joined", |_| true)["id"].as_str().unwrap().to_owned()
}

fn names(members: &Value) -> Vec<String> {
    let list = members["members"].as_array().unwrap();
    list.iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_single_server_needs_no_configuration_and_says_where_it_keeps_its_data() {
    let home = tempfile::tempdir().unwrap();
    let mut command = karere();
    // The one thing more than a user would say: no fixed port.
    command.env("KARERE_RENDEZVOUS_BIND", "127.0.0.1:0").env("XDG_STATE_HOME", home.path());
    command.env_remove("STATE_DIRECTORY");
    let server = Teller::start(command, "rendezvous");
    let line = server
        .process
        .stdout
        .line("where it is", |line| line.starts_with("listening on ").then(|| line.to_owned()));
    let data = home.path().join("karere/rendezvous/development.default");
    assert!(line.contains(&data.display().to_string()) && data.is_dir(), "{line}");
    let address = line.split([';', ' ']).nth(2).unwrap().to_owned();
    server.process.stdout.line("that it leads", |line| line.starts_with("leads in term 1").then_some(()));
    let node = node(&address, "--name first --label zone=a --label rack=2");
    let id = joined(&node);
    let table = run(&format!("members --rendezvous {address}")).with(0);
    let text = String::from_utf8(table.stdout).unwrap();
    let row = text.lines().find(|line| line.contains(&id)).unwrap();
    assert!(row.contains("first") && row.contains("rack=2,zone=a") && row.contains("healthy"), "{text}");
    node.leave("TERM");
    let ended = server.leave("INT");
    assert!(String::from_utf8_lossy(&ended.stdout).ends_with("left\n"));
}

#[test]
fn nodes_come_go_and_are_seen_by_each_other_and_by_every_server() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::start(3, dir.path(), "");
    let list = servers.list();
    let (one, two) = (node(&list, "--name one"), node(&list, "--name two"));
    let ids = [joined(&one), joined(&two)];
    one.wait("view", |view| ids.iter().all(|id| view["members"].to_string().contains(id)));
    for address in &servers.addresses {
        let members = eventually("all servers to know", || {
            Some(asked("members", address)).filter(|told| names(told).len() == 2)
        });
        assert_eq!(members["by"], **address);
        assert_eq!(asked("view", address)["members"].as_array().unwrap().len(), 2);
        assert!(asked("routes", address)["routes"].as_array().unwrap().is_empty());
        let told = asked("rendezvous servers", address);
        let voters = told["servers"].as_array().unwrap().iter().filter(|server| server["voter"] == true);
        assert_eq!(voters.count(), 3, "{told}");
    }
    // One that is not there does not matter.
    let nobody = addresses(1).remove(0);
    assert_eq!(names(&asked("members", &format!("{nobody},{list}"))).len(), 2);
    two.leave("INT");
    one.wait("view", |view| view["went"].to_string().contains(&ids[1]));
    let evicted = run(&format!("rendezvous evict {} --rendezvous {list}", ids[0])).with(0);
    assert!(evicted.stderr.contains("not a member any more"));
    one.wait("evicted", |_| true);
    one.wait("joined", |line| line["id"] != *ids[0]);
    refused(&format!("rendezvous evict {} --rendezvous {list}", ids[0]), &["not a member", "karere members"]);
    one.leave("TERM");
}

#[test]
fn servers_come_and_go_while_the_others_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = Servers::start(3, dir.path(), "");
    let (list, fourth) = (servers.list(), addresses(1).remove(0));
    servers.wait_for_leader();
    refused(
        &format!("rendezvous add {fourth} --rendezvous {list}"),
        &[&format!("no server at {fourth}"), "--join"],
    );
    let data = dir.path().join("fourth");
    let joins = format!("rendezvous --json --bind {fourth} --join --data {}", data.display());
    let server = Teller::start(karere(), &joins);
    server.wait("waits", |_| true);
    run(&format!("rendezvous add {fourth} --rendezvous {list}")).with(0);
    server.wait("follows", |line| line["leader"].is_string());
    let all = asked("rendezvous servers", &fourth);
    assert_eq!(all["servers"].as_array().unwrap().len(), 4, "{all}");
    // A member of three that is not the leader, and the leader itself.
    let leader = servers.wait_for_leader();
    let other = (leader + 1) % 3;
    run(&format!("rendezvous remove {} --rendezvous {list}", servers.addresses[other])).with(0);
    servers.kill(other);
    run(&format!("rendezvous remove {} --rendezvous {list}", servers.addresses[leader])).with(0);
    servers.kill(leader);
    let rest = eventually("two servers of which one leads", || {
        Some(asked("rendezvous servers", &fourth))
            .filter(|told| told["servers"].as_array().unwrap().len() == 2 && told["leader"].is_string())
    });
    assert_eq!(rest["servers"].as_array().unwrap().len(), 2);
    refused(&format!("rendezvous remove 77 --rendezvous {fourth}"), &["no such server: 77", "try:"]);
    server.leave("TERM");
}

#[test]
fn a_snapshot_is_restored_into_an_empty_directory_and_nodes_keep_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = Servers::start(1, dir.path(), "");
    let list = servers.list();
    let node = node(&list, "--name kept");
    let id = joined(&node);
    let file = dir.path().join("snapshot");
    let taken = run(&format!("rendezvous snapshot {} --json --rendezvous {list}", file.display())).with(0);
    assert_eq!(taken.json()["bytes"], fs::metadata(&file).unwrap().len());
    servers.kill(0);
    let data = servers.data(0);
    let shown = data.display();
    let restore = format!("rendezvous restore {} --data {shown} --advertise {list}", file.display());
    refused(&restore, &["already holds", "nothing was changed"]);
    fs::remove_dir_all(&data).unwrap();
    let bent = dir.path().join("bent");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&bent, &bytes).unwrap();
    refused(
        &format!("rendezvous restore {} --data {shown} --advertise {list}", bent.display()),
        &["checksum"],
    );
    refused(&format!("{restore} --network other"), &["other", "default"]);
    assert!(!data.exists(), "a refusal leaves nothing");
    run(&restore).with(0);
    servers.start_one(0);
    node.wait("view", |view| view["view"].as_str().unwrap().starts_with("2."));
    assert_eq!(node.all("joined").len(), 1, "it was a member all the time");
    let told = asked("members", &list);
    assert_eq!(told["members"][0]["id"], *id, "{told}");
    // Nobody can write there, and what is there stays.
    let nowhere = dir.path().join("no/such/file");
    refused(&format!("rendezvous snapshot {} --rendezvous {list}", nowhere.display()), &["cannot write"]);
    node.leave("TERM");
}

#[test]
fn disks_that_are_lost_are_told_and_history_goes_on_only_when_somebody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = Servers::start(1, dir.path(), "");
    let list = servers.list();
    let node = node(&list, "");
    let id = joined(&node);
    servers.kill(0);
    fs::remove_dir_all(servers.data(0)).unwrap();
    servers.start_one(0);
    let refusal = node.wait("refused", |_| true);
    assert!(refusal["why"].as_str().unwrap().contains("karere rendezvous recover"), "{refusal}");
    let recover = format!("rendezvous recover --rendezvous {list}");
    let asked_first = run(&recover).with(2);
    assert!(asked_first.stderr.contains("keep their ids") && asked_first.stderr.contains("--yes"));
    run(&format!("{recover} --yes")).with(0);
    node.wait("back", |back| back["id"] == *id);
    assert_eq!(asked("members", &list)["members"][0]["id"], *id);
    assert_eq!(asked("view", &list)["generation"], 2);
    node.leave("TERM");
}

#[test]
fn one_of_three_servers_goes_on_alone_when_the_others_are_lost_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = Servers::start(3, dir.path(), "");
    let list = servers.list();
    let node = node(&list, "");
    let id = joined(&node);
    let all = |servers: &Servers| {
        servers.addresses.iter().all(|address| names(&asked("members", address)).len() == 1)
    };
    eventually("all to have it on their disks", || all(&servers).then_some(()));
    let data = servers.data(0);
    let recover = format!("rendezvous recover --data {} --yes", data.display());
    refused(&recover, &["in use", "nothing was changed"]);
    (0..3).for_each(|at| servers.kill(at));
    servers.start_one(0);
    let alone = servers.addresses[0].clone();
    refused(
        &format!("rendezvous remove {} --rendezvous {alone}", servers.addresses[1]),
        &["leads", "nothing has changed", "recover --data"],
    );
    // What one of them has is saved first, from its disk: nobody leads who could be asked.
    let (saved, second) = (dir.path().join("saved"), servers.data(1));
    let save = format!("rendezvous snapshot {} --data", saved.display());
    refused(&format!("{save} {}", data.display()), &["in use", "nothing was changed"]);
    let taken = run(&format!("{save} {} --json", second.display())).with(0).json();
    assert!(taken["entry"].as_u64().unwrap() > 0 && saved.is_file(), "{taken}");
    let fresh = dir.path().join("fresh");
    run(&format!("rendezvous restore {} --data {} --advertise {alone}", saved.display(), fresh.display()))
        .with(0);
    servers.kill(0);
    let said = run(&recover).with(0).stderr;
    assert!(said.contains("two clusters decide") && said.contains(&servers.addresses[2]), "{said}");
    servers.start_one(0);
    node.wait("view", |view| view["view"].as_str().unwrap().starts_with("2."));
    assert_eq!(asked("members", &alone)["members"][0]["id"], *id);
    assert_eq!(asked("rendezvous servers", &alone)["servers"].as_array().unwrap().len(), 1);
    refused(
        &format!("rendezvous recover --data {}/nothing --yes", dir.path().display()),
        &["holds no store"],
    );
    node.leave("TERM");
}

#[test]
fn who_cannot_be_reached_or_does_not_belong_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::start(1, dir.path(), "--environment test --network orders");
    let (list, nobody) = (servers.list(), addresses(1).remove(0));
    servers.wait_for_leader();
    refused(&format!("members --rendezvous {nobody}"), &["no rendezvous server answers", &nobody, "try:"]);
    refused("view", &["where are the rendezvous servers", "KARERE_RENDEZVOUS"]);
    refused(&format!("members --rendezvous {list}"), &["`test`", "`development`", "--environment"]);
    refused(
        &format!("node --rendezvous {list} --environment test --network other --give-up 5s"),
        &["`orders`", "`other`", "has not joined"],
    );
    refused(
        &format!("node --rendezvous {nobody} --give-up 200ms"),
        &["no rendezvous server answered", "try:"],
    );
    refused("node --rendezvous a:b", &["--rendezvous", "`a:b`"]);
    // The network is the servers' to say.
    assert!(names(&asked("members --environment test", &list)).is_empty());
    let node = node(&list, "--environment test");
    joined(&node);
    let data = servers.data(0);
    refused(
        &format!(
            "rendezvous --bind 127.0.0.1:0 --environment test --network orders --data {}",
            data.display()
        ),
        &["in use by another process", "nothing was changed"],
    );
    let taken = servers.addresses[0].clone();
    refused(
        &format!("rendezvous --bind {taken} --data {}", dir.path().join("x").display()),
        &["in use", "try:", "nothing was started"],
    );
    refused("rendezvous --bind 127.0.0.1:0 --data /dev/null/x", &["/dev/null/x", "nothing was changed"]);
    refused("rendezvous --bind :0 --peers a:1,b:1", &["--advertise"]);
    node.leave("INT");
}

#[test]
fn one_file_then_variables_then_flags_and_what_is_wrong_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let check = |path: &Path| run(&format!("config check {}", path.display()));
    let example = run("config example").with(0);
    check(&write("example.toml", &String::from_utf8(example.stdout).unwrap())).with(0);
    let bad = write("bad.toml", "[rendezvous]\nbind = \":0\"\n\npingg = \"1s\"\n");
    let said = check(&bad).with(1).stderr;
    assert!(said.contains("bad.toml:4: unknown key `pingg`") && said.contains("`ping`"), "{said}");
    refused(&format!("rendezvous --config {}", bad.display()), &["bad.toml:4"]);
    let impossible =
        write("impossible.toml", "[rendezvous]\neviction = \"2s\"\n[timeouts]\nliveness = \"4s\"\n");
    let said = check(&impossible).with(1).stderr;
    assert!(said.contains("impossible.toml:2") && said.contains("try:"), "{said}");
    check(&dir.path().join("nowhere.toml")).with(1);

    let data = dir.path().join("data");
    let text = format!(
        "environment = \"from-file\"\nnetwork = \"from-file\"\nname = \"from-file\"\n[rendezvous]\nbind = \"127.0.0.1:0\"\ndata = \"{}\"\n",
        data.display()
    );
    let good = write("good.toml", &text);
    let mut command = karere();
    command.env("KARERE_CONFIG", &good).env("KARERE_NETWORK", "from-variable").env("KARERE_NAME", "variable");
    let server = Teller::start(command, "rendezvous --json --environment from-flag");
    let started = server.wait("started", |_| true);
    assert_eq!(started["data"], data.display().to_string());
    let address = started["address"].as_str().unwrap();
    asked("members --environment from-flag --network from-variable", address);
    refused(
        &format!("members --environment from-flag --network from-file --rendezvous {address}"),
        &["`from-variable`"],
    );
    server.leave("TERM");
}

/// Certificates of one authority for these names, and the arguments by which a process shows one.
fn certificates(dir: &Path, host: &str, names: &[&str]) -> impl Fn(&str) -> String + use<> {
    let names_too: String = names.iter().map(|name| format!(" --name {name}")).collect();
    run(&format!("certs --dir {} --host {host}{names_too}", dir.display())).with(0);
    let dir = dir.display().to_string();
    move |name| {
        format!("--name {name} --tls-ca {dir}/ca.pem --tls-cert {dir}/{name}.pem --tls-key {dir}/{name}.key")
    }
}

#[test]
fn servers_nodes_and_tools_work_with_certificates_and_only_admins_change_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let at = addresses(3);
    let host = at[0].rsplit_once(':').unwrap().0.to_owned();
    let shows = certificates(&dir.path().join("certs"), &host, &["rdv", "node", "ops", "guest"]);
    // All that a server needs in a file, paths of certificates and all.
    let certs = dir.path().join("certs");
    let text = format!(
        "name = \"rdv\"\n[tls]\nca = \"{0}/ca.pem\"\ncert = \"{0}/rdv.pem\"\nkey = \"{0}/rdv.key\"\n[rendezvous]\nadmins = [\"ops\"]\n",
        certs.display()
    );
    let file = dir.path().join("server.toml");
    fs::write(&file, text).unwrap();
    let more = format!("--config {}", file.display());
    let mut servers = Servers::start_at(at, dir.path(), &more, Box::new(|_| karere()));
    let list = servers.list();
    let leader = servers.wait_for_leader();
    let (one, two) = (node(&list, &shows("node")), node(&list, &shows("node")));
    let ids = [joined(&one), joined(&two)];
    one.wait("view", |view| ids.iter().all(|id| view["members"].to_string().contains(id)));
    let guest = format!("--rendezvous {list} {}", shows("guest"));
    let members = run(&format!("members --json {guest}")).with(0).json();
    assert_eq!(names(&members).len(), 2, "whoever has a certificate may look: {members}");
    let file = dir.path().join("snapshot");
    for forbidden in [
        format!("rendezvous evict {}", ids[0]),
        format!("rendezvous remove {}", servers.addresses[leader]),
        format!("rendezvous add {}", servers.addresses[leader]),
        "rendezvous recover --yes".to_owned(),
        format!("rendezvous snapshot {}", file.display()),
    ] {
        refused(
            &format!("{forbidden} {guest}"),
            &["`guest` may not", "`admins` may: ops", "nothing has changed", "--tls-cert"],
        );
    }
    assert!(!file.exists());
    let ops = format!("--rendezvous {list} {}", shows("ops"));
    run(&format!("rendezvous snapshot {} {ops}", file.display())).with(0);
    run(&format!("rendezvous evict {} {ops}", ids[0])).with(0);
    one.wait("joined", |line| line["id"] != *ids[0]);
    // Without a certificate nobody gets so far, and is told why.
    refused(&format!("members --rendezvous {list}"), &["no rendezvous server answers", "try:"]);
    // The leader dies; the next one serves.
    servers.kill(leader);
    eventually("the next leader", || servers.leader().filter(|next| *next != leader));
    let three = node(&list, &shows("node"));
    joined(&three);
    [one, two, three].into_iter().for_each(|node| drop(node.leave("TERM")));
}
