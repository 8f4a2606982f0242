//! The router, measured.
//!
//! ```text
//! cargo bench --bench router                 all of it
//! cargo bench --bench router -- --quick      a look
//! cargo bench --bench router -- rpc          requests beside the bare messenger's, as ratios
//! cargo bench --bench router -- load router 64 10    64 requests at once of 64 B for 10 s by one of both ways, to be profiled
//! cargo bench --bench router -- fair         five redundant actors on five nodes: who got how much
//! cargo bench --bench router -- routes       100,000 routes of 1,000 nodes: lookup, memory, time to learn
//! cargo bench --bench router -- slow         a slow actor among quick ones: what the others see of it
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

mod fair;
mod network;
mod routes;
mod rpc;
mod slow;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, client, ..] = &args[..]
        && first == "serve"
    {
        return rpc::serve(client).await;
    }
    if let [first, by, size, seconds, ..] = &args[..]
        && first == "load"
    {
        return rpc::load(by, size.parse().unwrap(), seconds.parse().unwrap()).await;
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    let named = ["rpc", "fair", "routes", "slow"].map(|name| args.iter().any(|arg| arg == name));
    let all = named == [false; 4];
    if all || named[0] {
        rpc::run(quick).await;
    }
    if all || named[1] {
        fair::run(quick).await;
    }
    if all || named[2] {
        routes::run(quick).await;
    }
    if all || named[3] {
        slow::run(quick).await;
    }
}
