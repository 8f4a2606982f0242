//! `karere certs`, and `listen` and `send` with what it makes, as real processes.
#![cfg(feature = "cli")]

#[allow(dead_code, reason = "shared with others, which use more of it")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Ended, Karere, bytes};

/// Paths in arguments have no spaces here.
fn run(arguments: &str) -> Ended {
    Karere::start(arguments, &[]).end()
}

fn make(dir: &Path, more: &str) -> Ended {
    run(&format!("certs --json --dir {} {more}", dir.display()))
}

/// The options of a member whose files are in this directory.
fn shows(dir: &Path, name: &str) -> String {
    let at = dir.display();
    format!("--tls-ca {at}/ca.pem --tls-cert {at}/{name}.pem --tls-key {at}/{name}.key --name {name}")
}

#[test]
fn a_file_goes_under_tls_from_member_to_member() {
    let dir = tempfile::tempdir().expect("a directory");
    let certs = dir.path().join("certs");
    let made = make(&certs, "--name alpha --name beta --host node.example").with(0).json();
    assert_eq!(made["authority_is_new"], true);
    let names = made["members"][0]["names"].to_string();
    for name in ["alpha", "node.example", "localhost", "127.0.0.1", "::1"] {
        assert!(names.contains(&format!("\"{name}\"")), "{names}");
    }
    let data = bytes(3_000_000, 5);
    let file = dir.path().join("data");
    fs::write(&file, &data).expect("a file");
    for expected in ["", "--tls-name alpha"] {
        let mut listener =
            Karere::start(&format!("listen --once --bind 127.0.0.1:0 {}", shows(&certs, "alpha")), &[]);
        let send = format!("send {expected} {} {}", shows(&certs, "beta"), listener.address());
        Karere::start(&send, &[&file]).end().with(0);
        listener.end_input();
        assert!(listener.end().with(0).stdout == data);
    }
}

#[test]
fn who_does_not_fit_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    make(&ours, "--name alpha --name beta").with(0);
    make(&theirs, "--name beta").with(0);
    let listener = Karere::start(&format!("listen --bind 127.0.0.1:0 {}", shows(&ours, "alpha")), &[]);
    let send = |options: &str| {
        let ended = run(&format!("send --timeout 20 {options} {} /dev/null", listener.address()));
        let ended = ended.with(1);
        assert!(
            ended.stderr.contains("nothing was sent") && ended.stderr.contains("--tls-ca"),
            "{}",
            ended.stderr
        );
        ended.stderr
    };
    assert!(send("").contains("takes TLS only"));
    assert!(send(&shows(&theirs, "beta")).contains("an authority that is not trusted here"));
    let other = send(&format!("--tls-name gamma {}", shows(&ours, "beta")));
    assert!(other.contains("`alpha`") && other.contains("not for `gamma`"), "{other}");
    // What is wrong here is found before anybody is dialled.
    let own = run(&format!("send {} {} /dev/null", shows(&ours, "gamma"), listener.address())).with(1);
    assert!(own.stderr.contains("gamma.pem"), "{}", own.stderr);
    let half = run(&format!("send --tls-ca {}/ca.pem {} /dev/null", ours.display(), listener.address()));
    half.with(2);
}

#[test]
fn certs_replaces_nothing_unasked_and_keeps_keys_for_their_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = |name: &str| fs::read(dir.path().join(name)).expect("a file");
    make(dir.path(), "--name alpha").with(0);
    let (authority, alpha) = (read("ca.pem"), read("alpha.pem"));
    let refused = make(dir.path(), "--name beta --name alpha").with(1);
    assert!(refused.stderr.contains("alpha.pem is there already"), "{}", refused.stderr);
    assert!(!dir.path().join("beta.pem").exists(), "all or nothing");
    assert!(read("alpha.pem") == alpha);
    let made = make(dir.path(), "--name beta --name alpha --days 3 --force").with(0).json();
    assert_eq!((&made["authority_is_new"], &made["members"][1]["days"]), (&false.into(), &3.into()));
    assert!(read("alpha.pem") != alpha && read("ca.pem") == authority, "the authority is never replaced");
    for name in ["../evil", "ca", "a b"] {
        let dir = dir.path().to_path_buf();
        let paths: [&Path; 2] = [Path::new("--name"), Path::new(name)];
        let arguments = format!("certs --dir {}", dir.display());
        Karere::start(&arguments, &paths).end().with(1);
    }
    #[cfg(unix)]
    for name in ["ca.key", "alpha.key", "beta.key"] {
        use std::os::unix::fs::PermissionsExt;
        let path: PathBuf = dir.path().join(name);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
