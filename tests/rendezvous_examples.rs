//! The examples of the router run over a rendezvous as well as over a list of addresses, unchanged but for the one argument.
//!
//! The examples stand beside this test: `cargo test` builds them, `cargo test --test rendezvous_examples` does not, so after a
//! change run `cargo build --example ping_pong --example broadcast --example order_flow` first.
#![cfg(feature = "rendezvous")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Output;
use std::time::Duration;

use karere::rendezvous::Server;

async fn run(example: &str, arguments: &[&str]) -> Output {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name(format!("examples/{example}"));
    let mut command = tokio::process::Command::new(path);
    let running = command.args(arguments).kill_on_drop(true).output();
    tokio::time::timeout(Duration::from_secs(120), running).await.expect("it ends").unwrap()
}

async fn both(example: &str) -> [String; 2] {
    let server = Server::builder().in_memory().bind("127.0.0.1:0").start().await.unwrap();
    server.leads().await;
    let list = server.address().to_string();
    let over = run(example, &["--rendezvous", &list]).await;
    let without = run(example, &[]).await;
    server.close().await;
    [over, without].map(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{example}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_pong_and_broadcast_are_the_same_over_a_rendezvous_and_over_a_list() {
    for text in both("ping_pong").await {
        assert!(text.contains("over the net and back"), "{text}");
    }
    let [over, without] = both("broadcast").await;
    assert_eq!(over, without, "each price once, to every actor");
    assert_eq!(over.lines().count(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_flow_whose_node_is_killed_ends_well_over_a_rendezvous_and_over_a_list() {
    for text in both("order_flow").await {
        assert!(text.contains("shipped 2000 of 2000"), "{text}");
    }
}
