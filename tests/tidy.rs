//! Keeps the house as ARCHITECTURE.md draws it: which room may see which, and which calls are made only in the driver.
//! Prints the longest files and functions, to be looked at, not obeyed (`cargo test --test tidy -- --nocapture`).
//!
//! Works on the text: comments, strings and test code are blanked, paths that begin with `crate::` or climb there by
//! `super::` are read. No parser is needed for that, and none is a dependency.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room sees those before it. `config` stands behind the cores, because it makes their configuration types.
const ROOMS: [&str; 10] =
    ["member", "limits", "wire", "session", "link", "peer", "config", "driver", "messenger", "blocking"];
/// Protocol modules: each is a user of the messenger, sees public names of the crate's root only, and none of the others.
const MODULES: [&str; 3] = ["plug", "router", "rendezvous"];
/// Where a library below is given chance: it names the trait by which it asks, and draws from a generator with a seed.
const CHANCE: &str = "rendezvous/raft/tasks.rs";
/// What the modules decide: sans-IO as well.
const DECISIONS: [&str; 5] = [
    "router/core/",
    "rendezvous/state/",
    "rendezvous/judge/",
    "rendezvous/server/desk/",
    "rendezvous/client/core/",
];
/// The router is told of routes by a trait of its own, which a module may implement; that is all it may see of it.
const TOLD_ROUTES: (&str, &str) = ("rendezvous", "router");
const OF_ROUTES: [&str; 5] = ["MessageKey", "Route", "RouteChange", "RouteSource", "Routes"];
/// The one file that puts a node together, of messenger, rendezvous and router, sees these of the router as well.
const JOIN: &str = "rendezvous/client/join.rs";
const OF_JOINING: [&str; 2] = ["Node", "NodeBuilder"];
/// A room that the application's own code could have written: it sees nothing.
const ALONE: &str = "faults";
/// Doors for the fuzzer: sees the cores, and nothing of the driver.
const DOORS: &str = "fuzzing";
/// The simulation: a user of the whole house, with a clock and tasks of its own. Nobody sees it but the command line.
const SIMULATION: &str = "testing";
/// What messages carry, and what the router decides, have their doors beside them, where they can see it; the room of the doors sees
/// them, and no more.
const OTHER_DOORS: [&str; 3] =
    ["crate::messenger::doors::", "crate::router::door::", "crate::rendezvous::door::"];
/// Virtual networks and disks, for tests of modules.
const LAB: [&str; 2] = ["crate::testing::lab", "crate::testing::platter"];
const CORES: [&str; 4] = ["wire", "session", "link", "peer"];

/// Clocks, tasks, chance: the driver's alone, so that the cores run in virtual time and replay from a seed.
const DRIVER_ONLY: [&str; 7] = [
    "Instant::now",
    "SystemTime::now",
    ".elapsed(",
    "tokio::spawn",
    "task::spawn",
    "thread::spawn",
    "rand::",
];
const UNBOUNDED: [&str; 5] =
    ["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "unbounded(", "mpsc::channel()"];
const PANICS: [&str; 2] = [".unwrap()", ".expect("];
const WORLD: [&str; 4] = ["tokio", "std::thread", "socket2", "std::fs"];
/// Of `std::net` a core may see names of places, never a socket.
const ADDRESSES: [&str; 4] = ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr"];

#[test]
fn every_room_keeps_to_its_edges_and_calls() {
    let files = read_sources();
    let tests = test_files(&files);
    let mut found = Vec::new();
    for file in &files {
        found.extend(violations(&file.path, &file.text, tests.contains(&file.path)));
    }
    assert!(files.len() > 50, "only {} files were found", files.len());
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_longest_files_and_functions_are_shown() {
    let files = read_sources();
    let mut lengths: Vec<_> =
        files.iter().map(|file| (file.text.lines().count(), file.path.as_str())).collect();
    lengths.sort_unstable_by_key(|(lines, _)| std::cmp::Reverse(*lines));
    println!("longest files:");
    lengths.iter().take(10).for_each(|(lines, path)| println!("{lines:6}  {path}"));
    let mut functions: Vec<_> = files
        .iter()
        .flat_map(|file| functions(&blank(&file.text)).into_iter().map(|found| (found, file.path.as_str())))
        .collect();
    functions.sort_unstable_by_key(|((lines, _), _)| std::cmp::Reverse(*lines));
    println!("longest functions:");
    functions.iter().take(10).for_each(|((lines, name), path)| println!("{lines:6}  {name}  {path}"));
    assert!(functions.len() > 300, "only {} functions were found", functions.len());
}

#[test]
fn the_planted_bugs_still_fit_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in fs::read_dir(root.join("tests/planted")).unwrap() {
        let path = entry.unwrap().path();
        let bug = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut parts = bug.split("\n=== ");
        assert!(!parts.next().unwrap().trim().is_empty(), "{name} says what it breaks");
        let mut places = 0;
        let mut parts = parts.peekable();
        while let Some(part) = parts.next() {
            let (file, change) = part.split_once('\n').unwrap();
            let (old, new) = change.split_once("\n=>>\n").unwrap();
            let text = fs::read_to_string(root.join(file)).unwrap();
            // As `.ci/planted` looks for it: only the last part may end within a line.
            let end = if parts.peek().is_some() { "\n" } else { "" };
            assert_eq!(text.matches(&format!("{old}{end}")).count(), 1, "{name}: its text in {file}");
            assert_ne!(old.trim_end(), new.trim_end(), "{name} changes something");
            places += 1;
        }
        assert!(places > 0, "{name} names no file");
        count += 1;
    }
    assert!(count >= 15, "only {count} planted bugs");
}

#[test]
fn the_behaviours_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/BEHAVIOURS.md")).unwrap();
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    walk(&root.join("tests"), &mut paths);
    let sources: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut named = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        // Only names of several words are tests; `send` is not.
        for name in line.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 1) {
            let call = format!("fn {name}(");
            assert!(
                sources.iter().any(|source| source.contains(&call)),
                "no test `{name}`; named in: {line}"
            );
            named += 1;
        }
    }
    assert!(named > 30, "only {named} tests are named");
}

// ---- the files ----

struct Source {
    /// Below `src/`, with slashes.
    path: String,
    text: String,
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let below = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        Source { path: below, text }
    };
    paths.into_iter().map(source).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Files of modules that are declared behind `#[cfg(test)]`, and all below them.
fn test_files(files: &[Source]) -> BTreeSet<String> {
    let mut prefixes = Vec::new();
    for file in files {
        let folder = match file.path.strip_suffix("/mod.rs") {
            Some(folder) => format!("{folder}/"),
            None if file.path == "lib.rs" => String::new(),
            None => file.path.strip_suffix(".rs").map(|stem| format!("{stem}/")).unwrap(),
        };
        // Of `bin/karere/main.rs` modules lie beside it.
        let folder = folder.strip_suffix("main/").map_or(folder.clone(), str::to_owned);
        let text = blank(&file.text);
        for (at, _) in text.match_indices("#[cfg(test)]") {
            let item = text[at..].trim_start_matches("#[cfg(test)]").trim_start();
            // Tests of a room above may share a helper.
            let item = item.strip_prefix("pub(crate) ").unwrap_or(item);
            if let Some((name, _)) = item.strip_prefix("mod ").and_then(|item| item.split_once(';')) {
                prefixes.push(format!("{folder}{}", name.trim()));
            }
        }
    }
    let is_test = |path: &str| {
        prefixes
            .iter()
            .any(|prefix| path == format!("{prefix}.rs") || path.starts_with(&format!("{prefix}/")))
    };
    files.iter().map(|file| file.path.clone()).filter(|path| is_test(path)).collect()
}

// ---- the rules ----

fn violations(path: &str, text: &str, is_test: bool) -> Vec<String> {
    let room = path.split(['/', '.']).next().unwrap();
    let code = without_tests(&blank(text));
    let mut found = Vec::new();
    let mut say = |at: usize, what: String| {
        found.push(format!("src/{path}:{}: {what}", code[..at].matches('\n').count() + 1));
    };
    if room != "lib" && room != "bin" && room != SIMULATION {
        for (at, seen) in rooms_seen(path, &code) {
            let is_door = room == DOORS && OTHER_DOORS.iter().any(|door| code[at..].starts_with(door));
            if is_door || is_test && LAB.iter().any(|lab| code[at..].starts_with(lab)) {
                continue;
            }
            let joins = |name: &String| OF_JOINING.contains(&name.as_str());
            if path == JOIN && seen.room == "router" && seen.names.iter().all(joins) && !seen.names.is_empty()
            {
                continue;
            }
            if let Some(why) = forbidden(room, &seen) {
                say(at, why);
            }
        }
    }
    if room == "bin" {
        find(&code, "karere::fuzzing")
            .for_each(|at| say(at, "the command line sees the public crate only".into()));
        find(&code, "#[path").for_each(|at| say(at, "the command line sees the public crate only".into()));
    }
    if is_test {
        return found;
    }
    for call in UNBOUNDED {
        find(&code, call).for_each(|at| say(at, format!("`{call}`: nothing in karere is unbounded")));
    }
    if room != DOORS {
        for call in PANICS {
            find(&code, call).for_each(|at| say(at, format!("`{call}` outside tests")));
        }
    }
    if !["driver", "bin", ALONE, DOORS, SIMULATION].contains(&room) {
        for call in DRIVER_ONLY.into_iter().filter(|call| path != CHANCE || *call != "rand::") {
            find(&code, call).for_each(|at| say(at, format!("`{call}` outside the driver")));
        }
        for at in find(&code, "fastrand::") {
            // `Rng::with_seed` is fine; a function of the module draws from a global generator.
            let next = &code[at + "fastrand::".len()..];
            if !next.starts_with("Rng") || next.starts_with("Rng::new()") {
                say(at, "a global generator outside the driver".into());
            }
        }
    }
    if CORES.contains(&room) || DECISIONS.iter().any(|folder| path.starts_with(folder)) {
        for name in WORLD {
            find(&code, name).for_each(|at| say(at, format!("`{name}` in a sans-IO room")));
        }
        for at in find(&code, "std::net::") {
            let names = names(&code[at + "std::net::".len()..]);
            if names.iter().any(|name| !ADDRESSES.contains(&name.as_str())) {
                say(at, "more of `std::net` than addresses in a sans-IO room".into());
            }
        }
    }
    found
}

/// What a path names: a room, and the first name in it.
struct Seen {
    room: String,
    names: Vec<String>,
}

fn forbidden(room: &str, seen: &Seen) -> Option<String> {
    let to = seen.room.as_str();
    if to == room {
        return None;
    }
    if MODULES.contains(&room) {
        let is_of_routes = |name: &String| OF_ROUTES.contains(&name.as_str());
        if (room, to) == TOLD_ROUTES && !seen.names.is_empty() && seen.names.iter().all(is_of_routes) {
            return None;
        }
        let is_room = ROOMS.contains(&to) || MODULES.contains(&to);
        let alone = [ALONE, DOORS, SIMULATION].contains(&to);
        return (is_room || alone)
            .then(|| format!("`{room}` is a module: of the crate it sees public names, not `{to}`"));
    }
    let place = |room: &str| ROOMS.iter().position(|other| *other == room);
    let may = match (place(room), place(to)) {
        // The crate's root gives names to users; rooms name each other.
        (_, None) => false,
        (Some(here), Some(there)) => there < here,
        (None, Some(there)) => room == DOORS && Some(there) < place("config"),
    };
    if !may {
        return Some(format!("`{room}` must not see `{to}`"));
    }
    let is_config = |name: &String| ["Config", "Limits"].iter().any(|end| name.ends_with(end));
    if room == "config" && CORES.contains(&to) && !seen.names.iter().all(is_config) {
        return Some(format!("of `{to}`, `config` may see what it configures only, not {:?}", seen.names));
    }
    None
}

/// Everything in the text that leads to a room from the crate's root.
fn rooms_seen(path: &str, code: &str) -> Vec<(usize, Seen)> {
    let stem = path.strip_suffix("/mod.rs").or(path.strip_suffix(".rs")).unwrap();
    let depth = stem.split('/').count();
    let mut found = Vec::new();
    for at in find(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        // `pub(in crate::room)` is no import, and says nothing wrong.
        found.extend(branches(rest).into_iter().map(|seen| (at, seen)));
    }
    let mut passed = 0;
    for at in find(code, "super::") {
        if at < passed {
            continue;
        }
        let mut rest = &code[at..];
        let mut climbs = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            climbs += 1;
            rest = next;
        }
        passed = code.len() - rest.len();
        if climbs >= depth {
            found.extend(branches(rest).into_iter().map(|seen| (at, seen)));
        }
    }
    found
}

/// `room::name`, `room::{names}`, `{room::name, other::name}`.
fn branches(rest: &str) -> Vec<Seen> {
    if let Some(inner) = rest.strip_prefix('{') {
        return split_group(inner).into_iter().flat_map(|branch| branches(&branch)).collect();
    }
    let room: String = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let names = match rest.trim_start()[room.len()..].strip_prefix("::") {
        Some(rest) => names(rest),
        None => Vec::new(),
    };
    vec![Seen { room, names }]
}

/// The last segments of one path or of a group of paths.
fn names(rest: &str) -> Vec<String> {
    if let Some(inner) = rest.strip_prefix('{') {
        return split_group(inner).into_iter().flat_map(|branch| names(&branch)).collect();
    }
    let name: String = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match rest.trim_start()[name.len()..].strip_prefix("::") {
        // A module's: the name that counts is behind it. A type's: it is the name.
        Some(deeper) if name.starts_with(char::is_lowercase) => names(deeper),
        _ => vec![name],
    }
}

/// The branches of a group whose opening brace is behind us.
fn split_group(inner: &str) -> Vec<String> {
    let (mut depth, mut branch, mut found) = (0, String::new(), Vec::new());
    for c in inner.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => found.push(std::mem::take(&mut branch)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                branch.push(c);
            }
        }
    }
    found.push(branch);
    let trimmed = found.into_iter().map(|branch| branch.trim().to_owned());
    trimmed.filter(|branch| !branch.is_empty()).collect()
}

/// Where `what` stands and is not a part of a longer name.
fn find<'a>(code: &'a str, what: &'a str) -> impl Iterator<Item = usize> + use<'a> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let begins = what.starts_with(is_name);
    let ends = what.ends_with(is_name);
    code.match_indices(what).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back().is_some_and(is_name);
        let after = code[at + what.len()..].chars().next().is_some_and(is_name);
        !(begins && before || ends && after)
    })
}

// ---- the text ----

/// The same text with comments, strings and characters blanked; lines and places stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => text[at..].find('\n').map_or(bytes.len(), |line| at + line),
            [b'/', b'*', ..] => end_of_comment(bytes, at),
            [b'"', ..] => end_of_string(bytes, at),
            [b'r', b'"' | b'#', ..] if !follows_name(bytes, at) => end_of_raw(text, at).unwrap_or(at),
            [b'\'', b'\\', ..] => at + 3 + text[at + 3..].find('\'').map_or(0, |quote| quote + 1),
            [b'\'', ..] => end_of_char(text, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8(out).unwrap()
}

fn follows_name(bytes: &[u8], at: usize) -> bool {
    // `br"..."` is a raw string as well.
    let before = at.checked_sub(1).map(|before| bytes[before]);
    before.is_some_and(|byte| (byte.is_ascii_alphanumeric() || byte == b'_') && byte != b'b')
}

fn end_of_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn end_of_raw(text: &str, from: usize) -> Option<usize> {
    let hashes = text[from + 1..].bytes().take_while(|byte| *byte == b'#').count();
    let inside = from + 1 + hashes + 1;
    // `r#name` is a name.
    text[from + 1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    text[inside..].find(&close).map(|end| inside + end + close.len())
}

/// A character, not a lifetime.
fn end_of_char(text: &str, from: usize) -> Option<usize> {
    let character = text[from + 1..].chars().next()?;
    let end = from + 1 + character.len_utf8();
    text[end..].starts_with('\'').then_some(end + 1)
}

/// Blanks what stands behind `#[cfg(test)]` and has a body.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let places: Vec<_> = code.match_indices("#[cfg(test)]").map(|(at, _)| at).collect();
    for at in places {
        let Some(open) = out[at..].find(['{', ';']).map(|open| at + open) else { continue };
        if out[open..].starts_with('{') {
            let end = end_of_block(&out, open);
            let blanked: String = out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(at..end, &blanked);
        }
    }
    out
}

fn end_of_block(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Lines and name of each function with a body.
fn functions(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in find(code, "fn") {
        let rest = code[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // `fn(` is a type; a signature that ends by `;` has no body.
        let Some(open) = code[at..].find(['{', ';']).map(|open| at + open) else { continue };
        if !name.is_empty() && code[open..].starts_with('{') {
            let end = end_of_block(code, open);
            found.push((code[at..end].lines().count(), name));
        }
    }
    found
}

// ---- the checker itself, on planted violations ----

fn planted(path: &str, code: &str) -> Vec<String> {
    violations(path, code, false)
}

#[test]
fn an_edge_upward_is_found_however_it_is_written() {
    for code in [
        "use crate::peer::Peer;",
        "use crate::{limits, peer::Peer};",
        "use crate::{\n    member::MemberId,\n    driver::{clock, net::Net},\n};",
        "fn f() -> crate::messenger::Kind { todo() }",
        "use super::super::driver::clock;",
        "use crate::Messenger;",
        "use crate::faults::Proxy;",
        "use crate::fuzzing::hello;",
    ] {
        assert_eq!(planted("session/outbox.rs", code).len(), 1, "{code}");
    }
    let downward =
        "use crate::wire::Seq; use crate::{limits::KIB, member::MemberId}; use super::super::wire::Seq;";
    assert!(planted("session/outbox.rs", downward).is_empty());
    assert!(planted("session/tests/pair.rs", "use super::super::*; use super::side::Side;").is_empty());
    assert_eq!(planted("session/mod.rs", "use super::peer::Peer;").len(), 1);
    assert_eq!(planted("link/mod.rs", "use crate::peer::Peer;").len(), 1, "neighbours see one way only");
    assert_eq!(planted("faults/mod.rs", "use crate::limits::KIB;").len(), 1, "faults sees nothing");
    assert_eq!(planted("fuzzing/mod.rs", "use crate::driver::clock;").len(), 1);
    assert!(planted("fuzzing/mod.rs", "use crate::peer::Peer;").is_empty());
    assert_eq!(planted("messenger/mod.rs", "use crate::testing::simulate;").len(), 1);
    assert!(planted("testing/mod.rs", "use crate::driver::clock; use crate::Raw;").is_empty());
    assert!(planted("fuzzing/mod.rs", "pub use crate::messenger::doors::requests;").is_empty());
    assert_eq!(planted("fuzzing/mod.rs", "use crate::messenger::Messenger;").len(), 1);
    assert!(planted("fuzzing/mod.rs", "crate::router::door::router(now, input);").is_empty());
    assert_eq!(planted("fuzzing/mod.rs", "use crate::router::Node;").len(), 1);
    assert_eq!(planted("fuzzing/mod.rs", "use crate::messenger::{doors::requests, Messenger};").len(), 1);
    assert_eq!(planted("peer/mod.rs", "use crate::messenger::doors::requests;").len(), 1);
    assert!(planted("router/mod.rs", "use crate::{Messenger, MemberId}; use super::core::Core;").is_empty());
    assert!(planted("router/core/mod.rs", "use super::wire::Envelope;").is_empty(), "its own");
    assert_eq!(planted("router/mod.rs", "use crate::messenger::Messenger;").len(), 1, "public names only");
    assert_eq!(planted("router/core/lanes.rs", "use super::super::super::driver::clock;").len(), 1);
    assert_eq!(
        planted("router/mod.rs", "use crate::plug::RouterTransport;").len(),
        1,
        "modules are strangers"
    );
    assert_eq!(planted("plug/mod.rs", "use crate::session::Session;").len(), 1);
    let routes = "use crate::router::{Route, RouteChange, RouteSource, Routes}; use crate::MemberId;";
    assert!(planted("rendezvous/client/mod.rs", routes).is_empty(), "what the router is told of routes");
    assert_eq!(planted("plug/mod.rs", routes).len(), 1);
    let joins = "use crate::router::{Node, NodeBuilder};";
    assert!(planted("rendezvous/client/join.rs", joins).is_empty(), "there a node is put together");
    assert_eq!(planted("rendezvous/client/api.rs", joins).len(), 1, "and nowhere else");
    assert_eq!(planted("rendezvous/client/join.rs", "use crate::router::Hub;").len(), 1);
    assert_eq!(planted("rendezvous/client/core/mod.rs", "use tokio::time::sleep;").len(), 1, "sans-IO");
    assert_eq!(planted("rendezvous/mod.rs", "use crate::router::{Route, Node};").len(), 1);
    assert_eq!(planted("rendezvous/mod.rs", "use crate::router::core::Core;").len(), 1);
    assert_eq!(planted("rendezvous/mod.rs", "use crate::router;").len(), 1);
    assert_eq!(planted("rendezvous/judge/mod.rs", "use crate::driver::clock;").len(), 1);
    assert_eq!(planted("rendezvous/judge/mod.rs", "use tokio::time::sleep;").len(), 1, "sans-IO");
    assert!(planted("rendezvous/judge/mod.rs", "use crate::MemberId; use super::judge::Judge;").is_empty());
    assert_eq!(planted("messenger/mod.rs", "use crate::router::Hub;").len(), 1);
    assert_eq!(planted("bin/karere/main.rs", "use karere::fuzzing::hello; use crate::send::run;").len(), 1);
}

#[test]
fn config_sees_only_what_it_configures() {
    let code = "use crate::session::{SessionConfig, InboxLimits}; use crate::peer::PeerConfig;";
    assert!(planted("config/mod.rs", code).is_empty());
    assert_eq!(planted("config/mod.rs", "use crate::session::{Session, SessionConfig};").len(), 1);
    assert_eq!(planted("session/mod.rs", "use crate::config::Settings;").len(), 1, "and is not seen by it");
}

#[test]
fn banned_calls_are_found_where_they_are_banned() {
    for (call, core, messenger, driver) in [
        ("let now = std::time::Instant::now();", 1, 1, 0),
        ("let now = SystemTime::now();", 1, 1, 0),
        ("let late = start.elapsed();", 1, 1, 0),
        ("std::thread::spawn(f);", 2, 1, 0),
        ("tokio::spawn(f);", 2, 1, 0),
        ("let id = fastrand::u64(..);", 1, 1, 0),
        ("let id = fastrand::Rng::new();", 1, 1, 0),
        ("let random = fastrand::Rng::with_seed(7);", 0, 0, 0),
        ("let id = rand::random();", 1, 1, 0),
        ("let (tx, rx) = mpsc::unbounded_channel();", 1, 1, 1),
        ("let (tx, rx) = std::sync::mpsc::channel();", 1, 1, 1),
        ("let (tx, rx) = mpsc::channel(8);", 0, 0, 0),
        ("let first = bytes.first().unwrap();", 1, 1, 1),
        ("let first = bytes.first().expect(\"one\");", 1, 1, 1),
        ("let first = bytes.first().unwrap_or_default();", 0, 0, 0),
        ("use std::net::TcpStream;", 1, 0, 0),
        ("use std::net::{IpAddr, SocketAddr};", 0, 0, 0),
        ("use std::net::{IpAddr, TcpListener};", 1, 0, 0),
        ("use tokio::time::sleep;", 1, 0, 0),
    ] {
        let counts =
            ["peer/mod.rs", "messenger/mod.rs", "driver/mod.rs"].map(|path| planted(path, call).len());
        assert_eq!(counts, [core, messenger, driver], "{call}");
    }
}

#[test]
fn comments_strings_and_tests_may_say_anything() {
    let harmless = r##"
//! See [`crate::peer`]. `Instant::now()` is banned.
/* nested /* tokio::spawn */ .unwrap() */
const TEXT: &str = "say \" Instant::now() .unwrap()";
const RAW: &str = r#"use crate::driver::"clock";"#;
const QUOTE: char = '"'; const TICK: char = '\''; fn f<'a>(x: &'a str) -> &'a str { x }
#[cfg(test)]
mod tests {
    fn t() { if true { Instant::now(); } x.unwrap(); }
}
"##;
    assert_eq!(planted("session/mod.rs", harmless), Vec::<String>::new());
    let after = format!("{harmless}fn g() {{ x.unwrap(); }}");
    let found = planted("session/mod.rs", &after);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("src/session/mod.rs:11: "), "{found:?}");
}

#[test]
fn functions_are_measured() {
    let code = "fn short() {}\nimpl T {\n    fn long<F: Fn() -> u8>(f: F)\n    {\n        f();\n    }\n    fn none(&self);\n}\ntype F = fn(u8) -> u8;\n";
    assert_eq!(functions(code), [(1, "short".to_owned()), (4, "long".to_owned())]);
}
